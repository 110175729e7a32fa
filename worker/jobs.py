"""The four jobs: one domain call each, and one line in the log. Each is harmless when run twice."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.connections import Stores
from models.errors import ServiceError

log = logging.getLogger("gatehouse.worker")


async def sync_sessions(ctx: dict[str, Any]) -> None:
    """Publish the sessions that changed in PostgreSQL."""
    stores: Stores = ctx["stores"]
    with _logged("sync_sessions") as line:
        synced = await stores.sessions.sync()
        line.append(f"rows={synced.rows} published={synced.published} full={synced.full}")


async def expire_sessions(ctx: dict[str, Any]) -> None:
    """Delete the rows of expired sessions."""
    stores: Stores = ctx["stores"]
    with _logged("expire_sessions") as line:
        line.append(f"deleted={await stores.sessions.expire()}")


async def snapshot_usage(ctx: dict[str, Any]) -> None:
    """Copy the counters into PostgreSQL."""
    stores: Stores = ctx["stores"]
    with _logged("snapshot_usage") as line:
        snapshot = await stores.usage.snapshot()
        line.append(f"buckets={snapshot.buckets} users={snapshot.users}")


async def restore_usage(ctx: dict[str, Any]) -> None:
    """Give the buckets that lost their counters the stored ones back."""
    stores: Stores = ctx["stores"]
    with _logged("restore_usage") as line:
        restored = await stores.usage.restore()
        line.append(f"buckets={restored.buckets} users={restored.users}")


@contextmanager
def _logged(job: str) -> Iterator[list[str]]:
    """One line for each run: what it did and how long it took, or what stopped it. The next run tries again."""
    line: list[str] = []
    started_at = time.perf_counter()
    try:
        yield line
    except ServiceError as error:
        line.append(f"failed: {error}")
        log.warning("%s %s in %d ms", job, " ".join(line), (time.perf_counter() - started_at) * 1000)
    else:
        log.info("%s %s in %d ms", job, " ".join(line), (time.perf_counter() - started_at) * 1000)
