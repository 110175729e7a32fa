"""Calls of an hour and of a day: counted in the same round trip, forgotten in time, kept and restored as the totals."""

import asyncio
import hashlib
from collections import Counter
from contextlib import nullcontext, suppress
from typing import Any
from unittest.mock import patch

import pytest

from models import database, lua, snapshots
from models.connections import Stores
from models.counters import FOLD_CHUNK, Counters
from models.keys import bucket_key, bucket_of, totals_key
from models.link import pack
from models.lua import Script
from models.windows import HOUR_US, Window, current, kept_at, windows_of
from tests.conftest import RawRedis

PERIODS = ("hour", "day", "all")


@pytest.fixture
async def caller(stores: Stores) -> tuple[int, str]:
    """A user with a session, on whole counters."""
    await stores.snapshots.restore()
    user_id = await stores.accounts.add("ada", "password")
    return user_id, await stores.sessions.start(user_id)


async def count(stores: Stores, user_id: int, calls: dict[int, int]) -> None:
    """Calls of a user by hour, as a process counts late those that it admitted while Redis was away."""
    await stores.store.add_calls(bucket_of(user_id), [(f"{user_id}:{hour}", n) for hour, n in calls.items()])


async def tops(stores: Stores) -> list[list[tuple[int, int]]]:
    return [await stores.usage.top(period) for period in PERIODS]  # type: ignore[arg-type]


async def test_a_call_counts_in_its_hour_its_day_and_for_all_time(
    stores: Stores, caller: tuple[int, str], hour: int
) -> None:
    user_id, token = caller
    assert await tops(stores) == [[], [], []]
    for _ in range(3):
        assert (await stores.usage.admit(token)).admitted
    assert await tops(stores) == [[(user_id, 3)]] * 3
    assert [await stores.usage.count_callers(period) for period in PERIODS] == [1, 1, 1]  # type: ignore[arg-type]


async def test_calls_of_other_hours_and_days_are_kept_apart(stores: Stores, caller: tuple[int, str], hour: int) -> None:
    """Also late ones: a call belongs to the hour in which it was admitted."""
    yesterday = (hour // 24 - 1) * 24
    await count(stores, 7, {hour: 1, hour - 1: 2, yesterday: 4, hour - 24 * 30: 8})
    this_day = 3 if (hour - 1) // 24 == hour // 24 else 1
    assert await tops(stores) == [[(7, 1)], [(7, this_day)], [(7, 15)]]
    before = await stores.store.counters.top(10, Window("d", hour // 24 - 1))
    assert before == [(7, 4 + 3 - this_day)]
    # Whoever called a month ago counts for all time and has no window any more.
    assert await stores.store.counters.top(10, Window("h", hour - 24 * 30)) == []


async def test_windows_end_by_themselves_as_long_after_their_end_as_they_lasted(
    stores: Stores, redis: RawRedis, caller: tuple[int, str], hour: int
) -> None:
    await count(stores, 7, {hour: 1, hour - 1: 1, hour - 2: 1})
    await stores.store.counters.fold()
    ends = {key: await redis.pexpiretime(key) async for key in redis.scan_iter("gate:{7}:totals:*")}
    expected = [Window("h", hour), Window("h", hour - 1), *{windows_of(h)[1] for h in (hour, hour - 1, hour - 2)}]
    assert ends == {totals_key(7, window.name): window.keep_until_ms for window in expected}
    assert Window("h", hour).keep_until_ms == (hour + 2) * 3_600_000
    assert Window("d", hour // 24).keep_until_ms == (hour // 24 + 2) * 86_400_000


def test_the_kept_windows_are_this_and_the_last() -> None:
    now_us = 500_000 * HOUR_US + 1
    assert [window.name for window in kept_at(now_us)] == ["d20832", "d20833", "h499999", "h500000"]
    assert current("hour", now_us) == Window("h", 500_000)
    assert current("day", now_us) == Window("d", 20_833)
    assert current("all", now_us) is None


async def test_a_snapshot_keeps_the_windows_and_a_restore_adds_them_to_newer_calls(
    stores: Stores, redis: RawRedis, caller: tuple[int, str], hour: int
) -> None:
    user_id, token = caller
    await count(stores, user_id, {hour: 5, hour - 1: 3})
    await stores.snapshots.take()
    await redis.flushall()
    for _ in range(2):
        assert (await stores.usage.admit(token)).admitted
    await stores.snapshots.restore()
    this_day = 10 if (hour - 1) // 24 == hour // 24 else 7
    assert await tops(stores) == [[(user_id, 7)], [(user_id, this_day)], [(user_id, 10)]]
    assert await stores.store.counters.top(10, Window("h", hour - 1)) == [(user_id, 3)]
    assert await redis.pexpiretime(totals_key(bucket_of(user_id), f"h{hour}")) == Window("h", hour).keep_until_ms


@pytest.mark.usefixtures("few_buckets")
async def test_a_restore_that_died_in_any_chunk_goes_on_and_adds_nothing_twice(
    stores: Stores, redis: RawRedis, caller: tuple[int, str], hour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five users of one bucket, one a chunk, through the totals, the days and the hours."""
    monkeypatch.setattr(snapshots, "CHUNK", 1)
    users = [3 + 64 * number for number in range(5)]
    for user_id in users:
        await count(stores, user_id, {hour: 2, hour - 1: 1})
    await stores.snapshots.take()
    before = await tops(stores)
    lived = 0
    while not await outlives(stores, redis, chunks=lived):
        await stores.snapshots.restore()
        assert await tops(stores) == before
        lived += 1
    assert lived >= 15


async def outlives(stores: Stores, redis: RawRedis, chunks: int) -> bool:
    """Empty Redis and restore it with a worker that dies after so many chunks; whether it came to the end."""
    real, left = Counters.restore_totals, chunks

    async def dying(self: Counters, *args: Any) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise asyncio.CancelledError
        return await real(self, *args)

    await redis.flushall()
    with patch.object(Counters, "restore_totals", dying), suppress(asyncio.CancelledError):
        await stores.snapshots.restore()
    return left >= 0


async def test_old_windows_are_deleted_from_postgresql(stores: Stores, hour: int) -> None:
    rows = [
        (hour, 1, True),
        (hour - 1, 1, True),
        (hour - 2, 1, False),
        (hour // 24 * 24, 24, True),
        ((hour // 24 - 1) * 24, 24, True),
        ((hour // 24 - 2) * 24, 24, False),
    ]
    for start, hours, _ in rows:
        await stores.database.fetch(
            "INSERT INTO call_windows SELECT to_timestamp($1::float8), $2, n, 1 FROM generate_series(1, 3) AS n",
            start * 3600,
            hours,
        )
    with patch.object(database, "DELETE_BATCH", 2):
        assert await stores.snapshots.expire_windows() == 6
        assert await stores.snapshots.expire_windows() == 0
    kept = await stores.database.fetch(
        "SELECT extract(epoch FROM starts_at)::bigint / 3600 AS s, hours FROM call_windows"
    )
    assert Counter((row["s"], row["hours"]) for row in kept) == {(s, h): 3 for s, h, stays in rows if stays}


def with_a_late_delete() -> Script:
    """Folding that takes away what is pending in a step of its own, as a client without scripts would."""
    broken = Script("fold_calls")
    line = b"redis.call('HDEL', KEYS[1], unpack(done))"
    assert line in broken.text
    broken.text = broken.text.replace(line, b"redis.call('UNLINK', KEYS[1])")
    broken.sha = hashlib.sha1(broken.text).hexdigest()  # noqa: S324  # what EVALSHA takes
    broken.load = pack("SCRIPT", "LOAD", broken.text)
    return broken


@pytest.mark.parametrize("planted", [False, True], ids=["whole", "planted: takes away more than it folded"])
async def test_many_pending_calls_are_folded_once_however_many_fold(stores: Stores, hour: int, planted: bool) -> None:
    """More users than one chunk, folded by eight at once while their calls go on."""
    with patch.object(lua, "FOLD", with_a_late_delete()) if planted else nullcontext():
        sent, found, callers = await fold_while_calling(stores, hour)
    assert all(counted == sent for counted in found) is not planted
    if not planted:
        assert await stores.usage.count_callers("hour") == len(sent)
        assert abs(callers - len(sent)) <= len(sent) * 0.03


async def fold_while_calling(stores: Stores, hour: int) -> tuple[Counter[int], list[dict[int, int]], int]:
    """The calls that were sent, what each window and all time counted of them, and the estimate of their callers."""
    users = [5 + 64 * number for number in range(4 * FOLD_CHUNK)]
    sent: Counter[int] = Counter()

    async def keep_calling() -> None:
        for _ in range(6):
            for at in range(0, len(users), 100):
                chunk = users[at : at + 100]
                await stores.store.add_calls(5, [(f"{user_id}:{hour}", 1) for user_id in chunk])
                sent.update(chunk)

    await asyncio.gather(keep_calling(), *(stores.store.counters.fold_bucket(5) for _ in range(8)), keep_calling())
    await stores.store.counters.fold()
    windows = None, Window("h", hour), Window("d", hour // 24)
    found = [dict(await stores.store.counters.top(len(users), window)) for window in windows]
    return sent, found, await stores.usage.count_callers()


async def test_no_command_folds_more_than_a_chunk(stores: Stores, redis: RawRedis, hour: int) -> None:
    """A hash that is small enough to be kept in one piece is scanned whole by Redis, whatever it is asked for."""
    await redis.hset(bucket_key(5, "pending"), mapping={f"{5 + 64 * n}:{hour}": 1 for n in range(FOLD_CHUNK * 3)})
    left, folds = await redis.hlen(bucket_key(5, "pending")), 0
    real = stores.store.counters._scripts.run
    sizes = []

    async def counted(script: Script, keys: list[str], args: list[object]) -> object:
        nonlocal left, folds
        reply = await real(script, keys, args)
        now_left = await redis.hlen(keys[0])
        sizes.append(left - now_left)
        left = now_left
        return reply

    with patch.object(stores.store.counters._scripts, "run", counted):
        await stores.store.counters.fold_bucket(5)
    assert left == 0
    assert max(sizes) <= FOLD_CHUNK
