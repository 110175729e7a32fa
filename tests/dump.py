"""What both stores hold, to compare or to search; and what they were asked, to show that it was nothing."""

from typing import Any

import asyncpg
from redis.asyncio.cluster import RedisCluster

from models.settings import Settings
from tests.redis_client import connect, masters_of

_READERS: dict[bytes, str] = {b"string": "get", b"hash": "hgetall", b"set": "smembers"}
_OURS = ("info", "client", "select", "hello")
_OF_SERVERS = ("cluster", "command", "ping", "publish", "psync", "replconf", "role", "subscribe")
"""What masters, replicas and sentinels ask each other, and what we ask now and then: what a cluster looks like."""


async def dump_redis(settings: Settings) -> dict[bytes, tuple[bytes, Any, int]]:
    """Each key with its type, what it holds and when it expires (ms since 1970, -1 for never)."""
    found: dict[bytes, tuple[bytes, Any, int]] = {}
    async with connect(settings.redis_url) as redis:
        async for key in redis.scan_iter():
            kind = await redis.type(key)
            if kind == b"none":  # it has just come to its end
                continue
            if kind == b"zset":
                held = await redis.zrange(key, 0, -1, withscores=True)
            elif kind == b"list":
                held = await redis.lrange(key, 0, -1)
            else:
                held = await getattr(redis, _READERS[kind])(key)
            found[key] = (kind, held, await redis.pexpiretime(key))
    return found


async def dump_postgres(settings: Settings) -> dict[str, list[str]]:
    """Each table of ours with its rows as text, and each sequence with how far it has come."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        found: dict[str, list[str]] = {}
        for (table,) in await connection.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"):
            rows = await connection.fetch(f'SELECT t::text FROM "{table}" t ORDER BY 1')  # noqa: S608
            found[table] = [row[0] for row in rows]
        sequences = await connection.fetch("SELECT sequencename::text, last_value FROM pg_sequences")
        return found | {f"sequence {name}": [str(value)] for name, value in sequences}
    finally:
        await connection.close()


async def dump_stores(settings: Settings) -> tuple[Any, Any]:
    """Both."""
    return await dump_redis(settings), await dump_postgres(settings)


async def traffic(settings: Settings) -> tuple[Any, Any]:
    """What the stores were asked until now: equal before and after means that nobody but us asked anything.

    Redis counts each command. PostgreSQL tells when each connection began its last statement, to the microsecond and at
    once (unlike its statistics, which a backend reports up to a second late).
    """
    async with connect(settings.redis_url) as redis:
        found = await redis.info("commandstats", **masters_of(redis))
    statistics = list(found.values()) if isinstance(redis, RedisCluster) else [found]
    connection = await asyncpg.connect(settings.database_url)
    try:
        statements = await connection.fetch(
            "SELECT pid, query_start::text FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND application_name = 'gatehouse' ORDER BY pid"
        )
    finally:
        await connection.close()
    commands = [
        (name, counted["calls"])
        for it in statistics
        for name, counted in it.items()
        if name.removeprefix("cmdstat_").partition("|")[0] not in _OURS + _OF_SERVERS
    ]
    return sorted(commands), [tuple(row) for row in statements]
