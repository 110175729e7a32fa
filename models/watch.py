"""Whether Redis is there, and whether what it holds may be believed.

A Redis that comes back may be an older copy of itself: a file from before a logout, a replica that lagged. So after
each new connection its sessions are checked against PostgreSQL first, until the worker has published everything that
changed to that very server, in a sync that began after the connection was made: its heartbeat. The limits and counts
are used all the while.
"""

import asyncio
import logging
import time
from contextlib import suppress

from models.errors import RedisAway, RedisRefused, ReplyLost
from models.outage import LocalGate
from models.store import Store
from models.tasks import end

log = logging.getLogger("gatehouse.redis")

PROBE_S = 0.1
FIRST_LOOK_S = 1.0
WARN_EVERY_S = 10.0


class Watch:
    """Follows one process's connection to Redis.

    `trusted` is the connection whose sessions may be believed; compare it with `Store.generation`.
    """

    def __init__(self, store: Store, local: LocalGate) -> None:
        self.trusted = 0
        self._store = store
        self._local = local
        self._warned_s = -WARN_EVERY_S
        self._poked = asyncio.Event()
        self._poked.set()
        self._looked = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following."""
        await end(self._task)

    async def look(self) -> None:
        """Wait for the first look at Redis, whatever it shows, so that the first call finds the connection judged."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._looked.wait()

    def poke(self) -> None:
        """Something is not as it was: find out what. Cheap to call again."""
        self._poked.set()

    def lose(self) -> None:
        """Redis did not answer: nobody waits for it again before it has answered here."""
        if not self._store.away:
            log.warning("Redis is away: sessions are checked in PostgreSQL, limits are kept by each process")
        self._store.away = True
        self.poke()

    async def _follow(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            while not 0 < self.trusted == self._store.generation or self._store.away or self._local.has_uncounted:
                try:
                    await self._settle()
                except RedisAway as error:
                    self._looked.set()
                    if not isinstance(error, RedisRefused):
                        self.lose()
                    await asyncio.sleep(PROBE_S)
                except Exception:
                    log.exception("Redis cannot be judged; sessions are checked in PostgreSQL")
                    await asyncio.sleep(WARN_EVERY_S)

    async def _settle(self) -> None:
        """See Redis back, bring it the counts of the outage, and wait for a heartbeat from after the connection."""
        generation, first = self._store.generation, self.trusted == 0
        run_id, connected_at_us = await self._store.identity()
        if self._store.generation != generation:  # it opened a connection, or lost one: whose identity is this?
            return
        if self._store.away:
            self._store.away = False
            log.warning("Redis is back")
        await self._count_late()
        while self._store.generation == generation != self.trusted:
            state = await self._store.sync_state()
            self._looked.set()
            if state is None:
                believable = first  # an empty Redis at the start of a process is no older copy
            else:
                believable = state.run_id == run_id and (first or state.beat_us > connected_at_us)
            if believable:
                self.trusted = generation
                return
            if time.monotonic() >= self._warned_s + WARN_EVERY_S:
                self._warned_s = time.monotonic()
                log.warning("sessions are checked in PostgreSQL until a worker has published them to this Redis")
            await asyncio.sleep(PROBE_S)
            await self._count_late()

    async def _count_late(self) -> None:
        waiting = self._local.take_uncounted()
        while waiting:
            bucket, rows = waiting.popitem()
            try:
                await self._store.add_calls(bucket, rows)
            except RedisAway as error:
                if not isinstance(error, ReplyLost):  # else they may have been added: twice is worse than never
                    self._local.put_back(rows)
                for others in waiting.values():
                    self._local.put_back(others)
                raise
