"""What one process counted since its start, and what all of them did: plain integers, cheap enough for every call."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

OUTCOMES = "admitted", "limited", "unauthorized", "unavailable"
"""How the gate's calls ended: 200 or what the route says, 429, 401, or 503 as neither store could tell."""

WAYS = "cached", "fallback", "tombstone", "degraded"
"""How a session was judged: by the cache alone; by PostgreSQL, as the cache had no entry; refused by the cache, which
has a newer session or a tombstone; by PostgreSQL, as Redis is away or not to be believed yet."""

LIMITED_BY, SHADOWED_BY = "limited:", "shadowed:"
"""Before a policy's name: what it refused, and what it would have refused if it were no shadow."""


SNAPSHOT_JOB = "snapshot_usage"


class Meters:
    """The counts of one process, under the names by which all processes' totals are kept.

    Args:
        policies: the names of all that there are.
    """

    __slots__ = ("_told", "counts")

    def __init__(self, policies: Iterable[str]) -> None:
        names = [*OUTCOMES, *WAYS]
        names += [kind + policy for policy in policies for kind in (LIMITED_BY, SHADOWED_BY)]
        self.counts = dict.fromkeys(names, 0)
        self._told = dict(self.counts)

    def count(self, name: str) -> None:
        """One more."""
        self.counts[name] += 1

    def take_untold(self) -> dict[str, int]:
        """What was counted since the last time, under the names that changed."""
        told, self._told = self._told, dict(self.counts)
        return {name: count - told[name] for name, count in self._told.items() if count != told[name]}

    def put_back(self, untold: Mapping[str, int]) -> None:
        """What could not be told after all comes with the next."""
        for name, count in untold.items():
            self._told[name] -= count


class Metered(msgspec.Struct, frozen=True):
    """Calls that the gate counted.

    Args:
        admitted, limited, unauthorized, unavailable: see `OUTCOMES`.
        cached, fallback, tombstone, degraded: see `WAYS`. Calls without a signed, unexpired token have no way.
        limited_by: policy → calls that it refused. One refused by two policies is in both.
        shadowed_by: policy → admitted calls that it would have refused if it were no shadow.
    """

    admitted: int = 0
    limited: int = 0
    unauthorized: int = 0
    unavailable: int = 0
    cached: int = 0
    fallback: int = 0
    tombstone: int = 0
    degraded: int = 0
    limited_by: dict[str, int] = {}
    shadowed_by: dict[str, int] = {}


def metered(counts: Mapping[str, int]) -> Metered:
    """What `Meters` counted, by its names; those that are missing are 0, unknown ones are left out."""
    plain: dict[str, Any] = {name: counts.get(name, 0) for name in (*OUTCOMES, *WAYS)}
    limited_by, shadowed_by = (
        {name.removeprefix(kind): count for name, count in counts.items() if name.startswith(kind)}
        for kind in (LIMITED_BY, SHADOWED_BY)
    )
    return Metered(**plain, limited_by=limited_by, shadowed_by=shadowed_by)


class Gauges(msgspec.Struct, frozen=True):
    """How one process is at the moment.

    Args:
        redis_up: it answered lately.
        redis_trusted: cached sessions are believed without a look into PostgreSQL.
        uncounted: admitted calls that wait for Redis to be counted there.
        connections_used, connections_idle, connections_most: of the pool to PostgreSQL.
        hashing, hashing_waiting: passwords.
    """

    redis_up: bool
    redis_trusted: bool
    uncounted: int
    connections_used: int
    connections_idle: int
    connections_most: int
    hashing: int
    hashing_waiting: int


class JobFacts(msgspec.Struct, frozen=True):
    """What is known of a worker's job; times are Redis's, in milliseconds since 1970.

    Args:
        runs: that came to an end, well or badly, in all workers.
        failed: of these.
        ended_ms: when the last run did; 0 for never.
        succeeded_ms: when the last good run ended; 0 for never.
        took_ms: the last run.
        took_total_ms: all runs.
    """

    runs: int = 0
    failed: int = 0
    ended_ms: int = 0
    succeeded_ms: int = 0
    took_ms: int = 0
    took_total_ms: int = 0


class Facts(msgspec.Struct, frozen=True):
    """What all processes on all machines have told, as of one moment.

    Args:
        now_ms: Redis's clock, in milliseconds since 1970.
        meters: of all web processes, since Redis keeps them.
        jobs: name → facts, of those that have run.
        beat_ms: the worker's heartbeat, by the same clock; 0 for none.
    """

    now_ms: int
    meters: Metered
    jobs: dict[str, JobFacts]
    beat_ms: int = 0

    def age_s(self, then_ms: int) -> float | None:
        """Seconds since one of these times; None for never."""
        return max(0, self.now_ms - then_ms) / 1000 if then_ms else None

    @property
    def heartbeat_age_s(self) -> float | None:
        return self.age_s(self.beat_ms)

    @property
    def snapshot_age_s(self) -> float | None:
        """Since the last good snapshot ended: calls older than this are in PostgreSQL's counters."""
        return self.age_s(self.jobs.get(SNAPSHOT_JOB, JobFacts()).succeeded_ms)


def job_facts(fields: Mapping[str, int]) -> dict[str, JobFacts]:
    """Job → its facts, from fields like `<job>:runs`."""
    found: dict[str, dict[str, int]] = {}
    for field, number in fields.items():
        job, _, name = field.partition(":")
        if name in JobFacts.__struct_fields__:
            found.setdefault(job, {})[name] = number
    return {job: JobFacts(**numbers) for job, numbers in found.items()}
