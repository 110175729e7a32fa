"""Growth: is the gate as fast with millions of users in its counters, and what does a user cost in Redis?

Two Valkeys and two web processes, measured in turn with the same 1,000 users: one Valkey has counted those alone, the
other millions more. Then `/top` and `/count` at the larger size, `/count` also right after every bucket has met new
callers, when no estimate is one that Redis has cached. Then the memory of users who have everything a user can have.

Results: tables and .bench/growth.json.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles

import msgspec

from models.connections import Stores
from models.devservers import ValkeyServer
from models.keys import BUCKETS, bucket_key
from tests.bench.entry import exit_code_of
from tests.bench.filling import fill_counters
from tests.bench.load import Load, measure, write_pings
from tests.bench.machine import describe
from tests.bench.processes import BenchError
from tests.bench.reads import read_times_ms
from tests.bench.redis_facts import CommandTime, RedisFacts
from tests.bench.report import conditions, judge, say, table, write_json
from tests.bench.stack import Stack, open_stack

CALLING = 1_000
WARM_UP_S = 2
PROBES = 200

MEMORY_USERS = 100_000
MEMORY_AT_ONCE = 500
MEMORY_LIMIT = "1/1h"
"""One time in each user's list, as with the default limit, and one that stays while we look."""


@dataclass
class Side:
    """One of the two sizes, while it is measured."""

    users: int
    redis: RedisFacts
    port: int
    loads: list[Load] = field(default_factory=list)


class SideResult(msgspec.Struct, frozen=True):
    """What was measured at one size; `commands` are those that run for each admitted call."""

    users: int
    rps: float
    p99_ms: float
    script_us: float
    longest_command_us: int
    commands: list[CommandTime]
    used_bytes: int


class Times(msgspec.Struct, frozen=True):
    """Of calls one after another, in milliseconds, HTTP included."""

    path: str
    p50_ms: float
    p99_ms: float


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.bench.growth", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--users", type=int, default=5_000_000, help="users of the larger side (default 5 million)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (default 5)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default 5)")
    arguments = parser.parse_args()
    return exit_code_of(lambda: run(arguments.users, arguments.rounds, arguments.seconds))


def run(users: int, rounds: int, seconds: int) -> None:
    """Measure everything, print it and write it."""
    with open_stack() as stack, ValkeyServer(stack.folder / "small", durable=False) as small:
        machine = describe(RedisFacts(small.url).version())
        sides, times = _measure_sides(stack, small, users, rounds, seconds)
        memory = asyncio.run(_memory(stack, small.url))
    _show(sides, times, memory)
    say(f"\n{conditions(machine)}")
    path = write_json("growth.json", {"sides": sides, "reads": times, "memory_bytes": memory, "machine": machine})
    say(f"written: {path.name}")


def _measure_sides(
    stack: Stack, small: ValkeyServer, users: int, rounds: int, seconds: int
) -> tuple[list[SideResult], list[Times]]:
    calling = sorted(random.sample(range(1, users + 1), CALLING))
    asyncio.run(stack.add_users(calling))
    requests = write_pings(stack.folder / "ping.http", asyncio.run(stack.start_sessions(calling)))
    with ExitStack() as services:
        sides = []
        for url, user_ids in ((small.url, calling), (stack.valkey.url, range(1, users + 1))):
            asyncio.run(stack.cache_sessions(REDIS_URL=url))
            fill_counters(url, user_ids)
            service = services.enter_context(stack.gatehouse(f"{len(user_ids)}-users", REDIS_URL=url))
            sides.append(Side(len(user_ids), RedisFacts(url), service.port))
        for side in sides:
            measure(requests, [side.port], WARM_UP_S)
            side.redis.reset()
        for number in range(1, rounds + 1):
            for side in sides:
                load = measure(requests, [side.port], seconds)
                load.demand_clean(f"{side.users:,} users")
                side.loads.append(load)
                say(f"round {number}/{rounds}  {side.users:10,} users {load.rps:9,.0f}/s")
        return [_result(side) for side in sides], _read_times(sides[1])


def _result(side: Side) -> SideResult:
    calls = sum(load.requests for load in side.loads)
    script, times = side.redis.script_time(), side.redis.command_times()
    if script is None:
        raise BenchError("Redis has seen no script; how are calls admitted now?")
    return SideResult(
        users=side.users,
        rps=round(median(load.rps for load in side.loads), 1),
        p99_ms=median(load.p99_us for load in side.loads) / 1000,
        script_us=script.mean_us,
        longest_command_us=side.redis.longest()[0],
        commands=[time for time in times if time.calls >= calls / 2 and time.command != script.command],
        used_bytes=side.redis.used_bytes(),
    )


def _read_times(side: Side) -> list[Times]:
    """How long `/top` and `/count` take with nothing else going on."""

    def new_callers() -> None:
        with side.redis.client.pipeline(transaction=False) as pipe:
            for bucket in range(BUCKETS):
                pipe.pfadd(bucket_key(bucket, "callers"), *(str(random.getrandbits(60)) for _ in range(100)))
            pipe.execute()

    return [
        _time("/top", side.port, lambda: None),
        _time("/count", side.port, lambda: None),
        _time("/count", side.port, new_callers, ", no estimate cached"),
    ]


def _time(path: str, port: int, before_each: Callable[[], None], note: str = "") -> Times:
    cuts = quantiles(read_times_ms(port, path, PROBES, before_each), n=100)
    return Times(path + note, round(cuts[49], 3), round(cuts[98], 3))


async def _memory(stack: Stack, redis_url: str) -> dict[str, float]:
    """Bytes of Redis's memory for each of many users: their sessions cached, then one call of each admitted."""
    say(f"measuring the memory of {MEMORY_USERS:,} users")
    facts, user_ids = RedisFacts(redis_url), list(range(10_000_001, 10_000_001 + MEMORY_USERS))
    facts.client.flushall()
    await stack.add_users(user_ids)
    tokens = await stack.start_sessions(user_ids)
    empty_bytes = facts.used_bytes()
    await stack.cache_sessions(REDIS_URL=redis_url)
    cached_bytes = facts.used_bytes()
    async with stack.stores(REDIS_URL=redis_url, RATE_LIMITS=MEMORY_LIMIT) as stores:
        for start in range(0, MEMORY_USERS, MEMORY_AT_ONCE):
            await asyncio.gather(*(_admit(stores, token) for token in tokens[start : start + MEMORY_AT_ONCE]))
    used_bytes = facts.used_bytes()
    return {
        "session": round((cached_bytes - empty_bytes) / MEMORY_USERS, 1),
        "calls_at, totals, callers, dirty": round((used_bytes - cached_bytes) / MEMORY_USERS, 1),
        "all": round((used_bytes - empty_bytes) / MEMORY_USERS, 1),
    }


async def _admit(stores: Stores, token: str) -> None:
    if not (await stores.usage.admit(token)).admitted:
        raise BenchError("A first call was not admitted.")


def _show(sides: Sequence[SideResult], times: Sequence[Times], memory: dict[str, float]) -> None:
    small, large = sides
    rows = [
        [f"{s.users:,} users", f"{s.rps:,.0f}", f"{s.p99_ms:.2f}", f"{s.script_us:.2f}", f"{s.longest_command_us:,}"]
        for s in sides
    ]
    say("\n" + table(["in the counters", "requests/s", "p99 ms", "script µs", "longest command µs (0: < 1,000)"], rows))
    commands = [[one.command, f"{one.calls:,}", f"{one.mean_us:.2f}"] for one in large.commands]
    say("\n" + table(["inside the script", "calls", "µs each"], commands))
    say(
        "\n" + table(["one after another", "p50 ms", "p99 ms"], [[t.path, f"{t.p50_ms}", f"{t.p99_ms}"] for t in times])
    )
    say("\n" + table(["memory of a user", "bytes"], [[name, f"{size}"] for name, size in memory.items()]) + "\n")
    say(judge("rate with the larger counters / the smaller", large.rps / small.rps, 0.9))
    say(judge("script time, µs", large.script_us, 15, at_most=True))
    for one in times:
        say(judge(f"{one.path}, p50 ms", one.p50_ms, 2, at_most=True))
    say(judge("bytes a user", memory["all"], 400, at_most=True))


if __name__ == "__main__":
    sys.exit(main())
