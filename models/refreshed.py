"""A figure that takes its time: asked for in the background, now and then, while whoever shows it goes on."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from models.errors import StoreUnavailable
from models.tasks import end

T = TypeVar("T")

log = logging.getLogger("gatehouse")

PATIENCE_S = 0.4
"""How long a look waits for the new figure before it takes the last one."""


class Refreshed(Generic[T]):
    """The last answer to a question, no older than need be.

    Args:
        ask: the question.
        every_s: from one to the next, if somebody looks.
        deadline_s: for an answer.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], every_s: float, deadline_s: float) -> None:
        self._ask = ask
        self._every_s = every_s
        self._deadline_s = deadline_s
        self._due_s = 0.0
        self._answer: T | None = None
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            await end(self._task)

    async def get(self) -> T | None:
        """The last answer; None when there was none in time."""
        if (self._task is None or self._task.done()) and time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._every_s
            self._task = asyncio.create_task(self._refresh())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE_S)
        return self._answer

    def forget(self) -> None:
        """What was answered holds no more; ask again at the next look."""
        self._answer, self._due_s = None, 0.0

    async def _refresh(self) -> None:
        answer = None
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._ask()
        except (StoreUnavailable, TimeoutError):
            pass
        except Exception:  # else nobody would see it, and the last answer would be shown for ever
            log.exception("a figure cannot be had")
        self._answer = answer
