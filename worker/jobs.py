"""The jobs: one domain call each, and one line in the log. Each is harmless when run twice."""

from models.connections import Stores
from worker.job import Did, job


@job
async def sync_sessions(stores: Stores) -> Did:
    """Publish the sessions that changed in PostgreSQL."""
    synced = await stores.sessions.sync()
    facts = {"rows": synced.rows, "published": synced.published, "full": synced.full}
    return Did(facts, idle=not (synced.published or synced.full))


@job
async def expire_sessions(stores: Stores) -> Did:
    """Delete the rows of expired sessions."""
    deleted = await stores.sessions.expire()
    return Did({"deleted": deleted}, idle=not deleted)


@job
async def expire_windows(stores: Stores) -> Did:
    """Delete the stored calls of hours and days that are kept no longer."""
    deleted = await stores.snapshots.expire_windows()
    return Did({"deleted": deleted}, idle=not deleted)


@job
async def snapshot_usage(stores: Stores) -> Did:
    """Copy the counters into PostgreSQL."""
    snapshot = await stores.snapshots.take()
    return Did({"buckets": snapshot.buckets, "users": snapshot.users}, idle=not snapshot.buckets)


@job
async def restore_usage(stores: Stores) -> Did:
    """Give the buckets that lost their counters the stored ones back."""
    restored = await stores.snapshots.restore()
    return Did({"buckets": restored.buckets, "users": restored.users}, idle=not restored.buckets)
