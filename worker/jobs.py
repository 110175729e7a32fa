"""The jobs: one domain call each, and one line in the log. Each is harmless when run twice."""

from models.connections import Stores
from worker.job import job


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
async def expire_windows(stores: Stores) -> str:
    """Delete the stored calls of hours and days that are kept no longer."""
    return f"deleted={await stores.snapshots.expire_windows()}"


@job
async def snapshot_usage(stores: Stores) -> str:
    """Copy the counters into PostgreSQL."""
    snapshot = await stores.snapshots.take()
    return f"buckets={snapshot.buckets} users={snapshot.users}"


@job
async def restore_usage(stores: Stores) -> str:
    """Give the buckets that lost their counters the stored ones back."""
    restored = await stores.snapshots.restore()
    return f"buckets={restored.buckets} users={restored.users}"
