"""Row 2: a session ends while others, who have read that it lives, are about to cache it again."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest.mock import patch

from redis.asyncio import Redis

from models import sessions as models_sessions
from models.connections import Stores, open_stores
from models.errors import StoreUnavailable
from models.keys import user_key
from models.tasks import end
from models.tokens import Claims
from tests.conftest import RawRedis
from tests.soak.between import UNFENCED, OneProcess, Unfenced, enrol, misjudged, straight, until_expired
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

RESTARTING = "versions restart"
AT_ONCE = 50
READERS = 3
LONGEST_PAUSE_S = 0.004
SHORTEST_TTL_S, LONGEST_TTL_S = 0.006, 0.03
SYNC_PAUSE_S = 0.01

LOG_OUT, REVOKE, REPLACE, EXPIRE = "log out", "revoke", "replace", "expire"
ENDINGS = (
    (LOG_OUT,),
    (REVOKE,),
    (REPLACE,),
    (EXPIRE,),
    (LOG_OUT, REPLACE),
    (REPLACE, LOG_OUT),
    (REPLACE, REPLACE),
    (EXPIRE, REPLACE),
    (LOG_OUT, EXPIRE, REPLACE),
)
"""What befalls a user's session, one after the other. To replace is to log in, whether there is a session or not."""


async def wandering(step: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    """Take a step after a random pause, and go on after another; a third of them are none."""
    await asyncio.sleep(max(0.0, random.uniform(-0.5, 1.0)) * LONGEST_PAUSE_S)
    result = await step(*args, **more)
    await asyncio.sleep(max(0.0, random.uniform(-0.5, 1.0)) * LONGEST_PAUSE_S)
    return result


class _Interleaving:
    """One user, whose sessions end while several processes read them and cache what they read.

    Args:
        store: the real one or the planted `Unfenced`.
    """

    def __init__(self, stores: Stores, store: object, redis: RawRedis, user_id: int) -> None:
        self._stores, self._store, self._redis, self._user_id = stores, store, redis, user_id
        self.endings = random.choice(ENDINGS)
        self.valid: str | None = None
        self.ended: list[str] = []
        self.wrong: list[str] = []
        self.calls = 0
        self.undisturbed = False

    async def play(self) -> None:
        """Log in, lose the cached entry, and let the endings, the readers and a caller go at it."""
        await self._start(straight, 0)
        await self._redis.delete(user_key(self._user_id, "session"))
        ending = asyncio.create_task(self._end())
        readers = (self._read_again() for _ in range(random.randint(1, READERS)))
        ended = await asyncio.gather(ending, self._call_until(ending), *readers, return_exceptions=True)
        errors = [error for error in ended if error is not None]
        self.undisturbed = not errors
        self.wrong += [repr(error) for error in errors if not isinstance(error, StoreUnavailable)]

    async def judge(self, when: str) -> None:
        """Nothing runs any more: exactly the valid token is admitted."""
        tokens = [*self.ended, *filter(None, [self.valid])]
        self.wrong += [f"{when} {self.endings}: {what}" for what in await misjudged(self._stores, tokens, self.valid)]

    def _process(self, ttl_s: float | None = None) -> OneProcess:
        return OneProcess(self._stores, wandering, self._store, ttl_s)

    async def _start(self, around: Callable[..., Awaitable[Any]], position: int) -> None:
        """Log in; the session lives only briefly when it is to expire before it is replaced."""
        coming = self.endings[position:]
        until_replaced = coming[: coming.index(REPLACE)] if REPLACE in coming else coming
        ttl_s = random.uniform(SHORTEST_TTL_S, LONGEST_TTL_S) if EXPIRE in until_replaced else None
        token = await OneProcess(self._stores, around, self._store, ttl_s).sessions.start(self._user_id)
        self._over()
        self.valid = token

    def _over(self) -> None:
        """The session has ended by now, and whoever ended it knows: from here on nobody may pass with it."""
        if self.valid is not None:
            self.ended.append(self.valid)
        self.valid = None

    async def _end(self) -> None:
        for position, ending in enumerate(self.endings):
            await asyncio.sleep(random.random() * 2 * LONGEST_PAUSE_S)
            if ending == REPLACE:
                await self._start(wandering, position + 1)
                continue
            process = self._process()
            if ending == LOG_OUT and self.valid is not None:
                await process.sessions.end(self._claims(self.valid))
            elif ending == REVOKE:
                await process.sessions.revoke(self._user_id)
            elif ending == EXPIRE:
                await self._expire(process)
            self._over()

    async def _expire(self, process: OneProcess) -> None:
        await until_expired(self._claims(self.valid or self.ended[-1]))
        self._over()
        await process.sessions.expire()

    async def _read_again(self) -> None:
        """A process that does not know the session: it reads the row, and caches what it says."""
        await asyncio.sleep(random.random() * LONGEST_PAUSE_S)
        process = self._process()
        for _ in range(random.randint(1, 3)):
            await process.sessions.fall_back(self._claims(random.choice([*self.ended, *filter(None, [self.valid])])))

    async def _call_until(self, ending: "asyncio.Task[None]") -> None:
        """Call with whatever has ended: it must be refused also while others are still at it."""
        process = OneProcess(self._stores, straight, self._store)
        while not ending.done():
            for token in list(self.ended):
                self.calls += 1
                if await process.admits(self._claims(token)):
                    self.wrong.append(f"meanwhile {self.endings}: a call passed with an ended session")
            await asyncio.sleep(random.random() * LONGEST_PAUSE_S)

    def _claims(self, token: str) -> Claims:
        claims = self._stores.sessions.verify(token)
        assert claims is not None
        return claims


def _restarting() -> AsyncExitStack:
    """The planted fault: versions count up from one in each row, and so begin again when the row was deleted."""
    drawn = "nextval('session_versions')"
    upsert = models_sessions._UPSERT.replace(f"SELECT id, {drawn}", "SELECT id, 1")
    upsert = upsert.replace(f"SET version = {drawn}", "SET version = s.version + 1")
    revoke = models_sessions._REVOKE.replace(f"SET version = {drawn}", "SET version = version + 1")
    assert drawn not in upsert.partition("INSERT")[2] + revoke.partition("UPDATE")[2], "the planted fault fits no more"
    planted = AsyncExitStack()
    planted.enter_context(patch.object(models_sessions, "_UPSERT", upsert))
    planted.enter_context(patch.object(models_sessions, "_REVOKE", revoke))
    return planted


async def _sync_on(process: OneProcess) -> None:
    """Until cancelled, as a worker does, if more often."""
    while True:
        with suppress(StoreUnavailable):
            await process.sessions.sync()
        await asyncio.sleep(SYNC_PAUSE_S)


async def _batch(stores: Stores, playing: list[_Interleaving], syncing: OneProcess | None) -> None:
    """Some users side by side, with a worker that syncs meanwhile or without; judged before a sync and after."""
    worker = asyncio.create_task(_sync_on(syncing)) if syncing else None
    try:
        await asyncio.gather(*(one.play() for one in playing))
    finally:
        if worker is not None:
            await end(worker)
    judged = [one for one in playing if one.undisturbed]
    await asyncio.gather(*(one.judge("before a sync") for one in judged))
    await stores.sessions.sync()
    await asyncio.gather(*(one.judge("after a sync") for one in judged))


@scenario(
    2,
    "recache",
    "sessions end while others cache them again, with random pauses at every await: no ended one is admitted",
    full=10_000,
    short=200,
    planted=(UNFENCED, RESTARTING),
    planted_rounds=200,
)
async def recache(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Interleavings of different users side by side, every other batch of them with a worker."""
    outcome, calls, disturbed = Outcome(), 0, 0
    endings: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        if planted == RESTARTING:
            await stack.enter_async_context(_restarting())
        stores = await stack.enter_async_context(open_stores(stage.settings))
        redis = await stack.enter_async_context(Redis.from_url(stage.settings.redis_url))
        store = Unfenced(stores.store, redis) if planted == UNFENCED else stores.store
        for batch, begin in enumerate(range(0, rounds, AT_ONCE)):
            users = await enrol(stores, min(AT_ONCE, rounds - begin))
            playing = [_Interleaving(stores, store, redis, user_id) for user_id in users]
            await _batch(stores, playing, OneProcess(stores, wandering, store) if batch % 2 else None)
            # A sync looks back half a minute: it need not look at these again.
            await stores.database.fetch("DELETE FROM sessions WHERE user_id = ANY($1::bigint[])", users)
            for one in playing:
                outcome.violations += one.wrong
                calls, disturbed = calls + one.calls, disturbed + (not one.undisturbed)
                endings.update([" + ".join(one.endings)])
            outcome.tried += len(playing)
            stage.progress(outcome.tried)
            if planted and outcome.violations:
                break
        outcome.check(disturbed * 20 <= outcome.tried, f"{disturbed} interleavings ended with a store that was away")
        outcome.figures = {"calls meanwhile": calls, "disturbed": disturbed, "of each ending": min(endings.values())}
    return outcome
