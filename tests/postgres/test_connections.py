"""Connections that broke, hang, or lead to a server that is the primary no more: replaced, and refused with 503."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import asyncpg
import pytest
from tortoise.exceptions import OperationalError, TransactionManagementError

from models.connections import Stores
from models.database import Database
from models.errors import StoreUnavailable
from models.pool import Client
from models.settings import Settings
from tests.conftest import RawRedis, Servers
from tests.postgres.test_failover import claims_of, opened
from tests.system.faultproxy import FaultProxy


@asynccontextmanager
async def demoted(servers: Servers, settings: Settings, redis: RawRedis) -> AsyncIterator[Stores]:
    """All open connections lead to a server that reads only; new ones lead to the primary."""
    admin = await asyncpg.connect(servers.postgres.url)
    async with opened(settings, servers.postgres.url, redis) as stores:
        try:
            await admin.execute("TRUNCATE users, sessions")
            await stores.accounts.add("ada", "password")
            await admin.execute("ALTER DATABASE gatehouse SET default_transaction_read_only = on")
            await stores.database._client.replace_connections()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(10):
                    tasks.create_task(stores.database.fetch("SELECT pg_sleep(0.1)"))
        finally:
            await admin.execute("ALTER DATABASE gatehouse RESET default_transaction_read_only")
            await admin.close()
        yield stores


async def test_connections_to_a_demoted_primary_are_thrown_away(
    servers: Servers, settings: Settings, redis: RawRedis
) -> None:
    async with demoted(servers, settings, redis) as stores:
        with pytest.raises(StoreUnavailable):  # by the ORM, which tells this error by another name
            await stores.accounts.sign_up("newcomer", "password")
        await stores.accounts.sign_up("newcomer", "password")
    async with demoted(servers, settings, redis) as stores:
        assert await stores.sessions.start((await stores.database.fetch("SELECT id FROM users"))[0]["id"])


async def test_planted_kept_they_refuse_for_ever(servers: Servers, settings: Settings, redis: RawRedis) -> None:
    async def keep(_: Client) -> None:
        """Go on with them."""

    async with demoted(servers, settings, redis) as stores:
        with patch.object(Client, "replace_connections", keep):
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await stores.accounts.sign_up("newcomer", "password")


@pytest.mark.parametrize("repeatable", [True, False], ids=["repeated", "planted: not repeated"])
async def test_a_login_whose_answer_is_lost_is_sent_again(
    servers: Servers, settings: Settings, redis: RawRedis, repeatable: bool
) -> None:
    """It committed, and the connection broke before the answer came; the second is the user's session."""
    async with FaultProxy("127.0.0.1", servers.postgres.port or 0) as proxy:
        url = f"postgres://app@127.0.0.1:{proxy.port}/gatehouse"
        async with opened(settings, url, redis) as stores:
            await stores.database.fetch("TRUNCATE users, sessions")
            user_id = await stores.accounts.add("ada", "password")
            before = await claims_of(stores, await stores.sessions.start(user_id))
            fetch, tokens = Database.fetch, []

            async def plainly(self: Database, *args: object, repeatable: bool = False, **more: object) -> object:
                return await fetch(self, *args, **more)  # type: ignore[arg-type]

            with patch.object(Database, "fetch", fetch if repeatable else plainly):
                proxy.drop_replies()
                try:
                    tokens.append(await stores.sessions.start(user_id))
                except StoreUnavailable:
                    assert not repeatable
            row = (await stores.database.fetch("SELECT version FROM sessions WHERE user_id = $1", user_id))[0]
            assert row["version"] > before.version
            assert bool(tokens) is repeatable
            for token in tokens:
                assert (await claims_of(stores, token)).version == row["version"]
                assert (await stores.usage.admit(token)).admitted


async def test_a_host_that_hangs_leaves_time_for_the_next(servers: Servers) -> None:
    async with FaultProxy("127.0.0.1", servers.postgres.port or 0) as proxy:
        proxy.half_open = True
        hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{servers.postgres.port}"
        database = await Database.open(f"postgres://app@{hosts}/gatehouse")
        try:
            assert await database.fetch("SELECT 1")
        finally:
            await database.close()


async def test_a_primary_that_falls_silent_is_left_for_the_next_host(servers: Servers) -> None:
    """Its machine lost its power: open connections end no more, and new ones get no answer."""
    async with FaultProxy("127.0.0.1", servers.postgres.port or 0) as proxy:
        hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{servers.postgres.port}"
        database = await Database.open(f"postgres://app@{hosts}/gatehouse")
        try:
            await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.1)") for _ in range(10)))
            proxy.half_open = True
            with pytest.raises(StoreUnavailable):
                await database.ping()
            await asyncio.gather(*(database.ping() for _ in range(10)))
        finally:
            proxy.heal()
            await database.close()


AWAY = [
    "08000",
    "08001",
    "08003",
    "08004",
    "08006",
    "08P01",
    "25006",
    "25P03",
    "28P01",
    "3D000",
    "53300",
    "53400",
    "55P03",
    "57P01",
    "57P02",
    "57P03",
    "57014",
]


@pytest.mark.parametrize("code", AWAY)
async def test_a_server_that_cannot_now_is_away(servers: Servers, code: str) -> None:
    database = await Database.open(servers.postgres.url)
    error = asyncpg.PostgresError.new({"C": code, "M": "no"})
    for wrapped in (error, OperationalError(error), TransactionManagementError(error)):
        if wrapped is not error:
            wrapped.__cause__ = error
        with pytest.raises(StoreUnavailable):
            async with database.deadline():
                raise wrapped


async def test_a_fault_of_ours_is_not_called_away(servers: Servers) -> None:
    database = await Database.open(servers.postgres.url)
    try:
        with pytest.raises(asyncpg.UndefinedTableError):
            await database.fetch("SELECT FROM nowhere", repeatable=True)
    finally:
        await database.close()


async def test_a_statement_whose_connection_is_ended_is_refused(servers: Servers) -> None:
    database = await Database.open(servers.postgres.url)
    admin = await asyncpg.connect(servers.postgres.url)
    try:
        sleeping = asyncio.create_task(database.fetch("SELECT pg_sleep(60)", deadline_s=30))
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
        while not await admin.fetch(end):
            await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailable):
            await sleeping
        await database.ping()
    finally:
        await database.close()
        await admin.close()
