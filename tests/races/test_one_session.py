"""Invariant 1: whatever interleaves, one token of a user is valid, and Redis agrees with PostgreSQL.

Each race is first shown to go wrong without the part of the design that prevents it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from models.connections import Stores
from models.database import load_sql
from models.keys import user_key
from models.policies import parse_policies
from models.records import Entry
from models.sessions import Sessions
from models.store import Store
from models.tokens import Claims, TokenSigner
from models.usage import Usage
from tests.conftest import RawRedis

LOGINS_AT_ONCE = 16
ROUNDS = 25

Publish = Callable[[Entry], Awaitable[object]]


async def log_in_racing(stores: Stores, user_id: int, publish: Publish) -> list[str]:
    """Many logins at once, each pausing a random while between PostgreSQL and Redis, as a busy process does."""

    async def paused(entry: Entry) -> bool:
        await asyncio.sleep(random.random() * 0.01)
        await publish(entry)
        return True

    racing = publishing_through(stores, paused)
    return await asyncio.gather(*(racing.start(user_id) for _ in range(LOGINS_AT_ONCE)))


def publishing_through(stores: Stores, publish: Publish) -> Sessions:
    """The real sessions on the real stores, with another way to publish."""
    store = cast(Store, _PublishingThrough(stores.store, publish))
    return Sessions(stores.database, store, TokenSigner(stores.settings.secret_keys), stores.settings.session_ttl_s)


class _PublishingThrough:
    def __init__(self, store: object, publish: Publish) -> None:
        self._store = store
        self.publish_session = publish

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def valid_tokens(stores: Stores, tokens: list[str]) -> list[str]:
    admissions = [await stores.usage.admit(token) for token in tokens]
    return [token for token, admission in zip(tokens, admissions, strict=True) if admission.admitted]


async def agreeing(stores: Stores, redis: RawRedis, user_id: int) -> bool:
    row = (await stores.database.fetch(load_sql("read_session"), user_id))[0]
    cached = await redis.get(user_key(user_id, "session"))
    return bool(cached.startswith(f"{row['version']}:"))


async def test_sixteen_logins_at_once_leave_exactly_one_valid_token(stores: Stores, redis: RawRedis) -> None:
    user_id = await stores.accounts.add("racer", "password")
    for _ in range(ROUNDS):
        tokens = await log_in_racing(stores, user_id, stores.store.publish_session)
        assert len(await valid_tokens(stores, tokens)) == 1
        assert await agreeing(stores, redis, user_id)


async def test_without_the_fence_the_stores_end_up_apart(stores: Stores, redis: RawRedis) -> None:
    """The planted variant: the same logins, but the last to write wins."""
    user_id = await stores.accounts.add("racer", "password")

    async def overwrite(entry: Entry) -> None:
        await redis.set(user_key(user_id, "session"), entry.value, pxat=entry.keep_until_ms)

    apart = 0
    for _ in range(ROUNDS):
        await log_in_racing(stores, user_id, overwrite)
        apart += not await agreeing(stores, redis, user_id)
    assert apart > 0


async def test_a_version_drawn_outside_the_lock_falls_in_commit_order(stores: Stores) -> None:
    """The planted variant of upsert_session.sql keeps the version that was drawn before the row was locked."""
    user_id = await stores.accounts.add("racer", "password")
    statement = load_sql("upsert_session")
    broken = statement.replace("SET version = nextval('session_versions')", "SET version = excluded.version")
    assert broken != statement
    await stores.database.fetch(statement, user_id, b"first", 1800, None)

    async def versions_fell(upsert: str) -> bool:
        """Whether a session that commits later can have the lower version, with the earlier one held at its lock."""
        async with stores.database.transaction() as holder:
            await holder.fetch("SELECT 1 FROM sessions WHERE user_id = $1 FOR UPDATE", user_id)
            early = asyncio.create_task(stores.database.fetch(upsert, user_id, b"early", 1800, None))
            await _waiting_for_a_lock(stores, 1)
            late = (await holder.fetch(upsert, user_id, b"late", 1800, None))[0]["version"]
        return bool((await early)[0]["version"] < late)

    assert await versions_fell(broken)
    assert not await versions_fell(statement)


async def _waiting_for_a_lock(stores: Stores, count: int) -> None:
    waiting = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND state = 'active'"
    async with asyncio.timeout(5):
        while (await stores.database.fetch(waiting))[0]["n"] < count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "planted: unfenced"])
async def test_a_logout_beats_a_reader_that_was_paused_before_it_cached(
    stores: Stores, redis: RawRedis, fenced: bool
) -> None:
    """Invariant 2: the reader read the live row, then the user logged out, then the reader publishes what it read."""
    user_id = await stores.accounts.add("leaver", "password")
    token = await stores.sessions.start(user_id)
    claims = stores.sessions.read_token(token)
    assert isinstance(claims, Claims)
    await redis.delete(user_key(user_id, "session"))
    read, go_on = asyncio.Event(), asyncio.Event()

    async def publish_late(entry: Entry) -> bool:
        read.set()
        await go_on.wait()
        if fenced:
            return await stores.store.publish_session(entry)
        await redis.set(user_key(user_id, "session"), entry.value, pxat=entry.keep_until_ms)
        return True

    slow = publishing_through(stores, publish_late)
    reader = asyncio.create_task(slow.fall_back(claims))
    await read.wait()
    assert await stores.accounts.log_out(claims) is None
    go_on.set()
    await reader
    admission = await stores.usage.admit(token)
    assert (admission.reason == "session_revoked") is fenced
    assert admission.admitted is not fenced


async def test_sync_mends_what_a_crash_between_the_stores_left(stores: Stores, redis: RawRedis) -> None:
    """A login whose process died after PostgreSQL: the older session stays cached until the next sync, not longer."""
    user_id = await stores.accounts.add("crasher", "password")
    older = await stores.sessions.start(user_id)
    await stores.sessions.sync()
    await stores.database.fetch(load_sql("upsert_session"), user_id, b"x" * 32, 1800, None)
    assert not await agreeing(stores, redis, user_id)
    assert (await stores.sessions.sync()).published == 1
    assert await agreeing(stores, redis, user_id)
    assert (await stores.usage.admit(older)).reason == "session_replaced"


async def test_sync_publishes_everything_to_another_redis(stores: Stores, redis: RawRedis) -> None:
    user_id = await stores.accounts.add("mover", "password")
    token = await stores.sessions.start(user_id)
    await stores.sessions.sync()
    states = await redis.hgetall("gate:sync")
    await redis.delete("gate:sync")
    await redis.hset("gate:sync", mapping={f"of another server than {run}": state for run, state in states.items()})
    await redis.delete(user_key(user_id, "session"))
    synced = await stores.sessions.sync()
    assert (synced.full, synced.published) == (True, 1)
    assert not (await stores.sessions.sync()).full
    assert (await stores.usage.admit(token)).admitted


async def test_a_redis_that_is_emptied_during_the_fallback_refuses_nobody(stores: Stores, redis: RawRedis) -> None:
    """The entry is gone again when the call comes back from PostgreSQL: that is not an expired session."""
    token = await stores.sessions.start(await stores.accounts.add("unlucky", "password"))
    losses = 2

    async def publish_and_lose(entry: Entry) -> bool:
        nonlocal losses
        await stores.store.publish_session(entry)
        losses -= 1
        if losses >= 0:
            await redis.flushall()
        return True

    unlucky = Usage(stores.store, publishing_through(stores, publish_and_lose), parse_policies("9/1s"))
    await redis.flushall()
    assert (await unlucky.admit(token)).admitted
    losses = 1_000
    await redis.flushall()
    assert (await unlucky.admit(token)).admitted, "this process judges alone what Redis cannot keep"
    await unlucky.close()


async def test_a_call_that_joins_a_read_which_began_before_its_login_is_not_refused(
    stores: Stores, redis: RawRedis
) -> None:
    """Reads are shared, but only with calls that were there when the read began."""
    user_id = await stores.accounts.add("joiner", "password")
    older = stores.sessions.read_token(await stores.sessions.start(user_id))
    read, go_on = asyncio.Event(), asyncio.Event()

    async def publish_late(entry: Entry) -> bool:
        read.set()
        await go_on.wait()
        return await stores.store.publish_session(entry)

    slow = publishing_through(stores, publish_late)
    assert isinstance(older, Claims)
    first = asyncio.create_task(slow.fall_back(older))
    await read.wait()
    newer = slow.read_token(await stores.sessions.start(user_id))
    assert isinstance(newer, Claims)
    second = asyncio.create_task(slow.fall_back(newer))
    await asyncio.sleep(0)
    go_on.set()
    assert await first is None  # it was valid when its call began
    assert await second is None
