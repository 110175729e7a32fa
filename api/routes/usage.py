"""Who calls most, and how many call."""

from sanic import Blueprint, HTTPResponse, Request

from api.answers import json

blueprint = Blueprint("usage")


@blueprint.get("/top")
async def top(request: Request) -> HTTPResponse:
    users = await request.app.ctx.stores.usage.top()
    lines = [f"CallingPingAPI userID:{user_id} called {calls} times" for user_id, calls in users]
    return json({"topUsersCallingAPIAllTime": lines})


@blueprint.get("/count")
async def count(request: Request) -> HTTPResponse:
    return json({"estimatedCount": await request.app.ctx.stores.usage.count_callers()})
