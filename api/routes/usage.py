"""Who calls most, and how many call: of all time, of this hour or of this day (UTC)."""

from typing import cast

from sanic import Blueprint, HTTPResponse, Request

from api.answers import json
from models.errors import InvalidInput
from models.windows import PERIODS, Period

blueprint = Blueprint("usage")


@blueprint.get("/top")
async def top(request: Request) -> HTTPResponse:
    period = _period_of(request)
    users = await request.app.ctx.stores.usage.top(period or "all")
    if period:
        return json({"window": period, "users": [{"userId": user_id, "calls": calls} for user_id, calls in users]})
    lines = [f"CallingPingAPI userID:{user_id} called {calls} times" for user_id, calls in users]
    return json({"topUsersCallingAPIAllTime": lines})


@blueprint.get("/count")
async def count(request: Request) -> HTTPResponse:
    period = _period_of(request)
    callers = await request.app.ctx.stores.usage.count_callers(period or "all")
    return json({"window": period, "callers": callers} if period else {"estimatedCount": callers})


def _period_of(request: Request) -> Period | None:
    """`?window=`; without it the answers are those of the original."""
    asked = request.args.getlist("window", [])
    if not asked:
        return None
    if len(asked) > 1 or asked[0] not in PERIODS:
        raise InvalidInput("window is hour, day or all")
    return cast(Period, asked[0])
