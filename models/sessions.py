"""Sessions: started, validated with fallback, published to the cache, ended; one of a user at a time."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import msgspec

from models.database import CHANGE_DEADLINE_S, Database, load_sql
from models.errors import InvalidCredentials, StoreUnavailable
from models.publishing import Synced, entry_of, publish_changes
from models.records import Entry
from models.store import Store
from models.tokens import Claims, TokenSigner

Reason = Literal[
    "missing_token", "malformed_token", "session_expired", "session_replaced", "session_revoked", "session_unknown"
]

MAX_FALLBACKS = 8
"""PostgreSQL reads at a time for sessions that Redis does not know; fewer than the pool has connections."""

FALLBACK_DEADLINE_S = 5.0
REVOKE_BATCH = 1_000

_UPSERT = load_sql("upsert_session")
_REVOKE = load_sql("revoke_session")
_REVOKE_BATCH = load_sql("revoke_sessions")
_READ = load_sql("read_session")
_DESCRIBE = load_sql("describe_session")
_DELETE_EXPIRED = load_sql("delete_expired_sessions")


class Description(msgspec.Struct, frozen=True):
    """What a user may know about their own session; times in UTC."""

    user_id: int
    username: str
    created_at: datetime
    expires_at: datetime


class _Flight:
    """One read of a user's row that several calls wait for.

    Args:
        before: the user's flight that is reading already. It may have read before the calls of this one began, so they
            wait for a read of their own, after it.
    """

    task: asyncio.Task[Entry | None]

    def __init__(self, before: "_Flight | None") -> None:
        self.before = before.task if before else None
        self.reading = False


class Sessions:
    """The sessions of all users.

    Args:
        ttl_s: seconds from login to a session's end.
    """

    def __init__(self, database: Database, store: Store, signer: TokenSigner, ttl_s: int) -> None:
        self._database = database
        self._store = store
        self._signer = signer
        self._ttl_s = ttl_s
        self._flights: dict[int, _Flight] = {}
        self._turns = asyncio.Semaphore(MAX_FALLBACKS)

    async def start(self, user_id: int, password_hash: str | None = None) -> str:
        """Start a session, ending the user's older one, and return its token.

        PostgreSQL first, Redis second: when Redis does not take it, the session stands and the worker publishes it.

        Args:
            password_hash: of the password that was right, if one was asked for.

        Raises:
            InvalidCredentials: the user is gone, disabled or has another password by now.
            StoreUnavailable: PostgreSQL is away.
        """
        random_part, digest = self._signer.new_secret()
        # Twice is a later login with the same digest: it ends what began before it, and has a version above.
        rows = await self._database.fetch(_UPSERT, user_id, digest, self._ttl_s, password_hash, repeatable=True)
        if not rows:
            raise InvalidCredentials()
        version, expires_ms = rows[0]["version"], rows[0]["expires_ms"]
        with suppress(StoreUnavailable):
            await self._store.publish_session(Entry(user_id, version, expires_ms, digest))
        return self._signer.sign(user_id, version, expires_ms, random_part)

    def verify(self, token: str) -> Claims | None:
        """What a token claims, or None when no key of ours signed it. The claims may have expired."""
        return self._signer.verify(token)

    def read_token(self, token: str) -> Claims | Reason:
        """What a token claims, or why it is refused, without any I/O."""
        claims = self.verify(token)
        if claims is None:
            return "malformed_token"
        if claims.expires_ms <= time.time() * 1000:
            return "session_expired"
        return claims

    async def fall_back(self, claims: Claims) -> Reason | None:
        """Judge a session by its row in PostgreSQL and cache what the row says.

        One read at a time for each user and a bounded number for all, however many calls ask. The row is always read
        after the call began: what committed before is seen.

        Raises:
            StoreUnavailable: PostgreSQL is away or too many wait for it.
        """
        flight = self._flights.get(claims.user_id)
        if flight is None or flight.reading:
            flight = self._flights[claims.user_id] = _Flight(flight)
            flight.task = asyncio.create_task(self._fly(flight, claims))
        # Shielded: the one who gives up must not end the flight of the others.
        entry = await asyncio.shield(flight.task)
        if entry is None or entry.version < claims.version:
            return "session_unknown"
        if entry.version > claims.version:
            return "session_revoked" if entry.reason == "revoked" else "session_replaced"
        if entry.reason:
            return "session_expired" if entry.reason == "expired" else "session_revoked"
        return None if entry.digest == claims.digest else "session_unknown"

    async def _fly(self, flight: "_Flight", claims: Claims) -> Entry | None:
        try:
            async with asyncio.timeout(FALLBACK_DEADLINE_S):
                if flight.before is not None:
                    await asyncio.wait([flight.before])
                async with self._turns:
                    flight.reading = True
                    return await self._read_and_publish(claims)
        except TimeoutError as error:
            raise StoreUnavailable("Too many sessions wait for PostgreSQL; try again shortly") from error
        finally:
            if self._flights.get(claims.user_id) is flight:
                del self._flights[claims.user_id]

    async def _read_and_publish(self, claims: Claims) -> Entry | None:
        rows = await self._database.fetch(_READ, claims.user_id, repeatable=True)
        if rows:
            entry = entry_of(rows[0])
        else:
            # A well-signed token without a row: its session ended and was deleted. A tombstone spares the next read.
            entry = Entry(claims.user_id, claims.version, claims.expires_ms, reason="unknown")
        with suppress(StoreUnavailable):
            await self._store.publish_session(entry)
        return entry if rows else None

    async def end(self, claims: Claims) -> Reason | None:
        """End the claimed session everywhere: None when it was live, or why it was not.

        Raises:
            StoreUnavailable: PostgreSQL did not take it; or Redis did not, and the worker will finish it.
        """
        if await self._revoke(claims.user_id, claims.version, claims.digest):
            return None
        return await self.fall_back(claims) or "session_unknown"

    async def revoke(self, user_id: int) -> bool:
        """End a user's session everywhere, whichever it is; returns whether there was one.

        Raises:
            StoreUnavailable: as for `end`.
        """
        return await self._revoke(user_id, None, None)

    async def _revoke(self, user_id: int, version: int | None, digest: bytes | None) -> bool:
        rows = await self._database.fetch(_REVOKE, user_id, version, digest)
        if not rows:
            return False
        await self._store.publish_session(_tombstone(user_id, rows[0]))
        return True

    async def revoke_within(self, transaction: Any, user_id: int) -> Entry | None:
        """End a user's session as a part of a transaction; returns what is to be published after the commit."""
        row = await transaction.fetchrow(_REVOKE, user_id, None, None)
        return _tombstone(user_id, row) if row else None

    async def publish(self, entry: Entry) -> None:
        """Publish what a transaction ended."""
        await self._store.publish_session(entry)

    async def revoke_batch(self, after: int) -> tuple[int, int]:
        """End the sessions of the next users, by their id; returns how many, and the last user's id.

        Raises:
            StoreUnavailable: PostgreSQL did not take it; or Redis did not, and the worker will finish it.
        """
        rows = await self._database.fetch(_REVOKE_BATCH, after, REVOKE_BATCH, deadline_s=CHANGE_DEADLINE_S)
        await self._store.publish_sessions(_tombstone(row["user_id"], row) for row in rows)
        return len(rows), max((row["user_id"] for row in rows), default=after)

    async def inspect(self, claims: Claims) -> Description | Reason:
        """The claimed session's facts from PostgreSQL, or why it is not the user's live one.

        Raises:
            StoreUnavailable: PostgreSQL is away.
        """
        rows = await self._database.fetch(_DESCRIBE, claims.user_id, claims.version, claims.digest, repeatable=True)
        if not rows:
            return await self.fall_back(claims) or "session_unknown"
        return Description(**dict(rows[0]))

    async def sync(self) -> Synced:
        """Publish what changed in PostgreSQL to Redis: see `models.publishing`.

        Raises:
            StoreUnavailable: a server did not take it; the others did.
        """
        return await publish_changes(self._database, self._store)

    async def expire(self) -> int:
        """Delete the expired rows; returns how many."""
        return await self._database.delete_in_batches(_DELETE_EXPIRED)


def why_superseded(claims: Claims, cached: str) -> Reason:
    """Why a token is refused for which something else is cached, of the same or a higher version."""
    version, _, rest = cached.partition(":")
    if rest == "revoked":
        return "session_revoked"
    if rest == "expired":
        return "session_expired"
    if rest == "unknown" or int(version) == claims.version:
        return "session_unknown"
    return "session_replaced"


def _tombstone(user_id: int, row: Any) -> Entry:
    return Entry(user_id, row["version"], row["expires_ms"], reason="revoked")
