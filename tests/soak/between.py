"""What a scenario puts between the sessions and the stores: pauses, gates, and a store without the fence."""

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from models.connections import Stores
from models.database import Database
from models.keys import bucket_of, user_key
from models.records import ADMITTED, MISSING, Entry
from models.servers import BUCKET_SLOTS
from models.sessions import Sessions
from models.store import Store
from models.tokens import Claims, TokenSigner
from models.usage import FALLBACK_TRIES
from tests.conftest import RawRedis

UNFENCED = "unfenced"
CLOCK_GRAIN_S = 0.002

Around = Callable[..., Awaitable[Any]]
"""Gets a method that leaves the process and its arguments; calls it when it sees fit."""


async def straight(step: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    """Take a step at once."""
    return await step(*args, **more)


class Unfenced:
    """The planted fault: the real store, but whoever publishes last wins."""

    def __init__(self, store: Store, redis: RawRedis) -> None:
        self._store, self._redis = store, redis

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def publish_session(self, entry: Entry) -> bool:
        await self._redis.set(user_key(entry.user_id, "session"), entry.value, pxat=entry.keep_until_ms)
        return True

    async def publish_sessions(self, entries: Iterable[Entry]) -> int:
        return sum([await self.publish_session(entry) for entry in entries])


class _Between:
    """An object each of whose coroutine methods is called by `around`."""

    def __init__(self, target: object, around: Around) -> None:
        self._target, self._around = target, around

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return functools.partial(self._around, value) if inspect.iscoroutinefunction(value) else value


class OneProcess:
    """The sessions of a process of its own, whose every step out of it is taken by `around`.

    Args:
        store: the real one, or the planted `Unfenced`.
        ttl_s: of the sessions it starts; PostgreSQL takes fractions of a second.
    """

    def __init__(self, stores: Stores, around: Around, store: object = None, ttl_s: float | None = None) -> None:
        self._limits = stores.settings.rate_limits
        self.store = cast(Store, _Between(store or stores.store, around))
        ttl = cast(int, ttl_s or stores.settings.session_ttl_s)
        signer = TokenSigner(stores.settings.secret_keys)
        self.sessions = Sessions(cast(Database, _Between(stores.database, around)), self.store, signer, ttl)

    async def admits(self, claims: Claims) -> bool:
        """What `Usage.admit` does once a token's signature is known to be good, without its look at the clock.

        A process whose clock is late would take an expired token so far: the stores must refuse it.
        """
        command = self.store.admission_command(claims, self._limits)
        slot = BUCKET_SLOTS[bucket_of(claims.user_id)]
        for _ in range(FALLBACK_TRIES):
            verdict = await self.store.admit(self.store.servers.of(slot), command, slot)
            if verdict.outcome != MISSING:
                return verdict.outcome == ADMITTED
            if await self.sessions.fall_back(claims) is not None:
                return False
        return False


async def until_expired(claims: Claims) -> float:
    """Wait until a session has expired; returns how long that took, in seconds, below zero when it had before."""
    left_s = claims.expires_ms / 1000 - time.time()  # the servers' clock is this machine's
    await asyncio.sleep(max(0.0, left_s + CLOCK_GRAIN_S))
    return left_s


async def misjudged(stores: Stores, tokens: Iterable[str], valid: str | None) -> list[str]:
    """How a user's tokens are judged wrongly: a sentence for each that is admitted though ended, or the reverse.

    Args:
        valid: the one of them that must be admitted.
    """
    process, found = OneProcess(stores, straight), []
    for token in sorted(tokens, key=lambda token: token == valid):  # a look at the valid one may mend what is wrong
        claims = process.sessions.verify(token)
        assert claims is not None
        past_the_clock = await process.admits(claims)
        admission = await stores.usage.admit(token)
        if not past_the_clock == admission.admitted == (token == valid):
            whose = f"session {claims.version} of user {claims.user_id}"
            found.append(f"the {'valid' if token == valid else 'ended'} {whose}: {past_the_clock}, {admission}")
    return found


async def enrol(stores: Stores, count: int) -> list[int]:
    """New users, who have no password that anybody asks for; returns their ids."""
    rows = await stores.database.fetch(
        "WITH first AS (SELECT count(*) AS n FROM users)"
        " INSERT INTO users (username, username_key, password_hash, created_at)"
        " SELECT 'user' || first.n + i, 'user' || first.n + i, '', now() FROM first, generate_series(1, $1) AS i"
        " RETURNING id",
        count,
    )
    return [row["id"] for row in rows]
