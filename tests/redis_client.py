"""The general client for whatever `REDIS_URL` says: one server, the master behind sentinels, or a cluster."""

from contextlib import closing
from typing import Any

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster

from models.redis_target import RedisTarget, parse_redis


def masters_of(client: Any) -> dict[str, Any]:
    """What has a command asked of each master of a cluster; nothing where there is one server."""
    return {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}


def master_now(target: RedisTarget) -> tuple[str, int]:
    """Where sentinels say that the master is at this moment."""
    host, port = target.hosts[0]
    client: Any = SyncRedis(host=host, port=port, decode_responses=True)
    with closing(client):
        found = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.name)
    return found[0], int(found[1])


def connect(url: str, **options: Any) -> Any:
    """A client to use with `async with`; its annotations mix synchronous and asynchronous answers."""
    target = parse_redis(url)
    if target.kind == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*host) for host in target.hosts], **options)
    if target.kind == "sentinel":
        host, port = master_now(target)
        return Redis(host=host, port=port, db=target.database, **options)
    return Redis.from_url(url, **options)
