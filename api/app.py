"""The HTTP application: stores opened and closed, routes and errors attached."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

from sanic import Config, Request, Sanic
from sanic.compat import Header

from api.errors import Errors
from api.gate import RateLimitHeaders
from api.routes import accounts, health, ping, usage
from models.connections import open_stores
from models.errors import SettingsError
from models.settings import Settings

App = Sanic[Config, SimpleNamespace]

MAX_BODY_BYTES = 16 * 1024
SHUTDOWN_GRACE_S = 3.0
REQUEST_TIMEOUT_S = 30
"""For a head to arrive, and then for the body and the answer: `PING_DELAY_MS` has to fit."""


def create_app() -> App:
    """The application as the environment describes it, for `sanic api.app:create_app --factory`.

    When the environment is not enough to start, the process ends with one message that names each problem.
    """
    try:
        return build_app(Settings.from_environ(os.environ))
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def build_app(settings: Settings) -> App:
    """The application with given settings; each has its own stores, opened when its server starts."""
    app: App = Sanic("gatehouse", error_handler=Errors(), request_class=_Request, configure_logging=False)
    app.config.REQUEST_MAX_SIZE = MAX_BODY_BYTES
    app.config.REQUEST_TIMEOUT = app.config.RESPONSE_TIMEOUT = REQUEST_TIMEOUT_S
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = SHUTDOWN_GRACE_S
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.ctx.rate_limit_headers = RateLimitHeaders(settings.rate_limits)
    app.blueprint([accounts.blueprint, ping.blueprint, usage.blueprint, health.blueprint])
    _attach_stores(app, settings)
    app.after_server_start(_stop_once)
    return app


class _Request(Request):
    """A request, also one whose target is no URL: the framework cannot tell its own error about it otherwise."""

    def __init__(self, url_bytes: bytes, headers: Header, version: str, method: str, *rest: Any, **more: Any) -> None:
        # The framework's name for a request that it could not read, which it makes only to answer it.
        super().__init__(b"*" if method == "NONE" else url_bytes, headers, version, method, *rest, **more)


def _attach_stores(app: App, settings: Settings) -> None:
    opened = AsyncExitStack()

    @app.before_server_start
    async def open_(app: App) -> None:
        app.ctx.stores = await opened.enter_async_context(open_stores(settings))

    @app.after_server_stop
    async def close(_app: App) -> None:
        await opened.aclose()


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
