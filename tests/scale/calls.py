"""Calls at one size: admitted ones, ones that fall back to PostgreSQL, and `/top` and `/count`."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, cast

from models.keys import BUCKETS, bucket_key, user_key
from models.usage import Usage
from tests.bench.load import measure, write_pings
from tests.bench.processes import BenchError, Service
from tests.bench.reads import read_times_ms
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import say
from tests.bench.stack import Stack
from tests.scale.measured import Gate

WARM_UP_S = 1
PROBES, ROUNDS = 50, 5
READS = ("/top", "/count", "/top?window=day", "/count?window=day")


class Calls:
    """Those who call, with their tokens."""

    def __init__(self, stack: Stack, callers: Sequence[int], tokens: Sequence[str]) -> None:
        self._stack, self._callers, self._tokens = stack, callers, tokens
        self._facts = RedisFacts(stack.valkey.url)
        self._redis: Any = self._facts.client

    def by_http(self, seconds: int, rounds: range) -> tuple[Gate, dict[str, float]]:
        """Through a web process, from wrk, the cheapest round; and how long reads take there, in milliseconds."""
        requests = write_pings(self._stack.folder / "ping.http", self._tokens)
        with self._stack.gatehouse("scale") as web:
            measure(requests, [web.port], WARM_UP_S)
            gates = [self._load(web, requests, seconds) for _ in rounds]
            best = min(gates, key=lambda gate: gate.redis_cpu_us + gate.web_cpu_us)
            return best, {path: round(median(read_times_ms(web.port, path, PROBES)), 3) for path in READS}

    def _load(self, web: Service, requests: Path, seconds: int) -> Gate:
        before, redis_s, web_s = self._counted(), redis_cpu_s(self._facts), _cpu_s(web.pid)
        self._facts.reset()
        load = measure(requests, [web.port], seconds)
        load.demand_clean("the gate")
        spent_s = redis_cpu_s(self._facts) - redis_s, _cpu_s(web.pid) - web_s
        return self._gate(load.requests, load.rps, load.p99_us / 1000, before, *spent_s)

    async def here(self) -> Gate:
        """In this process, a few of each caller."""
        async with self._stack.stores() as stores:
            await self._admit(stores.usage)  # whose session is not cached, falls back now
            before, redis_s, web_s = self._counted(), redis_cpu_s(self._facts), time.process_time()
            self._facts.reset()
            began_s = time.perf_counter()
            for _ in range(ROUNDS):
                await self._admit(stores.usage)
            took_s = time.perf_counter() - began_s
        calls, web_s = ROUNDS * len(self._tokens), time.process_time() - web_s
        spent_s = redis_cpu_s(self._facts) - redis_s, web_s
        return self._gate(calls, calls / took_s, took_s * 1000 / ROUNDS, before, *spent_s)

    async def fall_back(self) -> float:
        """How many calls a second of users whose sessions are not cached, all at once."""
        self._redis.delete(*(user_key(user_id, "session") for user_id in self._callers))
        async with self._stack.stores() as stores:
            await stores.away()  # connects to both
            began_s = time.perf_counter()
            await self._admit(stores.usage)
            return len(self._tokens) / (time.perf_counter() - began_s)

    async def _admit(self, usage: Usage) -> None:
        for admission in await asyncio.gather(*map(usage.admit, self._tokens)):
            if not admission.admitted:
                raise BenchError("A call was not admitted; the figures say nothing.")

    def _counted(self) -> list[int]:
        """Calls that wait to be folded, by bucket."""
        return [sum(map(int, self._redis.hvals(bucket_key(bucket, "pending")))) for bucket in range(BUCKETS)]

    def _gate(self, calls: int, rps: float, p99_ms: float, before: Sequence[int], redis_s: float, web_s: float) -> Gate:
        script = self._facts.script_time()
        if script is None or script.calls < calls:
            raise BenchError("Redis has seen fewer scripts than calls; how are calls admitted now?")
        made = [after - b for after, b in zip(self._counted(), before, strict=True)]
        gate = Gate(
            callers=len(self._callers),
            calls=calls,
            rps=round(rps, 1),
            p99_ms=round(p99_ms, 3),
            script_us=script.mean_us,
            redis_cpu_us=round(redis_s / calls * 1e6, 2),
            web_cpu_us=round(web_s / calls * 1e6, 2),
            imbalance=round(max(made) / (sum(made) / BUCKETS), 3),
        )
        say(f"  gate: {gate.rps:,.0f}/s, script {gate.script_us:.1f} µs, imbalance {gate.imbalance:.2f}")
        return gate


def redis_cpu_s(facts: RedisFacts) -> float:
    """The processor time of Redis so far."""
    cpu = cast(dict[str, float], facts.client.info("cpu"))
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"]


def postgres_cpu_s(stack: Stack) -> float:
    """The processor time of PostgreSQL so far: of its children that are there, and of those that have ended."""
    pid = stack.postgres.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _cpu_s(pid, ended=True) + sum(_cpu_s(int(child)) for child in children)


def _cpu_s(pid: int, *, ended: bool = False) -> float:
    """The processor time of a process so far, or of its children that have ended. Linux only."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[13:15] if ended else fields[11:13])) / os.sysconf("SC_CLK_TCK")
