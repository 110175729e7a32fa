"""Invariant 4: the limiter against a model of its definition, over random traces."""

import asyncio
import itertools
import time
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.connections import Stores
from models.keys import bucket_key, log_key, user_key
from models.lua import ADMIT
from models.policies import parse_policies
from models.records import Entry
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
_CLOCK = b"local time = redis.call('TIME')\nlocal server_us = time[1] * 1000000 + time[2]\n"
_SET_CLOCK = b"local server_us = tonumber(table.remove(ARGV))\n"

limits = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 40).map(lambda w: w * 1_000_000)), min_size=1, max_size=3)
pauses = st.lists(
    st.one_of(st.integers(0, 3_000_000), st.integers(0, 60_000_000), st.just(1_000_000)), min_size=1, max_size=40
)


async def run_trace(redis: RawRedis, text: bytes, limits: list[tuple[int, int]], pauses_us: list[int]) -> None:
    user_id = next(_user_ids)
    claims = Claims(user_id, 1, int(time.time() * 1000) + 600_000, b"d" * 32)
    value = Entry(user_id, 1, claims.expires_ms, claims.digest).value
    await redis.set(user_key(user_id, "session"), value)
    keys = [user_key(user_id, "session"), bucket_key(user_id % 64, "pending"), user_key(user_id, "calls_at")]
    arguments = [value, 1, user_id, 0, len(limits), *itertools.chain.from_iterable(limits)]
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
        assert await redis.strlen(keys[2]) <= 8 * max(quota for quota, _ in limits)
    pending = await redis.hgetall(keys[1])
    assert sum(int(n) for call, n in pending.items() if call.startswith(f"{user_id}:")) == len(model.admitted_at)


@dataclass
class Judged:
    """Several policies, each a model of its own: the enforced ones allow a call together, a shadow only says so."""

    enforced: list[Model]
    shadows: list[Model]

    def call(self, now_us: int) -> tuple[bool, list[int]]:
        copies = [Model(model.limits, list(model.admitted_at)) for model in (*self.enforced, *self.shadows)]
        answers = [copy.call(now_us) for copy in copies]
        if not all(allowed for allowed, _ in answers[: len(self.enforced)]):
            # Of a refused call each limit tells what was left before it.
            return False, [left + allowed for allowed, lefts in answers for left in lefts]
        for model, copy in zip((*self.enforced, *self.shadows), copies, strict=True):
            model.admitted_at = copy.admitted_at
        # A shadow that would have refused it is one below what is left.
        return True, [left - (not allowed) for allowed, lefts in answers for left in lefts]


async def run_policies(
    redis: RawRedis, text: bytes, policies: list[tuple[bool, list[tuple[int, int]]]], pauses_us: list[int]
) -> None:
    """A trace through several policies, (whether it is a shadow, its limits), the enforced ones first."""
    user_id = next(_user_ids)
    claims = Claims(user_id, 1, int(time.time() * 1000) + 600_000, b"d" * 32)
    value = Entry(user_id, 1, claims.expires_ms, claims.digest).value
    await redis.set(user_key(user_id, "session"), value)
    logs = [log_key(user_id, f"policy{number}") for number in range(len(policies))]
    keys = [user_key(user_id, "session"), bucket_key(user_id % 64, "pending"), *logs]
    judges = [n for shadow, limits in policies for n in (int(shadow), len(limits), *itertools.chain(*limits))]
    models = [(shadow, Model(tuple(limits), [])) for shadow, limits in policies]
    model = Judged([m for shadow, m in models if not shadow], [m for shadow, m in models if shadow])
    now_us, admitted = 1_700_000_000_000_000, 0
    for pause_us in pauses_us:
        now_us += pause_us
        allowed, remaining = model.call(now_us)
        reply = await redis.eval(text, len(keys), *keys, value, 1, user_id, *judges, now_us)
        assert (bool(reply[0]), reply[1::2]) == (allowed, remaining)
        admitted += allowed
    pending = await redis.hgetall(keys[1])
    assert sum(int(n) for call, n in pending.items() if call.startswith(f"{user_id}:")) == admitted


enforced_first = st.tuples(
    st.lists(st.tuples(st.just(False), limits), max_size=2), st.lists(st.tuples(st.just(True), limits), max_size=2)
).map(lambda parts: [*parts[0], *parts[1]])


@given(policies=enforced_first.filter(bool), pauses_us=pauses)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_random_traces_through_several_policies_agree_with_the_model(
    redis: RawRedis, policies: list[tuple[bool, list[tuple[int, int]]]], pauses_us: list[int]
) -> None:
    await run_policies(redis, ADMIT.text.replace(_CLOCK, _SET_CLOCK), policies, pauses_us)


PLANTED = {
    "a shadow refuses": (b"elseif not shadow then", b"else"),
    "a refusal uses up the other policy": (b"if refused then\n  reply[1] = 0\n  return reply\nend\n", b""),
    "one log for all policies": (b"redis.call('GET', KEYS[policy])", b"redis.call('GET', KEYS[3])"),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_the_model_of_policies_finds_a_planted_fault(redis: RawRedis, planted: str) -> None:
    line, instead = PLANTED[planted]
    assert line in ADMIT.text
    broken = ADMIT.text.replace(_CLOCK, _SET_CLOCK).replace(line, instead)
    second = 1_000_000
    policies = [(False, [(1, second)]), (False, [(2, 60 * second)]), (True, [(1, 60 * second)])]
    with pytest.raises(AssertionError):
        await run_policies(redis, broken, policies, [0, 0, second, second])


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
    limited = type(stores.usage)(stores.store, stores.sessions, parse_policies("5/60s"))
    admissions = await asyncio.gather(*(limited.admit(token) for _ in range(100)))
    assert sum(admission.admitted for admission in admissions) == 5
    assert await stores.usage.top() == [(user_id, 5)]


async def test_a_refused_call_changes_nothing(stores: Stores, redis: RawRedis) -> None:
    user_id = await stores.accounts.add("refused", "password")
    token = await stores.sessions.start(user_id)
    limited = type(stores.usage)(stores.store, stores.sessions, parse_policies("5/60s, 1/60s"))
    assert (await limited.admit(token)).admitted
    before = await everything(redis)
    refused = await limited.admit(token)
    assert (refused.reason, refused.admitted) == (None, False)
    assert refused.remaining == [4, 0]
    assert 59_000_000 < refused.wait_us <= 60_000_000
    assert await everything(redis) == before


async def everything(redis: RawRedis) -> dict[str, object]:
    """All keys with their values, as Redis would dump them."""
    return {key: await redis.execute_command("DUMP", key, NEVER_DECODE=True) async for key in redis.scan_iter()}


async def test_whoever_waits_as_told_is_admitted(stores: Stores) -> None:
    token = await stores.sessions.start(await stores.accounts.add("patient", "password"))
    limited = type(stores.usage)(stores.store, stores.sessions, parse_policies("1/1s"))
    assert (await limited.admit(token)).admitted
    refused = await limited.admit(token)
    await asyncio.sleep(refused.wait_us / 1_000_000)
    assert (await limited.admit(token)).admitted
