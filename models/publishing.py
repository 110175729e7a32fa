"""Publishing what changed in PostgreSQL's sessions to Redis: what the worker does each second.

It ends every race that the fence alone leaves open: a login whose publication was lost, a tombstone that was evicted
before a slow reader published the session it had ended. A server that restarted, failed over or joined gets everything.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from models.database import Database, load_sql
from models.records import Entry, SyncState
from models.store import Store

SYNC_OVERLAP_S = 30
"""How far a sync looks back behind the last one: more than every deadline between a commit and its publication."""

FORGET_RUNS_S = 3_600
"""How long the sync remembers a run of a server that is gone."""

SYNC_CHUNK = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CHANGED = load_sql("changed_sessions")
_OF_BUCKET = load_sql("sessions_of_bucket")


class Synced(msgspec.Struct, frozen=True):
    """What one sync did.

    Args:
        full: whether it looked at all sessions, because Redis restarted, failed over or was emptied.
    """

    rows: int
    published: int
    full: bool


async def publish_changes(database: Database, store: Store) -> Synced:
    """Publish what changed since the last time, and everything to servers that are not as they were.

    Raises:
        StoreUnavailable: a server did not take it; the others did.
    """
    servers, states = await store.servers.masters(), await store.sync_states()
    identities = await asyncio.gather(*map(store.identity, servers), return_exceptions=True)
    there = [(server, *it) for server, it in zip(servers, identities, strict=True) if not isinstance(it, BaseException)]
    now = (await database.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    known = [states[run_id].watermark_us for _, run_id, _ in there if run_id in states]
    # What a server that is away should have got waits, as its watermark does; the others do not wait for it.
    buckets_of = store.servers.buckets_of
    current = [bucket for server, run_id, _ in there if run_id in states for bucket in buckets_of(server)]
    fresh = [bucket for server, run_id, _ in there if run_id not in states for bucket in buckets_of(server)]
    rows = published = 0
    if known:
        since = _EPOCH + timedelta(microseconds=min(known), seconds=-SYNC_OVERLAP_S)
        rows, published = await _publish_since(database, store, since, current)
    for bucket in fresh:
        seen, written = await _publish_all_of(database, store, bucket)
        rows, published = rows + seen, published + written
    # Only now, and only for the runs it began with: a server that restarted meanwhile gets everything again.
    watermark_us = (now - _EPOCH) // timedelta(microseconds=1)
    told = {run_id: SyncState(watermark_us, beat_us) for _, run_id, beat_us in there}
    stale_us = watermark_us - FORGET_RUNS_S * 1_000_000
    await store.save_sync_states(told, [run for run, state in states.items() if state.watermark_us < stale_us])
    for failure in identities:
        if isinstance(failure, BaseException):
            raise failure
    return Synced(rows, published, bool(fresh))


async def _publish_since(database: Database, store: Store, begin: datetime, buckets: list[int]) -> tuple[int, int]:
    """How many rows changed since then in these buckets, and how many of them Redis took."""
    position, seen, published = (begin, 0), 0, 0
    while True:
        rows = await database.fetch(_CHANGED, *position, buckets, SYNC_CHUNK)
        published += await store.publish_sessions(entry_of(row) for row in rows)
        seen += len(rows)
        if len(rows) < SYNC_CHUNK:
            return seen, published
        position = rows[-1]["changed_at"], rows[-1]["user_id"]


async def _publish_all_of(database: Database, store: Store, bucket: int) -> tuple[int, int]:
    """How many sessions a bucket has, and how many of them Redis took."""
    last = seen = published = 0
    while True:
        rows = await database.fetch(_OF_BUCKET, bucket, last, SYNC_CHUNK)
        published += await store.publish_sessions(entry_of(row) for row in rows)
        seen += len(rows)
        if len(rows) < SYNC_CHUNK:
            return seen, published
        last = rows[-1]["user_id"]


def entry_of(row: Any) -> Entry:
    """The session that a row of `sessions` is."""
    reason = "revoked" if row["revoked"] else "expired" if row["expired"] else ""
    return Entry(row["user_id"], row["version"], row["expires_ms"], row["token_digest"], reason)
