"""Six tests to read first: what Gatehouse does, from a login to the counters that survive Redis."""

import asyncio
from dataclasses import replace

from models.connections import Stores, open_stores
from models.keys import user_key
from models.policies import parse_policies
from models.settings import Settings
from models.tokens import Claims
from tests.conftest import RawRedis


async def test_1_a_login_gives_a_token_that_names_its_session(stores: Stores) -> None:
    user_id = await stores.accounts.sign_up("ada", "a long password")
    token = await stores.accounts.log_in("ada", "a long password")
    claims = stores.sessions.read_token(token)  # checks the signature; no store is asked
    assert isinstance(claims, Claims)
    assert claims.user_id == user_id
    assert stores.sessions.read_token(token[:-1] + "!") == "malformed_token"


async def test_2_a_call_is_checked_limited_and_counted_in_one_step(settings: Settings, stores: Stores) -> None:
    await stores.accounts.sign_up("ada", "a long password")
    token = await stores.accounts.log_in("ada", "a long password")
    async with open_stores(replace(settings, rate_limits=parse_policies("2/60s"))) as limited:
        answers = [await limited.usage.admit(token) for _ in range(3)]
    assert [answer.admitted for answer in answers] == [True, True, False]
    assert [answer.remaining[0] for answer in answers] == [1, 0, 0]
    assert await stores.usage.top() == [(answers[0].claims.user_id, 2)]  # type: ignore[union-attr]  # refused calls are free


async def test_3_a_newer_login_ends_the_older_session(stores: Stores) -> None:
    await stores.accounts.sign_up("ada", "a long password")
    laptop = await stores.accounts.log_in("ada", "a long password")
    phone = await stores.accounts.log_in("ada", "a long password")
    assert (await stores.usage.admit(laptop)).reason == "session_replaced"
    assert (await stores.usage.admit(phone)).admitted


async def test_4_redis_is_a_copy_a_miss_asks_postgresql_and_caches_again(stores: Stores, redis: RawRedis) -> None:
    user_id = await stores.accounts.sign_up("ada", "a long password")
    token = await stores.accounts.log_in("ada", "a long password")
    cached = await redis.get(user_key(user_id, "session"))
    await redis.flushall()
    assert (await stores.usage.admit(token)).admitted
    assert await redis.get(user_key(user_id, "session")) == cached


async def test_5_a_logout_leaves_a_tombstone_that_no_slow_reader_can_undo(stores: Stores, redis: RawRedis) -> None:
    user_id = await stores.accounts.sign_up("ada", "a long password")
    token = await stores.accounts.log_in("ada", "a long password")
    live = await redis.get(user_key(user_id, "session"))
    claims = stores.sessions.read_token(token)
    assert isinstance(claims, Claims)
    assert await stores.accounts.log_out(claims) is None
    assert (await redis.get(user_key(user_id, "session"))).endswith(":revoked")
    await asyncio.gather(*(stores.sessions.fall_back(claims) for _ in range(10)))
    assert await redis.get(user_key(user_id, "session")) != live
    assert (await stores.usage.admit(token)).reason == "session_revoked"


async def test_6_the_counters_survive_the_loss_of_redis(stores: Stores, redis: RawRedis) -> None:
    await stores.snapshots.restore()  # the worker does this every second, and the snapshot every ten
    user_id = await stores.accounts.sign_up("ada", "a long password")
    token = await stores.accounts.log_in("ada", "a long password")
    for _ in range(3):
        await stores.usage.admit(token)
    await stores.snapshots.take()
    await redis.flushall()
    await stores.usage.admit(token)  # a call between the loss and the restore
    await stores.snapshots.restore()
    assert await stores.usage.top() == [(user_id, 4)]
    assert await stores.usage.count_callers() == 1
