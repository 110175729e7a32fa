"""Storms: do callers notice when everybody logs in at once, or when Redis is emptied under load?

login storm     First as many clients as the queue for password checks holds, each with the next login after the answer;
                then many more, who come back about a second after each answer, as `Retry-After` asks. Others call
                `/ping` at a modest rate all the while.
fallback storm  FLUSHALL while 64 connections call `/ping` for 2,000 users: no call may fail, PostgreSQL may see only a
                bounded number of reads at a time, and about one for each user.

Results: tables and .bench/storms.json.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import msgspec

from models.passwords import Passwords
from tests.bench.entry import exit_code_of
from tests.bench.load import Load, Shape, Wrk, measure, write_pings, write_requests
from tests.bench.machine import describe
from tests.bench.processes import Service, resident_kib
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import conditions, judge, say, table, write_json
from tests.bench.sampling import Readers, Sampler
from tests.bench.stack import Stack, open_stack

CALLING = 2_000
LOGGING_IN = 2_000
PASSWORD = "correct horse battery staple"
MODEST = Shape(connections=8, pause_ms=8)
"""About a thousand calls a second."""

QUEUED = Shape(connections=64, count_statuses=True)
BEYOND = Shape(connections=400, pause_ms=1_000, count_statuses=True)
BUSY = Shape(count_statuses=True)
FLUSHES = 3

_READS = "SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'sessions'"


class LoginStorm(msgspec.Struct, frozen=True):
    """Logins by status, and what they did to the callers of `/ping` and to the memory of the web process."""

    name: str
    logins_per_s: float
    statuses: dict[str, int]
    login_p99_ms: float
    ping_p99_ms: float
    ping_p99_idle_ms: float
    rss_mib: list[float]

    @property
    def shed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status.startswith("503"))

    @property
    def shed_with_advice(self) -> int:
        return self.statuses.get("503 with Retry-After", 0)


class FallbackStorm(msgspec.Struct, frozen=True):
    """What emptying Redis did."""

    flushes: int
    users: int
    calls: int
    statuses: dict[str, int]
    failed: int
    reads: int
    most_reads_at_a_time: int
    worst_ms: float


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.bench.storms", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=10, help="length of each storm (default 10)")
    arguments = parser.parse_args()
    return exit_code_of(lambda: run(arguments.seconds))


def run(seconds: int) -> None:
    """Run the storms, print what was measured and write it."""
    with open_stack() as stack:
        machine = describe(RedisFacts(stack.valkey.url).version())
        say("creating users")
        pings, logins = _prepare(stack)
        with stack.gatehouse() as web:
            login_storms = _login_storms(web, pings, logins, seconds)
        fallback = _fallback_storm(stack, pings, seconds)
    _show(login_storms, fallback)
    say(f"\n{conditions(machine)}")
    content = {"login_storms": login_storms, "fallback_storm": fallback, "machine": machine}
    say(f"written: {write_json('storms.json', content).name}")


def _prepare(stack: Stack) -> tuple[Path, Path]:
    """Some users who call, with sessions, and others who log in, with a password."""
    calling, logging_in = list(range(1, CALLING + 1)), list(range(CALLING + 1, CALLING + LOGGING_IN + 1))
    asyncio.run(stack.add_users(calling))
    asyncio.run(stack.add_users(logging_in, asyncio.run(_hash(PASSWORD))))
    pings = write_pings(stack.folder / "ping.http", asyncio.run(stack.start_sessions(calling)))
    asyncio.run(stack.cache_sessions())
    return pings, write_requests(stack.folder / "login.http", (_login(f"user{uid}") for uid in logging_in))


async def _hash(password: str) -> str:
    passwords = Passwords()
    try:
        return await passwords.hash(password)
    finally:
        passwords.close()


def _login(username: str) -> str:
    body = json.dumps({"username": username, "password": PASSWORD})
    head = f"POST /login HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}"


def _login_storms(web: Service, pings: Path, logins: Path, seconds: int) -> list[LoginStorm]:
    measure(pings, [web.port], 2)
    say("/ping without any login")
    idle = measure(pings, [web.port], seconds, MODEST)
    idle.demand_clean("idle")
    storms = []
    for name, shape in (("as many as the queue holds", QUEUED), ("more than it holds", BEYOND)):
        say(f"login storm: {name}, {shape.connections} clients")
        with (
            Sampler(lambda: resident_kib(web.pid) / 1024, 0.25) as memory,
            Wrk(logins, [web.port], shape, seconds + 2) as storm,
        ):
            time.sleep(1)
            load = measure(pings, [web.port], seconds, MODEST)
            logged_in = storm.result()
        load.demand_clean("/ping during the login storm")
        storms.append(_login_storm(name, logged_in, load, idle, memory.samples))
        time.sleep(1)
    return storms


def _login_storm(name: str, logins: Load, pings: Load, idle: Load, rss_mib: list[float]) -> LoginStorm:
    return LoginStorm(
        name=name,
        logins_per_s=round(logins.statuses.get("200", 0) / logins.duration_us * 1e6, 1),
        statuses=logins.statuses,
        login_p99_ms=logins.p99_us / 1000,
        ping_p99_ms=pings.p99_us / 1000,
        ping_p99_idle_ms=idle.p99_us / 1000,
        rss_mib=[round(sample, 1) for sample in rss_mib],
    )


def _fallback_storm(stack: Stack, pings: Path, seconds: int) -> FallbackStorm:
    redis, reads_before = RedisFacts(stack.valkey.url), stack.ask(_READS)
    say(f"fallback storm: {FLUSHES} times FLUSHALL under load")
    with stack.gatehouse("fallback") as web:
        measure(pings, [web.port], 1)
        with (
            Readers(stack) as readers,
            Sampler(readers.count, 0.002) as reading,
            Wrk(pings, [web.port], BUSY, seconds) as wrk,
        ):
            for _ in range(FLUSHES):
                time.sleep(seconds / (FLUSHES + 2))
                redis.client.flushall()
            load = wrk.result()
    # The web process is gone by now, and with it its connections, which tell what they counted when they end.
    reads = stack.ask(_READS) - reads_before
    failed = load.errors + load.broken + load.timeouts
    most = int(max(reading.samples, default=0))
    return FallbackStorm(FLUSHES, CALLING, load.requests, load.statuses, failed, reads, most, load.max_us / 1000)


def _show(login_storms: list[LoginStorm], fallback: FallbackStorm) -> None:
    head = [
        "login storm",
        "logins/s",
        "503",
        "of all",
        "login p99 ms",
        "ping p99 ms",
        "idle p99 ms",
        "RSS MiB first-most",
    ]
    cells = [
        [
            storm.name,
            f"{storm.logins_per_s:.0f}",
            f"{storm.shed:,}",
            f"{storm.shed / sum(storm.statuses.values()):.0%}",
            f"{storm.login_p99_ms:.0f}",
            f"{storm.ping_p99_ms:.2f}",
            f"{storm.ping_p99_idle_ms:.2f}",
            f"{storm.rss_mib[0]:.0f}-{max(storm.rss_mib):.0f}",
        ]
        for storm in login_storms
    ]
    say("\n" + table(head, cells))
    names = list(FallbackStorm.__struct_fields__)
    figures = [f"{getattr(fallback, name)}" for name in names]
    say(
        "\n"
        + table(
            ["fallback storm", ""],
            [[name.replace("_", " "), figure] for name, figure in zip(names, figures, strict=True)],
        )
    )
    say()
    for storm in login_storms:
        say(judge(f"{storm.name}: ping p99 / idle", storm.ping_p99_ms / storm.ping_p99_idle_ms, 3, at_most=True))
        say(judge(f"{storm.name}: 503 without Retry-After", storm.shed - storm.shed_with_advice, 0, at_most=True))
    say(judge("fallback storm: failed calls", fallback.failed, 0, at_most=True))
    say(judge("fallback storm: reads for each user and flush", fallback.reads / FLUSHES / CALLING, 1.1, at_most=True))


if __name__ == "__main__":
    sys.exit(main())
