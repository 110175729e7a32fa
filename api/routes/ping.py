"""The limited, tracked call."""

import asyncio

from sanic import Blueprint, HTTPResponse, Request

from api.answers import Answer
from api.gate import limited

blueprint = Blueprint("ping")


@blueprint.get("/ping")
@limited
async def ping(request: Request) -> HTTPResponse:
    # The original's stand-in for work behind the gate.
    if delay_ms := request.app.ctx.stores.settings.ping_delay_ms:
        await asyncio.sleep(delay_ms / 1000)
    return Answer(b"{}")
