"""The same gate as it is usually written first: Sanic, redis.asyncio and one awaited command after another.

The commands are those of the service that Gatehouse replaces, six for each admitted ping:

    1. GET      session:<token>              whose token is it
    2. GET      user:<user id>:token         is it still the user's one session
    3. INCR     rate:<user id>:<window>      how many calls in this window
    4. EXPIRE   rate:<user id>:<window>      so that the counter goes away
    5. ZINCRBY  calls                        the user's total, for /top
    6. PFADD    callers                      the distinct callers, for /count

Fair, because it does less than Gatehouse: no signature to verify, a fixed window (which lets twice the limit through at
its edge), no RateLimit headers and no fallback to a database. redis.asyncio runs as its documentation shows, one client
with its connection pool for the whole process, with hiredis. Same interpreter, versions and command line as Gatehouse.

    REDIS_URL=redis://… sanic tests.bench.peers.sanic_six_commands:create_app --factory --single-process …
"""

import os
import time
from types import SimpleNamespace

from redis.asyncio import Redis
from sanic import Config, HTTPResponse, Request, Sanic, json

LIMIT_CALLS = 100_000
LIMIT_WINDOW_S = 1

App = Sanic[Config, SimpleNamespace]


def create_app() -> App:
    app: App = Sanic("sanic_six_commands")

    @app.before_server_start
    async def open_redis(app: App) -> None:
        app.ctx.redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)

    @app.after_server_stop
    async def close_redis(app: App) -> None:
        await app.ctx.redis.aclose()

    app.add_route(ping, "/ping")
    return app


async def ping(request: Request) -> HTTPResponse:
    redis: Redis = request.app.ctx.redis
    token = request.token
    user_id = await redis.get(f"session:{token}") if token else None
    if user_id is None or await redis.get(f"user:{user_id}:token") != token:
        return json({"error": "Unauthorized"}, 401)
    window = f"rate:{user_id}:{int(time.time()) // LIMIT_WINDOW_S}"
    calls = await redis.incr(window)
    await redis.expire(window, LIMIT_WINDOW_S)
    if calls > LIMIT_CALLS:
        return json({"error": "Rate limit exceeded"}, 429)
    await redis.zincrby("calls", 1, user_id)
    await redis.pfadd("callers", user_id)
    return json({})
