"""What the service is, for programs."""

from sanic import Blueprint, HTTPResponse, Request

from api.answers import Answer

blueprint = Blueprint("openapi")


@blueprint.get("/openapi.json")
async def describe_service(request: Request) -> HTTPResponse:
    return Answer(request.app.ctx.description)
