"""How often one may try to log in: attempts are reserved before a password is looked at, and count if it was wrong.

A stranger's attempt counts for the user, for the user at that address, for the address, and for all. An address at
which the user has logged in before counts for the user at that address alone: whoever guesses from elsewhere, however
often, does not keep the user out. Redis keeps the attempts of all processes; each process remembers its own besides, so
that a Redis that is away or was emptied opens nothing.

Sources: NIST SP 800-63B-4, 3.2.2 (throttling); OWASP ASVS 5.0, 6.1.1 and 6.3.1 (no lockout of the true user); OWASP
Authentication Cheat Sheet (device cookies: the lane of who is known).
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec

from models.errors import LoginThrottled, Overloaded, StoreUnavailable
from models.limits import RateLimit
from models.local_limits import LocalLimiter
from models.store import Store

AT_ONCE = 2
"""Attempts that a lane verifies at a time in one process. More of them would refuse right ones, which a busy client may
send side by side: while they are verified they count, and give that back only afterwards."""

MAX_WAITING = 64
"""Attempts that wait for their turn in one lane."""

MAX_LOCAL_TIMES = 100_000

Scope = tuple[str, Sequence[RateLimit]]


class LoginLimits(msgspec.Struct, frozen=True):
    """Wrong attempts per window.

    Args:
        user: for a user, from all addresses at which the user never logged in.
        user_address: for a user at one address.
        address: from one address, for whichever users.
        all: together.
    """

    user: tuple[RateLimit, ...]
    user_address: tuple[RateLimit, ...]
    address: tuple[RateLimit, ...]
    all: tuple[RateLimit, ...]


class Attempt:
    """One reserved attempt: it counts unless it is forgiven."""

    def __init__(self) -> None:
        self.forgiven = False

    def forgive(self) -> None:
        """The password was right."""
        self.forgiven = True


class _Lane:
    """Whose attempts wait for each other."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.users = 0


class LoginThrottle:
    """Login attempts of all users, counted before they cost anything."""

    def __init__(self, store: Store, limits: LoginLimits) -> None:
        self._store = store
        self._limits = limits
        self._local = LocalLimiter(MAX_LOCAL_TIMES)
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def attempt(self, username_key: str, address: str, *, known: bool) -> AsyncIterator[Attempt]:
        """Reserve an attempt for what is inside; given back when it is forgiven, or ends as Overloaded.

        Args:
            username_key: whether there is such a user or not.
            known: the user has logged in from this address before.

        Raises:
            LoginThrottled: too many have failed; nothing was reserved.
            Overloaded: too many of the same kind wait.
        """
        scopes = self._scopes(username_key, address, known=known)
        lanes = [scope for scope, _ in scopes if scope.startswith(("user:", "user_address:"))]
        async with AsyncExitStack() as turns:
            # Also whoever is known by now, thanks to a login before, takes turns with those who were not: they share a
            # limit. In this order everywhere, so that nobody waits for each other.
            for lane in lanes:
                await turns.enter_async_context(self._turn(lane))
            reserved_at_us = self._reserve_here(scopes)
            try:
                shared_at_us = await self._reserve_in_redis(scopes)
            except LoginThrottled:
                self._release_here(scopes, reserved_at_us)
                raise
            attempt = Attempt()
            try:
                yield attempt
            except Overloaded:
                attempt.forgive()
                raise
            finally:
                if attempt.forgiven:
                    self._release_here(scopes, reserved_at_us)
                    await self._release_in_redis(scopes, shared_at_us)

    def _scopes(self, username_key: str, address: str, *, known: bool) -> list[Scope]:
        at_address = f"user_address:{_digest(username_key, address)}", self._limits.user_address
        if known:
            return [at_address]
        return [
            (f"user:{_digest(username_key)}", self._limits.user),
            at_address,
            (f"address:{_digest(address)}", self._limits.address),
            ("all", self._limits.all),
        ]

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        lane = self._lanes.setdefault(name, _Lane())
        if lane.users >= AT_ONCE + MAX_WAITING:
            raise Overloaded()
        lane.users += 1
        try:
            async with lane.turns:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[name]

    def _reserve_here(self, scopes: Sequence[Scope]) -> int:
        now_us, wait_us = time.monotonic_ns() // 1_000, 0
        for scope, limits in scopes:
            for left, reset_us in zip(*self._local.judge(scope, limits, now_us), strict=True):
                wait_us = max(wait_us, reset_us if left <= 0 else 0)
        if wait_us:
            raise LoginThrottled(wait_us)
        for scope, limits in scopes:
            self._local.admit(scope, limits, now_us)
        return now_us

    def _release_here(self, scopes: Sequence[Scope], reserved_at_us: int) -> None:
        for scope, _ in scopes:
            self._local.take_back(scope, reserved_at_us)

    async def _reserve_in_redis(self, scopes: Sequence[Scope]) -> int | None:
        """The reservation's time there; None when Redis cannot take it, and this process judges alone."""
        try:
            reserved, time_us = await self._store.reserve_login(scopes)
        except StoreUnavailable:
            return None
        if not reserved:
            raise LoginThrottled(time_us)
        return time_us

    async def _release_in_redis(self, scopes: Sequence[Scope], shared_at_us: int | None) -> None:
        if shared_at_us is not None:
            with suppress(StoreUnavailable):  # it then counts as if it had failed
                await self._store.release_login([scope for scope, _ in scopes], shared_at_us)


def address_digest(user_id: int, address: str) -> bytes:
    """How an address at which a user logged in is remembered: 8 bytes that differ from user to user."""
    return hashlib.sha256(f"known address\0{user_id}\0{address}".encode()).digest()[:8]


def _digest(*parts: str) -> str:
    # What is typed as a username may be a password, and must not be readable in Redis.
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
