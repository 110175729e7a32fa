"""What things cost, fitted to the measurements at the smallest sizes, and what other sizes will take by that."""

import math
import random
from collections.abc import Sequence

import msgspec

from models.keys import BUCKETS
from tests.scale.fill import TODAY_EACH
from tests.scale.measured import Measured

DRAWS = 20
GROWING = ("snapshot",)
"""The jobs that look for their rows all over the tables: the larger these, the fewer are in a cache."""


class Each(msgspec.Struct, frozen=True):
    """What one row of a job takes: of time, of processor time in all, and of Redis's alone."""

    time_us: float
    cpu_us: float
    redis_us: float


class Costs(msgspec.Struct, frozen=True):
    """Constants, each of one row, one call or one key.

    Args:
        rows: job → how many rows it was given.
        users: at which size.
        each: job → what one of them took.
        grows_us: job → how much more it takes with twice the users, where rows are looked for all over the tables.
    """

    users: int
    callers: int
    script_us: float
    redis_cpu_us: float
    web_cpu_us: float
    fallbacks_per_s: float
    rows: dict[str, int]
    each: dict[str, Each]
    grows_us: dict[str, float]
    longest_ms: float
    redis_bytes: dict[str, float]
    postgres_bytes: dict[str, float]

    @classmethod
    def fit(cls, one: Measured, next_one: Measured | None = None) -> "Costs":
        """The constants that one size shows, and how they grow to the next."""
        rows, each = {name: job.rows for name, job in one.jobs.items()}, _each(one)
        grows_us = dict.fromkeys(GROWING, 0.0)
        if next_one:
            doublings = math.log2(next_one.users / one.users)
            grows_us = {name: (_each(next_one)[name].cpu_us - each[name].cpu_us) / doublings for name in GROWING}
        return cls(
            users=one.users,
            callers=one.gate.callers,
            script_us=one.gate.script_us,
            redis_cpu_us=one.gate.redis_cpu_us,
            web_cpu_us=one.gate.web_cpu_us,
            fallbacks_per_s=one.fallbacks_per_s,
            rows=rows,
            each=each,
            grows_us=grows_us,
            longest_ms=max(job.longest_ms for job in one.jobs.values()),
            redis_bytes=one.redis_bytes,
            postgres_bytes={table: size / one.users for table, size in one.postgres_bytes.items()},
        )

    def cpu_us(self, job: str, users: int) -> float:
        """The processor time of a row, with so many users."""
        return self.each[job].cpu_us + self._more_us(job, users)

    def time_us(self, job: str, users: int) -> float:
        """The time that a row takes, with so many users."""
        return self.each[job].time_us + self._more_us(job, users)

    def _more_us(self, job: str, users: int) -> float:
        return self.grows_us.get(job, 0.0) * math.log2(users / self.users)

    def redis_used(self, users: float, today: float, this_hour: float) -> float:
        """Bytes of Redis with all sessions cached, nothing waiting to be snapshotted and nobody just limited."""
        each = self.redis_bytes
        windows = (today + this_hour) * each["total of a window"]
        return users * (each["session"] + each["total"]) + windows + BUCKETS * each["callers, a bucket"] + each["empty"]


def _each(one: Measured) -> dict[str, Each]:
    return {
        name: Each(*(took_s / max(1, job.rows) * 1e6 for took_s in (job.seconds, job.cpu_s, job.redis_cpu_s)))
        for name, job in one.jobs.items()
    }


def predict(costs: Costs, users: int, lost: int = BUCKETS) -> dict[str, float]:
    """By name what a size will show: the names of `Measured.figures`.

    Args:
        lost: how many of the 64 buckets are rebuilt.
    """
    today, dirty, share = users / TODAY_EACH, costs.rows["snapshot"], lost / BUCKETS
    touched_today = today + dirty * (1 - 1 / TODAY_EACH)
    rows = {
        "restore": (users + today) * share,
        "sync of all": users * share,
        "sync of a bucket": users / BUCKETS,
        "sync of some": costs.rows["sync of some"],
        "snapshot": dirty,
        "expire": costs.rows["expire"],
    }
    jobs = {}
    for job, count in rows.items():
        jobs[f"{job}, s"] = count * costs.time_us(job, users) / 1e6
        jobs[f"{job}, CPU s"] = count * costs.cpu_us(job, users) / 1e6
    return jobs | {
        "gate, script µs": costs.script_us,
        "gate, Redis CPU µs": costs.redis_cpu_us,
        "gate, web CPU µs": costs.web_cpu_us,
        "fallbacks/s": costs.fallbacks_per_s,
        "bucket imbalance": imbalance(users, costs.callers),
        "Redis memory, MB": costs.redis_used(users, touched_today, dirty) / 1e6,
        "PostgreSQL, MB": users * sum(costs.postgres_bytes.values()) / 1e6,
        "callers counted": float(users),
    }


def imbalance(users: int, calling: int, weights: Sequence[float] | None = None, seed: int = 1) -> float:
    """Calls of the busiest bucket to the mean, when so many random users call; the mean of several draws.

    Args:
        weights: how often each of them calls; all alike without.
    """
    rng, found = random.Random(seed), 0.0
    for _ in range(DRAWS):
        loads = [0.0] * BUCKETS
        for number, user_id in enumerate(rng.sample(range(1, users + 1), min(calling, users))):
            loads[user_id % BUCKETS] += weights[number] if weights else 1.0
        found += max(loads) / (sum(loads) / BUCKETS) / DRAWS
    return found
