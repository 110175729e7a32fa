"""PostgreSQL, the truth: the one module that knows asyncpg and opens Tortoise.

Hand-written statements are files in `scripts/*.sql`, one caller each; plain reads and writes go through the ORM inside
`Database.deadline()`. Either way nothing waits longer than its deadline, and a driver's error leaves as
`StoreUnavailable`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from tortoise.context import TortoiseContext, _current_context
from tortoise.exceptions import DBConnectionError, OperationalError
from tortoise.migrations.api import migrate as run_migrations

from models.errors import InvalidInput, StoreUnavailable

QUERY_DEADLINE_S = 2.0
"""For acquiring a connection and one query of a request, together."""

BATCH_DEADLINE_S = 60.0
"""For one transaction of a job."""

POOL_SIZE = 10

_MIGRATION_LOCK = 0x67617465  # 'gate'
_AWAY = (
    OSError,
    TimeoutError,
    DBConnectionError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)

TORTOISE_APPS = {"gatehouse": {"models": ["models.tables"], "migrations": "models.migrations"}}
# What `tortoise makemigrations` reads; it compares models with migrations and connects to nothing.
TORTOISE_ORM = {"connections": {"default": "postgres://localhost/gatehouse"}, "apps": TORTOISE_APPS}


def load_sql(name: str) -> str:
    """The text of `scripts/<name>.sql`."""
    return (Path(__file__).parent / "scripts" / f"{name}.sql").read_text()


def _credentials(database_url: str) -> dict[str, Any]:
    """The parts of a URL as asyncpg takes them: Tortoise's own parser mistakes `sslmode`."""
    url = urlsplit(database_url)
    query = parse_qs(url.query)
    return {
        "host": query["host"][0] if "host" in query else url.hostname,
        "port": url.port or 5432,
        "user": unquote(url.username) if url.username else None,
        "password": unquote(url.password) if url.password else None,
        "database": unquote(url.path.lstrip("/")),
        "ssl": query["sslmode"][0] if "sslmode" in query else None,
    }


def _tortoise_config(database_url: str) -> dict[str, Any]:
    credentials = _credentials(database_url) | {
        "minsize": 1,
        "maxsize": POOL_SIZE,
        "timeout": QUERY_DEADLINE_S,
        "application_name": "gatehouse",
    }
    connection = {"engine": "tortoise.backends.asyncpg", "credentials": credentials}
    return {"connections": {"default": connection}, "apps": TORTOISE_APPS}


class _Pool(asyncpg.Pool):  # type: ignore[misc]
    """A pool whose acquiring, and so the releasing too, has a deadline.

    Tortoise gives none, and a connection that is released after a cancelled query waits for a hung server without one.
    """

    __slots__ = ()

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=timeout or QUERY_DEADLINE_S)


async def _create_pool(**settings: Any) -> asyncpg.Pool:
    return await _Pool(
        None, max_queries=50_000, max_inactive_connection_lifetime=300.0, record_class=asyncpg.Record, **settings
    )


class Database:
    """A pool of connections, and the ORM on top of it."""

    def __init__(self, orm: TortoiseContext) -> None:
        self._orm = orm
        self._client = orm.db()

    @classmethod
    async def open(cls, database_url: str) -> "Database":
        """Set up the pool. It connects lazily: a service starts while PostgreSQL is away, and says so.

        Args:
            database_url: `postgres://user:password@host:port/database[?sslmode=…]`.
        """
        orm = TortoiseContext()
        with orm:
            await orm.init(config=_tortoise_config(database_url))
        orm.db().create_pool = _create_pool  # type: ignore[attr-defined]
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
        except _AWAY as error:
            raise StoreUnavailable("PostgreSQL is away; try again shortly") from error
        except OperationalError as error:
            if isinstance(error.__cause__, _AWAY):
                raise StoreUnavailable("PostgreSQL is away; try again shortly") from error
            raise
        finally:
            _current_context.reset(token)

    async def fetch(self, statement: str, *args: Any, deadline_s: float = QUERY_DEADLINE_S) -> list[asyncpg.Record]:
        """Run one statement of `scripts/*.sql` and return its rows.

        Raises:
            StoreUnavailable: as `deadline`.
        """
        async with self.deadline(deadline_s), self._client.acquire_connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *args)
            return rows

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

        self._client.create_pool = partial(_create_pool, init=listen)  # type: ignore[attr-defined]

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
        credentials = _credentials(database_url)
    except ValueError as error:
        raise InvalidInput("That is no address: it is postgres://user:password@host:port/database") from error
    try:
        connection = await asyncpg.connect(**credentials, timeout=QUERY_DEADLINE_S)
    except (*_AWAY, asyncpg.PostgresError) as error:
        raise StoreUnavailable(f"That PostgreSQL cannot be used: {error}") from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    except asyncpg.UndefinedTableError as error:
        raise InvalidInput("That database has no table users") from error
    except asyncpg.UndefinedColumnError as error:
        raise InvalidInput(f"Its table users is not the original's: {error}") from error
    except (*_AWAY, asyncpg.PostgresError) as error:
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
    try:
        lock = await asyncpg.connect(**_credentials(database_url), timeout=QUERY_DEADLINE_S)
    except (*_AWAY, asyncpg.PostgresError) as error:
        raise StoreUnavailable(f"PostgreSQL cannot be used: {error}") from error
    try:
        await lock.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)

        def note(event: str, _app: str, name: str) -> None:
            if event == "apply_done":
                applied.append(name)

        with TortoiseContext() as orm:
            await run_migrations(config=_tortoise_config(database_url), progress=note)
            await orm.close_connections()
    finally:
        await lock.close()
    return applied
