"""What the service is, for people."""

from sanic import Blueprint, HTTPResponse, Request

from api.viewer import SCRIPT, page, script

blueprint = Blueprint("docs", url_prefix="/docs")


@blueprint.get("/")
async def show(_request: Request) -> HTTPResponse:
    return page()


@blueprint.get(f"/{SCRIPT}")
async def load(request: Request) -> HTTPResponse:
    return script(request)
