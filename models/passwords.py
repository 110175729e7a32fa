"""Password hashing through the passlib API, off the event loop and bounded.

New hashes are argon2id at OWASP's minimum (Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane). The bcrypt hashes
of the service that Gatehouse replaces verify too, and are upgraded at the next login.
"""

import asyncio
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from passlib.context import CryptContext

from models.errors import Overloaded

T = TypeVar("T")

QUEUE_PER_THREAD = 32
"""Waiting verifications for each one that runs; at some 20 ms each the last waits under a second."""

HASHING_NICENESS = 19

_CONTEXT = CryptContext(
    ["argon2", "bcrypt"],
    deprecated="auto",
    argon2__memory_cost=19 * 1024,
    argon2__time_cost=2,
    argon2__parallelism=1,
)
_BCRYPT_MAX_BYTES = 72
# Of random bytes that nobody kept, at the cost of the original service (Go's bcrypt.DefaultCost).
_DUMMY_BCRYPT = "$2b$10$Fn3kBwutKw6mUktFfhcKTuIsuX/tm/3uhFCB4X9dyoB9Qc9gMiHG6"
_ARGON2_COST = re.compile(r"\$argon2id?\$v=\d+\$m=(\d+),t=(\d+),p=(\d+)\$")
_BCRYPT_COST = re.compile(r"\$2[abxy]\$(\d\d)\$")
# The last letter of a salt carries two bits, so it is one of four; `2x` marks hashes of a faulty implementation.
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[1-3][0-9])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


class Passwords:
    """Hashes and verifies in a few threads; argon2 and bcrypt leave the interpreter's lock while they work.

    Args:
        threads: how many at once; by default one a core.
    """

    def __init__(self, threads: int | None = None) -> None:
        threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords", initializer=_step_back)
        self._threads = threads
        self._most_pending = threads * (1 + QUEUE_PER_THREAD)
        self._pending = 0
        self._dummy_argon2 = _dummy_argon2(_CONTEXT)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def at_work(self) -> tuple[int, int]:
        """How many are being hashed, and how many wait for that."""
        hashing = min(self._pending, self._threads)
        return hashing, self._pending - hashing

    async def hash(self, password: str) -> str:
        """A new argon2id hash.

        Raises:
            Overloaded: too many are waiting.
        """
        return await self._off_loop(lambda: _CONTEXT.hash(_normal(password)))

    async def verify(self, password: str, stored: str | None, *, usable: bool = True) -> tuple[bool, str | None]:
        """Whether the password is the stored one, and a better hash to store when it is.

        Every no takes the same work, one hash of each kind, so that its time tells nothing about the user.

        Args:
            stored: None for an unknown user: the answer is no.
            usable: False for a user who may not log in: the answer is no.

        Raises:
            Overloaded: too many are waiting.
        """
        return await self._off_loop(lambda: self._verify(password, stored or "", usable))

    def _verify(self, password: str, stored: str, usable: bool) -> tuple[bool, str | None]:
        answer = _verify(password, stored) if _affordable(stored) else None
        if answer and answer[0] and usable:
            return answer
        # Of the two kinds of hash, the one that was not verified yet; both for nobody, a damaged or a planted hash.
        # The password of a user of the original who is disabled was right: its better hash took as long as an argon2.
        if answer is None or not stored.startswith("$2"):
            _verify(password, _DUMMY_BCRYPT)
        if answer is None or (stored.startswith("$2") and not answer[0]):
            _verify(password, self._dummy_argon2)
        return False, None

    async def _off_loop(self, work: Callable[[], T]) -> T:
        if self._pending >= self._most_pending:
            raise Overloaded()
        self._pending += 1
        # Counted down when the thread is done, not when the caller stops waiting: an aborted request goes on costing.
        future = self._pool.submit(work)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._one_less) if not loop.is_closed() else None)
        return await asyncio.wrap_future(future)

    def _one_less(self) -> None:
        self._pending -= 1


@cache
def _dummy_argon2(context: CryptContext) -> str:
    """A hash of what nobody types, made once a process: it costs as much as a login."""
    return str(context.hash("nobody has this password"))


def _step_back() -> None:
    """Let this thread yield to the event loop, which has a thousand short calls to answer for each hash.

    Linux gives each thread a priority of its own; elsewhere threads share the process's, and it stays as it is.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASHING_NICENESS)


def _verify(password: str, stored: str) -> tuple[bool, str | None] | None:
    """Whether it is the password, and a better hash; None for a hash that cannot be read."""
    try:
        if not stored.startswith("$2"):
            valid, better = _CONTEXT.verify_and_update(_normal(password), stored)
            return bool(valid), better
        # What the original service hashed were the bytes as they came, at most 72. More of them are a wrong password,
        # told after the same work: bcrypt itself would refuse at once.
        fits = len(password.encode()) <= _BCRYPT_MAX_BYTES
        valid, better = _CONTEXT.verify_and_update(password if fits else "too long", stored)
        return (True, better) if valid and fits else (False, None)
    except (ValueError, TypeError):  # the latter for what is no base64
        return None


def is_bcrypt(stored: str) -> bool:
    """Whether a hash is whole, made by bcrypt, and at a cost that `Passwords.verify` pays."""
    return bool(_BCRYPT.fullmatch(stored)) and _affordable(stored)


def _affordable(stored: str) -> bool:
    """Whether a stored hash is one of ours to verify: a planted one could ask for gigabytes or hours."""
    if match := _ARGON2_COST.match(stored):
        memory_kib, passes, lanes = (int(number) for number in match.groups())
        return memory_kib <= 256 * 1024 and passes <= 10 and lanes <= 16
    if match := _BCRYPT_COST.match(stored):
        return int(match[1]) <= 14
    return False


def _normal(password: str) -> str:
    """One spelling for each text, whichever keyboard it came from (NIST SP 800-63B-4, 3.1.1.2: NFC)."""
    return unicodedata.normalize("NFC", password)
