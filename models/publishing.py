"""Publishing what changed in PostgreSQL's sessions to Redis: what the worker does each second.

It ends every race that the fence alone leaves open: a login whose publication was lost, a tombstone that was evicted
before a slow reader published the session it had ended. A server that restarted, failed over or joined gets everything.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from models.database import Database, load_sql
from models.records import Entry, SyncBegun, SyncState
from models.servers import Server
from models.store import Store

SYNC_OVERLAP_S = 30
"""How far a sync looks back behind the last one: more than every deadline between a commit and its publication."""

FORGET_RUNS_S = 3_600
"""How long the sync remembers runs of servers while one does not answer: it may be one of them."""

ROUND_S = 5.0
"""For how long everything is published to new servers before it is the turn of what changed."""

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

    Everything takes a while: what changes meanwhile goes before the rest of it, every `ROUND_S`. Who is cut off leaves
    in Redis how far it has come, and the next one goes on there.

    Raises:
        StoreUnavailable: a server did not take it; the others did.
    """
    done = Synced(0, 0, False)
    while True:
        servers, states, begun = await store.servers.masters(), await store.sync_states(), await store.syncs_begun()
        identities = await asyncio.gather(*map(store.identity, servers), return_exceptions=True)
        now = (await database.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
        round_ = _Round(database, store, (now - _EPOCH) // timedelta(microseconds=1))
        for server, identity in zip(servers, identities, strict=True):
            # What a server that is away should have got waits, as its watermark does; the others do not wait for it.
            if not isinstance(identity, BaseException):
                run_id, beat_us = identity
                round_.add(server, run_id, beat_us, states.get(run_id), begun.get(run_id))
        away = [it for it in identities if isinstance(it, BaseException)]
        await round_.publish_changed()
        await round_.save({**states, **begun}, all_there=not away)
        await round_.publish_missing()
        done = Synced(done.rows + round_.rows, done.published + round_.published, done.full or bool(round_.fills))
        if away:
            raise away[0]
        if not any(fill.missing for fill in round_.fills.values()):
            return done


class _Fill:
    """What a server that is new has got of all sessions.

    Args:
        buckets: its own.
    """

    def __init__(self, buckets: list[int], begun: SyncBegun | None) -> None:
        self.done = [bucket for bucket in buckets if begun and bucket in begun.buckets]
        self.missing = [bucket for bucket in buckets if bucket not in self.done]


class _Round:
    """Once what changed, and for a while what is missing.

    Args:
        watermark_us: PostgreSQL's time, from before anything is read.
    """

    def __init__(self, database: Database, store: Store, watermark_us: int) -> None:
        self._database = database
        self._store = store
        self._watermark_us = watermark_us
        self._since_us = watermark_us
        self._current: list[int] = []
        self._told: dict[str, SyncState] = {}
        self.fills: dict[str, _Fill] = {}
        self.rows = self.published = 0

    def add(self, server: Server, run_id: str, beat_us: int, state: SyncState | None, begun: SyncBegun | None) -> None:
        """A server that is there, and what is known of its run."""
        self._told[run_id] = SyncState(self._watermark_us, beat_us)
        buckets = self._store.servers.buckets_of(server)
        if state is None:
            self.fills[run_id] = fill = _Fill(buckets, begun)
            buckets = fill.done
        if known := state or begun:
            self._since_us = min(self._since_us, known.watermark_us)
        self._current += buckets

    async def publish_changed(self) -> None:
        """To the servers that are known, and to the others what changed of the buckets that they have got."""
        if not self._current:
            return
        since = _EPOCH + timedelta(microseconds=self._since_us, seconds=-SYNC_OVERLAP_S)
        position = since, 0
        while True:
            rows = await self._database.fetch(_CHANGED, *position, self._current, SYNC_CHUNK)
            await self._publish(rows)
            if len(rows) < SYNC_CHUNK:
                return
            position = rows[-1]["changed_at"], rows[-1]["user_id"]

    async def save(self, before: Mapping[str, SyncState | SyncBegun], *, all_there: bool) -> None:
        """Say so, to the runs it began with: a server that restarted meanwhile gets everything again."""
        # A run that is replaced may be back with what the one in its place has lost: it is new then. One of a server
        # that does not answer may be back as it was.
        stale_us = self._watermark_us - FORGET_RUNS_S * 1_000_000
        absent = [run_id for run_id in before if run_id not in self._told]
        ended = [run_id for run_id in absent if all_there or before[run_id].watermark_us < stale_us]
        current = {run_id: state for run_id, state in self._told.items() if run_id not in self.fills}
        await self._store.save_sync_states(current, ended)

    async def publish_missing(self) -> None:
        """Go on with the servers that are new, a bucket at least."""
        ends_s = time.monotonic() + ROUND_S
        for run_id, fill in self.fills.items():
            while fill.missing:
                await self._publish_all_of(fill.missing[0])
                fill.done.append(fill.missing.pop(0))
                await self._store.save_sync_begun(run_id, SyncBegun(self._watermark_us, fill.done))
                if fill.missing and time.monotonic() >= ends_s:
                    return
            await self._store.save_sync_states({run_id: self._told[run_id]})

    async def _publish_all_of(self, bucket: int) -> None:
        last = 0
        while True:
            rows = await self._database.fetch(_OF_BUCKET, bucket, last, SYNC_CHUNK)
            await self._publish(rows)
            if len(rows) < SYNC_CHUNK:
                return
            last = rows[-1]["user_id"]

    async def _publish(self, rows: Sequence[Any]) -> None:
        self.published += await self._store.publish_sessions(entry_of(row) for row in rows)
        self.rows += len(rows)


def entry_of(row: Any) -> Entry:
    """The session that a row of `sessions` is."""
    reason = "revoked" if row["revoked"] else "expired" if row["expired"] else ""
    return Entry(row["user_id"], row["version"], row["expires_ms"], row["token_digest"], reason)
