"""Millions of users with their sessions and totals in PostgreSQL, and those of them who call."""

import asyncio
import os
import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import asyncpg
from redis import Redis

from models.keys import BUCKETS, bucket_key
from models.tokens import TokenSigner
from tests.bench.processes import BenchError
from tests.bench.report import say
from tests.bench.stack import Stack

CHUNK = 250_000
SCRIPT_CHUNK = 2_500
TODAY_EACH = 5
"""Each fifth user has called today."""

POSTGRES_BYTES_A_USER, REDIS_BYTES_A_USER = 900, 500
"""For the look at what is free; what they really are is measured."""

_USERS = """
INSERT INTO users (id, username, username_key, password_hash, created_at)
SELECT id, 'user' || id, 'user' || id, repeat('h', 97), now() FROM generate_series($1::bigint, $2::bigint) AS id"""
INSERT_SESSIONS = """
INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at)
SELECT id, nextval('session_versions'), sha256(id::text::bytea), at, at + interval '1 day', at
  FROM unnest($1::bigint[]) AS id,
       LATERAL (SELECT date_trunc('milliseconds', now()) - make_interval(secs => 3600 + id * 7919 % 3600)) AS _ (at)"""
_SESSIONS = INSERT_SESSIONS.replace("unnest($1::bigint[])", "generate_series($1::bigint, $2::bigint)")
_TOTALS = """
INSERT INTO call_totals (user_id, calls, updated_at)
SELECT id, id * 7919 % 1000 + 1, now() FROM generate_series($1::bigint, $2::bigint) AS id"""
_WINDOWS = """
INSERT INTO call_windows (starts_at, hours, user_id, calls)
SELECT date_trunc('day', now(), 'UTC'), 24, id, id * 7919 % 1000 + 1
  FROM generate_series($1::bigint, $2::bigint) AS id WHERE id % $3::bigint = 0"""
_SKETCH = """
INSERT INTO caller_sketches AS s (bucket, sketch, snapshot, updated_at) VALUES ($1, $2, 1, now())
ON CONFLICT (bucket) DO UPDATE SET sketch = excluded.sketch, snapshot = s.snapshot + 1 RETURNING s.snapshot"""
_LOG_IN = """
UPDATE sessions AS s SET version = nextval('session_versions'), token_digest = digest
  FROM unnest($1::bigint[], $2::bytea[]) AS given(id, digest) WHERE s.user_id = id
RETURNING s.user_id, s.version, (extract(epoch FROM s.expires_at) * 1000)::bigint AS expires_ms"""

_CALLERS = """
-- KEYS 1 callers   ARGV 1 first user id   2 last user id, of the same bucket
local ids = {}
for id = tonumber(ARGV[1]), tonumber(ARGV[2]), 64 do ids[#ids + 1] = string.format('%.0f', id) end
return redis.call('PFADD', KEYS[1], unpack(ids))
"""


def demand_room(folder: Path, users: int) -> None:
    """See that so many users fit.

    Raises:
        BenchError: how much is missing of what.
    """
    needed = {
        "disk": (users * POSTGRES_BYTES_A_USER, shutil.disk_usage(folder).free),
        "memory": (users * REDIS_BYTES_A_USER, _free_memory()),
    }
    for what, (bytes_, free) in needed.items():
        if free < bytes_:
            gib = [amount / 2**30 for amount in (bytes_, free)]
            raise BenchError(
                f"{users:,} users need about {gib[0]:.1f} GiB of {what}, and {gib[1]:.1f} are free: "
                "make room, or ask for smaller sizes with --sizes."
            )


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


async def fill_postgres(stack: Stack, first: int, last: int) -> None:
    """Insert the users from `first` to `last`, each with a session and a total, some with calls of today."""
    others: list[tuple[str, Sequence[int]]] = [(_USERS, ()), (_TOTALS, ()), (_WINDOWS, (TODAY_EACH,))]
    await asyncio.gather(
        _insert(stack, others, first, last, "users and totals"),
        _insert(stack, [(_SESSIONS, ())], first, last, "sessions"),
    )
    connection = await asyncpg.connect(stack.postgres.url)
    for table in ("users", "sessions", "call_totals", "call_windows"):
        await connection.execute(f"VACUUM ANALYZE {table}")
    await connection.close()


async def _insert(
    stack: Stack, statements: Sequence[tuple[str, Sequence[int]]], first: int, last: int, what: str
) -> None:
    connection = await asyncpg.connect(stack.postgres.url)
    # All rows are ours, so no row is looked up to see that another is there.
    await connection.execute("SET session_replication_role = replica")
    for start in range(first, last + 1, CHUNK):
        end = min(last, start + CHUNK - 1)
        for statement, args in statements:
            await connection.execute(statement, start, end, *args)
        if end % 1_000_000 == 0 or end == last:
            say(f"  {what}: {end:,}")
    await connection.close()


async def store_sketches(stack: Stack, users: int) -> list[int]:
    """Store the HyperLogLogs of users 1 to `users`, which Redis computes and keeps; returns the snapshots' numbers."""
    connection, numbers = await asyncpg.connect(stack.postgres.url), []
    with Redis.from_url(stack.valkey.url) as redis:
        for bucket in range(BUCKETS):
            run_script(redis, _CALLERS, [bucket_key(bucket, "callers")], bucket, users)
            sketch = redis.get(bucket_key(bucket, "callers")) or b""
            numbers.append(int(await connection.fetchval(_SKETCH, bucket, sketch)))
    await connection.close()
    return numbers


def run_script(redis: "Redis", script: str, keys: Sequence[str], bucket: int, users: int, *args: object) -> None:
    """Run a script over the users of a bucket, some thousands at a time."""
    sha, step = str(redis.script_load(script)), BUCKETS * SCRIPT_CHUNK
    pipe = redis.pipeline(transaction=False)
    for start in range(bucket or BUCKETS, users + 1, step):
        pipe.evalsha(sha, len(keys), *keys, str(start), str(min(users, start + step - 1)), *map(str, args))
    pipe.execute()


async def log_in(stack: Stack, user_ids: Iterable[int]) -> list[str]:
    """Give these users sessions of which we have the tokens."""
    signer = TokenSigner([stack.secret_key])
    secret = {user_id: signer.new_secret() for user_id in user_ids}
    connection = await asyncpg.connect(stack.postgres.url)
    rows = await connection.fetch(_LOG_IN, list(secret), [digest for _, digest in secret.values()])
    await connection.close()
    return [signer.sign(uid, version, expires_ms, secret[uid][0]) for uid, version, expires_ms in rows]


def some_of(users: int, count: int, seed: int) -> list[int]:
    """Distinct users of 1 to `users`, as the seed picks them."""
    return random.Random(seed).sample(range(1, users + 1), min(count, users))
