"""The overview on real stores: what it finds, what it costs, and what of it is left while one of them is away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from models import overview
from models.connections import Stores, open_stores
from models.database import Database
from models.devservers import ValkeyServer, free_port
from models.overview import Caller, Overview
from models.settings import Settings
from tests.conftest import empty
from worker import jobs

DEADLINE_S = 10.0

pytestmark = pytest.mark.usefixtures("hour")


@pytest.fixture
async def own(settings: Settings, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    async with open_stores(replace(settings, redis_url=valkey.url)) as opened:
        await empty(opened)
        yield opened


async def until(stores: Stores, **wanted: object) -> Overview:
    """Look until the overview has these values."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = await stores.overviews.read()
            if {name: getattr(found, name) for name in wanted} == wanted:
                return found
            await asyncio.sleep(0.05)


async def call(stores: Stores, name: str, calls: int) -> int:
    user_id = await stores.accounts.add(name, "correct horse")
    token = await stores.sessions.start(user_id)
    for _ in range(calls):
        assert (await stores.usage.admit(token)).admitted
    return user_id


async def test_it_finds_what_is_there(stores: Stores) -> None:
    first = await stores.overviews.read()
    assert (first.redis, first.postgresql, first.rates, first.shares) == (True, True, None, None)
    assert first.rankings is not None
    assert [(ranking.callers, ranking.top) for ranking in first.rankings.values()] == [(0, [])] * 3
    assert first.sessions is not None
    assert (first.sessions.count, first.sessions.estimated) == (0, False)
    assert (first.heartbeat_age_s, first.worker_late, first.snapshot_age_s, first.snapshot_late) == (
        None, True, None, True,
    )  # fmt: skip
    ada, eva = await call(stores, "ada", 3), await call(stores, "eva", 5)
    assert (await stores.usage.admit("x")).reason == "malformed_token"
    await jobs.sync_sessions({"stores": stores})
    await jobs.snapshot_usage({"stores": stores})
    await stores.operations.tell()
    stores.overviews._rankings.forget()
    stores.overviews._sessions.forget()
    found = await stores.overviews.read()
    assert found.rankings is not None
    for ranking in found.rankings.values():
        assert (ranking.callers, ranking.top) == (2, [Caller(eva, "eva", 5), Caller(ada, "ada", 3)])
    assert found.sessions is not None
    assert found.sessions.count == 2
    assert found.rates is not None
    assert found.rates.admitted > 0 < found.rates.unauthorized
    assert found.shares is not None
    assert found.shares.judged == 8
    assert (found.worker_late, found.snapshot_late) == (False, False)
    assert stores.overviews.history == [(found.at_ms, found.rates)]


async def test_a_deleted_user_has_no_name(stores: Stores) -> None:
    user_id = await call(stores, "ada", 1)
    await stores.database.fetch("DELETE FROM users WHERE id = $1", user_id)
    found = await stores.overviews.read()
    assert found.rankings is not None
    assert found.rankings["all"].top == [Caller(user_id, None, 1)]


async def test_more_sessions_than_are_counted_are_estimated(stores: Stores) -> None:
    for name in "abc":
        await call(stores, name, 1)
    await stores.database.fetch(
        "UPDATE sessions SET revoked_at = now() WHERE version = (SELECT min(version) FROM sessions)"
    )
    await stores.database.fetch("ANALYZE sessions")
    for bound, expected in ((2, (2, False)), (1, (3, True))):  # all rows are what it estimates by
        with patch.object(overview, "MAX_COUNTED_SESSIONS", bound):
            stores.overviews._sessions.forget()
            found = (await stores.overviews.read()).sessions
        assert found is not None
        assert (found.count, found.estimated) == expected


async def test_slow_figures_are_asked_for_now_and_then(stores: Stores) -> None:
    asked: list[str] = []
    fetch = Database.fetch

    async def noted(self: Database, statement: str, *args: object, **given: Any) -> object:
        asked.append(statement)
        return await fetch(self, statement, *args, **given)

    with patch.object(Database, "fetch", noted):
        for _ in range(5):
            assert (await stores.overviews.read()).sessions is not None
    assert len(asked) == 6
    assert len([statement for statement in asked if "count(*)" in statement]) == 1


async def test_without_redis_the_rest_is_there(own: Stores, valkey: ValkeyServer) -> None:
    await call(own, "ada", 1)
    found = await until(own, redis=True, postgresql=True)
    assert found.rankings is not None
    valkey.stop()
    found = await until(own, redis=False, postgresql=True)
    assert (found.rates, found.shares, found.rankings, found.heartbeat_age_s, found.worker_late) == (
        None, None, None, None, False,
    )  # fmt: skip
    assert found.sessions is not None
    assert found.sessions.count == 1


async def test_without_postgresql_the_rest_is_there(stores: Stores, settings: Settings) -> None:
    user_id = await call(stores, "ada", 1)
    nowhere = f"postgres://app@127.0.0.1:{free_port()}/gatehouse"
    async with open_stores(replace(settings, database_url=nowhere)) as alone:
        found = await alone.overviews.read()
        assert (found.redis, found.postgresql, found.sessions) == (True, False, None)
        assert found.rankings is not None
        assert found.rankings["all"].top == [Caller(user_id, None, 1)]
