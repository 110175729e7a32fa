"""A question that anybody may ask as often as they like: one reading answers all who ask in the meantime.

Who asks gets a reading that began afterwards, so that it has everything that was there before. While one is under way,
or has ended just now, all further ones wait for the next together.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from models.tasks import end

T = TypeVar("T")

REST_S = 0.05
"""From the end of a reading to the beginning of the next, for whatever else the process has to do."""


class Reading(Generic[T]):
    """One question.

    Args:
        read: answers it, within a deadline of its own.
        rest_s: from one reading to the next.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], rest_s: float = REST_S) -> None:
        self._read = read
        self._rest_s = rest_s
        self._turn = asyncio.Lock()
        self._ended_s = -rest_s
        self._next: asyncio.Task[T] | None = None
        self._tasks: set[asyncio.Task[T]] = set()

    async def get(self) -> T:
        """The answer of a reading that begins now or a little later; its error is that of all who wait for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._go())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._done)
        # Shielded: the one who gives up must not end the reading of the others.
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """Read no more."""
        for task in list(self._tasks):
            await end(task)

    async def _go(self) -> T:
        async with self._turn:
            await asyncio.sleep(self._ended_s + self._rest_s - time.monotonic())
            self._next = None
            try:
                return await self._read()
            finally:
                self._ended_s = time.monotonic()

    def _done(self, task: "asyncio.Task[T]") -> None:
        self._tasks.discard(task)
        if self._next is task:  # cancelled before it began
            self._next = None
        if not task.cancelled():
            task.exception()  # known to whoever still waits
