"""What things cost, fitted to the measurements at the smallest sizes, and what other sizes will take by that."""

import math
import random
from collections.abc import Sequence

import msgspec

from models.keys import BUCKETS
from tests.scale.fill import TODAY_EACH
from tests.scale.measured import Measured

DRAWS = 20


class Each(msgspec.Struct, frozen=True):
    """What one row of a job takes: of time, of processor time in all, and of Redis's alone."""

    time_us: float
    cpu_us: float
    redis_us: float


NOTHING = Each(0.0, 0.0, 0.0)


class Costs(msgspec.Struct, frozen=True):
    """Constants, each of one row, one call or one key.

    Args:
        rows: job → how many rows it was given.
        users: at which size.
        each: job → what one of them took.
        grows: job → how much more it takes with twice the users: trees are deeper, and less of them is in a cache.
    """

    users: int
    callers: int
    script_us: float
    redis_cpu_us: float
    web_cpu_us: float
    fallbacks_per_s: float
    rows: dict[str, int]
    each: dict[str, Each]
    grows: dict[str, Each]
    longest_ms: float
    redis_bytes: dict[str, float]
    postgres_bytes: dict[str, float]

    @classmethod
    def fit(cls, one: Measured, next_one: Measured | None = None) -> "Costs":
        """The constants that one size shows, and how those of the jobs grow to the next."""
        rows, each, grows = {name: job.rows for name, job in one.jobs.items()}, _each(one), {}
        if next_one:
            per_doubling = 1 / math.log2(next_one.users / one.users)
            grows = {name: _more(each[name], dearer, per_doubling) for name, dearer in _each(next_one).items()}
        return cls(
            users=one.users,
            callers=one.gate.callers,
            script_us=one.gate.script_us,
            redis_cpu_us=one.gate.redis_cpu_us,
            web_cpu_us=one.gate.web_cpu_us,
            fallbacks_per_s=one.fallbacks_per_s,
            rows=rows,
            each=each,
            grows=grows,
            longest_ms=max(job.longest_ms for job in one.jobs.values()),
            redis_bytes=one.redis_bytes,
            postgres_bytes={table: size / one.users for table, size in one.postgres_bytes.items()},
        )

    def of(self, job: str, users: int) -> Each:
        """What a row takes with so many users."""
        each, grows, doublings = self.each[job], self.grows.get(job, NOTHING), math.log2(users / self.users)
        return Each(*(each_us + more_us * doublings for each_us, more_us in zip(_us(each), _us(grows), strict=True)))

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


def _more(each: Each, dearer: Each, part: float) -> Each:
    """A part of how much dearer it is; cheaper it becomes by chance alone."""
    return Each(*(max(0.0, us - less_us) * part for us, less_us in zip(_us(dearer), _us(each), strict=True)))


def _us(each: Each) -> tuple[float, float, float]:
    return each.time_us, each.cpu_us, each.redis_us


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
        each = costs.of(job, users)
        jobs[f"{job}, s"] = count * each.time_us / 1e6
        jobs[f"{job}, CPU s"] = count * each.cpu_us / 1e6
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
