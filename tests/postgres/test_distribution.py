"""Every statement that is run for a call, a login or a snapshot names its user, or its bucket of users.

The others are listed with the reason. Citus is not at hand: its rule for unique indexes is played by a function.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from models.connections import Stores, open_stores
from models.database import migrate
from models.settings import Settings
from models.tokens import Claims
from tests.conftest import RawRedis, Servers, empty

ROOT = Path(__file__).parents[2]
TABLES = "users", "sessions", "call_totals", "call_windows", "caller_sketches"

HOT = {
    *("read_session", "upsert_session", "revoke_session", "describe_session", "name_users"),
    *("upsert_call_totals", "upsert_call_windows", "upsert_caller_sketch", "read_caller_sketch"),
    *("read_call_totals", "read_call_windows", "changed_sessions", "sessions_of_bucket"),
}
"""What the gate's fallback, logins, logouts, the sync, snapshots and restores run; the last five ask for buckets."""

WITHOUT_KEY = {
    "delete_expired_sessions": "the expiry, a minute apart: whoever's session ended",
    "delete_old_windows": "the expiry, an hour apart",
    "read_snapshot_numbers": "all 64 of them",
    "snapshot_age": "all 64 of them",
    "compare_versions": "gatehouse doctor",
    "count_live_sessions": "the dashboard",
    "list_sessions": "an operator's list",
    "list_users": "an operator's list",
    "revoke_sessions": "an operator ends all sessions",
    "export_call_totals": "an operator's export of all users",
    "export_call_windows": "an operator's export of all users",
    "count_enrolled": "gatehouse load, by a prefix of the name",
    "find_enrolled": "gatehouse load, by a prefix of the name",
    "enrol_users": "gatehouse load makes users, who have no id yet",
    "insert_staged_users": "an import",
    "judge_staged_users": "an import",
    "lock_users": "an import",
    "read_original_users": "an import, from another database",
}
"""Script on our tables → why it names no user."""

ORM_WITHOUT_KEY = {
    r'FROM "users" WHERE "username_key"=\$1': "a login looks its user up by name: user_names of docs/citus.sql",
    r'INSERT INTO "users"': "who signs up has no id yet",
}

_USER = r'"?\b(?:user_id|id|bucket)"?\s*(?:% 64\s*)?(?:=\s*(?:ANY \(\s*)?|IN \()\$\d'
_GIVEN = r"unnest\(\$\d::bigint\[\], \$\d::bigint\[\]\) AS given\(user_id, calls\)"
_PAGE = r"\(user_id % 64, user_id\) > \(\$1::bigint, \$2\) AND user_id % 64 <= \$1"
_BUCKET = r"INSERT INTO caller_sketches AS s \(bucket, [^)]*\)\s+VALUES \(\$1"


def plain(statement: str) -> str:
    """Without its comments."""
    return re.sub(r"^--.*\n", "", statement, flags=re.MULTILINE)


def on_our_tables(statement: str) -> bool:
    return re.search(rf'\b(?:FROM|INTO|UPDATE|JOIN|TABLE) "?(?:{"|".join(TABLES)})\b', plain(statement)) is not None


def has_key(statement: str) -> bool:
    """Whether the user, or the bucket, of each row is given as a parameter."""
    return re.search(f"{_USER}|{_PAGE}|{_GIVEN}|{_BUCKET}", plain(statement)) is not None


SCRIPTS = {path.stem: path.read_text() for path in (ROOT / "models/scripts").glob("*.sql")}


def test_every_hot_statement_has_the_key_and_every_other_a_reason() -> None:
    ours = {name for name, text in SCRIPTS.items() if on_our_tables(text)}
    assert ours >= HOT
    assert [name for name in sorted(HOT) if not has_key(SCRIPTS[name])] == []
    assert {name for name in ours if not has_key(SCRIPTS[name])} == set(WITHOUT_KEY)


@pytest.mark.parametrize(
    "broken",
    [
        "SELECT version FROM sessions WHERE token_digest = $1",
        "-- user_id = $1\nUPDATE sessions SET revoked_at = now() WHERE version = $1",
        "INSERT INTO call_totals AS t (user_id, calls) SELECT user_id, calls FROM pending",
        'SELECT "id" FROM "users" WHERE "username"=$1',
    ],
)
def test_a_statement_without_it_is_noticed(broken: str) -> None:
    assert on_our_tables(broken)
    assert not has_key(broken)


@pytest.fixture
async def told(settings: Settings) -> AsyncIterator[tuple[Stores, list[str]]]:
    """The domain, and the statements that PostgreSQL was sent."""
    statements: list[str] = []
    async with open_stores(replace(settings, sync_interval_s=1)) as stores:
        stores.database.watch_statements(lambda text, _seconds, _error: statements.append(text))
        await empty(stores)
        await stores.snapshots.restore()
        statements.clear()
        yield stores, statements


async def test_what_is_really_sent_has_the_key(told: tuple[Stores, list[str]], redis: RawRedis) -> None:
    """Also what the ORM makes."""
    stores, statements = told
    user_id = await stores.accounts.sign_up("ada", "correct horse")
    token = await stores.accounts.log_in("ada", "correct horse")
    claims = stores.sessions.read_token(token)
    assert isinstance(claims, Claims)
    assert await stores.sessions.fall_back(claims) is None
    assert await stores.accounts.name_of(user_id + 1) is None
    assert await stores.accounts.names_of([user_id + 1]) == {}
    await stores.sessions.inspect(claims)
    assert (await stores.usage.admit(token)).admitted
    await stores.snapshots.take()
    await redis.flushall()
    await stores.snapshots.restore()
    await stores.accounts.log_out(claims)
    ours = {plain(statement) for statement in statements if on_our_tables(statement)}
    assert len(ours) >= 12
    allowed = {plain(SCRIPTS[name]) for name in ("read_snapshot_numbers",)}
    without = [it for it in ours - allowed if not has_key(it)]
    assert [it for it in without if not any(re.search(known, it) for known in ORM_WITHOUT_KEY)] == []
    assert len(without) == len(ORM_WITHOUT_KEY)


# What Citus refuses: "cannot create constraint … on …: distributed relations cannot have UNIQUE … constraints that do
# not include the partition column".
CITUS = """
CREATE FUNCTION create_distributed_table(name regclass, key text, colocate_with text DEFAULT 'default')
RETURNS void LANGUAGE plpgsql AS $$
DECLARE lacking text;
BEGIN
  SELECT i.indexrelid::regclass::text INTO lacking FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = key
   WHERE i.indrelid = name AND i.indisunique AND a.attnum <> ALL (i.indkey::int2[]);
  IF lacking IS NOT NULL THEN RAISE unique_violation USING MESSAGE = lacking || ' does not contain ' || key; END IF;
  IF EXISTS (SELECT FROM pg_constraint c WHERE c.contype = 'f' AND name IN (c.conrelid, c.confrelid)) THEN
    RAISE foreign_key_violation USING MESSAGE = 'a table that is not distributed is tied to ' || name;
  END IF;
END $$
"""


async def test_the_statements_for_citus_leave_no_unique_index_without_the_key(servers: Servers) -> None:
    admin = await asyncpg.connect(servers.postgres.url)
    try:
        await admin.execute("DROP DATABASE IF EXISTS distributed")
        await admin.execute("CREATE DATABASE distributed")
        url = servers.postgres.url.replace("/gatehouse", "/distributed")
        await migrate(url)
        here = await asyncpg.connect(url)
        try:
            await here.execute(CITUS)
            for table, key in (("users", "id"), ("sessions", "user_id")):
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await here.execute(f"SELECT create_distributed_table('{table}', '{key}')")
            await here.execute((ROOT / "docs/citus.sql").read_text())
        finally:
            await here.close()
        await admin.execute("DROP DATABASE distributed")
    finally:
        await admin.close()
