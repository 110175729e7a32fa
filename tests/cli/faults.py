"""Faults of a deployment, each planted on the real servers for the time of a `with`, and the check that has to fail."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis
from tortoise.context import TortoiseContext
from tortoise.migrations.api import migrate as run_migrations

from models.connections import Stores
from models.database import _tortoise_config
from models.devservers import ValkeyServer, free_port
from models.keys import bucket_key
from models.postgres_target import parse_postgres
from models.settings import Settings
from tests.cli.conftest import Ran, environment, run_here
from tests.conftest import Servers

CHECKS = {
    *("settings", "secret_keys", "postgres", "postgres_version", "postgres_role", "postgres_clock", "migrations"),
    *("permissions", "session_versions", "redis", "redis_version", "redis_role", "eviction", "append_only_file"),
    *("memory", "redis_clock", "scripts", "worker", "counters", "snapshots", "queue"),
}
OF_POSTGRES = {"postgres_version", "postgres_role", "postgres_clock", "migrations", "permissions", "session_versions"}
OF_REDIS = {"redis_version", "redis_role", "eviction", "append_only_file", "memory", "redis_clock", "scripts", "worker"}
OF_COUNTERS = {"counters", "snapshots"}


@contextmanager
def own_valkey() -> Iterator[ValkeyServer]:
    """A Redis as it should be set up: with an append-only file."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        Path(folder).chmod(0o755)
        with ValkeyServer(Path(folder) / "valkey", durable=True) as server:
            yield server


@dataclass
class Deployment:
    """What the doctor looks at, well until something is planted in it."""

    settings: Settings
    stores: Stores
    servers: Servers
    redis: Any

    async def examine(self, **changes: Any) -> Ran:
        """`gatehouse doctor --json`, with these settings changed."""
        environ = environment(replace(self.settings, **changes))
        if "queue_redis_url" in changes:
            environ["ARQ_REDIS_URL"] = changes["queue_redis_url"]
        return await asyncio.to_thread(run_here, environ, "doctor", "--json")

    async def postgres(self, statement: str) -> None:
        await self.stores.database.fetch(statement)


Fault = Callable[[Deployment], AbstractAsyncContextManager[dict[str, Any]]]
"""Plants something for the time of a `with`, and gives the settings that it needs."""


@asynccontextmanager
async def redis_stopped(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    url = f"redis://127.0.0.1:{free_port()}/0"
    yield {"redis_url": url}


@asynccontextmanager
async def postgres_stopped(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    server = deployment.servers.postgres
    await asyncio.to_thread(server.stop)
    try:
        yield {}
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def read_only_replica(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    master = deployment.settings.redis_url.rpartition(":")[2].partition("/")[0]
    await deployment.redis.config_set("repl-diskless-sync-delay", 0)
    with own_valkey() as server:
        async with Redis.from_url(server.url) as redis, asyncio.timeout(20):
            await redis.execute_command("REPLICAOF", "127.0.0.1", master)
            while (await redis.info("replication"))["master_link_status"] != "up":
                await asyncio.sleep(0.02)
        yield {"redis_url": server.url, "queue_redis_url": deployment.settings.redis_url}


def configured(name: str, value: str, before: str) -> Fault:
    @asynccontextmanager
    async def planted(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
        await deployment.redis.config_set(name, value)
        try:
            yield {}
        finally:
            await deployment.redis.config_set(name, before)

    return planted


@asynccontextmanager
async def wrong_redis_password(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.redis.execute_command("ACL", "SETUSER", "guest", "on", ">right", "~*", "+@all")
    yield {"redis_url": deployment.settings.redis_url.replace("redis://", "redis://guest:wrong@")}


@asynccontextmanager
async def missing_migration(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    url = deployment.settings.database_url.replace("/gatehouse", "/older")
    await deployment.postgres("CREATE DATABASE older")
    try:
        with TortoiseContext() as orm:
            await run_migrations(config=_tortoise_config(parse_postgres(url)), target="gatehouse.0004_known_addresses")
            await orm.close_connections()
        yield {"database_url": url}
    finally:
        await deployment.postgres("DROP DATABASE older WITH (FORCE)")


@asynccontextmanager
async def wrong_postgres_password(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    rules = deployment.servers.postgres.data / "pg_hba.conf"
    before = rules.read_text()
    await deployment.postgres("CREATE ROLE guest LOGIN PASSWORD 'right'")
    rules.write_text(f"host all guest 127.0.0.1/32 scram-sha-256\n{before}")
    await deployment.postgres("SELECT pg_reload_conf()")
    try:
        async with asyncio.timeout(10):  # the server reads it when it comes to it
            while await can_log_in(deployment.settings.database_url.replace("app@", "guest:wrong@")):
                await asyncio.sleep(0.02)
        yield {"database_url": deployment.settings.database_url.replace("app@", "guest:wrong@")}
    finally:
        rules.write_text(before)
        await deployment.postgres("SELECT pg_reload_conf()")
        await deployment.postgres("DROP ROLE guest")


async def can_log_in(url: str) -> bool:
    try:
        await (await asyncpg.connect(url)).close()
    except asyncpg.InvalidPasswordError:
        return False
    return True


@asynccontextmanager
async def no_database(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    yield {"database_url": deployment.settings.database_url.replace("/gatehouse", "/nowhere")}


@asynccontextmanager
async def role_without_rights(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.postgres("CREATE ROLE visitor LOGIN")
    await deployment.postgres("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO visitor")
    await deployment.postgres("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO visitor")
    try:
        yield {"database_url": deployment.settings.database_url.replace("app@", "visitor@")}
    finally:
        await deployment.postgres("DROP OWNED BY visitor")
        await deployment.postgres("DROP ROLE visitor")


@asynccontextmanager
async def read_only_postgres(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.postgres("CREATE ROLE reader LOGIN SUPERUSER")
    await deployment.postgres("ALTER ROLE reader SET default_transaction_read_only = on")
    try:
        yield {"database_url": deployment.settings.database_url.replace("app@", "reader@")}
    finally:
        await deployment.postgres("DROP ROLE reader")


@asynccontextmanager
async def sequence_set_back(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.postgres("SELECT setval('session_versions', 1)")
    try:
        yield {}
    finally:
        await deployment.postgres("SELECT setval('session_versions', (SELECT max(version) FROM sessions))")


@asynccontextmanager
async def no_worker(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    ((run_id, state),) = (await deployment.redis.hgetall("gate:sync")).items()
    watermark_us, beat_us, buckets = state.split(":")
    await deployment.redis.hset("gate:sync", run_id, f"{watermark_us}:{int(beat_us) - 60_000_000}:{buckets}")
    yield {}


@asynccontextmanager
async def never_a_worker(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.redis.delete("gate:sync")
    yield {}


@asynccontextmanager
async def lost_counters(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.redis.delete(bucket_key(1, "ready"), bucket_key(2, "ready"))
    yield {}


@asynccontextmanager
async def older_counters(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.redis.set(bucket_key(3, "ready"), 0)
    await deployment.postgres("INSERT INTO caller_sketches VALUES (3, '', now(), 5) ON CONFLICT DO NOTHING")
    yield {}


@asynccontextmanager
async def no_snapshots(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    await deployment.redis.hset(bucket_key(1, "pending"), "1:480000", 5)
    await deployment.redis.delete(*[bucket_key(bucket, "drainer") for bucket in range(64)])
    await deployment.postgres("UPDATE caller_sketches SET updated_at = now() - interval '1 hour'")
    yield {}


@asynccontextmanager
async def queue_stopped(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    yield {"queue_redis_url": f"redis://127.0.0.1:{free_port()}/1"}


FAULTS: dict[str, tuple[Fault, str, set[str], str]] = {
    "stopped Redis": (redis_stopped, "redis", OF_REDIS | OF_COUNTERS, "REDIS_URL has its host and port"),
    "stopped PostgreSQL": (postgres_stopped, "postgres", OF_POSTGRES | OF_COUNTERS, "see that the server runs"),
    "read-only replica": (read_only_replica, "redis_role", {"worker"}, "point REDIS_URL at the master"),
    "allkeys-lru": (configured("maxmemory-policy", "allkeys-lru", "noeviction"), "eviction", set(), "noeviction"),
    "full memory": (configured("maxmemory", "1100000", "0"), "memory", set(), "raise maxmemory"),
    "wrong Redis password": (wrong_redis_password, "redis", OF_REDIS | OF_COUNTERS, "right user and password"),
    "missing migration": (
        missing_migration,
        "migrations",
        {"permissions", "session_versions"} | OF_COUNTERS,
        "gatehouse migrate",
    ),
    "wrong password": (wrong_postgres_password, "postgres", OF_POSTGRES | OF_COUNTERS, "into DATABASE_URL"),
    "no database": (no_database, "postgres", OF_POSTGRES | OF_COUNTERS, "create the database"),
    "role without rights": (role_without_rights, "permissions", {"session_versions"}, "GRANT"),
    "read-only PostgreSQL": (read_only_postgres, "postgres_role", set(), "primary"),
    "sequence set back": (sequence_set_back, "session_versions", set(), r"SELECT setval\('session_versions', \d+\)"),
    "worker gone": (no_worker, "worker", set(), "worker.main --check"),
    "never a worker": (never_a_worker, "worker", set(), "worker.main"),
    "lost counters": (lost_counters, "counters", set(), "restore_usage"),
    "older counters": (older_counters, "counters", set(), "restore_usage"),
    "no snapshots": (no_snapshots, "snapshots", set(), "snapshot_usage"),
    "stopped queue": (queue_stopped, "queue", set(), "ARQ_REDIS_URL"),
}
