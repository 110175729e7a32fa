"""What Prometheus scrapes; the route is there when `METRICS_KEY` is set."""

from sanic import Blueprint, HTTPResponse, Request

from api.metrics import shown

blueprint = Blueprint("metrics")


@blueprint.get("/metrics")
async def metrics(request: Request) -> HTTPResponse:
    return await shown(request)
