"""Spans, the parts of a trace: of a request or a job, and in it of each script, Redis command and SQL statement.

The names are OpenTelemetry's semantic conventions. No span has a value that was sent to a store, an error's text, a
query string or a user: scripts and statements are told by their names. What the stores do outside of a request or a job
(looking whether Redis is back) has no span.
"""

import asyncio
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from models import lua
from models.connections import Stores
from models.servers import Server

CLOSE_S = 2.0
"""For the last spans to be sent when the process ends."""

_REDIS = {"db.system.name": "redis"}
_POSTGRES = {"db.system.name": "postgresql"}
_SCRIPTS = {
    word: script.name
    for script in vars(lua).values()
    if isinstance(script, lua.Script)
    for word in (script.sha.encode(), script.text)
}
_STATEMENTS = {path.read_text(): path.stem for path in (Path(__file__).parent / "scripts").glob("*.sql")}
_TABLE = re.compile(r'\s*(?:(SELECT|INSERT|DELETE)\b.*?\b(?:FROM|INTO)|(UPDATE))\s+"?(\w+)', re.DOTALL)
_RESETS_CONNECTION = "pg_advisory_unlock_all"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Spans:
    """Makes the spans of one process.

    Args:
        provider: keeps or sends them; closed with this.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("gatehouse")

    async def close(self) -> None:
        """Send what is left, for a bounded time."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # Not in the loop's own threads: the process would not end before a collector that is away has been given up.
        threading.Thread(target=shut_down, daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), CLOSE_S)

    @contextmanager
    def request(self, method: str, path: str, request_id: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """The span of a request, in the caller's trace if its headers name one (W3C Trace Context).

        Args:
            headers: `traceparent` and its like, names in lower case.
        """
        known = method if method in _METHODS else "_OTHER"
        facts = {"http.request.method": known, "url.path": path, "url.scheme": "http"}
        facts["http.request.header.x-request-id"] = request_id
        with self._span(known, facts, SpanKind.SERVER, extract(headers, context=Context())) as span:
            yield span

    @staticmethod
    def answered(status: int, method: str, route: str | None) -> None:
        """Complete the present request's span."""
        span = trace.get_current_span()
        span.set_attribute("http.response.status_code", status)
        if route is not None:
            span.set_attribute("http.route", route)
            span.update_name(f"{method} {route}")
        if status >= 500:
            span.set_status(StatusCode.ERROR)

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        """The span of one run of a job: a trace of its own."""
        with self._span(name, {}, SpanKind.INTERNAL, Context()):
            yield

    def attach(self, stores: Stores) -> None:
        """Have everything that these stores do inside a request or a job leave a span."""
        stores.store.servers.tell(self._attach_to)
        stores.database.watch_statements(self._note_statement)

    def _attach_to(self, server: Server, _at_once: bool) -> None:
        for link in (server.gate, server.jobs):
            link.call = self._wrapped(link.call, _command)  # type: ignore[method-assign]

    def _wrapped(self, call: Callable[..., Awaitable[Any]], name_of: Callable[..., tuple[str, str]]) -> Any:
        async def traced(*args: Any, **given: Any) -> Any:
            if not trace.get_current_span().get_span_context().is_valid:
                return await call(*args, **given)
            operation, script = name_of(*args)
            facts = _REDIS | {"db.operation.name": operation}
            if script:
                facts["db.stored_procedure.name"] = script
            with self._span(f"{operation} {script}".rstrip(), facts, SpanKind.CLIENT):
                return await call(*args, **given)

        return traced

    def _note_statement(self, statement: str, lasted_s: float, error: str) -> None:
        """The span of a statement that has just ended."""
        if not trace.get_current_span().get_span_context().is_valid or _RESETS_CONNECTION in statement:
            return
        name, ended_ns = _summary(statement), time.time_ns()
        facts = _POSTGRES | {"db.query.summary": name}
        started_ns = ended_ns - int(lasted_s * 1e9)
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=facts, start_time=started_ns)
        if error:
            _mark(span, error)
        span.end(ended_ns)

    @contextmanager
    def _span(
        self, name: str, facts: Mapping[str, str], kind: SpanKind, parent: Context | None = None
    ) -> Iterator[Span]:
        # An exception's text may hold what was typed: only its type is told.
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes=facts, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                _mark(span, type(error).__qualname__)
                raise


def open_spans(service: str) -> Spans:
    """Spans that leave as OpenTelemetry's variables say: over HTTP, or with `OTEL_TRACES_EXPORTER=console` as lines.

    The SDK reads them itself: addresses, headers, sampling, propagators, resource attributes.
    """
    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=_line)))
    else:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # a route of one's own may make spans too
    return Spans(provider)


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"


def _mark(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


def _command(packed: bytes) -> tuple[str, str]:
    """Of a command in Redis's protocol its name, and which script it runs."""
    words = packed.split(b"\r\n", 5)
    return words[2].decode(), _SCRIPTS.get(words[4], "") if words[2] in (b"EVALSHA", b"EVAL") else ""


def _summary(statement: str) -> str:
    """A file's name; of the ORM's statements the operation and the table; else the first word."""
    if known := _STATEMENTS.get(statement):
        return known
    found = _TABLE.match(statement)
    return f"{found[1] or found[2]} {found[3]}" if found else (statement.split(maxsplit=1) or ["SQL"])[0].rstrip(";")
