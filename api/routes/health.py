"""For whoever runs the service: is it alive, can it serve."""

from sanic import Blueprint, HTTPResponse, Request

from api.answers import json
from api.errors import problem
from models.connections import Stores

blueprint = Blueprint("health", url_prefix="/health")


@blueprint.get("/live")
async def live(_request: Request) -> HTTPResponse:
    return json({"status": "live"})


@blueprint.get("/ready")
async def ready(request: Request) -> HTTPResponse:
    stores: Stores = request.app.ctx.stores
    away = await stores.away()
    if away:
        return problem(503, f"Not ready: {' and '.join(away)} away", "not_ready", {"Retry-After": "1"})
    # A silent worker is no reason to send the calls elsewhere: there is none there either.
    warning = await stores.heartbeat.warning()
    return json({"status": "ready"} | ({"warnings": [warning]} if warning else {}))
