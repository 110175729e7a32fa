"""The four jobs: one domain call each, and one line in the log. Each is harmless when run twice."""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from models.connections import Stores
from models.errors import ServiceError

log = logging.getLogger("gatehouse.worker")

Job = Callable[[dict[str, Any]], Awaitable[None]]


def job(work: Callable[[Stores], Awaitable[str]]) -> Job:
    """A job for arq from one that returns what it did: logged with its time, and once at a time in this process.

    A tick that comes while the last one's run still works is passed over: the queue would start the job again at each,
    and ten slow ones would leave no room for the others. A run that failed is not repeated: the next tick tries again.
    """
    name, running = work.__name__, False

    @wraps(work)
    async def run(ctx: dict[str, Any]) -> None:
        nonlocal running
        if running:
            return
        running, started_at = True, time.perf_counter()
        try:
            did, level = await work(ctx["stores"]), logging.INFO
        except ServiceError as error:
            did, level = f"failed: {error}", logging.WARNING
        finally:
            running = False
        log.log(level, "%s %s in %d ms", name, did, (time.perf_counter() - started_at) * 1000)

    return run


@job
async def sync_sessions(stores: Stores) -> str:
    """Publish the sessions that changed in PostgreSQL."""
    synced = await stores.sessions.sync()
    return f"rows={synced.rows} published={synced.published} full={synced.full}"


@job
async def expire_sessions(stores: Stores) -> str:
    """Delete the rows of expired sessions."""
    return f"deleted={await stores.sessions.expire()}"


@job
async def snapshot_usage(stores: Stores) -> str:
    """Copy the counters into PostgreSQL."""
    snapshot = await stores.usage.snapshot()
    return f"buckets={snapshot.buckets} users={snapshot.users}"


@job
async def restore_usage(stores: Stores) -> str:
    """Give the buckets that lost their counters the stored ones back."""
    restored = await stores.usage.restore()
    return f"buckets={restored.buckets} users={restored.users}"
