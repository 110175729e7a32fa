"""Guessing is throttled alike for users that exist and that do not; whoever knows the password gets in."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from models.connections import Stores, open_stores
from models.errors import InvalidCredentials, LoginThrottled, Overloaded
from models.events import Origin
from models.keys import login_key
from models.limits import RateLimit, parse_limits
from models.local_limits import LocalLimiter
from models.servers import slot_of
from models.settings import Settings
from models.tables import User
from models.throttle import LoginLimits, LoginThrottle
from tests.conftest import MANY, RawRedis, empty

HOME, AWAY = Origin("192.0.2.1", ""), Origin("198.51.100.7", "")
WINDOW_S = 600
STRICT: dict[str, Any] = {
    "login_limits_user": parse_limits(f"3/{WINDOW_S}s"),
    "login_limits_user_address": parse_limits(f"2/{WINDOW_S}s"),
    "login_limits_address": MANY,
    "login_limits_all": MANY,
}


@pytest.fixture
async def strict(settings: Settings) -> AsyncIterator[Stores]:
    async with open_stores(replace(settings, **STRICT)) as opened:
        await empty(opened)
        await opened.accounts.add("ada", "password")
        yield opened


async def fail(stores: Stores, name: str, origin: Origin, times: int) -> list[str]:
    """What each of some wrong attempts, one after the other, is told."""
    told = []
    for _ in range(times):
        with pytest.raises((InvalidCredentials, LoginThrottled)) as caught:
            await stores.accounts.log_in(name, "wrong", origin)
        told.append(type(caught.value).__name__)
    return told


@pytest.mark.parametrize("name", ["ada", "nobody"])
async def test_a_user_that_exists_and_one_that_does_not_are_throttled_alike(strict: Stores, name: str) -> None:
    assert await fail(strict, name, AWAY, 3) == ["InvalidCredentials"] * 2 + ["LoginThrottled"]
    assert await fail(strict, name, HOME, 2) == ["InvalidCredentials", "LoginThrottled"], "three in all for a user"


async def test_the_wait_is_told_and_suffices(strict: Stores) -> None:
    await fail(strict, "ada", AWAY, 2)
    with pytest.raises(LoginThrottled) as caught:
        await strict.accounts.log_in("ada", "password", AWAY)
    assert caught.value.retry_after_s is not None
    assert WINDOW_S - 10 <= caught.value.retry_after_s <= WINDOW_S


async def test_right_passwords_never_count(strict: Stores) -> None:
    for _ in range(6):
        assert await strict.accounts.log_in("ada", "password", AWAY)


async def test_many_right_logins_at_once_all_get_in(strict: Stores) -> None:
    assert all(await asyncio.gather(*(strict.accounts.log_in("ada", "password", AWAY) for _ in range(12))))


async def test_where_the_user_has_logged_in_before_guesses_from_elsewhere_do_not_matter(strict: Stores) -> None:
    await strict.accounts.log_in("ada", "password", HOME)
    await fail(strict, "ada", AWAY, 3)
    assert await strict.accounts.log_in("ada", "password", HOME)
    with pytest.raises(LoginThrottled):
        await strict.accounts.log_in("ada", "password", AWAY)
    assert await fail(strict, "ada", HOME, 3) == ["InvalidCredentials"] * 2 + ["LoginThrottled"], "but its own do"


async def test_the_last_five_addresses_are_known(strict: Stores) -> None:
    for number in range(7):
        await strict.accounts.log_in("ada", "password", Origin(f"192.0.2.{number}", ""))
    async with strict.database.deadline():
        assert len((await User.get(username_key="ada")).known_addresses or b"") == 5 * 8


async def test_one_address_and_all_together_have_limits_of_their_own(settings: Settings) -> None:
    for scope in ("login_limits_address", "login_limits_all"):
        limits: dict[str, Any] = dict.fromkeys(STRICT, MANY) | {scope: parse_limits(f"2/{WINDOW_S}s")}
        async with open_stores(replace(settings, **limits)) as stores:
            await empty(stores)
            told = [(await fail(stores, f"name{n}", AWAY, 1))[0] for n in range(3)]
            assert told == ["InvalidCredentials"] * 2 + ["LoginThrottled"]
            elsewhere = (await fail(stores, "name3", HOME, 1))[0]
            assert (elsewhere == "LoginThrottled") is (scope == "login_limits_all")


async def test_processes_share_the_limit_and_keep_their_own_when_redis_is_emptied_or_away(
    strict: Stores, redis: RawRedis
) -> None:
    async with open_stores(strict.settings) as other:
        assert await fail(strict, "ada", AWAY, 2) == ["InvalidCredentials"] * 2
        assert await fail(other, "ada", AWAY, 1) == ["LoginThrottled"]
        await redis.flushall()
        assert await fail(strict, "ada", AWAY, 1) == ["LoginThrottled"], "a process remembers its own"
        for stores in (strict, other):
            stores.store.servers.lose(stores.store.servers.of(slot_of(login_key(""))))
        assert await fail(strict, "ada", AWAY, 1) == ["LoginThrottled"]
        assert await fail(other, "ada", AWAY, 3) == ["InvalidCredentials"] * 2 + ["LoginThrottled"]


async def test_an_attempt_that_was_shed_does_not_count(strict: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    async def shed(*_: object, **__: object) -> None:
        raise Overloaded

    with monkeypatch.context() as patched:
        patched.setattr(type(strict.accounts._passwords), "verify", shed)
        for _ in range(5):
            with pytest.raises(Overloaded):
                await strict.accounts.log_in("ada", "password", AWAY)
    assert await strict.accounts.log_in("ada", "password", AWAY)


async def test_an_attempt_that_was_given_up_while_hashing_counts(strict: Stores) -> None:
    """Else whoever hangs up early guesses for free."""
    for _ in range(2):
        attempt = asyncio.create_task(strict.accounts.log_in("ada", "wrong", AWAY))
        while not strict.accounts._passwords._pending:
            await asyncio.sleep(0.001)
        attempt.cancel()
        await asyncio.wait([attempt])
        while strict.accounts._passwords._pending:
            await asyncio.sleep(0.001)
    assert await fail(strict, "ada", AWAY, 1) == ["LoginThrottled"]


def test_the_memory_of_attempts_is_bounded() -> None:
    limiter, limits = LocalLimiter(max_times=3), (RateLimit("default", 1, 60),)
    for caller in range(10):
        limiter.admit(caller, limits, caller)
    assert [limiter.judge(caller, limits, 10)[0] for caller in (6, 7, 9)] == [[1], [0], [0]]
    limiter.take_back(9, 9)
    assert limiter.judge(9, limits, 10)[0] == [1]


async def test_whoever_is_known_by_now_takes_turns_with_those_who_were_not(strict: Stores) -> None:
    """Four right logins side by side, two begun before the address was known: the limit they share is three."""
    limits = parse_limits(f"3/{WINDOW_S}s")
    throttle = LoginThrottle(strict.store, LoginLimits(user=MANY, user_address=limits, address=MANY, all=MANY))
    both_inside, go_on = asyncio.Barrier(3), asyncio.Event()

    async def log_in(*, known: bool) -> None:
        async with throttle.attempt("ada", "192.0.2.1", known=known) as attempt:
            if not known:
                await both_inside.wait()
                await go_on.wait()
            attempt.forgive()

    first = [asyncio.create_task(log_in(known=False)) for _ in range(2)]
    async with asyncio.timeout(10):
        await both_inside.wait()
        second = [asyncio.create_task(log_in(known=True)) for _ in range(2)]
        await asyncio.sleep(0.05)  # time to be refused in
        go_on.set()
        await asyncio.gather(*first, *second)
