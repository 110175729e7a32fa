"""Publishing what changed in PostgreSQL's sessions to Redis: what the worker does each second.

It ends every race that the fence alone leaves open: a login whose publication was lost, a tombstone that was evicted
before a slow reader published the session it had ended. A server that restarted, failed over or joined gets everything.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from models.database import Database, load_sql
from models.errors import RedisAway, StoreUnavailable
from models.keys import BUCKETS
from models.records import Entry, Run, SyncState
from models.servers import Server
from models.store import Store

SYNC_OVERLAP_S = 30
"""How far a sync looks back behind the last one: more than the deadlines of a change and of its publication."""

FORGET_RUNS_S = 3_600
"""How long the sync remembers runs of servers while one fails: it may be one of them."""

ROUND_S = 5.0
"""For how long everything is published to new servers before it is the turn of what changed."""

SYNC_CHUNK = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CHANGED = load_sql("changed_sessions")
_OF_BUCKET = load_sql("sessions_of_bucket")


class Synced(msgspec.Struct, frozen=True):
    """What one sync did.

    Args:
        full: whether a server was new, because Redis restarted, failed over or was emptied, and got all that it lacked.
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
        servers, states = await store.servers.masters(), await store.sync_states()
        identities = await asyncio.gather(*(store.identity(it.jobs) for it in servers), return_exceptions=True)
        now = (await database.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
        round_ = _Round(database, store, (now - _EPOCH) // timedelta(microseconds=1))
        for server, identity in zip(servers, identities, strict=True):
            # What a server that is away should have got waits, as its watermark does; the others do not wait for it.
            if isinstance(identity, BaseException) or server.closed:
                round_.fail(identity if isinstance(identity, BaseException) else RedisAway())
            else:
                round_.add(server, identity, states.get(identity.id))
        await round_.publish_changed()
        await round_.save(states)
        await round_.publish_missing()
        done = Synced(done.rows + round_.rows, done.published + round_.published, done.full or round_.full)
        if round_.failures:
            raise round_.failures[0]
        if not round_.is_missing:
            return done


class _Receiver:
    """A run of a server, and which of its buckets have been published to it."""

    def __init__(self, server: Server, run: Run, state: SyncState | None) -> None:
        self.server, self.run, self.state = server, run, state
        self.done: list[int] = []
        self.missing: list[int] = []
        self.failed = False

    def own(self, buckets: Iterable[int]) -> None:
        """These are its own."""
        for bucket in buckets:
            is_done = self.state and (self.state.buckets is None or bucket in self.state.buckets)
            (self.done if is_done else self.missing).append(bucket)

    def state_at(self, watermark_us: int) -> SyncState:
        # One that has got everything is not new because a slot has moved to it, with what is in it.
        is_whole = not self.missing or bool(self.state and self.state.beat_us)
        return SyncState(watermark_us, self.run.now_us if is_whole else 0, self.done)

    @property
    def is_another(self) -> bool:
        """Whether the connection leads elsewhere by now, so that nobody knows who got what was sent."""
        return self.server.jobs.generation != self.run.generation


class _Round:
    """Once what changed, and for a while what is missing.

    Args:
        watermark_us: PostgreSQL's time, from before anything is read.
    """

    def __init__(self, database: Database, store: Store, watermark_us: int) -> None:
        self._database = database
        self._store = store
        self._watermark_us = watermark_us
        self._receivers: dict[str, _Receiver] = {}
        self.failures: list[BaseException] = []
        self.rows = self.published = 0
        self.full = False

    @property
    def is_missing(self) -> bool:
        """Whether a server lacks something that it could get."""
        return any(it.missing for it in self._there())

    def add(self, server: Server, run: Run, state: SyncState | None) -> None:
        """A server that is there, and what is known of its run."""
        # Two addresses may lead to the same one.
        receiver = self._receivers.setdefault(run.id, _Receiver(server, run, state))
        receiver.own(self._store.servers.buckets_of(server))
        self.full |= bool(receiver.missing) or state is None

    def fail(self, error: BaseException, receiver: _Receiver | None = None) -> None:
        """One did not answer, or did not take what it was sent; the others go on without it.

        Raises:
            BaseException: it is no outage.
        """
        if not isinstance(error, StoreUnavailable):
            raise error
        self.failures.append(error)
        if receiver:
            receiver.failed = True

    def _there(self) -> list[_Receiver]:
        for receiver in self._receivers.values():
            if receiver.is_another and not receiver.failed:
                self.fail(RedisAway(), receiver)
        return [it for it in self._receivers.values() if not it.failed]

    async def publish_changed(self) -> None:
        """To each server what changed of the buckets that it has got."""
        buckets = {bucket: receiver for receiver in self._there() for bucket in receiver.done}
        since_us = min((it.state.watermark_us for it in buckets.values() if it.state), default=self._watermark_us)
        position = _EPOCH + timedelta(microseconds=since_us, seconds=-SYNC_OVERLAP_S), 0
        while buckets:
            rows = await self._database.fetch(_CHANGED, *position, list(buckets), SYNC_CHUNK)
            self.rows += len(rows)
            entries: dict[str, list[Entry]] = {}
            for row in rows:
                entries.setdefault(buckets[row["user_id"] % BUCKETS].run.id, []).append(entry_of(row))
            await asyncio.gather(*(self._publish(self._receivers[run_id], its) for run_id, its in entries.items()))
            if len(rows) < SYNC_CHUNK:
                return
            position = rows[-1]["changed_at"], rows[-1]["user_id"]
            buckets = {bucket: receiver for bucket, receiver in buckets.items() if not receiver.failed}

    async def save(self, before: Mapping[str, SyncState]) -> None:
        """Say so, to the runs it began with: a server that restarted meanwhile gets everything again."""
        # A run that is replaced may be back with what the one in its place has lost: it is new then. One of a server
        # that does not answer may be back as it was.
        stale_us = self._watermark_us - FORGET_RUNS_S * 1_000_000
        absent = {run_id: state for run_id, state in before.items() if run_id not in self._receivers}
        ended = [
            run_id
            for run_id, state in absent.items()
            if not self.failures or not state.beat_us or state.watermark_us < stale_us
        ]
        await self._store.save_sync_states({it.run.id: it.state_at(self._watermark_us) for it in self._there()}, ended)

    async def publish_missing(self) -> None:
        """Go on with the servers that are new, a bucket at least."""
        ends_s = time.monotonic() + ROUND_S
        for receiver in self._there():
            while receiver.missing and not receiver.failed:
                await self._publish_all_of(receiver, receiver.missing[0])
                if receiver not in self._there():
                    break
                receiver.done.append(receiver.missing.pop(0))
                await self._store.save_sync_states({receiver.run.id: receiver.state_at(self._watermark_us)})
                if time.monotonic() >= ends_s:
                    return

    async def _publish_all_of(self, receiver: _Receiver, bucket: int) -> None:
        last = 0
        while not receiver.failed:
            rows = await self._database.fetch(_OF_BUCKET, bucket, last, SYNC_CHUNK)
            self.rows += len(rows)
            await self._publish(receiver, [entry_of(row) for row in rows])
            if len(rows) < SYNC_CHUNK:
                return
            last = rows[-1]["user_id"]

    async def _publish(self, receiver: _Receiver, entries: Sequence[Entry]) -> None:
        try:
            published = await self._store.publish_sessions(entries)
        except StoreUnavailable as error:
            self.fail(error, receiver)
        else:
            self.published += published  # after the wait: others add to it meanwhile


def entry_of(row: Any) -> Entry:
    """The session that a row of `sessions` is."""
    reason = "revoked" if row["revoked"] else "expired" if row["expired"] else ""
    return Entry(row["user_id"], row["version"], row["expires_ms"], row["token_digest"], reason)
