"""The HTTP application: stores opened and closed, routes and errors attached."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import msgspec
from sanic import Config, Request, Sanic

from api.access import open_access_log
from api.broadcast import Broadcast
from api.connection import Connection
from api.errors import Errors
from api.gate import check_policies
from api.heads import MAX_BODY_BYTES
from api.metrics import Metrics
from api.openapi import VERSION, document
from api.requests import IdentifiedRequest, current_request_id
from api.routes import accounts, dashboard, docs, health, metrics, openapi, ping, usage, verify
from api.tracing import complete_span, span_of
from api.traffic import Traffic
from models.connections import open_stores
from models.errors import SettingsError
from models.logs import Log, set_up
from models.settings import Settings
from models.tracing import open_tracing

SHUTDOWN_GRACE_S = 3.0
RESPONSE_TIMEOUT_S = 30
"""From the end of a head to the answer: `PING_DELAY_MS` has to fit. What clients get is in api/connection.py."""


class App(Sanic[Config, SimpleNamespace]):
    """The framework's application on connections of our own, however it is started."""

    connection: type[asyncio.Protocol] = Connection

    def prepare(self, *args: Any, protocol: type[asyncio.Protocol] | None = None, **given: Any) -> None:
        super().prepare(*args, protocol=protocol or self.connection, **given)

    async def create_server(self, *args: Any, protocol: type[asyncio.Protocol] | None = None, **given: Any) -> Any:
        return await super().create_server(*args, protocol=protocol or self.connection, **given)


class TracedApp(App):
    """The same, with a span around each request; `ctx.spans` makes them."""

    async def handle_request(self, request: Request) -> None:
        with span_of(self.ctx.spans, request):
            await super().handle_request(request)


def create_app() -> App:
    """The application as the environment describes it, for `sanic api.app:create_app --factory`; its log is set up too.

    When the environment is not enough to start, the process ends with one message that names each problem.
    """
    try:
        settings = Settings.from_environ(os.environ)
        return build_app(settings, set_up(settings, current_request_id))
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def build_app(settings: Settings, log: Log | None = None) -> App:
    """The application with given settings; each has its own stores, opened when its server starts.

    Args:
        log: takes the access log; without it there is none.

    Raises:
        SettingsError: traces are asked for, and what sends them is not installed.
    """
    spans = open_tracing(settings, "gatehouse-web")
    app = (TracedApp if spans else App)(
        "gatehouse", error_handler=Errors(), request_class=IdentifiedRequest, configure_logging=False
    )
    app.config.REQUEST_MAX_SIZE = MAX_BODY_BYTES
    app.config.RESPONSE_TIMEOUT = RESPONSE_TIMEOUT_S
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = SHUTDOWN_GRACE_S
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.ctx.access = open_access_log(log, settings) if log else None
    app.ctx.spans = spans
    if spans:
        app.register_middleware(complete_span, "response")  # type: ignore[arg-type]  # annotated for any answer
    app.ctx.description = msgspec.json.encode(document(settings))
    app.ctx.traffic = Traffic()
    nouns = accounts, ping, verify, usage, health, openapi
    app.blueprint([noun.blueprint for noun in nouns])
    if settings.metrics_key:
        app.blueprint(metrics.blueprint)
    if settings.docs:
        app.blueprint(docs.blueprint)
    _attach_stores(app, settings)
    if settings.admin_key:
        _attach_dashboard(app)
    app.after_server_start(_stop_once)
    return app


def _attach_stores(app: App, settings: Settings) -> None:
    opened = AsyncExitStack()

    @app.before_server_start
    async def open_(app: App) -> None:
        if spans := app.ctx.spans:
            opened.push_async_callback(spans.close)
        app.ctx.stores = await opened.enter_async_context(open_stores(settings))
        if spans:
            spans.attach(app.ctx.stores)
        check_policies(app, app.ctx.stores.usage.policies)
        if settings.metrics_key:
            given = app.ctx.stores.operations, app.ctx.traffic, VERSION, settings.prometheus_multiproc_dir
            app.ctx.metrics = Metrics(*given)
            await app.ctx.metrics.siblings.open()
            opened.push_async_callback(app.ctx.metrics.siblings.close)

    @app.after_server_stop
    async def close(_app: App) -> None:
        await opened.aclose()


def _attach_dashboard(app: App) -> None:
    app.blueprint(dashboard.blueprint)

    @app.before_server_start
    async def open_(app: App) -> None:
        overviews = app.ctx.stores.overviews

        async def make() -> bytes:
            return msgspec.json.encode(await overviews.read())

        app.ctx.broadcast = Broadcast("overview", make, lambda: msgspec.json.encode(overviews.history))

    @app.before_server_stop
    async def close(app: App) -> None:
        await app.ctx.broadcast.close()  # while a stream is open the server would wait for it


async def _stop_once(app: App) -> None:
    """Take the first SIGTERM or SIGINT alone: a second one would make the framework cut off requests in flight."""
    loop, stopping = asyncio.get_running_loop(), False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            app.stop(terminate=False)

    if not Sanic.test_mode:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, stop)
