"""A Sanic handler that returns `{}`, and nothing else: the ceiling of every service built on Sanic.

Fair, because it is Sanic's own quick start under the same command line, in the same interpreter and with the same
versions as Gatehouse: one process, uvloop, no access log. It reads no header, knows no user and counts nothing.

    sanic tests.bench.peers.bare_sanic:create_app --factory --single-process --no-access-logs --no-motd
"""

from types import SimpleNamespace

from sanic import Config, HTTPResponse, Request, Sanic, json


def create_app() -> Sanic[Config, SimpleNamespace]:
    app = Sanic("bare_sanic")

    @app.get("/ping")
    async def ping(_request: Request) -> HTTPResponse:
        return json({})

    return app
