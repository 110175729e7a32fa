"""Whether a worker is at work: each sync of the sessions leaves Redis's own time there as its heartbeat.

Without a worker calls go on as they are. What suffers is what only it mends: sessions whose publication was lost, the
snapshot of the counters, trust in a Redis that was restarted.
"""

import asyncio
import logging

from models.errors import RedisFault, StoreUnavailable
from models.records import Run, SyncState
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
        for server, run in zip(servers, await gather_all(self._store.identity(it.gate) for it in servers), strict=True):
            state = states.get(run.id)
            if state is None or not state.beat_us:
                return self._not_yet(server, run, state)
            silences_s.append((run.now_us - state.beat_us) / 1_000_000)
        silent_s = max(silences_s)
        if silent_s < self.late_s:
            return None
        check = "see whether one runs (python -m worker.main --check)"
        return f"No worker has published sessions for {silent_s:.0f} s: {check}"

    def _not_yet(self, server: Server, run: Run, state: SyncState | None) -> str:
        """Of a server that has not got all sessions."""
        # PostgreSQL's clock and that of Redis: near enough to tell one that is at work from one that was killed.
        if state is None or run.now_us - state.watermark_us > self.late_s * 1_000_000:
            return "No worker has published sessions to this Redis yet: start one (python -m worker.main)"
        buckets = self._store.servers.buckets_of(server)
        done = len(set(buckets).intersection(state.buckets or ()))
        return f"A worker is still publishing sessions to this Redis: {done} of its {len(buckets)} buckets are done"

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
