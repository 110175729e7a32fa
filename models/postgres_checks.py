"""Whether PostgreSQL is fit to be the truth."""

import asyncio
from collections.abc import Callable
from typing import Any

from models.database import BATCH_DEADLINE_S, Database, known_migrations, load_sql
from models.errors import StoreUnavailable
from models.findings import Finding, skewed, unknown

OLDEST_VERSION = 130_000
SLOW_S = 0.1
TABLES = ("users", "sessions", "call_totals", "call_windows", "caller_sketches")

_FACTS = load_sql("server_facts")
_MIGRATIONS = load_sql("read_migrations")
_PRIVILEGES = load_sql("missing_privileges")
_VERSIONS = load_sql("compare_versions")

_WITH_A_SCHEMA = ("permissions", "session_versions")
_REACHED = ("postgres_version", "postgres_role", "postgres_clock", "migrations", *_WITH_A_SCHEMA)


async def examine_postgres(database: Database, now_s: Callable[[], float]) -> list[Finding]:
    """All of its checks.

    Args:
        now_s: this machine's clock, in seconds since 1970.
    """
    try:
        await database.ping()  # the connection is made here, and no part of the latency
        asked_s = now_s()
        facts = (await database.fetch(_FACTS))[0]
        latency_s = now_s() - asked_s
    except StoreUnavailable as error:
        return [_unreachable(error), *unknown(_REACHED, "PostgreSQL was not reached")]
    migrations = await _migrations(database, migrated=facts["migrated"])
    findings = [
        _latency(latency_s),
        _version(facts),
        _role(facts),
        skewed("postgres_clock", "PostgreSQL", facts["now_s"] - asked_s - latency_s / 2, latency_s),
        migrations,
    ]
    if migrations.state == "failed":
        return findings + unknown(_WITH_A_SCHEMA, "the schema is not up to date")
    permissions = await _permissions(database)
    if permissions.state == "failed":
        return [*findings, permissions, *unknown(["session_versions"], "the role may not look")]
    return [*findings, permissions, await _session_versions(database)]


def _unreachable(error: StoreUnavailable) -> Finding:
    """Why nothing came of it: the driver's own words, and what they mean."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    state = getattr(cause, "sqlstate", "") or ""
    advice = "see that the server runs, and that DATABASE_URL has its host and port"
    if state.startswith("28"):
        advice = "put the role's right name and password into DATABASE_URL, and see what pg_hba.conf lets in"
    elif state == "3D000":
        advice = "create the database that DATABASE_URL names, then run `gatehouse migrate`"
    elif isinstance(cause, TimeoutError | asyncio.CancelledError):
        return Finding("postgres", "failed", "PostgreSQL does not answer in time", advice)
    return Finding("postgres", "failed", f"PostgreSQL cannot be used: {str(cause) or type(cause).__name__}", advice)


def _latency(latency_s: float) -> Finding:
    sentence = f"PostgreSQL answers in {latency_s * 1_000:.1f} ms"
    if latency_s <= SLOW_S:
        return Finding("postgres", "ok", sentence)
    return Finding("postgres", "warning", sentence, "put it nearer, or see what keeps it busy: logins wait for it")


def _version(facts: Any) -> Finding:
    if facts["version_number"] >= OLDEST_VERSION:
        return Finding("postgres_version", "ok", f"PostgreSQL {facts['version']}")
    return Finding(
        "postgres_version", "failed", f"PostgreSQL {facts['version']} is too old", "upgrade it to 13 or later"
    )


def _role(facts: Any) -> Finding:
    if not facts["read_only"]:
        return Finding("postgres_role", "ok", "PostgreSQL takes writes")
    advice = "point DATABASE_URL at the primary, and see that default_transaction_read_only is off"
    return Finding("postgres_role", "failed", "PostgreSQL takes no writes: it is a standby, or read-only", advice)


async def _migrations(database: Database, *, migrated: bool) -> Finding:
    applied = {row["name"] for row in await database.fetch(_MIGRATIONS)} if migrated else set()
    missing = sorted(known_migrations() - applied)
    if missing:
        sentence = f"the schema lacks {', '.join(missing)}"
        return Finding("migrations", "failed", sentence, "run `gatehouse migrate` before this version serves")
    if unknown_here := sorted(applied - known_migrations()):
        sentence = f"the schema has {', '.join(unknown_here)}, which this version does not know"
        return Finding("migrations", "warning", sentence, "an older Gatehouse is installed here: bring it up to date")
    return Finding("migrations", "ok", f"all {len(applied)} migrations are applied")


async def _permissions(database: Database) -> Finding:
    rows = await database.fetch(_PRIVILEGES, TABLES)
    if not rows:
        return Finding("permissions", "ok", "the role may read and write all tables")
    lacking = ", ".join(f"{row['privilege']} on {row['name']}" for row in rows)
    return Finding("permissions", "failed", f"the role may not {lacking}", "GRANT it that, or let it own the tables")


async def _session_versions(database: Database) -> Finding:
    """A sequence that is behind draws versions that Redis takes for old: such logins are refused."""
    row = (await database.fetch(_VERSIONS, deadline_s=BATCH_DEADLINE_S))[0]
    if row["drawn"] >= row["highest"]:
        return Finding("session_versions", "ok", "versions are drawn after the highest that a session has")
    sentence = f"the sequence session_versions is at {row['drawn']}, and a session has version {row['highest']}"
    advice = f"run SELECT setval('session_versions', {row['highest'] + 1}), or new logins are refused for old ones"
    return Finding("session_versions", "failed", sentence, advice)
