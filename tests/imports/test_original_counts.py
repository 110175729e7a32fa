"""The call totals of the original: taken over once, whatever happened before or in between."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.errors import StoreUnavailable
from models.imports import Wishes
from tests.conftest import RawRedis
from tests.dump import dump_stores
from tests.imports.conftest import Import
from tests.imports.original import PASSWORD, Original


@pytest.fixture
async def counts_from(stores: Stores) -> AsyncIterator[tuple[str, Any]]:
    """The address of the original's Redis, another database of the same server, and a client of it."""
    url = stores.settings.redis_url.rsplit("/", 1)[0] + "/3"
    async with Redis.from_url(url) as client:
        yield url, client


async def test_top_and_count_go_on_where_the_original_stopped(
    stores: Stores, theirs: Original, take: Import, redis: RawRedis, counts_from: tuple[str, Any]
) -> None:
    url, counts = counts_from
    for user_id, name in enumerate(("ada", "eva", "Eva", "kim"), 1):
        await theirs.add(user_id, name)
    totals: dict[str, Any] = {"1": 4, "2": 7, "3": 9, "99": 5, "x": 1, "0": 2, "4": "many", "-4": 1}
    await counts.mset({f"CallingPingAPI userID:{n}": calls for n, calls in totals.items()})
    await counts.rpush("CallingPingAPI userID:4000", "a list")
    await counts.mset({"rate:1": 2, "pingUsersHyperLogLog": "x"})
    report, _ = await take(theirs.url, url)
    assert report.calls == 2  # neither the refused Eva's nor those of nobody we know
    assert await stores.usage.top() == [(2, 7), (1, 4)]
    assert await stores.usage.count_callers() == 2
    token = await stores.accounts.log_in("ada", PASSWORD)
    await stores.usage.admit(token)
    assert await stores.usage.top() == [(2, 7), (1, 5)]
    assert (await take(theirs.url, url))[0].calls == 2
    assert await stores.usage.top() == [(2, 7), (1, 5)]
    await stores.snapshots.take()
    before = await dump_stores(stores.settings)
    await take(theirs.url, url)
    assert await dump_stores(stores.settings) == before
    await redis.flushdb()
    await stores.snapshots.restore()
    assert await stores.usage.top() == [(2, 7), (1, 5)]
    assert await stores.usage.count_callers() == 2


async def test_a_crash_between_the_stores_is_made_good_by_the_next_run(
    stores: Stores, theirs: Original, take: Import, redis: RawRedis, counts_from: tuple[str, Any]
) -> None:
    url, counts = counts_from
    await theirs.add(1, "ada")
    await counts.set("CallingPingAPI userID:1", 4)
    await stores.snapshots.restore()  # the counters are whole, so that no restore brings what is stored
    async with open_stores(replace(stores.settings, redis_url="redis://127.0.0.1:1/0")) as broken:
        with pytest.raises(StoreUnavailable):
            await broken.imports.import_users(theirs.url, Wishes(), url)
    assert [tuple(row) for row in await stores.database.fetch("SELECT user_id, calls FROM call_totals")] == [(1, 4)]
    assert await stores.usage.top() == []
    report, _ = await take(theirs.url, url)
    assert (report.imported, report.there, report.calls) == (0, 1, 1)
    assert await stores.usage.top() == [(1, 4)]


async def test_an_original_whose_redis_is_away_imports_nobody(stores: Stores, theirs: Original, take: Import) -> None:
    await theirs.add(1, "ada")
    with pytest.raises(StoreUnavailable, match="nothing was imported"):
        await take(theirs.url, "redis://127.0.0.1:1/0")
    assert await stores.database.fetch("SELECT 1 FROM users") == []
