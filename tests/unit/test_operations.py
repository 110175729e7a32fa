"""What a process counts, what all of them tell Redis, and what is read from there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import AsyncMock, patch

import pytest

from models import operations
from models.connections import Stores, open_stores
from models.devservers import free_port
from models.errors import RedisAway, ReplyLost, StoreUnavailable
from models.keys import METERS_KEY, user_key
from models.meters import Facts, JobFacts, Metered, Meters, metered
from models.policies import parse_policies
from models.servers import slot_of
from models.settings import Settings
from tests.conftest import RawRedis
from worker import jobs
from worker.job import Did, job

DEADLINE_S = 10
POLICIES = parse_policies("default=3/1h; search=1/1h; shadow:strict=1/1h")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[Stores]:
    """The stores of one more web process, which believes in its Redis."""
    async with open_stores(replace(settings, rate_limits=POLICIES)) as opened:

        async def trusts() -> bool:
            return opened.usage.trusts_redis

        await until(trusts)
        yield opened


async def test_each_call_has_one_outcome_and_one_way(stores: Stores, settings: Settings, redis: RawRedis) -> None:
    ada, eva = [await stores.accounts.add(name, "correct horse") for name in ("ada", "eva")]
    async with process(settings) as one:
        usage, both = one.usage, one.usage.policies.named("search,strict")
        replaced, token = [await one.sessions.start(ada) for _ in range(2)]
        assert [(await usage.admit(token)).admitted for _ in range(4)] == [True, True, True, False]
        assert (await usage.admit(token, both)).admitted
        assert not (await usage.admit(token, both)).admitted
        assert (await usage.admit(replaced)).reason == "session_replaced"
        assert (await usage.admit("x")).reason == "malformed_token"
        other = await one.sessions.start(eva)
        strict = usage.policies.named("strict")
        await redis.delete(user_key(eva, "session"))
        assert [(await usage.admit(other, strict)).shadowed for _ in range(3)] == [(), ("strict",), ("strict",)]
        assert metered(one.operations.meters.counts) == Metered(
            admitted=7,
            limited=2,
            unauthorized=2,
            cached=8,
            fallback=1,
            tombstone=1,
            limited_by={"default": 1, "search": 1, "strict": 0},
            shadowed_by={"default": 0, "search": 0, "strict": 2},
        )


async def test_calls_without_redis_or_before_it_is_believed_are_degraded(stores: Stores, settings: Settings) -> None:
    token = await stores.sessions.start(await stores.accounts.add("ada", "correct horse"))
    async with open_stores(replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")) as lame:
        assert (await lame.usage.admit(token)).admitted
        assert not (await lame.usage.admit(token)).admitted
        found = metered(lame.operations.meters.counts)
        assert (found.admitted, found.limited, found.degraded, found.cached) == (1, 1, 2, 0)
        with pytest.raises(RedisAway):
            await lame.store.read_facts()
    nowhere = f"postgres://app@127.0.0.1:{free_port()}/d"
    async with open_stores(replace(settings, redis_url=lame.settings.redis_url, database_url=nowhere)) as nothing:
        with pytest.raises(StoreUnavailable):
            await nothing.usage.admit(token)
        found = metered(nothing.operations.meters.counts)
        assert (found.unavailable, found.degraded, found.unauthorized) == (1, 0, 0)


async def test_the_totals_are_those_of_all_processes(stores: Stores, settings: Settings) -> None:
    token = await stores.sessions.start(await stores.accounts.add("ada", "correct horse"))
    await stores.sessions.sync()
    with patch.object(operations, "TELL_EVERY_S", 0.02):
        async with process(settings) as one, process(settings) as other:
            for usage in (one.usage, other.usage, one.usage, other.usage):
                await usage.admit(token)

            async def all_told() -> bool:
                found = (await stores.store.read_facts()).meters
                return (found.admitted, found.limited, found.limited_by.get("default")) == (3, 1, 1)

            await until(all_told)
            await one.usage.admit("x")
    assert (await stores.store.read_facts()).meters.unauthorized == 1, "the last count left with its process"


async def test_who_has_nothing_to_tell_writes_nothing(stores: Stores, redis: RawRedis) -> None:
    for _ in range(3):
        await stores.operations.tell()
    assert await redis.exists(METERS_KEY) == 0


async def test_counts_wait_while_redis_is_away_and_no_count_is_told_twice(stores: Stores) -> None:
    meters, told = stores.operations.meters, stores.store
    for _ in range(5):
        await stores.usage.admit("x")
    server = told.servers.of(slot_of(METERS_KEY))
    server.away = True
    await stores.operations.tell()
    server.away = False
    link = server.jobs.call
    with patch.object(server.jobs, "call", AsyncMock(side_effect=RedisAway)):
        await stores.operations.tell()
    assert (await stores.store.read_facts()).meters.unauthorized == 0
    await stores.operations.tell()
    assert (await stores.store.read_facts()).meters.unauthorized == 5

    async def ran_and_lost(command: bytes) -> None:
        await link(command)
        raise ReplyLost

    meters.count("unauthorized")
    with patch.object(server.jobs, "call", ran_and_lost):
        await stores.operations.tell()
    await stores.operations.tell()
    assert (await stores.store.read_facts()).meters.unauthorized == 6


def test_what_is_put_back_is_told_with_the_next() -> None:
    meters = Meters(["default"])
    meters.count("admitted")
    assert meters.take_untold() == {"admitted": 1}
    assert meters.take_untold() == {}
    meters.count("admitted")
    meters.put_back({"admitted": 1})
    assert meters.take_untold() == {"admitted": 2}


async def test_jobs_keep_their_facts(stores: Stores) -> None:
    @job
    async def broken(_stores: Stores) -> Did:
        raise ValueError("broken")

    @job
    async def refused(_stores: Stores) -> Did:
        raise StoreUnavailable

    context = {"stores": stores}
    nothing = await stores.store.read_facts()
    assert nothing == Facts(nothing.now_ms, Metered(), {})
    for work in (jobs.sync_sessions, jobs.sync_sessions, refused):
        await work(context)
    with pytest.raises(ValueError, match="broken"):
        await broken(context)
    facts = await stores.store.read_facts()
    synced, failed = facts.jobs["sync_sessions"], facts.jobs["refused"]
    assert (synced.runs, synced.failed) == (2, 0)
    assert facts.now_ms - 5_000 < synced.ended_ms == synced.succeeded_ms <= facts.now_ms
    assert synced.took_ms <= synced.took_total_ms
    assert failed == JobFacts(1, 1, failed.ended_ms, 0, 0, 0)
    assert facts.jobs["broken"].failed == 1
