"""How the service is doing, for its operators: what every process counted is added up in Redis, and read from there.

Each web process adds what it counted since the last time, once a second and only if there is something, so that the
totals of all processes on all machines are one round trip away.
"""

import asyncio
import logging
from contextlib import suppress

from models.database import Database
from models.errors import RedisFault, StoreUnavailable
from models.meters import Facts, Gauges, Meters
from models.passwords import Passwords
from models.store import Store
from models.usage import Usage

log = logging.getLogger("gatehouse.redis")

TELL_EVERY_S = 1.0
LOOK_DEADLINE_S = 0.5


class Operations:
    """Tells Redis what this process counted, and reads what all told.

    Args:
        usage: of this process, as all the others.
    """

    def __init__(self, store: Store, database: Database, usage: Usage, passwords: Passwords) -> None:
        self.meters: Meters = usage.meters
        self._store = store
        self._database = database
        self._usage = usage
        self._passwords = passwords
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._tell_on())

    async def close(self) -> None:
        """Tell the rest, and stop."""
        # Not cancelled: what is on its way then would be neither told nor kept.
        self._closing.set()
        await self._task

    async def tell(self) -> None:
        """Add what was counted since the last time to the totals; while Redis is away it waits here."""
        if self._store.away:
            return
        untold = self.meters.take_untold()
        if untold:
            missed = await self._store.add_meters(untold)
            self.meters.put_back({name: untold[name] for name in missed})

    async def _tell_on(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), TELL_EVERY_S)
            try:
                await self.tell()
            except Exception:
                log.exception("what was counted cannot be told")

    async def look(self) -> tuple[Facts | None, bool]:
        """What all have told, None when Redis does not answer soon; and whether PostgreSQL answers soon."""
        return await asyncio.gather(self._facts_soon(), self._database_answers())

    async def _facts_soon(self) -> Facts | None:
        if not self._store.away:
            with suppress(StoreUnavailable, RedisFault, TimeoutError):
                return await asyncio.wait_for(self._store.read_facts(), LOOK_DEADLINE_S)
        return None

    async def _database_answers(self) -> bool:
        with suppress(StoreUnavailable, TimeoutError):
            await asyncio.wait_for(self._database.ping(), LOOK_DEADLINE_S)
            return True
        return False

    def gauges(self) -> Gauges:
        """How this process is at the moment; no store is asked."""
        used, idle, most = self._database.connections()
        hashing, waiting = self._passwords.at_work()
        return Gauges(
            redis_up=not self._store.away,
            redis_trusted=self._usage.trusts_redis,
            uncounted=self._usage.uncounted,
            connections_used=used,
            connections_idle=idle,
            connections_most=most,
            hashing=hashing,
            hashing_waiting=waiting,
        )

    async def note_run(self, job: str, took_s: float, *, failed: bool) -> None:
        """Note that a run of a job has ended. While Redis is away that is not known, and the lag tells."""
        with suppress(StoreUnavailable):
            await self._store.note_run(job, round(took_s * 1000), failed=failed)
