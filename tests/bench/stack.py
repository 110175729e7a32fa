"""PostgreSQL, Valkey and Gatehouse for one benchmark, all of it thrown away at the end."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from models.connections import Stores, open_stores
from models.database import migrate
from models.devservers import PostgresServer, ValkeyServer
from models.settings import Settings
from models.tokens import TokenSigner
from tests.bench.processes import Service, sanic_command

SESSION_TTL_S = 86_400
SETUP_DEADLINE_S = 300.0
CHUNK = 10_000
LARGE_BUFFERS = "2GB"
HIGH_LIMIT = "10000/1s"

_INSERT_USERS = """
INSERT INTO users (id, username, username_key, password_hash, created_at)
SELECT id, 'user' || id, 'user' || id, $2, now() FROM unnest($1::bigint[]) AS given(id)"""
_INSERT_SESSIONS = """
INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at)
SELECT id, nextval('session_versions'), digest, now(),
       date_trunc('milliseconds', now()) + make_interval(secs => $3), clock_timestamp()
  FROM unnest($1::bigint[], $2::bytea[]) AS given(id, digest)
RETURNING user_id, version, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms"""


@dataclass(frozen=True)
class Stack:
    """The two stores, migrated and empty.

    Args:
        secret_key: with which the benchmark signs tokens and Gatehouse verifies them.
    """

    folder: Path
    postgres: PostgresServer
    valkey: ValkeyServer
    secret_key: str

    def environ(self, **changes: str) -> dict[str, str]:
        """Gatehouse's environment: no delay behind the gate, a limit that no benchmark reaches."""
        settings = {
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "SECRET_KEYS": self.secret_key,
            "PING_DELAY_MS": "0",
            "RATE_LIMITS": HIGH_LIMIT,
            "SESSION_TTL_S": str(SESSION_TTL_S),
            "ACCESS_LOG": "off",  # as of the others here; what it costs is a row of its own
        }
        return settings | changes

    def gatehouse(self, name: str = "gatehouse", **changes: str) -> Service:
        """A web process of Gatehouse, to be entered."""
        return Service(name, sanic_command("api.app:create_app"), self.environ(**changes))

    @asynccontextmanager
    async def stores(self, **changes: str) -> AsyncIterator[Stores]:
        """The domain, in this process."""
        async with open_stores(Settings.from_environ(self.environ(**changes))) as stores:
            yield stores

    def ask(self, query: str, *args: object) -> int:
        """Run one statement and return the number that it answers with; 0 for none."""

        async def ask() -> int:
            connection = await asyncpg.connect(self.postgres.url)
            try:
                return int(await connection.fetchval(query, *args) or 0)
            finally:
                await connection.close()

        return asyncio.run(ask())

    async def add_users(self, user_ids: Sequence[int], password_hash: str = "") -> None:
        """Create accounts `user<id>`, nobody's password unless a hash is given."""
        async with self.stores() as stores:
            for start in range(0, len(user_ids), CHUNK):
                chunk = user_ids[start : start + CHUNK]
                await stores.database.fetch(_INSERT_USERS, chunk, password_hash, deadline_s=SETUP_DEADLINE_S)

    async def start_sessions(self, user_ids: Sequence[int]) -> list[str]:
        """Start a session for each account, as a login does but many at once; returns the tokens. Nothing is cached."""
        signer = TokenSigner([self.secret_key])
        tokens = []
        async with self.stores() as stores:
            for start in range(0, len(user_ids), CHUNK):
                secret = {user_id: signer.new_secret() for user_id in user_ids[start : start + CHUNK]}
                args = list(secret), [digest for _, digest in secret.values()], SESSION_TTL_S
                for row in await stores.database.fetch(_INSERT_SESSIONS, *args, deadline_s=SETUP_DEADLINE_S):
                    uid, version, expires_ms = row
                    tokens.append(signer.sign(uid, version, expires_ms, secret[uid][0]))
        return tokens

    async def cache_sessions(self, **changes: str) -> int:
        """Publish every session to Redis and declare its counters whole, as the worker does; returns how many."""
        async with self.stores(**changes) as stores:
            await stores.snapshots.restore()
            return (await stores.sessions.sync()).published


class LargePostgres(PostgresServer):
    """One with the memory that a table of millions of rows is given where it is at home, and no work of its own."""

    def _command(self, port: int) -> list[str]:
        return [*super()._command(port), f"--shared_buffers={LARGE_BUFFERS}", "--autovacuum=off"]


@contextmanager
def open_stack(server: type[PostgresServer] = PostgresServer) -> Iterator[Stack]:
    """Start PostgreSQL and Valkey on free ports in a temporary folder. Neither is durable: disks are no subject."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as nobody when root starts this
        postgres = server(Path(folder) / "postgres", durable=False)
        valkey = ValkeyServer(Path(folder) / "valkey", durable=False)
        with postgres, valkey:
            asyncio.run(migrate(postgres.url))
            yield Stack(Path(folder), postgres, valkey, secrets.token_urlsafe(48))
