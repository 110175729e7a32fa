"""The measurements at one size, on a stack that has been filled."""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import asyncpg
import uvloop

from models.connections import Stores
from models.keys import BUCKETS, bucket_key, totals_key, user_key
from models.windows import HOUR_US, Window
from tests.bench.processes import BenchError
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import say
from tests.bench.stack import Stack
from tests.scale.calls import Calls, postgres_cpu_s, redis_cpu_s
from tests.scale.fill import INSERT_SESSIONS, log_in, some_of, store_sketches
from tests.scale.fill_redis import fill_bucket, lose_bucket, say_lost
from tests.scale.measured import Job, Measured

CALLING, LEAST_CALLING = 2_000, 500
DIRTY, EXPIRED = 100_000, 300_000
CHANGED = 30_000
PIPELINE = 10_000
EMPTY_BYTES = 10_000_000
TABLES = ("users", "sessions", "call_totals", "call_windows")

_EXPIRE = "UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE user_id = ANY ($1::bigint[])"
_CHANGE = """
UPDATE sessions SET version = nextval('session_versions'), changed_at = clock_timestamp()
 WHERE user_id = ANY ($1::bigint[])"""
_CHANGE_BACK = "UPDATE sessions SET changed_at = created_at WHERE user_id = ANY ($1::bigint[])"

Work = Callable[[Stores], Awaitable[int]]


class Bench:
    """One size.

    Args:
        seconds: how long wrk calls; 0 for a few calls of each caller in this process, and no HTTP.
        lost: how many of the 64 buckets Redis loses, to be rebuilt by the worker's jobs; the others are filled.
        share: of the numbers of rows that the jobs are given, 1 but in tests.
        rounds: of each measurement, of which the cheapest is kept: other work on the machine makes it dearer.
    """

    def __init__(
        self, stack: Stack, users: int, seconds: int, lost: int = BUCKETS, share: float = 1.0, rounds: int = 1
    ) -> None:
        self._lost, self._rounds = range(lost), range(rounds)
        self.stack, self.users, self._seconds = stack, users, seconds
        self._dirty, self._expired, self._changed = (
            min(users, max(64, round(n * share))) for n in (DIRTY, EXPIRED, CHANGED)
        )
        self._callers = some_of(users, max(LEAST_CALLING, round(CALLING * share)), seed=users)
        self._facts = RedisFacts(stack.valkey.url)
        self._redis: Any = self._facts.client
        self._jobs: dict[str, Job] = {}
        self._bytes: dict[str, float] = {}

    def run(self) -> Measured:
        """All of it; Redis is emptied first."""
        began_s, load = time.monotonic(), os.getloadavg()[0]
        postgres_bytes = {table: self._ask(f"SELECT pg_total_relation_size('{table}')") for table in TABLES}
        calls = Calls(self.stack, self._callers, uvloop.run(log_in(self.stack, self._callers)))
        self._prepare()
        for _ in self._rounds:
            self._rebuild()
        gate, reads = calls.by_http(self._seconds, self._rounds) if self._seconds else (uvloop.run(calls.here()), {})
        counted = uvloop.run(self._with_stores(lambda stores: stores.usage.count_callers()))
        fallbacks = uvloop.run(calls.fall_back())
        for number in self._rounds:
            self._active(number)
            self._snapshot()
        for number in self._rounds:
            self._sync(number)
        for _ in self._rounds:
            self._expire()
        memory = cast(dict[str, Any], self._redis.info("memory"))
        return Measured(
            users=self.users,
            lost=len(self._lost),
            dirty=self._dirty,
            gate=gate,
            fallbacks_per_s=round(fallbacks, 1),
            jobs=self._jobs,
            reads_ms=reads,
            counted=counted,
            redis_bytes=self._bytes,
            redis_used=int(memory["used_memory"]),
            redis_resident=int(memory["used_memory_rss"]),
            postgres_bytes=postgres_bytes,
            load_average=[round(load, 2), round(os.getloadavg()[0], 2)],
            measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            took_s=round(time.monotonic() - began_s, 1),
        )

    # What is lost into Redis

    def _prepare(self) -> None:
        began_s = time.monotonic()
        self._redis.flushall()
        while self._facts.used_bytes() > EMPTY_BYTES:  # memory is given back in the background
            time.sleep(0.1)
        self._bytes["empty"] = self._facts.used_bytes()
        for bucket, number in enumerate(uvloop.run(store_sketches(self.stack, self.users))):
            if bucket not in self._lost:
                fill_bucket(self._redis, bucket, self.users, self._window(), number)
        say(f"  {BUCKETS - len(self._lost)} buckets filled in {time.monotonic() - began_s:.0f} s")

    def _rebuild(self) -> None:
        for bucket in self._lost:
            lose_bucket(self._redis, bucket, self.users, self._window())
        self._job("restore", lambda stores: _users(stores.snapshots.restore()))
        totals, day = self._zcard(""), self._zcard(self._window().name)
        self._bytes["total"] = self._key_bytes("totals") / sum(totals)
        self._bytes["total of a window"] = self._key_bytes(f"totals:{self._window().name}") / sum(day)
        self._bytes["callers, a bucket"] = self._key_bytes("callers") / BUCKETS
        before = self._facts.used_bytes()
        uvloop.run(self._with_stores(lambda stores: say_lost(self._redis, stores, self._lost)))
        job = self._job("sync of all", _published)
        self._bytes.setdefault("session", (self._facts.used_bytes() - before) / job.rows)
        self._demand("totals", sum(totals), self.users)
        self._demand("published sessions", job.rows, sum(totals[: len(self._lost)]))

    def _job(self, name: str, work: Work) -> Job:
        self._facts.reset()
        redis_s, postgres_s = redis_cpu_s(self._facts), postgres_cpu_s(self.stack)
        rows, seconds, cpu_s = uvloop.run(self._timed(work))
        longest_us, longest = self._facts.longest()
        job = Job(
            rows=rows,
            seconds=round(seconds, 3),
            redis_cpu_s=round(redis_cpu_s(self._facts) - redis_s, 3),
            worker_cpu_s=round(cpu_s, 3),
            postgres_cpu_s=round(postgres_cpu_s(self.stack) - postgres_s, 3),
            longest_ms=longest_us / 1000,
            longest=longest,
        )
        best = self._jobs.setdefault(name, job)
        if job.cpu_s / max(1, rows) < best.cpu_s / max(1, best.rows):
            self._jobs[name] = job
        say(f"  {name}: {rows:,} rows in {seconds:.2f} s, {job.cpu_s:.2f} s of work; {job.longest_ms:.1f} ms {longest}")
        return job

    async def _timed(self, work: Work) -> tuple[int, float, float]:
        async with self.stack.stores() as stores:
            await stores.away()  # connects to both
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            rows = await work(stores)
            return rows, time.perf_counter() - began_s, time.process_time() - began_cpu_s

    async def _with_stores(self, work: Callable[[Stores], Awaitable[Any]]) -> Any:
        async with self.stack.stores() as stores:
            return await work(stores)

    # Jobs whose work is that of some users

    def _active(self, number: int) -> None:
        """Many users call once: what that costs in memory until it is folded, and then in a snapshot."""
        ids = some_of(self.users, self._dirty, seed=self.users + 1 + number)
        uvloop.run(self._with_stores(lambda stores: stores.usage.count_callers()))  # folds what is there
        hour, at = self._now_us() // HOUR_US, self._facts.used_bytes()
        self._each(ids, lambda pipe, uid: pipe.hincrby(bucket_key(uid % BUCKETS, "pending"), f"{uid}:{hour}", 1))
        self._bytes["pending"] = (self._facts.used_bytes() - at) / len(ids)
        at = self._facts.used_bytes()
        self._each(ids, lambda pipe, uid: pipe.set(user_key(uid, "calls_at"), b"8 bytes.", px=3_600_000))
        self._bytes["calls_at"] = (self._facts.used_bytes() - at) / len(ids)
        self._each(ids, lambda pipe, uid: pipe.delete(user_key(uid, "calls_at")))

    def _each(self, ids: Sequence[int], add: Callable[[Any, int], object]) -> None:
        for start in range(0, len(ids), PIPELINE):
            pipe = self._redis.pipeline(transaction=False)
            for user_id in ids[start : start + PIPELINE]:
                add(pipe, user_id)
            pipe.execute()

    def _snapshot(self) -> None:
        uvloop.run(self._with_stores(lambda stores: stores.usage.count_callers()))  # into `dirty`
        size = sum(self._redis.memory_usage(bucket_key(b, "dirty"), samples=0) or 0 for b in range(BUCKETS))
        self._bytes["dirty"] = size / sum(self._redis.scard(bucket_key(b, "dirty")) for b in range(BUCKETS))
        job = self._job("snapshot", lambda stores: _users(stores.snapshots.take()))
        if not self._dirty <= job.rows <= self._dirty + len(self._callers):
            raise BenchError(f"the snapshot stored {job.rows:,} users, not the {self._dirty:,} dirty ones.")

    def _sync(self, bucket: int) -> None:
        ids = some_of(self.users, self._changed, seed=self.users + 100 + bucket)
        uvloop.run(self._execute(_CHANGE, ids))
        self._job("sync of some", _published)
        self._demand("changed sessions", self._jobs["sync of some"].rows, self._changed)
        self._job("sync of nothing", _published)
        uvloop.run(self._execute(_CHANGE_BACK, ids))
        uvloop.run(self._with_stores(lambda stores: say_lost(self._redis, stores, [bucket])))
        self._job("sync of a bucket", _read)

    def _expire(self) -> None:
        uvloop.run(self._execute("VACUUM sessions"))  # what autovacuum would have done between two runs
        ids = some_of(self.users, self._expired, seed=self.users + 200)
        uvloop.run(self._execute(_EXPIRE, ids))
        job = self._job("expire", lambda stores: stores.sessions.expire())
        self._demand("expired sessions", job.rows, len(ids))
        uvloop.run(self._execute(INSERT_SESSIONS, ids))

    async def _execute(self, statement: str, *args: object) -> None:
        connection = await asyncpg.connect(self.stack.postgres.url)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(statement, *args)
        await connection.close()

    # Looks

    def _ask(self, query: str) -> int:
        return self.stack.ask(query)

    def _demand(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise BenchError(f"{what}: {found:,}, not {expected:,}; the figures say nothing.")

    def _now_us(self) -> int:
        seconds, us = self._redis.time()
        return int(seconds) * 1_000_000 + int(us)

    def _window(self) -> Window:
        return Window("d", self._now_us() // HOUR_US // 24)

    def _zcard(self, window: str) -> list[int]:
        return [int(self._redis.zcard(totals_key(bucket, window))) for bucket in range(BUCKETS)]

    def _key_bytes(self, name: str) -> int:
        return sum(int(self._redis.memory_usage(bucket_key(b, name), samples=500) or 0) for b in range(BUCKETS))


async def _users(result: Awaitable[Any]) -> int:
    return int((await result).users)


async def _published(stores: Stores) -> int:
    return (await stores.sessions.sync()).published


async def _read(stores: Stores) -> int:
    return (await stores.sessions.sync()).rows
