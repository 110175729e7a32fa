"""Whether a worker is at work: each sync of the sessions leaves Redis's own time there as its heartbeat.

Without a worker calls go on as they are. What suffers is what only it mends: sessions whose publication was lost, the
snapshot of the counters, trust in a Redis that was restarted.
"""

import asyncio
import logging

from models.errors import RedisFault, StoreUnavailable
from models.replies import gather_all
from models.servers import Server
from models.store import Store
from models.tasks import end

log = logging.getLogger("gatehouse.redis")

SILENT_S = 30.0
LOOK_EVERY_S = 10.0
WARN_EVERY_S = 60.0


class Heartbeat:
    """Looks now and then whether a worker still syncs, and says so in the log when none does.

    Args:
        interval_s: between two syncs of the sessions.
    """

    def __init__(self, store: Store, interval_s: int) -> None:
        self._store = store
        self.late_s = max(SILENT_S, 3.0 * interval_s)
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop looking."""
        await end(self._task)

    async def warning(self) -> str | None:
        """What an operator should know, or None while a worker syncs.

        Raises:
            RedisAway: nobody knows.
        """
        servers = await self._store.servers.masters()
        states, silences_s = await self._store.sync_states(), []
        for server, (run_id, now_us) in zip(servers, await gather_all(map(self._store.identity, servers)), strict=True):
            if run_id not in states:
                return await self._not_yet(server, run_id)
            silences_s.append((now_us - states[run_id].beat_us) / 1_000_000)
        silent_s = max(silences_s)
        if silent_s < self.late_s:
            return None
        check = "see whether one runs (python -m worker.main --check)"
        return f"No worker has published sessions for {silent_s:.0f} s: {check}"

    async def _not_yet(self, server: Server, run_id: str) -> str:
        begun = (await self._store.syncs_begun()).get(run_id)
        if begun is None:
            return "No worker has published sessions to this Redis yet: start one (python -m worker.main)"
        part = f"{len(begun.buckets)} of its {len(self._store.servers.buckets_of(server))} buckets"
        return f"A worker is still publishing sessions to this Redis: {part} are done"

    async def _watch(self) -> None:
        silent_for_s = 0.0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                warning = await self.warning()
            except (StoreUnavailable, RedisFault):
                continue
            if warning is None:
                if silent_for_s:
                    log.warning("A worker publishes sessions again")
                silent_for_s = 0.0
                continue
            if silent_for_s % WARN_EVERY_S < LOOK_EVERY_S:
                log.warning(warning)
            silent_for_s += LOOK_EVERY_S
