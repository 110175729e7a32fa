"""Events for all who look: made once a second for all of them together, and not at all while nobody looks."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from models.tasks import end

log = logging.getLogger("gatehouse.api")

MAX_VIEWERS = 32
"""Streams of one process; each holds a connection for as long as its page is open."""

EVERY_S = 1.0
SIGN_OF_LIFE_S = 5.0
RETRY_MS = 2_000

Make = Callable[[], Awaitable[bytes]]


class Broadcast:
    """Server-sent events (HTML, 9.2) from one source to many viewers, each of whom gets the newest.

    Args:
        make: the data of the next event, on one line.
        beginning: the data of a first event, `history`, for one viewer.
        name: of the events.
    """

    def __init__(self, name: str, make: Make, beginning: Callable[[], bytes]) -> None:
        self._name = name.encode()
        self._make = make
        self._beginning = beginning
        self._viewers = 0
        self._number = 0
        self._event = b""
        self._made_s = 0.0
        self._told = asyncio.Event()
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """No further viewer can be taken on."""
        return self._viewers >= MAX_VIEWERS

    async def close(self) -> None:
        """End all streams, and make no more events."""
        self._ended = True
        self._told.set()
        if self._task is not None:
            await end(self._task)

    async def events(self, for_s: float) -> AsyncIterator[bytes]:
        """The events of one viewer, as they are sent, for so many seconds at most."""
        until_s = time.monotonic() + for_s
        with self._viewing():
            yield b"retry: %d\n\n" % RETRY_MS
            yield b"event: history\ndata: %b\n\n" % self._beginning()
            if time.monotonic() - self._made_s < EVERY_S:
                yield self._event
            while not self._ended and (left_s := until_s - time.monotonic()) > 0:
                told, number = self._told, self._number
                try:
                    async with asyncio.timeout(min(left_s, SIGN_OF_LIFE_S)):
                        await told.wait()
                except TimeoutError:
                    yield b": still here\n\n"
                if self._number != number:
                    yield self._event

    @contextmanager
    def _viewing(self) -> Iterator[None]:
        self._viewers += 1
        if (self._task is None or self._task.done()) and not self._ended:
            self._task = asyncio.create_task(self._go_on())
        try:
            yield
        finally:
            self._viewers -= 1

    async def _go_on(self) -> None:
        while self._viewers and not self._ended:
            began_s = time.monotonic()
            try:
                data = await self._make()
            except Exception:
                log.exception("there is no event for the dashboard")
            else:
                self._tell(data)
            await asyncio.sleep(max(0.1, EVERY_S - (time.monotonic() - began_s)))

    def _tell(self, data: bytes) -> None:
        self._number += 1
        self._made_s = time.monotonic()
        self._event = b"id: %d\nevent: %b\ndata: %b\n\n" % (self._number, self._name, data)
        told, self._told = self._told, asyncio.Event()
        told.set()
