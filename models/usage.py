"""Usage: admit a call (session, limits and count in one round trip), rank and count the callers."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from models.errors import RedisAway, RedisRefused, ReplyLost, SlotMoved, StoreUnavailable
from models.keys import bucket_of
from models.meters import LIMITED_BY, SHADOWED_BY, Meters
from models.outage import LocalGate
from models.policies import Applied, Policies, Policy
from models.readings import Reading
from models.records import ADMITTED, MISSING, SUPERSEDED, Verdict
from models.servers import BUCKET_SLOTS, Server
from models.sessions import Reason, Sessions, why_superseded
from models.store import Store
from models.tokens import Claims
from models.watch import Watch
from models.windows import Period, current

TOP_COUNT = 10

FALLBACK_TRIES = 3

KNOWN_TOKENS = 16_384
"""Tokens whose signature was checked lately, at about a kilobyte each."""


class Admission(msgspec.Struct, frozen=True):
    """What the gate decided about one call.

    Args:
        reason: why there is no valid session; None when there is one.
        admitted: the call may go on, and was counted. False with no reason: a limit refused it and nothing changed.
        remaining: for each enforced limit, calls left in its current window.
        reset_us: for each enforced limit, microseconds until the oldest counted call leaves its window.
        claims: whose call it is, when there is a valid session.
        shadowed: the names of the shadow policies that would have refused an admitted call.
    """

    reason: Reason | None = None
    admitted: bool = False
    remaining: Sequence[int] = ()
    reset_us: Sequence[int] = ()
    claims: Claims | None = None
    shadowed: Sequence[str] = ()

    @property
    def wait_us(self) -> int:
        """How long a refused call must wait, in microseconds, until every limit allows one."""
        return max(reset_us for left, reset_us in zip(self.remaining, self.reset_us, strict=True) if left <= 0)


class _Call(msgspec.Struct, frozen=True):
    """What is the same for every call with one token.

    Args:
        command: admits such a call, packed.
        slot: of its keys.
    """

    claims: Claims
    applied: Applied
    command: bytes
    slot: int


class _NotOurs(Exception):
    """No key of ours signed the token."""


def _refusing(policies: Sequence[Policy], remaining: Sequence[int], least: int) -> tuple[str, ...]:
    """The names of those of which a limit has fewer calls left than `least`."""
    left = iter(remaining)
    lows = [(policy.name, min([next(left) for _ in policy.limits])) for policy in policies]
    return tuple(name for name, low in lows if low < least)


class Usage:
    """The gate's one call, and the counters behind it.

    Args:
        policies: one of them is `default`.
    """

    def __init__(self, store: Store, sessions: Sessions, policies: Sequence[Policy]) -> None:
        self._local = LocalGate()
        self._watch = Watch(store, self._local)
        self._store = store
        self._servers = store.servers
        self._sessions = sessions
        self.policies = Policies(policies)
        self.meters = Meters(policy.name for policy in policies)
        # Signature, digest, keys and packing are a function of the token, and a client sends the same one all day.
        self._call = lru_cache(maxsize=KNOWN_TOKENS)(self._read_token)
        self._folded = Reading(store.counters.fold, rest_s=0)
        self._readings: dict[tuple[str, Period, int], Reading[Any]] = {}

    async def begin(self) -> None:
        """Look at Redis before the first call comes."""
        await self._watch.look()

    async def close(self) -> None:
        await self._watch.close()
        for reading in (*self._readings.values(), self._folded):
            await reading.close()

    @property
    def trusts_redis(self) -> bool:
        """Whether all cached sessions are believed without a look into PostgreSQL."""
        return self._watch.trusts_all

    @property
    def uncounted(self) -> int:
        """Admitted calls that wait for Redis to be counted there."""
        return self._local.uncounted

    async def admit(self, token: str, applied: Applied | None = None) -> Admission:
        """Admit one call, or say why not.

        Args:
            token: as the client sent it.
            applied: by which policies to judge it, from `policies`; None for the default.

        Raises:
            StoreUnavailable: whether the session is valid cannot be known now.
        """
        try:
            call = self._call(token, applied or self.policies.default)
        except _NotOurs:
            return self.refused("malformed_token")
        if call.claims.expires_ms <= time.time() * 1000:
            return self.refused("session_expired")
        server = self._servers.of(call.slot)
        try:
            # As `models.watch.is_trusted`, in place.
            if server.trusted != server.generation or server.away:
                return await self._admit_distrusting(server, call)
            verdict = await self._store.admit(server, call.command, call.slot)
            if verdict.outcome == MISSING:
                return await self._admit_uncached(call)
            return self._judged(call, verdict, "cached")
        except StoreUnavailable as error:
            return await self._admit_after(error, server, call)

    def refused(self, reason: Reason, way: str | None = None) -> Admission:
        """Take note of a call without a valid session.

        Args:
            way: how that was found out, one of `models.meters.WAYS`; None without a look at any store.
        """
        self.meters.count("unauthorized")
        if way is not None:
            self.meters.count(way)
        return Admission(reason)

    async def _admit_uncached(self, call: _Call, way: str = "fallback") -> Admission:
        """PostgreSQL first, which has what Redis does not know; it is published, and Redis asked again."""
        # Redis may be emptied again between the publication and the next try, but hardly over and over.
        for _ in range(FALLBACK_TRIES):
            reason = await self._sessions.fall_back(call.claims)
            if reason is not None:
                return self.refused(reason, way)
            verdict = await self._store.admit(self._servers.of(call.slot), call.command, call.slot)
            if verdict.outcome != MISSING:
                return self._judged(call, verdict, way)
        raise RedisRefused("Redis forgets what it is told; try again shortly")

    def _judged(self, call: _Call, verdict: Verdict, way: str) -> Admission:
        """What a verdict means, counted: `counts` is changed in place, as every call comes here."""
        counts, applied, remaining, reset_us = self.meters.counts, call.applied, verdict.remaining, verdict.reset_us
        if verdict.outcome == SUPERSEDED:
            return self.refused(why_superseded(call.claims, verdict.cached), "tombstone" if way == "cached" else way)
        counts[way] += 1
        admitted = verdict.outcome == ADMITTED
        shadowed: tuple[str, ...] = ()
        enforced = len(applied.limits)
        if not admitted:
            counts["limited"] += 1
            self._count_refusals(applied, remaining)
        else:
            counts["admitted"] += 1
        if len(remaining) > enforced:
            if admitted:
                shadowed = _refusing(applied.shadows, remaining[enforced:], least=0)
                for name in shadowed:
                    counts[SHADOWED_BY + name] += 1
            remaining, reset_us = remaining[:enforced], reset_us[:enforced]
        return Admission(None, admitted, remaining, reset_us, call.claims, shadowed)

    def _count_refusals(self, applied: Applied, remaining: Sequence[int]) -> None:
        names: Sequence[str] = (applied.policies[0].name,)
        if len(applied.policies) > 1:
            judges = [policy for policy in applied.policies if not policy.shadow]
            names = _refusing(judges, remaining, least=1)
        for name in names:
            self.meters.counts[LIMITED_BY + name] += 1

    async def _admit_distrusting(self, server: Server, call: _Call) -> Admission:
        """PostgreSQL first, because what Redis holds may be older than what it was told: see `models.watch`."""
        self._watch.poke(server)
        if server.away:
            raise RedisAway()
        return await self._admit_uncached(call, "degraded")

    async def _admit_after(self, error: StoreUnavailable, server: Server, call: _Call) -> Admission:
        if isinstance(error, SlotMoved):
            # PostgreSQL first: a replica that took the slot over may not know that the session has ended.
            try:
                return await self._admit_uncached(call, "degraded")
            except RedisAway as again:
                error, server = again, self._servers.of(call.slot)
        if isinstance(error, RedisRefused):
            self._watch.poke(server)
        elif isinstance(error, RedisAway):
            self._watch.lose(server)
        else:
            self.meters.count("unavailable")
            raise error
        return await self._admit_alone(call, count=not isinstance(error, ReplyLost))

    async def _admit_alone(self, call: _Call, *, count: bool) -> Admission:
        """Without Redis: PostgreSQL knows the session, this process keeps the limit.

        Raises:
            StoreUnavailable: PostgreSQL is away too.
        """
        try:
            reason = await self._sessions.fall_back(call.claims)
        except StoreUnavailable:
            self.meters.count("unavailable")
            raise
        if reason is not None:
            return self.refused(reason, "degraded")
        now_us = time.monotonic_ns() // 1_000
        verdict = self._local.admit(call.claims.user_id, call.applied.policies, now_us, count=count)
        return self._judged(call, verdict, "degraded")

    def _read_token(self, token: str, applied: Applied) -> _Call:
        # A token that is not ours leaves as an exception, which the cache does not keep: forged ones push nobody out.
        claims = self._sessions.verify(token)
        if claims is None:
            raise _NotOurs
        slot = BUCKET_SLOTS[bucket_of(claims.user_id)]
        return _Call(claims, applied, self._store.admission_command(claims, applied.policies), slot)

    async def top(self, period: Period = "all", count: int = TOP_COUNT) -> list[tuple[int, int]]:
        """The users with most calls, as (user id, calls): most first, ties by the lower id.

        Args:
            period: of this hour or this day, in UTC, or of all time.
            count: how many users at most.
        """
        ranked: list[tuple[int, int]] = await self._reading("top", period, count).get()
        return ranked

    async def count_callers(self, period: Period = "all") -> int:
        """The number of distinct users who called: exact for this hour or this day, estimated for all time."""
        callers: int = await self._reading("count", period, 0).get()
        return callers

    def _reading(self, what: str, period: Period, count: int) -> Reading[Any]:
        """Both cost hundreds of commands, and anybody may ask: see `models.readings`."""

        async def read() -> Any:
            counters = self._store.counters
            await self._folded.get()
            window = current(period, await counters.now_us())
            return await (counters.top(count, window) if what == "top" else counters.count_callers(window))

        key = what, period, count
        if key not in self._readings:
            self._readings[key] = Reading(read)
        return self._readings[key]
