"""The four jobs: one domain call each, and one line in the log. Each is harmless when run twice."""

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
async def snapshot_usage(stores: Stores) -> str:
    """Copy the counters into PostgreSQL."""
    snapshot = await stores.usage.snapshot()
    return f"buckets={snapshot.buckets} users={snapshot.users}"


@job
async def restore_usage(stores: Stores) -> str:
    """Give the buckets that lost their counters the stored ones back."""
    restored = await stores.usage.restore()
    return f"buckets={restored.buckets} users={restored.users}"
