"""The service that Gatehouse replaces, as far as an import sees it: a table that gorm made, and strings in Redis."""

import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import bcrypt

from models.devservers import PostgresServer, _postgres

PASSWORD = "correct horse battery"
COLUMNS = ("id", "created_at", "updated_at", "deleted_at", "username", "password", "name")
# What AutoMigrate of gorm 1.25 makes of gorm.Model with `Username unique`, `Password size:256` and `Name`, and of the
# sessions beside it.
SCHEMA = """
CREATE TABLE "users" ("id" bigserial, "created_at" timestamptz, "updated_at" timestamptz, "deleted_at" timestamptz,
  "username" text, "password" varchar(256), "name" text,
  PRIMARY KEY ("id"), CONSTRAINT "uni_users_username" UNIQUE ("username"));
CREATE INDEX "idx_users_deleted_at" ON "users" ("deleted_at");
CREATE TABLE "sessions" ("id" bigserial, "user_id" bigint, "session_token" text, "expires_at" timestamptz,
  PRIMARY KEY ("id"));
"""


def go_hash(password: str = PASSWORD, cost: int = 4) -> str:
    """As Go's bcrypt writes them; the original's cost is 10, which takes 60 ms."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost, prefix=b"2a")).decode()


HASH = go_hash()


class Original:
    """Its database, beside ours in the same server."""

    def __init__(self, url: str, connection: Any) -> None:
        self.url = url
        self._connection = connection

    async def sql(self, statement: str, *args: Any) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(statement, *args)
        return rows

    async def add(self, user_id: int, username: str | None, password: str | None = HASH, **more: Any) -> None:
        """Add a user; `more` are further columns, as SQL."""
        at = {"created_at": "'2023-05-06 07:08:09.123456+08'", **more}
        names = "".join(f", {name}" for name in at)
        await self.sql(
            f"INSERT INTO users (id, username, password{names}) VALUES ($1, $2, $3, {', '.join(at.values())})",  # noqa: S608
            *(user_id, username, password),
        )

    def dump(self, path: Path, *options: str) -> Path:
        """What pg_dump writes of it."""
        command = [str(_postgres("pg_dump")), "--dbname", self.url, *options]
        path.write_bytes(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
        return path

    async def csv(self, path: Path) -> Path:
        """What COPY … WITH CSV HEADER writes of its users."""
        await self._connection.copy_from_table(
            "users", output=str(path), format="csv", header=True, columns=COLUMNS, timeout=60
        )
        return path


@asynccontextmanager
async def original(server: PostgresServer, schema: str = SCHEMA) -> AsyncIterator[Original]:
    """An empty one, gone afterwards."""
    url = server.url.rsplit("/", 1)[0] + "/original"
    ours = await asyncpg.connect(server.url)
    try:
        await ours.execute("DROP DATABASE IF EXISTS original WITH (FORCE)")
        await ours.execute("CREATE DATABASE original")
        theirs = await asyncpg.connect(url)
        try:
            await theirs.execute(schema)
            yield Original(url, theirs)
        finally:
            await theirs.close()
        await ours.execute("DROP DATABASE original WITH (FORCE)")
    finally:
        await ours.close()


def copy_block(rows: Sequence[str], columns: str = "id, username, password", table: str = "public.users") -> str:
    """A dump with these lines of COPY's text format."""
    return f"--\n-- PostgreSQL database dump\n--\n\nCOPY {table} ({columns}) FROM stdin;\n" + "".join(
        f"{row}\n" for row in (*rows, "\\.")
    )
