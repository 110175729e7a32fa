"""A crowd of HTTP clients that ask in bursts and give up half of their requests at any point of a request's life."""

import asyncio
import random
import re
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

LANES = 64
LONGEST_BURST = 8
SINGLE_SHARE = 0.6
LONGEST_WAIT_S = 0.003
ANSWER_DEADLINE_S = 30.0

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RST = struct.pack("ii", 1, 0)


class Asked(Protocol):
    """A request: `wire` is all of it, in bytes."""

    @property
    def wire(self) -> bytes: ...


Q = TypeVar("Q", bound=Asked)


class Crowd(Generic[Q]):
    """Sends requests until there were enough of them, about half of which get no answer that anybody reads.

    Args:
        port: of the server, on the loopback.
        next_request: makes one.
        sent: is told of each request of which every byte left.
        answered: gets a request and its answer: head and body.
    """

    def __init__(
        self,
        port: int,
        next_request: Callable[[], Q],
        sent: Callable[[Q], None],
        answered: Callable[[Q, bytes, bytes], None],
    ) -> None:
        self._port = port
        self._next, self._sent, self._answered = next_request, sent, answered
        self.requests = self.complete = self.connections = 0
        self.given_up: Counter[str] = Counter()
        self.broken: list[str] = []
        self._wanted = 0

    async def send(self, requests: int, progress: Callable[[int], None]) -> None:
        """Return after that many requests; `progress` is told how many there were so far."""
        self._wanted = requests
        async with asyncio.TaskGroup() as lanes:
            tasks = [lanes.create_task(self._lane()) for _ in range(LANES)]
            while not all(task.done() for task in tasks):
                await asyncio.wait(tasks, timeout=1.0)
                progress(self.requests)

    def stop(self) -> None:
        """Send no more; may be called from another thread."""
        self._wanted = 0

    async def _lane(self) -> None:
        """One client after the other: each asks over one connection until it gives up."""
        while self.requests < self._wanted and len(self.broken) < LANES:
            try:
                await self._client()
            except (OSError, TimeoutError) as error:
                self.broken.append(f"a connection broke: {error!r}")

    async def _client(self) -> None:
        wire: _Wire[Q] = _Wire(self._answered)
        await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", self._port)
        self.connections += 1
        try:
            while self.requests < self._wanted:
                if self.complete < self.given_up.total():
                    await self._ask(wire, self._burst())
                else:
                    return await self._give_up(wire)
        finally:
            self.complete += wire.answers
            wire.cut(reset=random.random() < 0.5)

    def _burst(self) -> list[Q]:
        length = 1 if random.random() < SINGLE_SHARE else random.randint(2, LONGEST_BURST)
        self.requests += length
        return [self._next() for _ in range(length)]

    async def _ask(self, wire: "_Wire[Q]", burst: list[Q]) -> None:
        for request in burst:
            self._sent(request)
        done = wire.ask(burst)
        wire.write(b"".join(request.wire for request in burst))
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            await done
        self.complete, wire.answers = self.complete + wire.answers, 0

    async def _give_up(self, wire: "_Wire[Q]") -> None:
        """Leave before a request was sent, in the middle of a burst, while it waits, or while its answers come."""
        when = random.choice(("unsent", "half sent", "waiting", "waiting", "being answered"))
        if when == "unsent":
            self.requests += 1
            self.given_up[when] += 1
            return
        burst = self._burst()
        whole = b"".join(request.wire for request in burst)
        length = left = random.randrange(1, len(whole)) if when == "half sent" else len(whole)
        for request in burst:
            left -= len(request.wire)
            if left >= 0:
                self._sent(request)
        before = wire.answers
        done = wire.ask(burst, cut_after=random.randrange(len(burst)) if when == "being answered" else None)
        wire.write(whole[:length])
        await self._wait(done, when)
        self.given_up[when] += len(burst) - (wire.answers - before)

    async def _wait(self, done: asyncio.Future[None], when: str) -> None:
        if when == "being answered":
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                await done
        elif random.random() < 0.5:
            await asyncio.sleep(random.random() * LONGEST_WAIT_S)
        else:
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)


class _Wire(asyncio.Protocol, Generic[Q]):
    """One connection: what was asked, in order, and the answers as they come."""

    def __init__(self, answered: Callable[[Q, bytes, bytes], None]) -> None:
        self.answers = 0
        self._answered = answered
        self._asked: deque[Q] = deque()
        self._done: asyncio.Future[None] | None = None
        self._cut_after: int | None = None
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def ask(self, burst: list[Q], cut_after: int | None = None) -> asyncio.Future[None]:
        """Expect the answers to a burst; done with the last, or cut as the one after `cut_after` begins to arrive."""
        self._asked.extend(burst)
        self._cut_after = cut_after
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def cut(self, *, reset: bool) -> None:
        """End the connection with what is on its way, with RST or with FIN; nothing that still arrives is read."""
        if self._done is not None and not self._done.done():
            self._done.cancel()
        if self._transport is not None and not self._transport.is_closing():
            if reset:
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while self._asked and self._done is not None and not self._done.done():
            if self._cut_after == 0:
                self._done.set_result(None)
                return
            head, end, rest = self._read.partition(b"\r\n\r\n")
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            if not end or len(rest) < length:
                return
            self._read = rest[length:]
            self.answers += 1
            self._answered(self._asked.popleft(), head, rest[:length])
            if self._cut_after is not None:
                self._cut_after -= 1
                if not self._read:
                    return
            if not self._asked:
                self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionResetError(f"the server ended it: {error!r}"))
