"""The worker's queue: where it is, and connections with deadlines, which arq's own pool lacks."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

import msgspec
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import AbstractBackoff, ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from models.redis_target import Credentials, RedisTarget, parse_redis

NAME = "gatehouse:queue"
REPLY_S, CONNECT_S = 5, 2
WARN_AFTER, WARN_EVERY_S = 3, 10.0

T = TypeVar("T")

log = logging.getLogger("gatehouse.worker")


def open_queue(url: str, tries: int) -> ArqRedis:
    """The queue's client.

    Args:
        url: as `ARQ_REDIS_URL`: a server, or the master that sentinels name.
        tries: how often a command is sent again while Redis restarts or fails over, a second apart at most.
    """
    target = parse_redis(url)
    patience = {
        "retry": _Patience(ExponentialBackoff(cap=1, base=0.05), tries),
        "retry_on_error": [BusyLoadingError, RedisConnectionError, RedisTimeoutError, OSError],
    }
    options: dict[str, Any] = {**_connecting(target, target.credentials), **patience, "db": target.database}
    sentinels: Sentinel | None = None
    if target.kind == "sentinel":
        own = {"sentinel_kwargs": {**_connecting(target, target.sentinel), "ssl": target.tls is not None}}
        own["sentinel_kwargs"].pop("connection_class", None)
        sentinels = Sentinel(list(target.hosts), **own)  # type: ignore[no-untyped-call]  # the library left it so
        options.pop("connection_class", None)
        given = options | {"ssl": target.tls is not None}
        pool: ConnectionPool = SentinelConnectionPool(target.name, sentinels, **given)  # type: ignore[no-untyped-call]
    else:
        host, port = target.hosts[0]
        pool = ConnectionPool(host=host, port=port, **options)
    # Never pickle: whoever can write to the queue would run code here.
    queue = _Queue(
        pool,
        default_queue_name=NAME,
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=msgspec.msgpack.decode,
    )
    queue.sentinels = sentinels
    return queue


class _Patience(Retry):
    """Says now and then for whom it is waiting: it may be for minutes."""

    def __init__(self, backoff: AbstractBackoff, tries: int) -> None:
        super().__init__(backoff, tries)
        self._warned_s = -WARN_EVERY_S

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        """Itself: each connection copies what it is given, and all are to speak with one voice."""
        return self

    async def call_with_retry(self, do: Callable[[], Awaitable[T]], fail: Callable[[RedisError], Any]) -> T:
        failures = 0

        async def warn(error: RedisError) -> None:
            nonlocal failures
            failures += 1
            # A connection that was idle may turn out to be lost, and the next one is there at once.
            if failures >= WARN_AFTER and time.monotonic() >= self._warned_s + WARN_EVERY_S:
                self._warned_s = time.monotonic()
                log.warning("the queue's Redis is away, no job begins: %s", error)
            await fail(error)

        return await super().call_with_retry(do, warn)


class _Queue(ArqRedis):
    """A client that ends all of its connections, those to sentinels too."""

    sentinels: Sentinel | None = None

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool=True)
        for client in self.sentinels.sentinels if self.sentinels else ():
            await client.aclose()


def _connecting(target: RedisTarget, credentials: Credentials) -> dict[str, Any]:
    """Who connects, how it is encrypted, and for how long it is waited."""
    found: dict[str, Any] = {"socket_timeout": REPLY_S, "socket_connect_timeout": CONNECT_S}
    if credentials.password:
        found |= {"username": credentials.username or None, "password": credentials.password}
    if target.tls is not None:
        checks = target.tls.get("ssl_check_hostname", "").lower() not in ("false", "no", "0")
        unchecked = target.tls.get("ssl_cert_reqs") == "none"
        found |= target.tls | {"ssl_check_hostname": checks and not unchecked, "connection_class": SSLConnection}
    return found
