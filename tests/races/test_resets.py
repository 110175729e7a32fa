"""Resets against snapshots, restores and older copies of Redis: what was set to zero stays so, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from models import resets
from models.connections import Stores
from models.counters import Counters
from models.keys import BUCKETS, bucket_of
from models.resets import Resets
from models.snapshots import Snapshots
from tests.conftest import RawRedis

CALLS = 3
BUCKET = 7

pytestmark = pytest.mark.usefixtures("few_buckets", "hour")


@pytest.fixture
async def neighbours(stores: Stores) -> dict[int, str]:
    """Three users of one bucket, whose calls are stored, with one more call each that is not; and their tokens."""
    await stores.snapshots.restore()
    ids = [BUCKETS * number + BUCKET for number in range(1, 4)]
    await stores.database.fetch(
        "INSERT INTO users (id, username, username_key, password_hash, created_at)"
        " SELECT id, 'user' || id, 'user' || id, '', now() FROM unnest($1::bigint[]) AS id",
        ids,
    )
    tokens = {user_id: await stores.sessions.start(user_id) for user_id in ids}
    for token in tokens.values():
        await call(stores, token, CALLS - 1)
    await stores.snapshots.take()
    for token in tokens.values():
        await call(stores, token)
    return tokens


async def call(stores: Stores, token: str, times: int = 1) -> None:
    for _ in range(times):
        assert (await stores.usage.admit(token)).admitted


async def everywhere(stores: Stores, redis: RawRedis) -> list[dict[int, int]]:
    """The totals now, after a snapshot, and after a loss of Redis; of all time, the hour and the day."""
    seen = []
    for lose in (False, False, True):
        if lose:
            await redis.flushall()
            await stores.snapshots.restore()
        seen += [dict(await stores.usage.top("all")), dict(await stores.usage.top("hour"))]
        seen += [dict(await stores.usage.top("day"))]
        await stores.snapshots.take()
    return seen


class Held:
    """The real counters, of which a snapshot waits until it is let go.

    Args:
        step: `sketch`, when it has read everything; or `finish_drain`, when it has stored everything.
    """

    def __init__(self, counters: Counters, step: str) -> None:
        self._counters, self._step = counters, step
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counters, name)

    async def sketch(self, bucket: int, nonce: str) -> bytes | None:
        sketch = await self._counters.sketch(bucket, nonce)
        await self._hold("sketch")
        return sketch

    async def finish_drain(self, bucket: int, nonce: str, snapshot: int) -> bool:
        await self._hold("finish_drain")
        return await self._counters.finish_drain(bucket, nonce, snapshot)

    async def _hold(self, step: str) -> None:
        if step == self._step:
            self.reached.set()
            await self.go_on.wait()


@asynccontextmanager
async def snapshot_held_at(stores: Stores, step: str) -> AsyncIterator[None]:
    """A snapshot that has come as far as this step, and goes on at the end."""
    held = Held(stores.store.counters, step)
    taking = asyncio.create_task(Snapshots(stores.database, cast(Counters, held)).take())
    try:
        async with asyncio.timeout(10):
            await held.reached.wait()
            yield
    finally:
        held.go_on.set()
        await taking


async def waits_for_lock(stores: Stores) -> None:
    """Return when somebody waits for a bucket."""
    async with asyncio.timeout(10):
        while not await stores.database.fetch("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            await asyncio.sleep(0.005)


async def reset(stores: Stores, user_id: int | None) -> None:
    if user_id is not None:
        await stores.resets.reset_users([user_id])
        return
    async for _ in stores.resets.reset_all():
        pass


@pytest.mark.parametrize("everybody", [True, False], ids=["all", "one"])
async def test_a_reset_stays_and_takes_only_what_it_should(
    stores: Stores, neighbours: dict[int, str], redis: RawRedis, everybody: bool
) -> None:
    first, *others = neighbours
    await reset(stores, None if everybody else first)
    left = {} if everybody else dict.fromkeys(others, CALLS)
    for totals in await everywhere(stores, redis):
        assert totals == left
    await call(stores, neighbours[first], 2)
    for totals in await everywhere(stores, redis):
        assert totals == left | {first: 2}


@pytest.mark.parametrize("everybody", [True, False], ids=["all", "one"])
@pytest.mark.parametrize("locked", [True, False], ids=["locked", "planted: without the lock"])
async def test_a_snapshot_that_has_read_the_totals_does_not_store_them_after_the_reset(
    stores: Stores,
    neighbours: dict[int, str],
    redis: RawRedis,
    monkeypatch: pytest.MonkeyPatch,
    everybody: bool,
    locked: bool,
) -> None:
    first, *_ = neighbours

    async def no_lock(*_: Any, **__: Any) -> bool:
        return True

    async def no_settling(*_: Any) -> None:
        pass

    # A row that is there would make the reset wait for the snapshot without any lock of ours.
    await stores.database.fetch("TRUNCATE call_totals, call_windows")
    if not locked:
        monkeypatch.setattr(resets, "hold_bucket", no_lock)
        monkeypatch.setattr(stores.snapshots, "settle", no_settling)
    async with snapshot_held_at(stores, "sketch"):
        resetting = asyncio.create_task(reset(stores, None if everybody else first))
        if locked:
            await waits_for_lock(stores)
            assert not resetting.done()
        else:
            await resetting
    await resetting
    back = any(first in totals for totals in await everywhere(stores, redis))
    assert back is not locked


@pytest.mark.parametrize("everybody", [True, False], ids=["all", "one"])
async def test_a_snapshot_that_ends_after_the_reset_does_not_set_the_number_back(
    stores: Stores, neighbours: dict[int, str], redis: RawRedis, everybody: bool
) -> None:
    """Otherwise the counters would pass for a copy from before the reset, and be dropped with all that came since."""
    first, *others = neighbours
    async with snapshot_held_at(stores, "finish_drain"):
        await reset(stores, None if everybody else first)
        await call(stores, neighbours[others[0]], 2)
    await stores.usage.top()
    await stores.snapshots.restore()
    left = {others[0]: 2} if everybody else {others[0]: CALLS + 2, others[1]: CALLS}
    for totals in await everywhere(stores, redis):
        assert totals == left


@pytest.mark.parametrize("everybody", [True, False], ids=["all", "one"])
@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "planted: a reset has no number"])
async def test_an_older_copy_of_redis_brings_nothing_back(
    stores: Stores, neighbours: dict[int, str], redis: RawRedis, everybody: bool, numbered: bool
) -> None:
    first, *others = neighbours
    await stores.snapshots.take()
    bucket = bucket_of(first)
    older = {key: await redis.execute_command("DUMP", key, **RAW) for key in await redis.keys(f"gate:{{{bucket}}}:*")}
    await reset(stores, None if everybody else first)
    await call(stores, neighbours[others[0]], 2)
    await stores.snapshots.take()
    if not numbered:
        await stores.database.fetch("UPDATE caller_sketches SET reset = 0")
    await redis.flushall()
    for key, dumped in older.items():
        await redis.execute_command("RESTORE", key, 0, dumped)
    await stores.snapshots.restore()
    left = {others[0]: 2} if everybody else {others[0]: CALLS + 2, others[1]: CALLS}
    assert all(totals == left for totals in await everywhere(stores, redis)) is numbered


RAW = {"NEVER_DECODE": True}


async def test_counters_that_are_not_whole_are_restored_before_one_user_is_reset(
    stores: Stores, neighbours: dict[int, str], redis: RawRedis
) -> None:
    first, *others = neighbours
    await stores.snapshots.take()
    await redis.flushall()
    await call(stores, neighbours[others[0]])
    await reset(stores, first)
    for totals in await everywhere(stores, redis):
        assert totals == {others[0]: CALLS + 1, others[1]: CALLS}


async def test_a_reset_that_could_not_be_committed_is_finished_by_the_next(
    stores: Stores, neighbours: dict[int, str], redis: RawRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = neighbours
    real = Counters.reset_users

    async def and_die(self: Counters, *args: Any) -> bool:
        await real(self, *args)
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(Counters, "reset_users", and_die)
        with pytest.raises(RuntimeError):
            await Resets(stores.database, stores.store.counters, stores.snapshots).reset_users([first])
    await reset(stores, first)
    for totals in await everywhere(stores, redis):
        assert totals == dict.fromkeys(others, CALLS)


async def test_calls_go_on_while_others_are_reset(stores: Stores, neighbours: dict[int, str], redis: RawRedis) -> None:
    """No call of a user who is not reset is lost or counted twice, with snapshots and restores in between."""
    first, *others = neighbours
    stop, counted = asyncio.Event(), dict.fromkeys(others, CALLS)

    async def keep_calling(user_id: int) -> None:
        while not stop.is_set():
            await call(stores, neighbours[user_id])
            counted[user_id] += 1

    async def keep_working() -> None:
        while not stop.is_set():
            await stores.snapshots.restore()
            await stores.snapshots.take()

    running = [asyncio.create_task(keep_calling(user_id)) for user_id in others]
    running.append(asyncio.create_task(keep_working()))
    for _ in range(5):
        await call(stores, neighbours[first])
        await reset(stores, first)
    stop.set()
    await asyncio.gather(*running)
    for totals in await everywhere(stores, redis):
        assert totals == counted
