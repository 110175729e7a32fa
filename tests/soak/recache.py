"""Row 2: a session ends while others, who have read that it lives, are about to cache it again."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

from redis.asyncio import Redis

from models import sessions as sessions_module
from models.connections import Stores, open_stores
from models.store import user_key
from models.tokens import Claims
from tests.conftest import RawRedis
from tests.soak.between import UNFENCED, OneProcess, Unfenced, enrol, straight
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

RESTARTING = "versions restart"
AT_ONCE = 50
READERS = 3
LONGEST_PAUSE_S = 0.004
LONGEST_TTL_S = 0.03

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
"""What befalls a user's session, one after the other; a login after the end replaces nothing, and that is a case too."""


async def wandering(step: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    """Take a step after a random pause, and go on after another; a third of them are none."""
    await asyncio.sleep(max(0.0, random.uniform(-0.5, 1.0)) * LONGEST_PAUSE_S)
    result = await step(*args, **more)
    await asyncio.sleep(max(0.0, random.uniform(-0.5, 1.0)) * LONGEST_PAUSE_S)
    return result


class _Interleaving:
    """One user, whose session ends while several processes look after it.

    Args:
        store: the real one or the planted `Unfenced`.
    """

    def __init__(self, stores: Stores, store: object, redis: RawRedis, user_id: int) -> None:
        self._stores, self._store, self._redis, self._user_id = stores, store, redis, user_id
        self._judge = OneProcess(stores, straight)
        self.endings: Sequence[str] = random.choice(ENDINGS)
        self.valid: Claims | None = None
        self.ended: list[Claims] = []
        self.wrong: list[str] = []
        self.calls = 0

    def _process(self, ttl_s: float | None = None) -> OneProcess:
        return OneProcess(self._stores, wandering, self._store, ttl_s)

    async def play(self) -> None:
        """Log in, lose the entry, and let the endings and the readers go at it."""
        await self._start(OneProcess(self._stores, straight, self._store, self._ttl_s(0)))
        await self._redis.delete(user_key(self._user_id, "session"))
        ending = asyncio.create_task(self._end())
        readers = [asyncio.create_task(self._read_again()) for _ in range(random.randint(1, READERS))]
        caller = asyncio.create_task(self._call_while(ending))
        await asyncio.gather(ending, caller, *readers)

    def _ttl_s(self, position: int) -> float | None:
        """A short life for a session that is to expire."""
        dies = EXPIRE in self.endings[position : position + 2] and REPLACE not in self.endings[position : position + 1]
        return random.uniform(0.2, 1.0) * LONGEST_TTL_S if dies else None

    async def _start(self, process: OneProcess) -> None:
        claims = process.sessions.verify(await process.sessions.start(self._user_id))
        assert claims is not None
        if self.valid is not None:
            self.ended.append(self.valid)
        self.valid = claims

    async def _end(self) -> None:
        for ending in self.endings:
            await asyncio.sleep(random.random() * LONGEST_PAUSE_S)
            ...
