"""Snapshot and restore: the counters of Redis kept in PostgreSQL, and given back when Redis lost them.

Of each bucket the totals of all time and of the hours and days that are kept, and the sketch of its callers.
"""

import secrets
from contextlib import suppress
from typing import Any

import msgspec

from models.counters import Counters, Drained, set_of
from models.database import BATCH_DEADLINE_S, Database, load_sql
from models.keys import BUCKETS
from models.windows import Window, kept_at

CHUNK = 128
EXPIRE_BATCH = 1_000

_LOCK_CLASS = 0x67617465  # 'gate'
_LOCK_BUCKET = load_sql("lock_bucket")
_UPSERT_TOTALS = load_sql("upsert_call_totals")
_UPSERT_WINDOWS = load_sql("upsert_call_windows")
_UPSERT_SKETCH = load_sql("upsert_caller_sketch")
_READ_TOTALS = load_sql("read_call_totals")
_READ_WINDOWS = load_sql("read_call_windows")
_READ_SKETCH = load_sql("read_caller_sketch")
_READ_NUMBERS = load_sql("read_snapshot_numbers")
_DELETE_WINDOWS = load_sql("delete_old_windows")


class _Emptied(Exception):
    """Redis lost the counters while a snapshot read them."""


class Snapshot(msgspec.Struct, frozen=True):
    """What one snapshot did."""

    buckets: int
    users: int


class Restored(msgspec.Struct, frozen=True):
    """What one restore did.

    Args:
        users: totals that were restored, those of an hour and of a day each on its own.
    """

    buckets: int
    users: int


class Snapshots:
    """What keeps the counters from being lost with Redis."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = counters

    async def take(self) -> Snapshot:
        """Copy the totals that changed since the last snapshot, and the sketches beside them, into PostgreSQL."""
        users = []
        for bucket in range(BUCKETS):
            with suppress(_Emptied):
                users.append(await self._snapshot_bucket(bucket))
        return Snapshot(sum(1 for count in users if count), sum(users))

    async def _snapshot_bucket(self, bucket: int) -> int:
        nonce = secrets.token_hex(8)
        await self._counters.fold_bucket(bucket)
        async with self._database.transaction() as connection:
            # A bucket that somebody else snapshots or restores right now is theirs.
            if not await connection.fetchval(_LOCK_BUCKET, _LOCK_CLASS, bucket):
                return 0
            stored = await connection.fetchrow(_READ_SKETCH, bucket)
            if await self._counters.drain_dirty(bucket, nonce, stored["snapshot"] if stored else 0) <= 0:
                return 0
            users = 0
            async for drained in self._counters.drained(bucket, CHUNK):
                await _store(connection, drained)
                users += len(drained.totals)
            # A sketch replaces the one before: never by that of a Redis emptied meanwhile. Nor may the totals be kept
            # alone: a user restored with a total but missing in the sketch would not be put into it by later calls.
            sketch = await self._counters.sketch(bucket, nonce)
            if sketch is None:
                raise _Emptied
            number = await connection.fetchval(_UPSERT_SKETCH, bucket, sketch)
        # After the commit: a crash between the two repeats the drain, and absolute values make that harmless.
        await self._counters.finish_drain(bucket, nonce, number)
        return users

    async def restore(self) -> Restored:
        """Give the buckets that lost their counters the stored ones back, added to what was counted since.

        A Redis that came back as an older copy of itself knows its counters by an older snapshot than the last: its
        totals are raised to the stored ones, and its sketches joined with them.
        """
        stored = {row["bucket"]: row["snapshot"] for row in await self._database.fetch(_READ_NUMBERS)}
        held = enumerate(await self._counters.snapshot_numbers())
        older = [bucket for bucket, number in held if number is None or number < stored.get(bucket, 0)]
        users = [await self._restore_bucket(bucket) for bucket in older]
        return Restored(len(users), sum(users))

    async def _restore_bucket(self, bucket: int) -> int:
        nonce = secrets.token_hex(8)
        # What an older copy of Redis had not folded yet is in the stored totals already: added after they were raised
        # to these, it would count twice.
        await self._counters.fold_bucket(bucket)
        windows: list[Window | None] = [None, *kept_at(await self._counters.now_us())]
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_LOCK_BUCKET, _LOCK_CLASS, bucket):
                return 0
            stored = await connection.fetchrow(_READ_SKETCH, bucket)
            sketch, number = (stored["sketch"], stored["snapshot"]) if stored else (b"", 0)
            position = await self._counters.begin_restore(bucket, nonce, number)
            if not position:
                return 0
            begun, users = position.partition(":")[0], 0
            for window in (window for window in windows if set_of(window) >= begun):
                last = int(position.partition(":")[2]) if set_of(window) == begun else 0
                while rows := await _stored(connection, bucket, window, last):
                    position = await self._counters.restore_totals(bucket, nonce, position, window, rows)
                    if not position:
                        return users
                    last, users = rows[-1][0], users + len(rows)
            await self._counters.finish_restore(bucket, nonce, position, sketch, number)
        return users

    async def expire_windows(self) -> int:
        """Delete the stored hours and days that are kept no longer; returns how many rows."""
        deleted = 0
        while True:
            batch = len(await self._database.fetch(_DELETE_WINDOWS, EXPIRE_BATCH, deadline_s=BATCH_DEADLINE_S))
            deleted += batch
            if batch < EXPIRE_BATCH:
                return deleted


async def _store(connection: Any, drained: Drained) -> None:
    await connection.execute(_UPSERT_TOTALS, *_columns(drained.totals))
    for window, rows in drained.windows.items():
        await connection.execute(_UPSERT_WINDOWS, window.starts_at, window.hours, *_columns(rows))


async def _stored(connection: Any, bucket: int, window: Window | None, last: int) -> list[tuple[int, int]]:
    """The next page of stored totals."""
    if window is None:
        rows = await connection.fetch(_READ_TOTALS, bucket, last, CHUNK)
    else:
        rows = await connection.fetch(_READ_WINDOWS, window.starts_at, window.hours, bucket, last, CHUNK)
    return [tuple(row) for row in rows]


def _columns(rows: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [user_id for user_id, _ in rows], [calls for _, calls in rows]
