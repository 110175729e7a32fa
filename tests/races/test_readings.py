"""Anybody may ask for `/top` and `/count`: many who ask cost little, and each learns what was there before."""

import asyncio
import time

import pytest

from models.connections import Stores
from models.counters import Counters
from models.errors import RedisAway
from tests.conftest import RawRedis

ASKING = 400
MAX_COMMANDS = 4_000


@pytest.fixture
async def token(stores: Stores) -> str:
    await stores.snapshots.restore()
    return await stores.sessions.start(await stores.accounts.add("ada", "password"))


async def commands(redis: RawRedis) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])


async def test_many_who_ask_at_a_time_share_readings(stores: Stores, token: str, redis: RawRedis) -> None:
    """One alone costs two hundred commands on the connection of the gate, which holds ten thousand."""
    before = await commands(redis)
    asking = [asyncio.create_task(stores.usage.top()) for _ in range(ASKING)]
    asking += [asyncio.create_task(stores.usage.count_callers("day")) for _ in range(ASKING)]  # type: ignore[arg-type]
    calls = [asyncio.create_task(stores.usage.admit(token)) for _ in range(20)]
    assert all([(await call).admitted for call in calls])
    await asyncio.gather(*asking)
    assert await commands(redis) - before < MAX_COMMANDS


async def test_one_who_asks_over_and_over_is_held_back(stores: Stores, redis: RawRedis) -> None:
    before, until_s = await commands(redis), time.monotonic() + 0.5
    while time.monotonic() < until_s:
        await stores.usage.top()
    assert await commands(redis) - before < MAX_COMMANDS


async def test_whoever_asks_learns_of_every_call_before(stores: Stores, token: str) -> None:
    stop = asyncio.Event()

    async def ask_on() -> None:
        while not stop.is_set():
            await stores.usage.top()

    others = [asyncio.create_task(ask_on()) for _ in range(8)]
    for calls in range(1, 11):
        assert (await stores.usage.admit(token)).admitted
        assert [count for _, count in await stores.usage.top()] == [calls]
    stop.set()
    await asyncio.gather(*others)


async def test_one_who_gives_up_takes_nothing_from_the_others(stores: Stores, token: str) -> None:
    await stores.usage.admit(token)
    asking = [asyncio.create_task(stores.usage.top()) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert [calls for _, calls in await asking[1]] == [1]
    assert await asking[2] == await stores.usage.top()


async def test_an_error_is_told_to_all_who_wait_and_to_nobody_after(
    stores: Stores, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Counters) -> None:
        raise RedisAway

    await stores.usage.admit(token)
    with monkeypatch.context() as patched:
        patched.setattr(stores.usage._folded, "_read", lambda: fail(stores.store.counters))
        answers = await asyncio.gather(*(stores.usage.top() for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {RedisAway}
    assert [calls for _, calls in await stores.usage.top()] == [1]
