"""Row 10: many guesses at once, from many addresses, while the user wants to log in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.errors import InvalidCredentials, LoginThrottled, Overloaded, StoreUnavailable
from models.events import Origin
from models.limits import parse_limits
from models.passwords import Passwords
from models.throttle import Attempt, LoginThrottle
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

GUESSES, ADDRESSES = 1_000, 100
FEW_GUESSES = 40
"""In the short form: four times as many as may be verified."""

SHORT = 2
MOST_VERIFIED = 10
HOME = Origin("192.0.2.1", "")
LATE = "counted after the password was looked at"
NO_LANE = "one lane for all"


class _Verifications:
    """Counts how often a wrong password is verified."""

    def __init__(self, password: str) -> None:
        self.count = 0
        self._password = password
        self._real = Passwords.verify

    async def verify(self, passwords: Passwords, password: str, stored: str | None, **given: Any) -> Any:
        self.count += password != self._password
        return await self._real(passwords, password, stored, **given)


async def _guess(stores: Stores, name: str, number: int, refused: list[str]) -> None:
    origin = Origin(f"198.51.100.{number % ADDRESSES}", "")
    try:
        await stores.accounts.log_in(name, f"guess {number}", origin)
    except (InvalidCredentials, LoginThrottled, Overloaded, StoreUnavailable) as error:
        refused.append(type(error).__name__)


async def _round(processes: list[Stores], name: str, guessed: int, outcome: Outcome, *, lose_redis: bool) -> None:
    """One attack on one user, so many guesses spread over the processes, while the user logs in from home."""
    password = f"password of {name}"
    await processes[0].accounts.add(name, password)
    await processes[0].accounts.log_in(name, password, HOME)
    counted, refused = _Verifications(password), list[str]()
    with patch.object(Passwords, "verify", lambda *a, **k: counted.verify(*a, **k)):
        guesses = [
            asyncio.create_task(_guess(processes[number % len(processes)], name, number, refused))
            for number in range(guessed)
        ]
        await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(5):
                await processes[-1].accounts.log_in(name, password, HOME)
        except (LoginThrottled, Overloaded, TimeoutError) as error:
            outcome.violations.append(f"{name} cannot log in meanwhile: {type(error).__name__}")
        await asyncio.gather(*guesses)
        allowed = MOST_VERIFIED
        if lose_redis:
            # What Redis knew is gone; what each process remembers of its own attempts is not.
            async with Redis.from_url(processes[0].settings.redis_url) as redis:
                await redis.flushall()
            await asyncio.gather(*(_guess(processes[n % len(processes)], name, n, refused) for n in range(guessed)))
            allowed = MOST_VERIFIED * len(processes)
    outcome.check(counted.count <= allowed, f"{counted.count} guesses of {name}'s password were verified")
    outcome.check(counted.count > 0, f"no guess of {name}'s password was verified: nothing was attacked")
    outcome.figures["most verified"] = max(counted.count, outcome.figures.get("most verified", 0))


@asynccontextmanager
async def _counted_late(
    throttle: LoginThrottle, username_key: str, address: str, *, known: bool
) -> AsyncIterator[Attempt]:
    """The planted variant: what a lookup before and a count after the verification do."""
    scopes = throttle._scopes(username_key, address, known=known)
    for scope, limits in scopes:
        if min(throttle._local.judge(scope, limits, 0)[0]) <= 0:
            raise LoginThrottled(1)
    attempt = Attempt()
    try:
        yield attempt
    finally:
        if not attempt.forgiven:
            with suppress(LoginThrottled):
                throttle._reserve_here(scopes)


@scenario(
    10,
    "guessing",
    "1,000 guesses at once from 100 addresses cost 10 verifications at most, and the user logs in meanwhile",
    full=200,
    short=SHORT,
    planted=(LATE, NO_LANE),
    planted_rounds=1,
)
async def guessing(stage: Stage, rounds: int, planted: str) -> Outcome:
    """A user a round, attacked through two processes; in every other round Redis is lost in the middle."""
    outcome, guessed = Outcome(), GUESSES if rounds > SHORT else FEW_GUESSES
    settings = replace(stage.settings, login_limits_user=parse_limits("10/15m"))
    settings = replace(settings, login_limits_user_address=parse_limits("10/15m"))
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(open_stores(settings)) for _ in range(2)]
        if planted == LATE:
            stack.enter_context(patch.object(LoginThrottle, "attempt", _counted_late))
        if planted == NO_LANE:
            plain = LoginThrottle._scopes
            stack.enter_context(
                patch.object(
                    LoginThrottle, "_scopes", lambda s, name, address, known: plain(s, name, address, known=False)
                )
            )
        for number in range(rounds):
            await _round(processes, f"user{number}", guessed, outcome, lose_redis=bool(number % 2))
            outcome.tried += 1
            stage.progress(outcome.tried)
    return outcome
