"""The sessions as an operator sees them: who has one, and whether both stores say the same of it."""

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Literal

import msgspec

from models.database import BATCH_DEADLINE_S, Database, load_sql
from models.errors import InvalidInput, RedisAway
from models.events import LOCAL, record
from models.records import Entry
from models.sessions import Sessions
from models.store import Store

MAX_PAGE = 10_001
"""Rows; one of them is to see whether there are more."""

_LIST = load_sql("list_sessions")
_INSPECT = load_sql("inspect_session")
_AWAY = None, "Redis does not answer: until it does, calls are judged by what PostgreSQL says"


class LiveSession(msgspec.Struct, frozen=True, rename="camel"):
    """One live session."""

    user_id: int
    username: str
    version: int
    created_at: datetime
    expires_at: datetime


class Comparison(msgspec.Struct, frozen=True, rename="camel"):
    """What both stores say of a user's session.

    Args:
        row: PostgreSQL's word.
        cached: Redis's: a live session, a tombstone that says why it ended, nothing; away when it does not answer.
        cached_ttl_s: seconds until Redis forgets it.
        agree: whether no call can be judged wrongly by what Redis has; None when nobody knows what it has.
    """

    user_id: int
    row: Literal["live", "revoked", "expired", "missing"]
    version: int | None
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    cached: Literal["live", "tombstone", "missing", "away"]
    cached_version: int | None
    cached_reason: str | None
    cached_ttl_s: float | None
    agree: bool | None
    verdict: str


class Register:
    """Every method raises StoreUnavailable when a store that it needs is away."""

    def __init__(self, database: Database, store: Store, sessions: Sessions) -> None:
        self._database = database
        self._store = store
        self._sessions = sessions

    async def page(self, after: int = 0, limit: int = 100) -> list[LiveSession]:
        """Live sessions by their user's id.

        Args:
            after: the last user id of the page before.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"A page has 1 to {MAX_PAGE} sessions")
        rows = await self._database.fetch(_LIST, after, limit, deadline_s=BATCH_DEADLINE_S)
        return [LiveSession(**dict(row)) for row in rows]

    async def compare(self, user_id: int) -> Comparison:
        """What PostgreSQL and Redis have of a user's session."""
        # Redis first: what it then lacks of PostgreSQL's word may be on its way, and never the other way round.
        away, value, ttl_ms = False, b"", 0
        try:
            value, ttl_ms = await self._store.cached_session(user_id)
        except RedisAway:
            away = True
        rows = await self._database.fetch(_INSPECT, user_id)
        row = dict(rows[0]) if rows else {}
        entry = Entry(user_id, row["version"], row["expires_ms"], row["token_digest"]) if row else None
        version, _, reason = value.decode().partition(":")
        state: Literal["live", "revoked", "expired", "missing"] = "live" if row else "missing"
        if row and (row["revoked_at"] or row["expired"]):
            state = "revoked" if row["revoked_at"] else "expired"
        live = bool(value) and ":" in reason
        agree, verdict = _judge(state, entry, value, int(version or 0), live=live) if not away else _AWAY
        return Comparison(
            user_id=user_id,
            row=state,
            version=row.get("version"),
            created_at=row.get("created_at"),
            expires_at=row.get("expires_at"),
            revoked_at=row.get("revoked_at"),
            cached="away" if away else "live" if live else "tombstone" if value else "missing",
            cached_version=int(version) if value else None,
            cached_reason=None if live or not value else reason,
            cached_ttl_s=ttl_ms / 1_000 if value else None,
            agree=agree,
            verdict=verdict,
        )

    async def revoke_all(self) -> AsyncIterator[int]:
        """End every session that there is now, in batches; yields how many each ended.

        Raises:
            StoreUnavailable: those of the batches before are ended; the worker ends in Redis what it did not take.
        """
        after, began_s = 0, time.monotonic()
        while True:
            ended, after = await self._sessions.revoke_batch(after)
            if not ended:
                break
            yield ended
        record("revoke_all", "done", LOCAL, why=f"in {time.monotonic() - began_s:.1f} s")


def _judge(state: str, row: Entry | None, value: bytes, cached_version: int, *, live: bool) -> tuple[bool, str]:
    """Whether what Redis has can only lead to right answers, and a sentence about it."""
    if not value:
        return True, "Redis has nothing: the next call asks PostgreSQL, and Redis is told then"
    if row is None:
        return not live, (
            "PostgreSQL has no row, and Redis a live session: end it with `gatehouse session revoke`, and see whether"
            " PostgreSQL lost commits"
            if live
            else "Both say that there is no session"
        )
    if cached_version < row.version:
        return False, "Redis is behind: the worker's next sync publishes what PostgreSQL says"
    if cached_version > row.version:
        return False, "Redis is ahead: PostgreSQL has lost commits, and logins are refused until the entry ends"
    if state == "live":
        same = value == row.value
        return same, "Both have the same live session" if same else "The same version, and not the same session"
    if live and state == "revoked":
        return False, "Redis has the session live that was ended: the worker's next sync ends it there"
    return True, "Both say that the session has ended"
