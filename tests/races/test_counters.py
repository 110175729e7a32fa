"""Invariant 6: after any loss the counters come back to the snapshot at least, and later calls are added once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from models import snapshots
from models.connections import Stores
from models.counters import Counters, Drained
from models.keys import BUCKETS, bucket_key, bucket_of
from models.snapshots import Snapshots
from tests.conftest import RawRedis
from tests.redis_client import connect

USERS = 5


@pytest.fixture
async def tokens(stores: Stores) -> dict[int, str]:
    """Users with sessions, and whole counters."""
    await stores.snapshots.restore()
    users = [await stores.accounts.add(f"caller{number}", "password") for number in range(USERS)]
    return {user_id: await stores.sessions.start(user_id) for user_id in users}


async def call(stores: Stores, token: str, times: int = 1) -> None:
    for _ in range(times):
        assert (await stores.usage.admit(token)).admitted


async def stored_totals(stores: Stores) -> dict[int, int]:
    rows = await stores.database.fetch("SELECT user_id, calls FROM call_totals")
    return {row["user_id"]: row["calls"] for row in rows}


async def test_a_snapshot_holds_the_totals_and_costs_nothing_when_nothing_changed(
    stores: Stores, tokens: dict[int, str]
) -> None:
    for times, token in enumerate(tokens.values(), start=1):
        await call(stores, token, times)
    assert (await stores.snapshots.take()).users == USERS
    assert await stored_totals(stores) == dict(zip(tokens, range(1, USERS + 1), strict=True))
    assert (await stores.snapshots.take()).users == 0


async def test_flushall_in_the_middle_of_calls_loses_only_what_was_not_snapshotted(
    stores: Stores, tokens: dict[int, str], redis: RawRedis
) -> None:
    """Calls go on while Redis is emptied, snapshots and restores run; the counters end between snapshot and truth."""
    counted: Counter[int] = Counter()

    def all_called() -> bool:
        return min(counted[user_id] for user_id in tokens) > 20

    async with busy(stores, tokens, counted):
        for _ in range(3):
            await until(all_called)
            await stores.snapshots.take()
            safe = await stored_totals(stores)
            await redis.flushall()
            after = Counter(counted)
            counted.clear()
            await until(all_called)
            await whole(stores)
            since = Counter(counted)
            totals = dict(await stores.usage.top())
            for user_id in tokens:
                # One call can have been admitted before the loss, and answered after it.
                assert totals[user_id] >= safe[user_id] + since[user_id] - 1
            counted.update(after)
    await whole(stores)
    totals = dict(await stores.usage.top())
    assert all(totals[user_id] <= counted[user_id] for user_id in tokens), "no call is counted twice"
    await stores.snapshots.take()
    assert await stored_totals(stores) == totals


@asynccontextmanager
async def busy(stores: Stores, tokens: dict[int, str], counted: Counter[int]) -> AsyncIterator[None]:
    """Every user calls, and two workers restore and snapshot, without a pause; answered calls are counted."""
    stop = asyncio.Event()

    async def keep_calling(user_id: int, token: str) -> None:
        while not stop.is_set():
            await call(stores, token)
            counted[user_id] += 1

    async def keep_working() -> None:
        while not stop.is_set():
            await stores.snapshots.restore()
            await stores.snapshots.take()

    async with asyncio.TaskGroup() as tasks:
        for user in tokens.items():
            tasks.create_task(keep_calling(*user))
        for _ in range(2):
            tasks.create_task(keep_working())
        try:
            yield
        finally:
            stop.set()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def whole(stores: Stores) -> None:
    async with asyncio.timeout(10):
        while None in await stores.store.counters.snapshot_numbers():
            await stores.snapshots.restore()


async def test_two_restorers_and_one_that_died_add_each_total_once(
    stores: Stores, tokens: dict[int, str], redis: RawRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "CHUNK", 1)
    # Five users of one bucket, so that a restore has several chunks to be interrupted between.
    await stores.database.fetch("INSERT INTO call_totals SELECT 1 + n * 64, 10, now() FROM generate_series(0, 4) AS n")
    await redis.flushall()
    died = Snapshots(stores.database, cast(Counters, _DyingCounters(stores.store.counters, 3)))
    with pytest.raises(RuntimeError):
        await died.restore()
    await asyncio.gather(stores.snapshots.restore(), stores.snapshots.restore())
    await whole(stores)
    assert await stores.usage.top() == [(1 + n * 64, 10) for n in range(5)]


class _DyingCounters:
    """The real counters in a worker that dies after some chunks."""

    def __init__(self, counters: Counters, chunks: int) -> None:
        self._counters, self._chunks = counters, chunks

    def __getattr__(self, name: str) -> object:
        return getattr(self._counters, name)

    async def restore_totals(self, *args: Any) -> str:
        self._chunks -= 1
        if self._chunks < 0:
            raise RuntimeError
        return await self._counters.restore_totals(*args)


async def test_without_the_cursor_a_second_restore_would_count_twice(stores: Stores, redis: RawRedis) -> None:
    """The planted variant: the chunk is added whatever the cursor says."""
    for _ in range(2):
        await redis.set(bucket_key(1, "cursor"), "mine:all:0")
        assert await stores.store.counters.restore_totals(1, "mine", "all:0", None, [(1, 10)])
    assert await stores.usage.top() == [(1, 20)]
    assert not await stores.store.counters.restore_totals(1, "mine", "all:0", None, [(1, 10)])
    assert await stores.usage.top() == [(1, 20)]


async def test_a_snapshot_of_a_bucket_that_is_not_whole_waits_for_the_restore(
    stores: Stores, tokens: dict[int, str], redis: RawRedis
) -> None:
    """Otherwise its users would no longer be dirty when their totals come back, and a second loss would take them."""
    user_id, token = next(iter(tokens.items()))
    await call(stores, token, 5)
    await stores.snapshots.take()
    await redis.flushall()
    await call(stores, token, 2)
    assert (await stores.snapshots.take()).users == 0
    await stores.snapshots.restore()
    assert (await stores.snapshots.take()).users == 1
    assert (await stored_totals(stores))[user_id] == 7


async def test_a_snapshot_that_stopped_half_way_is_finished_by_the_next(stores: Stores, tokens: dict[int, str]) -> None:
    user_id, token = next(iter(tokens.items()))
    await call(stores, token, 3)
    await stores.store.counters.fold()
    assert await stores.store.counters.drain_dirty(bucket_of(user_id), "a worker that died", 0) == 1
    await call(stores, token)
    await stores.snapshots.take()
    assert (await stored_totals(stores))[user_id] == 4
    assert not await stores.store.counters.finish_drain(bucket_of(user_id), "a worker that died", 1)


async def test_the_sketch_comes_back_with_the_totals(stores: Stores, tokens: dict[int, str], redis: RawRedis) -> None:
    for token in tokens.values():
        await call(stores, token)
    await stores.snapshots.take()
    sketches = [await redis.strlen(bucket_key(bucket, "callers")) for bucket in range(BUCKETS)]
    await redis.flushall()
    assert await stores.usage.count_callers() == 0
    await stores.snapshots.restore()
    assert await stores.usage.count_callers() == USERS
    await stores.usage.count_callers()
    assert [await redis.strlen(bucket_key(bucket, "callers")) for bucket in range(BUCKETS)] == sketches


async def test_a_redis_emptied_during_a_snapshot_does_not_take_the_stored_sketch(
    stores: Stores, tokens: dict[int, str], redis: RawRedis
) -> None:
    for token in tokens.values():
        await call(stores, token)
    await stores.snapshots.take()
    for token in tokens.values():
        await call(stores, token)
    await Snapshots(stores.database, cast(Counters, _EmptiedCounters(stores.store.counters, redis))).take()
    await whole(stores)
    assert await stores.usage.count_callers() == USERS


async def test_totals_are_not_stored_without_the_sketch_that_belongs_to_them(
    stores: Stores, tokens: dict[int, str], redis: RawRedis
) -> None:
    """A restored user has a total, so later calls put them into no sketch: one who is missing there stays missing."""
    for token in tokens.values():
        await call(stores, token)
    await Snapshots(stores.database, cast(Counters, _EmptiedCounters(stores.store.counters, redis))).take()
    await whole(stores)
    for token in tokens.values():
        await call(stores, token)
    assert await stores.usage.count_callers() == len(await stores.usage.top()) == USERS


class _EmptiedCounters:
    """The real counters, whose Redis loses everything once a snapshot has read the totals."""

    def __init__(self, counters: Counters, redis: RawRedis) -> None:
        self._counters, self._redis = counters, redis

    def __getattr__(self, name: str) -> object:
        return getattr(self._counters, name)

    async def drained(self, bucket: int, chunk: int) -> AsyncIterator[Drained]:
        async for drained in self._counters.drained(bucket, chunk):
            yield drained
        await self._redis.flushall()


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "planted: any copy passes for whole"])
async def test_an_older_copy_of_the_counters_is_raised_to_the_stored_ones(
    stores: Stores, tokens: dict[int, str], redis: RawRedis, numbered: bool
) -> None:
    """Redis comes back from an older file: stored totals and sketches must survive it, also the next snapshot."""
    early, *late = tokens.items()
    await call(stores, early[1], 3)
    await stores.snapshots.take()
    older = {key: await redis.dump(key) for key in await redis_keys(stores) if b"ready" not in key or numbered}
    await call(stores, early[1], 4)
    for _, token in late:
        await call(stores, token)
    await stores.snapshots.take()
    for key in await redis_keys(stores):
        if numbered or b"ready" not in key:
            await redis.delete(key)
    for key, dumped in older.items():
        await redis.restore(key, 0, dumped)
    await call(stores, early[1], 2)
    await stores.snapshots.take()
    await stores.snapshots.restore()
    await stores.snapshots.restore()
    assert (dict(await stores.usage.top()).get(early[0], 0) >= 7) is numbered
    assert (await stores.usage.count_callers() == USERS) is numbered
    if numbered:
        await call(stores, early[1])
        await stores.snapshots.take()
        await redis.flushall()
        await whole(stores)
        assert dict(await stores.usage.top())[early[0]] >= 8
        assert await stores.usage.count_callers() == USERS


async def redis_keys(stores: Stores) -> list[bytes]:
    async with connect(stores.settings.redis_url) as client:
        return [key async for key in client.scan_iter() if b"totals" in key or b"callers" in key or b"ready" in key]
