"""Row 2: every order in which the steps of two actors can be taken: one ends a session, the other caches it again."""

import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import combinations_with_replacement, product
from typing import Any

import msgspec
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.database import load_sql
from models.store import user_key
from models.tokens import Claims
from tests.conftest import RawRedis
from tests.soak.between import UNFENCED, OneProcess, Unfenced, enrol, misjudged, straight, until_expired
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.soak.turns import Turns, every_schedule

UNSYNCED = "no sync"
ALL_SCHEDULES = 10_000
SHORTEST_TTL_S = 0.02
ENROLLED = 200

RECACHE, JOIN, RECACHE_ELSEWHERE, CALL, SYNC = "re-cache", "join", "re-cache elsewhere", "call", "sync"
LOG_OUT, LOG_IN, REVOKE, EXPIRE = "log out", "log in", "revoke", "expire, log in"
EVICT = "evict"

CACHING = ((RECACHE,), (RECACHE, RECACHE_ELSEWHERE), (RECACHE, JOIN), (CALL,), (SYNC,))
"""Two re-caches are one actor too many, or two in one process: the second waits for the first's read."""

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
    """One schedule, of a new user with one session, which is not cached, or is until it is evicted.

    Args:
        store: the real one or the planted `Unfenced`.
        ttl_s: of that session.
    """

    def __init__(self, stores: Stores, store: object, redis: RawRedis, user_id: int, ttl_s: float | None) -> None:
        self._stores, self._store, self._redis, self._user_id, self._ttl_s = stores, store, redis, user_id, ttl_s
        self.first = ""
        self.tokens: list[str] = []
        self.kept_to_it = True

    async def play(self, turns: Turns, game: _Game) -> None:
        """Log in, and let the actors take their turns."""
        self._turns = turns
        self._shared = self._process()
        self.first = await OneProcess(self._stores, straight, ttl_s=self._ttl_s).sessions.start(self._user_id)
        self.tokens.append(self.first)
        if not game.evicting:
            await self._redis.delete(self._key)
        await turns.run([self._act(actor) for actor in game.actors])

    async def valid(self) -> str | None:
        """The token of the session that PostgreSQL says is live. The first is not: every ending has ended it."""
        (row,) = await self._stores.database.fetch(load_sql("read_session"), self._user_id) or [None]
        if row is None or row["revoked"] or row["expired"]:
            return None
        live = [token for token in self.tokens if self._claims(token).version == row["version"]]
        return live[0] if live != [self.first] else None
