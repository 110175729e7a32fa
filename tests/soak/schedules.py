"""Row 2: every order in which the steps of two actors can be taken: one ends a session, the other caches it again."""

import functools
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from itertools import combinations_with_replacement, product
from typing import Any

import msgspec
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.database import load_sql
from models.keys import user_key
from models.tokens import Claims
from tests.conftest import RawRedis
from tests.soak.between import UNFENCED, OneProcess, Unfenced, enrol, misjudged, straight, until_expired
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.soak.turns import Turns, every_schedule

UNSYNCED = "no sync"
ALL_SCHEDULES = 6_621
"""As many as there are: more or fewer steps in a protocol change it."""

SHORTEST_TTL_S = 0.02
ENROLLED = 200

RECACHE, JOIN, RECACHE_ELSEWHERE, CALL, SYNC = "re-cache", "join", "re-cache elsewhere", "call", "sync"
LOG_OUT, LOG_IN, REVOKE, EXPIRE = "log out", "log in", "revoke", "expire, log in"
EVICT = "evict"

CACHING = ((RECACHE,), (RECACHE, RECACHE_ELSEWHERE), (RECACHE, JOIN), (CALL,), (SYNC,))
"""Who caches a session again; the second of two re-caches runs in another process, or joins the one that reads."""

ENDING = (LOG_OUT, LOG_IN, REVOKE, EXPIRE)


class _Game(msgspec.Struct, frozen=True):
    """Who acts. `evicting`: one of them is Redis, who forgets the session at any time."""

    actors: tuple[str, ...]
    evicting: bool


def _games() -> Iterator[_Game]:
    casts = [(*caching, ending) for caching, ending in product(CACHING, ENDING)]
    casts += combinations_with_replacement(ENDING, 2)
    for actors in casts:
        yield _Game(actors, evicting=False)
        if len(actors) == 2:
            yield _Game((*actors, EVICT), evicting=True)


class _Run:
    """One schedule, of a new user with one session; it is cached only when there is somebody to evict it.

    `left_s` is how long that session would still have lived when an actor first waited for its end.

    Args:
        store: the real one or the planted `Unfenced`.
    """

    def __init__(self, stores: Stores, store: object, redis: RawRedis, user_id: int, turns: Turns) -> None:
        self._stores, self._store, self._redis, self._user_id, self._turns = stores, store, redis, user_id, turns
        self._first_process = self._process()
        self.tokens: list[str] = []
        self.left_s: float | None = None

    async def play(self, game: _Game, ttl_s: float) -> None:
        """Log in, and let the actors take their turns."""
        process = OneProcess(self._stores, straight, ttl_s=ttl_s if EXPIRE in game.actors else None)
        self.tokens.append(await process.sessions.start(self._user_id))
        if not game.evicting:
            await self._evict()
        await self._turns.run(self._act(actor) for actor in game.actors)

    async def judge(self) -> list[str]:
        """Whether exactly the live session is admitted: never the first, which every game ends."""
        rows = await self._stores.database.fetch(load_sql("read_session"), self._user_id)
        valid = None
        if rows and not rows[0]["revoked"] and not rows[0]["expired"]:
            (valid,) = (token for token in self.tokens if self._claims(token).version == rows[0]["version"])
        return await misjudged(self._stores, self.tokens, valid if valid != self.tokens[0] else None)

    async def forget(self) -> None:
        """A sync looks back half a minute: it need not look at this again."""
        await self._stores.database.fetch("DELETE FROM sessions WHERE user_id = $1", self._user_id)

    async def _act(self, actor: str) -> None:
        process = self._first_process if actor in (RECACHE, JOIN) else self._process()
        first = self._claims(self.tokens[0])
        if actor == JOIN:
            await self._turns.step(_nothing)  # it may come at any time
        if actor in (RECACHE, RECACHE_ELSEWHERE, JOIN):
            await process.sessions.fall_back(first)
        elif actor == CALL:
            await process.admits(first)
        elif actor == SYNC:
            await process.sessions.sync()
        elif actor == LOG_OUT:
            await process.sessions.end(first)
        elif actor == REVOKE:
            await process.sessions.revoke(self._user_id)
        elif actor == EVICT:
            await self._turns.step(self._evict)
        if actor == EXPIRE:
            left_s = await self._turns.step(until_expired, first)
            self.left_s = left_s if self.left_s is None else self.left_s
            await process.sessions.expire()
        if actor in (EXPIRE, LOG_IN):
            self.tokens.append(await process.sessions.start(self._user_id))

    def _process(self) -> OneProcess:
        return OneProcess(self._stores, self._turns.step, self._store)

    async def _evict(self) -> None:
        await self._redis.delete(user_key(self._user_id, "session"))

    def _claims(self, token: str) -> Claims:
        claims = self._stores.sessions.verify(token)
        assert claims is not None
        return claims


async def _nothing() -> None:
    """Nobody can see it."""


class _Table:
    """Plays games out, schedule by schedule, on servers that have nothing else to do."""

    def __init__(self, stores: Stores, redis: RawRedis, planted: str, outcome: Outcome) -> None:
        self._stores, self._redis, self._planted, self._outcome = stores, redis, planted, outcome
        self._store = Unfenced(stores.store, redis) if planted == UNFENCED else stores.store
        self._users: list[int] = []
        self._ttl_s = SHORTEST_TTL_S
        self.again = 0

    async def play(self, game: _Game, turns: Turns) -> bool:
        """One schedule; False when its session ended too early for it, on a machine that was held up."""
        if not self._users:
            self._users = await enrol(self._stores, ENROLLED)
        run = _Run(self._stores, self._store, self._redis, self._users.pop(), turns)
        await run.play(game, self._ttl_s)
        if not game.evicting or self._planted == UNSYNCED:
            await self._judge(run, game, turns, "before a sync")
        if self._planted != UNSYNCED:
            await self._stores.sessions.sync()
            await self._judge(run, game, turns, "after a sync")
        await run.forget()
        too_short = run.left_s is not None and run.left_s <= 0
        self.again += too_short
        self._ttl_s = 2 * self._ttl_s if too_short else SHORTEST_TTL_S
        return not too_short

    async def _judge(self, run: _Run, game: _Game, turns: Turns, when: str) -> None:
        order = "".join(str(choice.taken) for choice in turns.choices)
        self._outcome.violations += [f"{when} {game.actors} {order}: {what}" for what in await run.judge()]


@scenario(
    2,
    "schedules",
    "every order of the steps of a session's end and of whoever caches it again, with an eviction at any point",
    full=ALL_SCHEDULES,
    short=250,
    planted=(UNFENCED, UNSYNCED),
    planted_rounds=40,
)
async def schedules(stage: Stage, rounds: int, planted: str) -> Outcome:
    """All of them, or the first: without an eviction judged at once, always judged after one sync."""
    outcome, most = Outcome(), sys.maxsize if rounds >= ALL_SCHEDULES else rounds
    figures: dict[str, Any] = {"games": 0, "with an eviction": 0, "longest": 0}
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(stage.settings))
        redis = await stack.enter_async_context(Redis.from_url(stage.settings.redis_url))
        table = _Table(stores, redis, planted, outcome)
        for game in _games():
            if outcome.tried >= most:
                break
            figures["games"] += 1
            async with aclosing(every_schedule(functools.partial(table.play, game))) as played:
                async for turns in played:
                    outcome.tried += 1
                    figures["with an eviction"] += game.evicting
                    figures["longest"] = max(figures["longest"], len(turns.choices))
                    stage.progress(outcome.tried)
                    if outcome.tried >= most:
                        break
        outcome.figures = {**figures, "played again": table.again}
    return outcome
