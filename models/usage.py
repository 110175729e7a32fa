"""Usage: admit a call (session, limits and count in one round trip), rank and count the callers, keep the counters."""

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import msgspec

from models.database import Database, load_sql
from models.errors import RedisAway, RedisRefused, ReplyLost
from models.limits import RateLimit
from models.outage import LocalGate
from models.records import ADMITTED, MISSING, SUPERSEDED, Verdict
from models.sessions import Reason, Sessions, why_superseded
from models.store import BUCKETS, Store
from models.tokens import Claims
from models.watch import Watch

TOP_COUNT = 10
CHUNK = 128

FALLBACK_TRIES = 3

KNOWN_TOKENS = 16_384
"""Tokens whose signature was checked lately, at about a kilobyte each."""

_LOCK_CLASS = 0x67617465  # 'gate'
_LOCK_BUCKET = load_sql("lock_bucket")
_UPSERT_TOTALS = load_sql("upsert_call_totals")
_UPSERT_SKETCH = load_sql("upsert_caller_sketch")
_READ_TOTALS = load_sql("read_call_totals")
_READ_SKETCH = load_sql("read_caller_sketch")
_READ_NUMBERS = load_sql("read_snapshot_numbers")


class Admission(msgspec.Struct, frozen=True):
    """What the gate decided about one call.

    Args:
        reason: why there is no valid session; None when there is one.
        admitted: the call may go on, and was counted. False with no reason: a limit refused it and nothing changed.
        remaining: for each limit, calls left in its current window.
        reset_us: for each limit, microseconds until the oldest counted call leaves its window.
        claims: whose call it is, when there is a valid session.
    """

    reason: Reason | None = None
    admitted: bool = False
    remaining: Sequence[int] = ()
    reset_us: Sequence[int] = ()
    claims: Claims | None = None

    @property
    def wait_us(self) -> int:
        """How long a refused call must wait, in microseconds, until every limit allows one."""
        return max(reset_us for left, reset_us in zip(self.remaining, self.reset_us, strict=True) if left <= 0)


class _Call(msgspec.Struct, frozen=True):
    """What is the same for every call with one token.

    Args:
        command: admits such a call, packed.
    """

    claims: Claims
    command: bytes


class _NotOurs(Exception):
    """No key of ours signed the token."""


def _admission(claims: Claims, verdict: Verdict) -> Admission:
    if verdict.outcome == SUPERSEDED:
        return Admission(why_superseded(claims, verdict.cached))
    return Admission(None, verdict.outcome == ADMITTED, verdict.remaining, verdict.reset_us, claims)


class _Emptied(Exception):
    """Redis lost the counters while a snapshot read them."""


class Snapshot(msgspec.Struct, frozen=True):
    """What one snapshot did."""

    buckets: int
    users: int


class Restored(msgspec.Struct, frozen=True):
    """What one restore did."""

    buckets: int
    users: int


class Usage:
    """The gate's one call, and the counters behind it.

    Args:
        limits: what every admitted call must pass, all of it.
    """

    def __init__(self, database: Database, store: Store, sessions: Sessions, limits: Sequence[RateLimit]) -> None:
        self._local = LocalGate(limits)
        self._watch = Watch(store, self._local)
        self._database = database
        self._store = store
        self._sessions = sessions
        self._limits = tuple(limits)
        # Signature, digest, keys and packing are a function of the token, and a client sends the same one all day.
        self._call = lru_cache(maxsize=KNOWN_TOKENS)(self._read_token)

    async def close(self) -> None:
        await self._watch.close()

    @property
    def trusts_redis(self) -> bool:
        """Whether cached sessions are believed without a look into PostgreSQL."""
        return self._watch.trusted == self._store.generation and not self._store.away

    async def admit(self, token: str) -> Admission:
        """Admit one call, or say why not.

        Args:
            token: as the client sent it.

        Raises:
            StoreUnavailable: whether the session is valid cannot be known now.
        """
        try:
            call = self._call(token)
        except _NotOurs:
            return Admission("malformed_token")
        if call.claims.expires_ms <= time.time() * 1000:
            return Admission("session_expired")
        try:
            if self.trusts_redis:
                return await self._admit_cached(call)
            return await self._admit_distrusting(call)
        except RedisRefused:
            self._watch.poke()
            return await self._admit_alone(call, count=True)
        except RedisAway as error:
            self._watch.lose()
            return await self._admit_alone(call, count=not isinstance(error, ReplyLost))

    async def _admit_cached(self, call: _Call) -> Admission:
        """The way of almost all calls: one round trip, and PostgreSQL only for what Redis does not know."""
        # Redis may be emptied again between the fallback's publication and the next try, but hardly over and over.
        for _ in range(FALLBACK_TRIES):
            verdict = await self._store.admit(call.command)
            if verdict.outcome != MISSING:
                return _admission(call.claims, verdict)
            reason = await self._sessions.fall_back(call.claims)
            if reason is not None:
                return Admission(reason)
        raise RedisRefused("Redis forgets what it is told; try again shortly")

    async def _admit_distrusting(self, call: _Call) -> Admission:
        """PostgreSQL first, because what Redis holds may be older than what it was told: see `models.watch`."""
        self._watch.poke()
        if self._store.away:
            raise RedisAway()
        reason = await self._sessions.fall_back(call.claims)
        return Admission(reason) if reason else await self._admit_cached(call)

    async def _admit_alone(self, call: _Call, *, count: bool) -> Admission:
        """Without Redis: PostgreSQL knows the session, this process keeps the limit.

        Raises:
            StoreUnavailable: PostgreSQL is away too.
        """
        reason = await self._sessions.fall_back(call.claims)
        if reason is not None:
            return Admission(reason)
        verdict = self._local.admit(call.claims.user_id, time.monotonic_ns() // 1_000, count=count)
        return _admission(call.claims, verdict)

    def _read_token(self, token: str) -> _Call:
        # A token that is not ours leaves as an exception, which the cache does not keep: forged ones push nobody out.
        claims = self._sessions.verify(token)
        if claims is None:
            raise _NotOurs
        return _Call(claims, self._store.admission_command(claims, self._limits))

    async def top(self) -> list[tuple[int, int]]:
        """The ten users with most calls, as (user id, calls): most first, ties by the lower id."""
        return await self._store.top(TOP_COUNT)

    async def count_callers(self) -> int:
        """The estimated number of distinct users who called."""
        return await self._store.count_callers()

    async def snapshot(self) -> Snapshot:
        """Copy the totals that changed since the last snapshot, and the sketches beside them, into PostgreSQL."""
        users = []
        for bucket in range(BUCKETS):
            with suppress(_Emptied):
                users.append(await self._snapshot_bucket(bucket))
        return Snapshot(sum(1 for count in users if count), sum(users))

    async def _snapshot_bucket(self, bucket: int) -> int:
        nonce = secrets.token_hex(8)
        async with self._database.transaction() as connection:
            # A bucket that somebody else snapshots or restores right now is theirs.
            if not await connection.fetchval(_LOCK_BUCKET, _LOCK_CLASS, bucket):
                return 0
            stored = await connection.fetchrow(_READ_SKETCH, bucket)
            if await self._store.drain_dirty(bucket, nonce, stored["snapshot"] if stored else 0) <= 0:
                return 0
            users = 0
            async for rows in self._store.drained_totals(bucket, CHUNK):
                await connection.execute(_UPSERT_TOTALS, [uid for uid, _ in rows], [calls for _, calls in rows])
                users += len(rows)
            # A sketch replaces the one before: never by that of a Redis emptied meanwhile. Nor may the totals be kept
            # alone: a user restored with a total but missing in the sketch would not be put into it by later calls.
            sketch = await self._store.sketch(bucket, nonce)
            if sketch is None:
                raise _Emptied
            number = await connection.fetchval(_UPSERT_SKETCH, bucket, sketch)
        # After the commit: a crash between the two repeats the drain, and absolute values make that harmless.
        await self._store.finish_drain(bucket, nonce, number)
        return users

    async def restore(self) -> Restored:
        """Give the buckets that lost their counters the stored ones back, added to what was counted since.

        A Redis that came back as an older copy of itself knows its counters by an older snapshot than the last: its
        totals are raised to the stored ones, and its sketches joined with them.
        """
        stored = {row["bucket"]: row["snapshot"] for row in await self._database.fetch(_READ_NUMBERS)}
        held = enumerate(await self._store.snapshot_numbers())
        older = [bucket for bucket, number in held if number is None or number < stored.get(bucket, 0)]
        users = [await self._restore_bucket(bucket) for bucket in older]
        return Restored(len(users), sum(users))

    async def _restore_bucket(self, bucket: int) -> int:
        nonce = secrets.token_hex(8)
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_LOCK_BUCKET, _LOCK_CLASS, bucket):
                return 0
            stored = await connection.fetchrow(_READ_SKETCH, bucket)
            sketch, number = (stored["sketch"], stored["snapshot"]) if stored else (b"", 0)
            position = await self._store.begin_restore(bucket, nonce, number)
            if position < 0:
                return 0
            users = 0
            while rows := [tuple(row) for row in await connection.fetch(_READ_TOTALS, bucket, position, CHUNK)]:
                if not await self._store.restore_totals(bucket, nonce, position, rows):
                    return users
                position, users = rows[-1][0], users + len(rows)
            await self._store.finish_restore(bucket, nonce, position, sketch, number)
        return users
