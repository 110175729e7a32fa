"""Resets: counters set to zero in both stores, so that no snapshot, restore or older copy of Redis brings them back.

A reset holds its bucket's lock and takes a number as a snapshot does. A Redis that comes back with a lower one is from
before the reset; what it counted is dropped (`begin_restore.lua`), and the stored totals take its place.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress

from models.counters import Counters
from models.database import Database, load_sql
from models.errors import StoreUnavailable
from models.events import LOCAL, record
from models.keys import BUCKETS, bucket_of
from models.snapshots import Snapshots, hold_bucket, stored_sketch

CHUNK = 1_000
"""Users of one bucket that are reset by one script."""

MAX_LOOKS, LOOK_S = 5, 0.1
"""How often it is looked whether a bucket's counters are whole, and the pause between."""

_DELETE_TOTALS = load_sql("delete_call_totals")
_DELETE_WINDOWS = load_sql("delete_call_windows")
_NUMBER = load_sql("number_reset")


class _NotWhole(StoreUnavailable):
    """A bucket's counters in Redis are older than the stored ones."""


class Resets:
    """What forgets calls.

    When one raises StoreUnavailable or leaves off half-way, the rest of the buckets is as it was, and a bucket may be
    zero in Redis alone: the same reset again finishes it.
    """

    def __init__(self, database: Database, counters: Counters, snapshots: Snapshots) -> None:
        self._database = database
        self._counters = counters
        self._snapshots = snapshots

    async def reset_all(self) -> AsyncIterator[int]:
        """Forget all calls of all users; yields each bucket when it is done."""
        for bucket in range(BUCKETS):
            await self._reset(bucket, None)
            yield bucket
        record("reset_usage", "done", LOCAL)

    async def reset_users(self, user_ids: Collection[int]) -> None:
        """Forget all calls of some users. The estimated number of callers of all time still has them."""
        # What is stored takes the place of an older Redis, so it has to be up to date for the other users.
        buckets = sorted({bucket_of(user_id) for user_id in user_ids})
        await self._snapshots.restore()
        await self._snapshots.settle(buckets)
        for bucket in buckets:
            users = [user_id for user_id in user_ids if bucket_of(user_id) == bucket]
            for at in range(0, len(users), CHUNK):
                await self._reset_when_whole(bucket, users[at : at + CHUNK])
        for user_id in user_ids:
            record("reset_usage", "done", LOCAL, user_id=user_id)

    async def _reset_when_whole(self, bucket: int, user_ids: Sequence[int]) -> None:
        # Between a snapshot's commit and its word to Redis a bucket seems to lack what it has.
        for _ in range(MAX_LOOKS - 1):
            with suppress(_NotWhole):
                return await self._reset(bucket, user_ids)
            await asyncio.sleep(LOOK_S)
        return await self._reset(bucket, user_ids)

    async def _reset(self, bucket: int, user_ids: Sequence[int] | None) -> None:
        async with self._database.transaction() as connection:
            await hold_bucket(connection, bucket, wait=True)
            _, before, _ = await stored_sketch(connection, bucket)
            await connection.execute(_DELETE_TOTALS, bucket, user_ids)
            await connection.execute(_DELETE_WINDOWS, bucket, user_ids)
            number = await connection.fetchval(_NUMBER, bucket, user_ids is None)
            # Redis before the commit: while the lock is held nobody can store what Redis had.
            if user_ids is None:
                await self._counters.reset_bucket(bucket, number)
            elif not await self._counters.reset_users(bucket, number, before, user_ids):
                raise _NotWhole("The counters were lost and are being restored; try again in a few seconds")
