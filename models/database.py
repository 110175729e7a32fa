"""PostgreSQL, the truth: how it is asked, by hand-written statements and through Tortoise.

Hand-written statements are files in `scripts/*.sql`, one caller each; plain reads and writes go through the ORM inside
`Database.deadline()`. Either way nothing waits longer than its deadline, and a driver's error leaves as
`StoreUnavailable`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import asyncpg
from tortoise.context import TortoiseContext, _current_context
from tortoise.exceptions import BaseORMException
from tortoise.migrations.api import migrate as run_migrations

from models.errors import InvalidInput, StoreUnavailable
from models.pool import AWAY, BROKEN, Client, Connecting, cause_of
from models.postgres_target import PostgresTarget, parse_postgres

QUERY_DEADLINE_S = 2.0
"""For acquiring a connection and one query of a request, together."""

BATCH_DEADLINE_S = 60.0
"""For one transaction of a job."""

CHANGE_DEADLINE_S = 10.0
"""For a transaction that ends sessions: the sync looks back for longer than this."""

DELETE_BATCH = 1_000

POOL_SIZE = 10

_MIGRATION_LOCK = 0x67617465  # 'gate'
TORTOISE_APPS = {"gatehouse": {"models": ["models.tables"], "migrations": "models.migrations"}}
# What `tortoise makemigrations` reads; it compares models with migrations and connects to nothing.
TORTOISE_ORM = {"connections": {"default": "postgres://localhost/gatehouse"}, "apps": TORTOISE_APPS}


def load_sql(name: str) -> str:
    """The text of `scripts/<name>.sql`."""
    return (Path(__file__).parent / "scripts" / f"{name}.sql").read_text()


def _tortoise_config(target: PostgresTarget) -> dict[str, Any]:
    credentials = {"target": target, "application_name": "gatehouse", "minsize": 0, "maxsize": POOL_SIZE}
    connection = {"engine": "models.pool", "credentials": credentials}
    return {"connections": {"default": connection}, "apps": TORTOISE_APPS}


class Database:
    """A pool of connections, and the ORM on top of it."""

    def __init__(self, orm: TortoiseContext) -> None:
        self._orm = orm
        self._client = cast(Client, orm.db())

    @classmethod
    async def open(cls, database_url: str) -> "Database":
        """Set up the pool. It connects lazily: a service starts while PostgreSQL is away, and says so.

        Args:
            database_url: see `models.postgres_target`.
        """
        orm = TortoiseContext()
        with orm:
            await orm.init(config=_tortoise_config(parse_postgres(database_url)))
        return cls(orm)

    async def close(self) -> None:
        await self._orm.close_connections()

    @asynccontextmanager
    async def deadline(self, seconds: float = QUERY_DEADLINE_S) -> AsyncIterator[None]:
        """Let what is inside use the ORM, for at most `seconds`.

        Raises:
            StoreUnavailable: no connection, no answer in time, or a server that cannot take the query now.
        """
        # Set for this task alone: the library's own `with` keeps its token on the shared object, which two tasks at
        # once would trample, and its global fallback allows one database in a process.
        token = _current_context.set(self._orm)
        try:
            async with asyncio.timeout(seconds):
                yield
        except (*AWAY, BaseORMException) as error:
            cause = cause_of(error)
            if not isinstance(cause, AWAY):
                raise
            await self._doubt(cause)
            raise StoreUnavailable("PostgreSQL is away; try again shortly") from error
        finally:
            _current_context.reset(token)

    async def _doubt(self, error: BaseException) -> None:
        """Have all connections replaced before their next use when one turned out to lead nowhere.

        After a failover the others lead nowhere as well, or to a server that is the primary no more.
        """
        lost = isinstance(error, TimeoutError) and self._client.connecting.may_move
        if lost or isinstance(error, BROKEN):
            await self._client.replace_connections()

    async def fetch(
        self, statement: str, *args: Any, deadline_s: float = QUERY_DEADLINE_S, repeatable: bool = False
    ) -> list[asyncpg.Record]:
        """Run one statement of `scripts/*.sql` and return its rows.

        Args:
            repeatable: running it twice is as good as once, so it is sent once more when its connection breaks.

        Raises:
            StoreUnavailable: as `deadline`.
        """
        async with self.deadline(deadline_s):
            try:
                return await self._fetch(statement, args)
            except BROKEN as error:
                if not repeatable:
                    raise
                await self._doubt(error)
                return await self._fetch(statement, args)

    async def _fetch(self, statement: str, args: Sequence[Any]) -> list[asyncpg.Record]:
        async with self._client.acquire_connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *args)
            return rows

    async def delete_in_batches(self, statement: str) -> int:
        """Run one that deletes at most `$1` rows and returns them until it finds fewer; returns how many there were.

        Raises:
            StoreUnavailable: as `deadline`.
        """
        deleted = 0
        while True:
            batch = len(await self.fetch(statement, DELETE_BATCH, deadline_s=BATCH_DEADLINE_S))
            deleted += batch
            if batch < DELETE_BATCH:
                return deleted

    @asynccontextmanager
    async def transaction(self, deadline_s: float = BATCH_DEADLINE_S) -> AsyncIterator[asyncpg.Connection]:
        """One connection inside one transaction, committed at the end, rolled back by any exception.

        Raises:
            StoreUnavailable: as `deadline`.
        """
        async with self.deadline(deadline_s), self._client.acquire_connection() as connection, connection.transaction():
            yield connection

    def connections(self) -> tuple[int, int, int]:
        """Of the pool: connections in use, idle ones, and how many there may be."""
        pool = self._client._pool
        if pool is None:
            return 0, 0, POOL_SIZE
        idle = pool.get_idle_size()
        return pool.get_size() - idle, idle, pool.get_max_size()

    def watch_statements(self, take: Callable[[str, float, str], None]) -> None:
        """Have each statement told after its end: its text, the seconds it took, and the type of its error or "".

        Before the first one: connections that are open already tell nothing.
        """

        def told(query: Any) -> None:
            take(query.query, query.elapsed, type(query.exception).__qualname__ if query.exception else "")

        async def listen(connection: asyncpg.Connection) -> None:
            connection.add_query_logger(told)

        self._client.on_connect = listen

    async def ping(self) -> None:
        """Raise StoreUnavailable unless PostgreSQL answers."""
        await self.fetch("SELECT 1")


@asynccontextmanager
async def read_only(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to another PostgreSQL, in one transaction that sees one state of it and changes nothing.

    Raises:
        StoreUnavailable: it cannot be reached, or does not let us in.
    """
    try:
        target = parse_postgres(database_url)
    except ValueError as error:
        raise InvalidInput(f"That is no address like postgres://user:password@host:port/database: {error}") from error
    try:
        connection = await Connecting(target)()
    except (*AWAY, asyncpg.PostgresError) as error:
        raise StoreUnavailable(f"That PostgreSQL cannot be used: {error}") from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    except asyncpg.UndefinedTableError as error:
        raise InvalidInput("That database has no table users") from error
    except asyncpg.UndefinedColumnError as error:
        raise InvalidInput(f"Its table users is not the original's: {error}") from error
    except (*AWAY, asyncpg.PostgresError) as error:
        raise StoreUnavailable(f"That PostgreSQL went away or refused: {error}") from error
    finally:
        await connection.close(timeout=QUERY_DEADLINE_S)


def known_migrations() -> set[str]:
    """The names of the migrations of this version."""
    return {path.stem for path in (Path(__file__).parent / "migrations").glob("[0-9]*.py")}


async def migrate(database_url: str) -> list[str]:
    """Bring the schema up to date; several at once take turns.

    Returns:
        The names of the migrations that were applied, none when there was nothing to do.

    Raises:
        StoreUnavailable: PostgreSQL is away.
    """
    applied: list[str] = []
    target = parse_postgres(database_url)
    connecting = Connecting(target)
    try:
        lock = await connecting()
    except (*AWAY, asyncpg.PostgresError) as error:
        raise StoreUnavailable(f"PostgreSQL cannot be used: {error}") from error

    def note(event: str, _app: str, name: str) -> None:
        if event == "apply_done":
            applied.append(name)

    try:
        # A transaction's lock: that of a session would stay with a connection of PgBouncer's that nobody finds again.
        async with lock.transaction():
            await lock.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await lock.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            with TortoiseContext() as orm:
                await run_migrations(config=_tortoise_config(target), progress=note)
                await orm.close_connections()
    finally:
        await lock.close()
    return applied
