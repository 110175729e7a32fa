"""What Gatehouse does with PostgreSQL, through a PgBouncer in transaction mode with three server connections."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from models.connections import Stores, open_stores
from models.credentials import username_key
from models.database import Database, load_sql, migrate
from models.errors import StoreUnavailable, UsernameTaken
from models.imports import Wishes
from models.policies import parse_policies
from models.settings import Settings
from models.tokens import Claims
from tests.conftest import RawRedis, Servers, empty
from tests.postgres.pgbouncer import SERVER_CONNECTIONS, PgBouncer, skip_without_pgbouncer
from tests.races.test_one_session import agreeing, log_in_racing, valid_tokens

CLIENTS = 4
"""Processes' worth of pools, of ten connections each."""


@pytest.fixture(scope="module")
def pgbouncer(servers: Servers) -> Iterator[PgBouncer]:
    skip_without_pgbouncer()
    with tempfile.TemporaryDirectory(prefix="gatehouse-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        with PgBouncer(Path(folder) / "pgbouncer", servers.postgres) as started:
            yield started


@pytest.fixture
async def pooled(settings: Settings, pgbouncer: PgBouncer) -> AsyncIterator[Stores]:
    """The domain through PgBouncer."""
    limits = parse_policies("10000/1s")
    async with open_stores(replace(settings, database_url=pgbouncer.url, rate_limits=limits)) as stores:
        await empty(stores)
        async with asyncio.timeout(10):
            while not stores.usage.trusts_redis:
                await asyncio.sleep(0.01)
        yield stores


async def claims_of(stores: Stores, token: str) -> Claims:
    claims = stores.sessions.read_token(token)
    assert isinstance(claims, Claims)
    return claims


async def test_a_user_comes_and_goes(pooled: Stores) -> None:
    user_id = await pooled.accounts.sign_up("Ada", "correct horse")
    with pytest.raises(UsernameTaken):
        await pooled.accounts.sign_up("ada", "correct horse")
    older = await pooled.accounts.log_in("ada", "correct horse")
    token = await pooled.accounts.log_in("ada", "correct horse")
    assert (await pooled.usage.admit(older)).reason == "session_replaced"
    assert (await pooled.usage.admit(token)).admitted
    claims = await claims_of(pooled, token)
    assert (await pooled.sessions.inspect(claims)).username == "Ada"  # type: ignore[union-attr]
    assert await pooled.accounts.name_of(user_id) == "Ada"
    assert await pooled.accounts.log_out(claims) is None
    assert (await pooled.usage.admit(token)).reason == "session_revoked"


async def test_the_jobs_of_the_worker(pooled: Stores, redis: RawRedis) -> None:
    await pooled.snapshots.restore()
    user_id = await pooled.accounts.add("ada", "correct horse")
    token = await pooled.sessions.start(user_id)
    assert (await pooled.usage.admit(token)).admitted
    assert (await pooled.sessions.sync()).rows == 1
    assert (await pooled.snapshots.take()).users == 1
    await redis.flushall()
    assert (await pooled.snapshots.restore()).buckets == 64
    assert [(row.user_id, row.calls) async for page in pooled.exports.pages("all") for row in page] == [(user_id, 1)]
    assert await pooled.sessions.expire() == 0
    await pooled.database.fetch("UPDATE sessions SET expires_at = now() - interval '1 s'")
    assert await pooled.sessions.expire() == 1
    assert await pooled.snapshots.expire_windows() == 0
    await pooled.resets.reset_users([user_id])
    assert not await pooled.database.fetch("SELECT 1 FROM call_totals")


async def test_exports_leave_no_statement_behind(pooled: Stores) -> None:
    """A cursor's statement has a name of its process; another process that has its connection may use the same."""

    async def export() -> list[int]:
        return [row.user_id async for page in pooled.exports.pages("all") for row in page]

    await asyncio.gather(*(export() for _ in range(2 * SERVER_CONNECTIONS)))
    assert await statements_left(pooled) == [0] * SERVER_CONNECTIONS


async def statements_left(stores: Stores) -> list[int]:
    """How many named statements each connection of PgBouncer's has."""
    together = asyncio.Barrier(SERVER_CONNECTIONS)

    async def count() -> int:
        async with stores.database.transaction() as connection:
            await connection.execute("SELECT 1")
            await together.wait()
            return int(await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"))

    return await asyncio.gather(*(count() for _ in range(SERVER_CONNECTIONS)))


async def test_an_import(pooled: Stores, tmp_path: Path) -> None:
    """A temporary table and COPY, in one transaction."""
    path = tmp_path / "users.csv"
    path.write_text("id,username,password\n7,grace,$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy\n")
    for _ in range(2 * SERVER_CONNECTIONS):
        await pooled.imports.import_users(str(path), Wishes())
    assert await pooled.database.fetch("SELECT count(*) AS users FROM users") == [(1,)]


async def test_sixteen_logins_at_once_leave_one_session(pooled: Stores, redis: RawRedis) -> None:
    user_id = await pooled.accounts.add("racer", "password")
    for _ in range(5):
        tokens = await log_in_racing(pooled, user_id, pooled.store.publish_session)
        assert len(await valid_tokens(pooled, tokens)) == 1
        assert await agreeing(pooled, redis, user_id)


async def crowd(database_url: str) -> None:
    """Statements of many clients at once, each of which has to get its own answer."""
    async with AsyncExitStack() as stack:
        databases = [await Database.open(database_url) for _ in range(CLIENTS)]
        for database in databases:
            stack.push_async_callback(database.close)

        async def ask(database: Database, number: int) -> None:
            statement = f"SELECT $1::bigint + {number % 7} AS sum"
            for at in range(20):
                assert (await database.fetch(statement, at, deadline_s=30))[0]["sum"] == at + number % 7
                rows = await database.fetch(load_sql("read_session"), number, deadline_s=30)
                assert rows == []

        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                tasks.create_task(ask(databases[number % CLIENTS], number))


async def _connections(admin: asyncpg.Connection) -> set[int]:
    """The server's processes that serve Gatehouse, also those that others of this suite have open."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'gatehouse' AND client_port IS NOT NULL"
    return {row["pid"] for row in await admin.fetch(query)}


async def test_more_clients_than_server_connections(pooled: Stores, servers: Servers, pgbouncer: PgBouncer) -> None:
    admin = await asyncpg.connect(servers.postgres.url)
    try:
        before = await _connections(admin)
        await crowd(pgbouncer.url)
        assert len(await _connections(admin) - before) <= SERVER_CONNECTIONS
    finally:
        await admin.close()


async def test_planted_without_the_parameter_statements_are_not_found(pgbouncer: PgBouncer) -> None:
    """Prepared statements stay on a server connection that the next client has: what the parameter is for."""
    with pytest.raises(ExceptionGroup) as caught:
        await crowd(pgbouncer.url.replace("pgbouncer=transaction", "pgbouncer=session"))
    told = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
    assert caught.group_contains(told)


async def test_migrations_run_through_it(servers: Servers, pgbouncer: PgBouncer) -> None:
    """Two at once take turns, and leave no lock on a connection of PgBouncer's."""
    assert await migrate(pgbouncer.url) == []
    admin = await asyncpg.connect(servers.postgres.url)
    try:
        await admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        async with asyncio.timeout(20):
            both = await asyncio.gather(migrate(pgbouncer.url), migrate(servers.postgres.url))
        assert sorted(map(len, both))[0] == 0
        assert max(map(len, both)) >= 6
        assert await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    finally:
        await admin.close()


async def test_names_are_looked_up_by_the_orm(pooled: Stores) -> None:
    users = [await pooled.accounts.add(f"user{number}", "password") for number in range(4)]
    answers = await asyncio.gather(*(pooled.accounts.names_of(users) for _ in range(30)))
    assert all(found == {user_id: username_key(f"user{n}") for n, user_id in enumerate(users)} for found in answers)


async def test_a_pgbouncer_that_restarts_is_found_again(pooled: Stores, pgbouncer: PgBouncer) -> None:
    user_id = await pooled.accounts.add("ada", "password")
    await asyncio.gather(*(pooled.sessions.start(user_id) for _ in range(16)))
    await asyncio.to_thread(pgbouncer.stop)
    with pytest.raises(StoreUnavailable):
        await pooled.sessions.start(user_id)
    pgbouncer.start()
    assert await valid_tokens(pooled, [await pooled.sessions.start(user_id)])
