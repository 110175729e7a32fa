"""Invariant 4: the limiter against a model of its definition, over random traces."""

import asyncio
import itertools
import time
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from models.connections import Stores
from models.limits import RateLimit, parse_limits
from models.lua import ADMIT
from models.records import Entry
from models.store import bucket_key, member_of, user_key
from models.tokens import Claims
from tests.conftest import RawRedis

_user_ids = itertools.count(1_000_000)


@dataclass
class Model:
    """The definition: refuse when some limit's window already holds as many admitted calls as it allows."""

    limits: tuple[tuple[int, int], ...]
    admitted_at: list[int]

    def call(self, now_us: int) -> tuple[bool, list[int]]:
        used = [sum(now_us - at < window_us for at in self.admitted_at) for _, window_us in self.limits]
        allowed = all(count < quota for count, (quota, _) in zip(used, self.limits, strict=True))
        if allowed:
            self.admitted_at.append(now_us)
        return allowed, [quota - count - allowed for count, (quota, _) in zip(used, self.limits, strict=True)]


# The script takes its clock from Redis TIME; the traces need to set it, so these lines of it are exchanged.
_CLOCK = b"local time = redis.call('TIME')\nlocal now_us = time[1] * 1000000 + time[2]\n"
_SET_CLOCK = b"local now_us = tonumber(table.remove(ARGV))\n"

limits = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 40).map(lambda w: w * 1_000_000)), min_size=1, max_size=3)
pauses = st.lists(
    st.one_of(st.integers(0, 3_000_000), st.integers(0, 60_000_000), st.just(1_000_000)), min_size=1, max_size=40
)


async def run_trace(redis: RawRedis, text: bytes, limits: list[tuple[int, int]], pauses_us: list[int]) -> None:
    user_id = next(_user_ids)
    claims = Claims(user_id, 1, int(time.time() * 1000) + 600_000, b"d" * 32)
    value = Entry(user_id, 1, claims.expires_ms, claims.digest).value
    await redis.set(user_key(user_id, "session"), value)
    keys = [user_key(user_id, "session"), user_key(user_id, "calls_at")]
    keys += [bucket_key(user_id % 64, name) for name in ("totals", "callers", "dirty")]
    arguments = [value, 1, user_id, member_of(user_id), *itertools.chain.from_iterable(limits)]
    model, now_us = Model(tuple(limits), []), 1_700_000_000_000_000
    for pause_us in pauses_us:
        now_us += pause_us
        allowed, remaining = model.call(now_us)
        reply = await redis.eval(text, len(keys), *keys, *arguments, now_us)
        assert reply[0] == allowed
        assert reply[1::2] == remaining
        for reset_us, (_, window_us) in zip(reply[2::2], limits, strict=True):
            inside = [at for at in model.admitted_at if now_us - at < window_us]
            assert reset_us == (min(inside) + window_us - now_us if inside else window_us)
        assert await redis.strlen(keys[1]) <= 8 * max(quota for quota, _ in limits)
    assert -int(await redis.zscore(keys[2], member_of(user_id))) == len(model.admitted_at)


@given(limits=limits, pauses_us=pauses)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_random_traces_agree_with_the_model(
    redis: RawRedis, limits: list[tuple[int, int]], pauses_us: list[int]
) -> None:
    assert _CLOCK in ADMIT.text
    await run_trace(redis, ADMIT.text.replace(_CLOCK, _SET_CLOCK), limits, pauses_us)


async def test_the_model_finds_a_planted_fixed_window(redis: RawRedis) -> None:
    """A limiter that keeps a call one microsecond too long is caught."""
    broken = ADMIT.text.replace(_CLOCK, _SET_CLOCK).replace(b"at_us > horizon_us", b"at_us >= horizon_us")
    try:
        await run_trace(redis, broken, [(1, 1_000_000)], [0, 1_000_000])
    except AssertionError:
        return
    raise AssertionError("the planted fault was not found")


async def test_calls_at_once_never_exceed_the_quota(stores: Stores) -> None:
    """A hundred calls at once at a quota of five: five are admitted, five are counted."""
    user_id = await stores.accounts.add("burst", "password")
    token = await stores.sessions.start(user_id)
    limited = type(stores.usage)(stores.database, stores.store, stores.sessions, parse_limits("5/60s"))
    admissions = await asyncio.gather(*(limited.admit(token) for _ in range(100)))
    assert sum(admission.admitted for admission in admissions) == 5
    assert await stores.usage.top() == [(user_id, 5)]


async def test_a_refused_call_changes_nothing(stores: Stores, redis: RawRedis) -> None:
    user_id = await stores.accounts.add("refused", "password")
    token = await stores.sessions.start(user_id)
    limited = type(stores.usage)(stores.database, stores.store, stores.sessions, parse_limits("5/60s, 1/60s"))
    assert (await limited.admit(token)).admitted
    before = await everything(redis)
    refused = await limited.admit(token)
    assert (refused.reason, refused.admitted) == (None, False)
    assert refused.remaining == [4, 0]
    assert 59_000_000 < refused.wait_us <= 60_000_000
    assert await everything(redis) == before


async def everything(redis: RawRedis) -> dict[str, object]:
    """All keys with their values, as Redis would dump them."""
    raw = Redis.from_url(f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}")
    async with raw:
        return {key: await raw.dump(key) for key in sorted(await raw.keys())}


async def test_whoever_waits_as_told_is_admitted(stores: Stores) -> None:
    token = await stores.sessions.start(await stores.accounts.add("patient", "password"))
    limited = type(stores.usage)(stores.database, stores.store, stores.sessions, (RateLimit("default", 1, 1),))
    assert (await limited.admit(token)).admitted
    refused = await limited.admit(token)
    await asyncio.sleep(refused.wait_us / 1_000_000)
    assert (await limited.admit(token)).admitted
