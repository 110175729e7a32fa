# mypy: disable-error-code="import-not-found, untyped-decorator, misc"
# Its packages are installed for the benchmark alone: tests/bench/requirements.txt.
"""The same gate from the parts that most would pick: FastAPI on uvicorn, slowapi for the limit, redis-py.

For each admitted ping: a dependency reads the Bearer token (FastAPI's own `HTTPBearer`) and GETs its session from Redis
with redis.asyncio; slowapi's decorator counts the call in Redis for that user; then ZINCRBY and PFADD, in one pipeline
as redis-py's documentation recommends for commands that do not depend on each other.

Fair, because each part runs as its documentation shows and with its fast options: uvloop, httptools, hiredis, no access
log, one process; redis-py is the 5.x that Gatehouse uses, with which this service was no slower than with 8.x. slowapi
keeps its defaults: the fixed window, its cheapest strategy, and no headers, which would cost another round trip. Its
storage is the synchronous one of `limits`, the only one that it has: while it waits for Redis, so does the event loop.
It does less than Gatehouse: no signature, a limit that is not exact, no fallback to a database.

    REDIS_URL=redis://… uvicorn fastapi_slowapi:app --loop uvloop --http httptools --no-access-log --workers 1
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded

LIMIT = "100000/second"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    yield
    await app.state.redis.aclose()


def by_user(request: Request) -> str:
    return str(request.state.user_id)


limiter = Limiter(key_func=by_user, storage_uri=os.environ["REDIS_URL"])
app = FastAPI(lifespan=lifespan)
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
bearer = HTTPBearer()


async def current_user(request: Request, given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    user_id: str | None = await request.app.state.redis.get(f"session:{given.credentials}")
    if user_id is None:
        raise HTTPException(401, "Unauthorized", {"WWW-Authenticate": "Bearer"})
    request.state.user_id = user_id  # for by_user, which sees the request alone
    return user_id


@app.get("/ping")
@limiter.limit(LIMIT)
async def ping(request: Request, user_id: Annotated[str, Depends(current_user)]) -> dict[str, str]:
    async with request.app.state.redis.pipeline(transaction=False) as pipe:
        pipe.zincrby("calls", 1, user_id)
        pipe.pfadd("callers", user_id)
        await pipe.execute()
    return {}
