"""Connections to PostgreSQL: to whichever host is the primary now, and through a PgBouncer; errors that mean *away*."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.exceptions import BaseORMException, DBConnectionError

from models.postgres_target import PostgresTarget

CONNECT_DEADLINE_S = 2.0
"""For acquiring a connection; of several hosts each has its share, so that one that hangs leaves time for the next."""

MAX_LIFETIME_S = 300.0

AWAY = (
    OSError,
    TimeoutError,
    DBConnectionError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""PostgreSQL is not there, or not for us, or not now."""

BROKEN = (
    ConnectionError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""Of these, what says that a connection leads nowhere, or to a server that is the primary no more."""


def cause_of(error: BaseException) -> BaseException:
    """The driver's error, which the ORM may have wrapped."""
    return error.__cause__ if isinstance(error, BaseORMException) and error.__cause__ is not None else error


class Connecting:
    """Opens connections to the first host that will do, beginning with the one that did last."""

    def __init__(self, target: PostgresTarget) -> None:
        self._target = target
        self._hosts = list(target.hosts)

    @property
    def may_move(self) -> bool:
        """Whether the primary may be another host tomorrow."""
        return len(self._hosts) > 1

    async def __call__(self, *_: Any, **settings: Any) -> asyncpg.Connection:
        """A new connection.

        Args:
            settings: further ones of asyncpg.connect.

        Raises:
            One of AWAY, or another PostgresError: of the last host.
        """
        settings |= self._target.settings | {"timeout": CONNECT_DEADLINE_S / len(self._hosts)}
        *others, last = self._hosts
        for address in others:
            try:
                return await self._connect(address, settings)
            except AWAY:
                continue
        return await self._connect(last, settings)

    async def _connect(self, address: tuple[str, int], settings: dict[str, Any]) -> asyncpg.Connection:
        host, port = address
        connection = await asyncpg.connect(**settings | {"host": host, "port": port})
        if self._hosts[0] != address:
            self._hosts.remove(address)
            self._hosts.insert(0, address)
        return connection


class Pool(asyncpg.Pool):  # type: ignore[misc]
    """A pool whose acquiring, and so the releasing too, has a deadline.

    Tortoise gives none, and a connection that is released after a cancelled query waits for a hung server without one.
    """

    __slots__ = ()

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=timeout or CONNECT_DEADLINE_S)


class Client(AsyncpgDBClient):
    """Tortoise's client on such a pool.

    Args:
        target: where PostgreSQL is.
        given: what Tortoise itself gives.
    """

    on_connect: Callable[[asyncpg.Connection], Awaitable[None]] | None = None

    def __init__(self, *, target: PostgresTarget, **given: Any) -> None:
        super().__init__(**given)
        self.connecting = Connecting(target)
        # Behind a PgBouncer there is nothing of a session to reset, and nobody knows whose session it would be.
        self._reset = _nothing_to_reset if target.pooled else None

    async def create_pool(self, **settings: Any) -> asyncpg.Pool:
        settings |= {"max_queries": 50_000, "max_inactive_connection_lifetime": MAX_LIFETIME_S}
        settings |= {"record_class": asyncpg.Record, "connect": self.connecting}
        return await Pool(None, init=self.on_connect, reset=self._reset, **settings)

    async def replace_connections(self) -> None:
        """Have each connection replaced before its next use."""
        if self._pool is not None:
            await self._pool.expire_connections()


client_class = Client
"""By this name Tortoise finds it."""


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """The transaction is over, and that was all."""
