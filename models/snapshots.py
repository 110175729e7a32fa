"""Snapshot and restore: the counters of Redis kept in PostgreSQL, and given back when Redis lost them.

Of each bucket the totals of all time and of the hours and days that are kept, and the sketch of its callers.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from models.counters import Counters, Drained, set_of
from models.database import Database, load_sql
from models.errors import RedisAway
from models.keys import BUCKETS
from models.windows import Window, kept_at

T = TypeVar("T")

CHUNK = 128
SNAPSHOTS_AT_ONCE = 4
"""Buckets that are snapshotted side by side: most of it is PostgreSQL's work, each on a connection of its own."""

MAX_ROUNDS = 3
"""Snapshots of a bucket until nothing is left: that of a worker that died, what waited behind it, what came since."""

_LOCK_CLASS = 0x67617465  # 'gate'
_LOCK_BUCKET = load_sql("lock_bucket")
_AWAIT_BUCKET = load_sql("await_bucket")
_UPSERT_TOTALS = load_sql("upsert_call_totals")
_UPSERT_WINDOWS = load_sql("upsert_call_windows")
_UPSERT_SKETCH = load_sql("upsert_caller_sketch")
_READ_TOTALS = load_sql("read_call_totals")
_READ_WINDOWS = load_sql("read_call_windows")
_READ_SKETCH = load_sql("read_caller_sketch")
_READ_AGE = load_sql("snapshot_age")
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
        # One after the other: sent to Redis together, a call of the gate would wait for all of them.
        self._folding = asyncio.Lock()

    async def take(self) -> Snapshot:
        """Copy the totals that changed since the last snapshot, and the sketches beside them, into PostgreSQL."""
        users = await self._of_each(range(BUCKETS), self._snapshot_bucket, SNAPSHOTS_AT_ONCE)
        return Snapshot(sum(1 for count in users if count), sum(users))

    async def _of_each(self, buckets: Iterable[int], work: Callable[[int], Awaitable[T]], at_once: int = 1) -> list[T]:
        """What became of each bucket; those of a server that is away hold up no others, and are told at the end.

        Args:
            at_once: how many are worked on side by side.

        Raises:
            StoreUnavailable: as of one that could not be done.
        """
        done: list[T] = []
        away: list[Exception] = []
        broken: list[Exception] = []
        turns = asyncio.Semaphore(at_once)

        async def do(bucket: int) -> None:
            async with turns:
                if broken:
                    return
                try:
                    self._counters.expect(bucket)
                    with suppress(_Emptied):
                        done.append(await work(bucket))
                except RedisAway as error:
                    away.append(error)
                except Exception as error:
                    broken.append(error)

        await asyncio.gather(*map(do, buckets))
        for error in broken + away:
            raise error
        return done

    async def settle(self, buckets: Iterable[int]) -> None:
        """Have in PostgreSQL every call that these buckets had counted before, also behind another's snapshot."""
        for bucket in buckets:
            with suppress(_Emptied):
                for _ in range(MAX_ROUNDS):
                    if not await self._snapshot_bucket(bucket, wait=True):
                        break

    async def _snapshot_bucket(self, bucket: int, *, wait: bool = False) -> int:
        nonce = secrets.token_hex(8)
        async with self._folding:
            await self._counters.fold_bucket(bucket)
        led_by = self._counters.connection_of(bucket)
        async with self._database.transaction() as connection:
            # A bucket that somebody else snapshots or restores right now is theirs.
            if not await hold_bucket(connection, bucket, wait=wait):
                return 0
            _, stored, _ = await stored_sketch(connection, bucket)
            if await self._counters.drain_dirty(bucket, nonce, stored) <= 0:
                return 0
            users = 0
            async for drained in self._counters.drained(bucket, CHUNK):
                await _store(connection, drained)
                users += len(drained.totals)
            # A sketch replaces the one before: never by that of a Redis emptied meanwhile. Nor may the totals be kept
            # alone: a user restored with a total but missing in the sketch would not be put into it by later calls.
            sketch = await self._counters.sketch(bucket, nonce)
            # A replica that took over meanwhile may lack what was read from its master.
            if sketch is None or led_by != self._counters.connection_of(bucket):
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
        stored = await self._numbers()

        async def restore(bucket: int) -> int | None:
            held = await self._counters.snapshot_number(bucket)
            return await self._restore_bucket(bucket) if _is_lost(held, stored.get(bucket, 0)) else None

        users = [count for count in await self._of_each(range(BUCKETS), restore) if count is not None]
        return Restored(len(users), sum(users))

    async def lost(self) -> list[int]:
        """The buckets whose counters Redis has lost, or has older ones of than were stored."""
        stored = await self._numbers()
        held = enumerate(await self._counters.snapshot_numbers())
        return [bucket for bucket, number in held if _is_lost(number, stored.get(bucket, 0))]

    async def _numbers(self) -> dict[int, int]:
        """Of each stored bucket the number of its last snapshot."""
        return {row["bucket"]: row["snapshot"] for row in await self._database.fetch(_READ_NUMBERS)}

    async def backlog(self) -> int:
        """How many users' hours have calls that no snapshot has."""
        return (await self._counters.backlog())[0]

    async def age_s(self) -> float | None:
        """Seconds since a snapshot last stored something or found nothing to store; None when there was none."""
        stored_s = (await self._database.fetch(_READ_AGE))[0]["age_s"]
        tried_s = (await self._counters.backlog())[1]
        return min((age_s for age_s in (stored_s, tried_s) if age_s is not None), default=None)

    async def _restore_bucket(self, bucket: int) -> int:
        nonce = secrets.token_hex(8)
        # What an older copy of Redis had not folded yet is in the stored totals already: added after they were raised
        # to these, it would count twice.
        await self._counters.fold_bucket(bucket)
        windows: list[Window | None] = [None, *kept_at(await self._counters.now_us(bucket))]
        async with self._database.transaction() as connection:
            if not await hold_bucket(connection, bucket):
                return 0
            sketch, number, reset = await stored_sketch(connection, bucket)
            position = await self._counters.begin_restore(bucket, nonce, number, reset)
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

    async def raise_counters(self) -> None:
        """Raise the totals in Redis to the stored ones, where an import has stored more than was counted.

        Raises:
            StoreUnavailable: the counters of a bucket are not whole yet; do it again.
        """
        await self.restore()
        for bucket in range(BUCKETS):
            async with self._database.transaction() as connection:
                last = 0
                while rows := await _stored(connection, bucket, None, last):
                    await self._counters.raise_totals(bucket, rows)
                    last = rows[-1][0]

    async def expire_windows(self) -> int:
        """Delete the stored hours and days that are kept no longer; returns how many rows."""
        return await self._database.delete_in_batches(_DELETE_WINDOWS)


def _is_lost(held: int | None, stored: int) -> bool:
    """Whether counters that know of so many snapshots, or are not whole, lack what was stored."""
    return held is None or held < stored


async def hold_bucket(connection: Any, bucket: int, *, wait: bool = False) -> bool:
    """Keep a bucket's snapshots, restores and resets to this transaction; returns whether that could be had."""
    if wait:
        await connection.execute(_AWAIT_BUCKET, _LOCK_CLASS, bucket)
        return True
    return bool(await connection.fetchval(_LOCK_BUCKET, _LOCK_CLASS, bucket))


async def stored_sketch(connection: Any, bucket: int) -> tuple[bytes, int, int]:
    """A bucket's stored HyperLogLog, the number of its last snapshot and that of its last reset."""
    row = await connection.fetchrow(_READ_SKETCH, bucket)
    return (row["sketch"], row["snapshot"], row["reset"]) if row else (b"", 0, 0)


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
