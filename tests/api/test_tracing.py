"""One trace from a request to the script and the statement, on the real stores."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from models import spans as spans_module
from models.connections import Stores, open_stores
from models.errors import StoreUnavailable
from models.policies import parse_policies
from models.settings import Settings
from models.spans import Spans, _summary
from tests.api.conftest import PASSWORD, Api
from tests.conftest import empty
from worker import jobs

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Kept:
    """The spans that were made, kept in this process."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider)

    def take(self) -> list[ReadableSpan]:
        """Those that have ended since the last call, in the order of their beginnings."""
        found = self._exporter.get_finished_spans()
        self._exporter.clear()
        return sorted(found, key=lambda span: span.start_time or 0)


def tree(found: list[ReadableSpan]) -> dict[str, list[str]]:
    """Each parent's name → its children's names; roots stand under ""."""
    names = {span.context.span_id: span.name for span in found if span.context}
    made: dict[str, list[str]] = {}
    for span in found:
        made.setdefault(names.get(span.parent.span_id, "?") if span.parent else "", []).append(span.name)
    return made


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def traced(api: Api, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An API that keeps its spans, on empty stores."""
    monkeypatch.setattr(spans_module, "open_spans", lambda service: kept.spans)
    settings = replace(api.settings, tracing=True, rate_limits=parse_policies("10000/1s"))
    with Api(settings).running() as running:
        running.run(empty(running.stores))
        yield running


def test_a_cached_call_is_one_script_in_one_trace(traced: Api, kept: Kept) -> None:
    traced.sign_up("ada")
    token = traced.log_in("ada")
    traced.get("/ping", token)
    kept.take()
    answer = traced.get("/ping", token)
    server, admit = kept.take()
    assert (server.name, admit.name) == ("GET /ping", "EVALSHA admit")
    assert (server.kind, admit.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert server.context
    assert admit.context
    assert admit.parent
    assert server.parent is None
    assert admit.parent.span_id == server.context.span_id
    assert admit.context.trace_id == server.context.trace_id
    assert dict(server.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/ping",
        "http.response.status_code": 200,
        "url.path": "/ping",
        "url.scheme": "http",
        "http.request.header.x-request-id": answer.headers["X-Request-Id"],
    }
    assert dict(admit.attributes or {}) == {
        "db.system.name": "redis",
        "db.operation.name": "EVALSHA",
        "db.stored_procedure.name": "admit",
    }


def test_a_call_that_falls_back_has_the_statement_and_the_publication_in_its_trace(traced: Api, kept: Kept) -> None:
    traced.sign_up("ada")
    token = traced.log_in("ada")
    traced.forget_cache()
    traced.get("/ping", token)
    kept.take()
    traced.forget_cache()
    assert traced.get("/ping", token).status_code == 200
    found = kept.take()
    ours = [span for span in found if not span.name.startswith("EVAL ") and span.name not in ("SCRIPT LOAD", "SCRIPT")]
    assert [span.name for span in ours] == [
        "GET /ping",
        "EVALSHA admit",
        "read_session",
        "EVALSHA publish_session",
        "EVALSHA admit",
    ]
    server, *children = ours
    assert server.context
    for span in children:
        assert span.context
        assert span.parent
        assert span.parent.span_id == server.context.span_id
        assert span.context.trace_id == server.context.trace_id
    assert (children[1].attributes or {})["db.system.name"] == "postgresql"


def test_the_callers_trace_goes_on(traced: Api, kept: Kept) -> None:
    kept.take()
    traced.get("/count", headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"})
    server, *others = kept.take()
    assert server.context
    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent
    assert f"{server.parent.span_id:016x}" == PARENT
    assert others
    assert {f"{span.context.trace_id:032x}" for span in others if span.context} == {TRACE}
    traced.get("/count", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert kept.take() == []  # the caller does not record it


@pytest.mark.parametrize("told", ["nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01" * 9])
def test_a_trace_that_cannot_be_read_is_not_believed(traced: Api, kept: Kept, told: str) -> None:
    kept.take()
    assert traced.get("/health/live", headers={"traceparent": told}).status_code == 200
    (server,) = kept.take()
    assert server.parent is None


def test_refusals_and_unknown_paths_have_their_status_and_no_name_of_the_clients(traced: Api, kept: Kept) -> None:
    kept.take()
    traced.get("/ping")
    traced.get("/nowhere?token=hidden")
    traced.raw(b"MAKE /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    found = kept.take()
    assert [(span.name, (span.attributes or {})["http.response.status_code"]) for span in found] == [
        ("GET /ping", 401),
        ("GET", 404),
        ("_OTHER", 405),
    ]
    assert all(span.status.status_code is not StatusCode.ERROR for span in found)


def test_a_login_has_the_orms_statements_and_nothing_that_was_typed(traced: Api, kept: Kept) -> None:
    # No name that the hexadecimal ids of spans could have by chance.
    traced.sign_up("winifred")
    token = traced.log_in("winifred")
    traced.post("/login", json={"username": "winifred", "password": "a wrong one"})
    traced.get(f"/ping?token={token}", token)
    found = kept.take()
    names = {span.name for span in found}
    assert {"POST /signup", "POST /login", "SELECT users", "upsert_session", "EVALSHA reserve_login"} <= names
    told = "".join(span.to_json() for span in found)
    assert not any(secret in told for secret in (PASSWORD, "a wrong one", token, token[-30:], "winifred", "$argon2"))


def test_a_fault_of_ours_is_an_error_told_by_its_type(traced: Api, kept: Kept) -> None:
    kept.take()
    traced.sql("ALTER TABLE users RENAME TO users_elsewhere")
    try:
        assert traced.post("/login", json={"username": "ada", "password": PASSWORD}).status_code == 500
    finally:
        traced.sql("ALTER TABLE users_elsewhere RENAME TO users")
    found = {span.name: span for span in kept.take()}
    assert found["POST /login"].status.status_code is StatusCode.ERROR
    failed = found["SELECT users"]
    assert (failed.attributes or {})["error.type"] == "UndefinedTableError"
    assert not failed.events
    assert failed.status.description is None


async def test_each_run_of_a_job_is_a_trace_of_its_own(stores: Stores, kept: Kept) -> None:
    async with open_stores(stores.settings) as opened:
        kept.spans.attach(opened)
        context = {"stores": opened, "span": kept.spans.job}
        user_id = await opened.accounts.add("ada", "pass123")
        token = await opened.sessions.start(user_id)
        await jobs.restore_usage(context)
        assert (await opened.usage.admit(token)).admitted
        assert kept.take()[0].name == "restore_usage"
        await jobs.sync_sessions(context)
        await jobs.snapshot_usage(context)
    made = tree(kept.take())
    assert made[""] == ["sync_sessions", "snapshot_usage"]
    assert {"INFO", "TIME", "HGETALL", "sessions_of_bucket", "EVALSHA publish_session", "EVALSHA save_sync"} <= set(
        made["sync_sessions"]
    )
    assert {"BEGIN", "upsert_call_totals", "EVALSHA drain_dirty", "COMMIT"} <= set(made["snapshot_usage"])
    # What else has children is the first run of a script on this Redis.
    rest = {name for parent in set(made) - {"", *made[""]} for name in made[parent]}
    assert all(name.startswith("EVAL ") for name in rest), rest


async def test_a_job_that_fails_is_an_error(settings: Settings, kept: Kept) -> None:
    async def fail(*_: Any) -> None:
        raise StoreUnavailable("with words of a user in it")

    async with open_stores(settings) as opened:
        opened.sessions.expire = fail  # type: ignore[method-assign, assignment]
        await jobs.expire_sessions({"stores": opened, "span": kept.spans.job})
    (span,) = kept.take()
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "StoreUnavailable"}
    assert "words" not in span.to_json()


async def test_outside_of_a_request_and_a_job_there_are_no_spans(stores: Stores, kept: Kept) -> None:
    async with open_stores(stores.settings) as opened:
        kept.spans.attach(opened)
        await opened.store.ping()
        await opened.database.ping()
    assert kept.take() == []


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ('SELECT "id" FROM "users" WHERE "x"=$1', "SELECT users"),
        ('INSERT INTO "users" ("id") VALUES ($1)', "INSERT users"),
        ('UPDATE "users" SET "x"=$1', "UPDATE users"),
        ("BEGIN;", "BEGIN"),
        ("SELECT 1", "SELECT"),
        ("", "SQL"),
    ],
)
def test_a_statement_is_told_by_what_it_does(statement: str, name: str) -> None:
    assert _summary(statement) == name
