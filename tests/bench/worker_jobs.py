"""The worker's jobs with a million rows: how fast, in how much memory, and what do callers notice?

Each job runs as the worker runs it, in a process of its own, while wrk calls `/ping` at a modest rate: few connections
that rest between their calls, so that what is measured is what the job does to a caller and not a queue of our making.
Redis records every command of a millisecond or more meanwhile. After each job the stores are checked against one
another.

Results: a table and .bench/worker.json.
"""

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.bench.entry import exit_code_of
from tests.bench.filling import fill_counters
from tests.bench.job import JobResult
from tests.bench.load import Load, Shape, Wrk, measure, write_pings
from tests.bench.machine import describe
from tests.bench.processes import OUTPUT, BenchError, Service, end, spawn
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import conditions, judge, say, table, write_json
from tests.bench.stack import Stack, open_stack

CALLING = 2_000
MODEST = Shape(connections=8, pause_ms=8)
"""About a thousand calls a second."""

IDLE_S = 5
EXPIRED_FROM = 100_000_000

_EXPIRED_USERS = """
INSERT INTO users (id, username, username_key, password_hash, created_at)
SELECT id, 'user' || id, 'user' || id, '', now() FROM generate_series($1::bigint, $2::bigint) AS id"""
_EXPIRED_SESSIONS = r"""
INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at)
SELECT id, nextval('session_versions'), sha256(id::text::bytea), now() - interval '2 hours',
       now() - interval '1 hour' - random() * interval '1 hour', now() - interval '2 hours'
  FROM generate_series($1::bigint, $2::bigint) AS id"""


class Row(msgspec.Struct, frozen=True):
    """One job: its own figures, and what callers and Redis saw meanwhile."""

    name: str
    rows: int
    seconds: float
    rows_per_s: float
    peak_mib_above_idle: float
    ping_p99_ms: float
    ping_p99_idle_ms: float
    longest_redis_command_ms: float
    longest_redis_command: str


class Bench:
    """The stack, a web process under modest load, and the jobs one by one."""

    def __init__(self, stack: Stack, web: Service, users: int) -> None:
        self.stack, self.web, self.users = stack, web, users
        self.redis = RedisFacts(stack.valkey.url)
        self.idle: Load
        self.requests: Path

    def prepare(self) -> None:
        """Sessions for those who call, and how fast `/ping` is while no job runs."""
        user_ids = list(range(1, CALLING + 1))
        asyncio.run(self.stack.add_users(user_ids))
        self.requests = write_pings(self.stack.folder / "ping.http", asyncio.run(self.stack.start_sessions(user_ids)))
        asyncio.run(self.stack.cache_sessions())
        measure(self.requests, [self.web.port], 2)
        say(f"/ping without any job, {IDLE_S} s")
        self.idle = measure(self.requests, [self.web.port], IDLE_S, MODEST)
        self.idle.demand_clean("idle")

    def snapshot_usage(self) -> Row:
        """Store the totals of all users, all of them dirty."""
        fill_counters(self.stack.valkey.url, range(1, self.users + 1), dirty=True)
        row = self._watch("snapshot_usage")
        stored = self.stack.ask("SELECT count(*) FROM call_totals")
        if stored != self.users:
            raise BenchError(f"snapshot_usage stored {stored:,} of {self.users:,} users.")
        return row

    def restore_usage(self) -> Row:
        """Give the totals back to a Redis that has lost everything; the sessions are cached again before."""
        stored = self.stack.ask("SELECT sum(calls)::bigint FROM call_totals")
        self.redis.client.flushall()
        asyncio.run(self._sync_alone())
        row = self._watch("restore_usage")
        counted = self.redis.calls_counted()
        if not stored + self.load.requests <= counted <= stored + self.load.requests + MODEST.connections:
            raise BenchError(
                f"restore_usage: {stored:,} stored and {self.load.requests:,} made, but {counted:,} counted."
            )
        return row

    def expire_sessions(self) -> Row:
        """Delete the sessions of users who have long gone."""
        say(f"inserting {self.users:,} expired sessions")
        self.stack.ask(_EXPIRED_USERS, EXPIRED_FROM, EXPIRED_FROM + self.users - 1)
        self.stack.ask(_EXPIRED_SESSIONS, EXPIRED_FROM, EXPIRED_FROM + self.users - 1)
        self.stack.ask("ANALYZE sessions")
        row = self._watch("expire_sessions")
        left = self.stack.ask("SELECT count(*) FROM sessions")
        if left != CALLING:
            raise BenchError(f"expire_sessions left {left:,} sessions, not the {CALLING:,} live ones.")
        return row

    def _watch(self, name: str) -> Row:
        say(f"{name} of {self.users:,} users")
        log = OUTPUT / "logs" / f"{name}.log"
        command = [sys.executable, "-m", "tests.bench.job", name]
        job = spawn(command, self.stack.environ(), log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert job.stdout
        try:
            job.stdout.readline()
            self.redis.reset()
            with Wrk(self.requests, [self.web.port], MODEST) as wrk:
                output, _ = job.communicate(b"go\n")
                self.load = wrk.stop()
        finally:
            end(job)
        if job.returncode != 0:
            raise BenchError(f"{name} failed; see {log}.")
        self.load.demand_clean(f"/ping during {name}")
        return self._row(name, msgspec.json.decode(output, type=JobResult))

    def _row(self, name: str, result: JobResult) -> Row:
        longest_us, command = self.redis.longest()
        row = Row(
            name=name,
            rows=result.rows,
            seconds=round(result.seconds, 2),
            rows_per_s=round(result.rows / result.seconds),
            peak_mib_above_idle=round((result.peak_kib - result.idle_kib) / 1024, 1),
            ping_p99_ms=self.load.p99_us / 1000,
            ping_p99_idle_ms=self.idle.p99_us / 1000,
            longest_redis_command_ms=longest_us / 1000,
            longest_redis_command=command,
        )
        events = self.redis.latency_events()
        say(f"  {row.rows:,} rows in {row.seconds} s; the latency monitor of Redis, in ms: {events or 'nothing'}")
        return row

    async def _sync_alone(self) -> None:
        async with self.stack.stores() as stores:
            await stores.sessions.sync()


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m tests.bench.worker_jobs", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="users of each job (default 1 million)")
    arguments = parser.parse_args()
    return exit_code_of(lambda: run(arguments.rows))


def run(users: int) -> None:
    """Run the jobs, print what was measured and write it."""
    with open_stack() as stack, stack.gatehouse() as web:
        bench = Bench(stack, web, users)
        machine = describe(bench.redis.version())
        bench.prepare()
        rows = [bench.snapshot_usage(), bench.restore_usage(), bench.expire_sessions()]
    _show(rows)
    say(f"\n{conditions(machine)}")
    say(f"written: {write_json('worker.json', {'rows': rows, 'machine': machine}).name}")


def _show(rows: list[Row]) -> None:
    head = ["job", "rows", "seconds", "rows/s", "MiB above idle", "ping p99 ms", "idle p99 ms", "longest command ms"]
    cells = [
        [
            row.name,
            f"{row.rows:,}",
            f"{row.seconds:.1f}",
            f"{row.rows_per_s:,.0f}",
            f"{row.peak_mib_above_idle:.1f}",
            f"{row.ping_p99_ms:.2f}",
            f"{row.ping_p99_idle_ms:.2f}",
            f"{row.longest_redis_command_ms:.1f} {row.longest_redis_command}" if row.longest_redis_command else "< 1",
        ]
        for row in rows
    ]
    say("\n" + table(head, cells) + "\n")
    for row in rows:
        say(judge(f"{row.name}, MiB above idle", row.peak_mib_above_idle, 150, at_most=True))
        say(judge(f"{row.name}, ping p99 / idle", row.ping_p99_ms / row.ping_p99_idle_ms, 3, at_most=True))
        say(judge(f"{row.name}, longest Redis command ms", row.longest_redis_command_ms, 5, at_most=True))


if __name__ == "__main__":
    sys.exit(main())
