"""Row 11: whether a refused login's time tells what kind of user was asked for."""

import itertools
import random
import statistics
import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from passlib.hash import bcrypt

from models import passwords
from models.connections import Stores, open_stores
from models.errors import InvalidCredentials
from models.passwords import Passwords
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

PASSWORD = "correct horse battery"
TELLING_T = 4.5
WARM_UP = 5
ONE_HASH = "one hash for each refusal"
# Name → the password that is sent. The disabled users are asked with their own.
KINDS = {
    "unknown": "wrong",
    "argon2": "wrong",
    "bcrypt": "wrong",
    "disabled argon2": PASSWORD,
    "disabled bcrypt": PASSWORD,
}


def welch_t(a: list[float], b: list[float]) -> float:
    """Welch's t of two samples with unequal variances (Biometrika 34, 1947)."""
    error = (statistics.variance(a) / len(a) + statistics.variance(b) / len(b)) ** 0.5
    return float((statistics.fmean(a) - statistics.fmean(b)) / error)


async def _add_users(stores: Stores) -> None:
    for kind in KINDS:
        if kind != "unknown":
            await stores.accounts.add(kind, PASSWORD)
    old = bcrypt.using(rounds=10, ident="2a").hash(PASSWORD)
    await stores.database.fetch("UPDATE users SET password_hash = $1 WHERE username LIKE '%bcrypt'", old)
    await stores.database.fetch("UPDATE users SET disabled_at = now() WHERE username LIKE 'disabled%'")


async def _time_one(stores: Stores, kind: str) -> float:
    started_at = time.perf_counter()
    try:
        await stores.accounts.log_in(kind, KINDS[kind])
    except InvalidCredentials:
        return time.perf_counter() - started_at
    raise AssertionError(f"{kind} was let in")


def _one_hash(self: Passwords, password: str, stored: str, usable: bool) -> tuple[bool, Any]:
    """The planted variant: a dummy hash for unknown users, and else whatever the stored one takes."""
    valid, better = passwords._verify(password, stored or self._dummy_argon2) or (False, None)
    return (valid, better) if usable else (False, None)


@scenario(
    11,
    "enumeration",
    "a refused login takes the same time for unknown, argon2, bcrypt and disabled users: Welch's |t| < 4.5",
    full=2_000,
    short=0,  # tests/unit/test_refusal_work.py counts the hashes instead
    planted=(ONE_HASH,),
    planted_rounds=20,
)
async def enumeration(stage: Stage, rounds: int, planted: str) -> Outcome:
    """So many samples of each kind, in random order; compared pair by pair, all of them and the faster nine tenths."""
    outcome = Outcome()
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        if planted == ONE_HASH:
            stack.enter_context(patch.object(Passwords, "_verify", _one_hash))
        async with open_stores(stage.settings) as stores:
            await _add_users(stores)
            for number in range(WARM_UP + rounds):
                for kind in random.sample(list(KINDS), len(KINDS)):
                    took_s = await _time_one(stores, kind)
                    if number >= WARM_UP:
                        times[kind].append(took_s)
                outcome.tried = max(0, number + 1 - WARM_UP)
                stage.progress(outcome.tried)
    _compare(times, outcome)
    return outcome


def _compare(times: dict[str, list[float]], outcome: Outcome) -> None:
    slow_s = statistics.quantiles([took_s for kind in times.values() for took_s in kind], n=10)[-1]
    most = 0.0
    for one, other in itertools.combinations(times, 2):
        faster = [[took_s for took_s in times[kind] if took_s < slow_s] for kind in (one, other)]
        for what, t in (("all", welch_t(times[one], times[other])), ("faster 0.9", welch_t(faster[0], faster[1]))):
            most = max(most, abs(t))
            outcome.check(abs(t) < TELLING_T, f"{one} and {other} differ: t = {t:.1f} ({what})")
    outcome.figures["largest |t|"] = round(most, 2)
    for kind, taken in times.items():
        outcome.figures[f"{kind} median ms"] = round(1_000 * statistics.median(taken), 2)
