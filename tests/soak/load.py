"""Users who call over HTTP at a steady pace, on keep-alive connections, with a ledger of every answer.

    load = Load([web.port for web in webs], tokens, calls_a_second=200)   # tokens: user id -> token
    async with load:
        ...                       # they call all the while
        async with load.quiet():  # nobody calls, and no call is on its way
            ...
    load.calls                    # each with its user, times and status
    load.admitted                 # user id -> calls that were answered 200

A call leaves when it is due, whether those before it were answered or not: a stall meets as many calls as it would
meet in earnest. A call that is late because this process was held up is left out, never caught up.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Self

import msgspec

DEADLINE_S = 10.0
"""For one answer; a call without one has status 0."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Call(msgspec.Struct):
    """One call and its answer.

    Args:
        started_s, ended_s: on the clock of `time.monotonic`; a call has not ended while that is infinite.
        status: 0 when the connection ended instead, or nothing came in time.
        answer: head and body, unless the status is 200 or 429.
    """

    user_id: int
    port: int
    started_s: float
    ended_s: float = float("inf")
    status: int = 0
    answer: bytes = b""

    @property
    def took_s(self) -> float:
        return self.ended_s - self.started_s


def request(method: str, path: str, token: str = "", body: object = None) -> bytes:
    """A request as it is sent; the body as JSON."""
    sent = b"" if body is None else msgspec.json.encode(body)
    fields = f"Authorization: Bearer {token}\r\n" if token else ""
    if sent:
        fields += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: g\r\n{fields}\r\n".encode() + sent


def percentile_ms(calls: Sequence[Call], share: float) -> float:
    """The time within which that share of the calls was answered, in ms; 0 when there are none."""
    times = sorted(call.took_s for call in calls)
    return round(times[min(len(times) - 1, int(len(times) * share))] * 1000, 1) if times else 0.0


class Connections:
    """Keep-alive connections to some ports, each with one call at a time; more are opened when none is free.

    Args:
        keeps_all: every answer is kept in its call, whatever its status.
    """

    def __init__(self, *, keeps_all: bool = False) -> None:
        self._keeps_all = keeps_all
        self._idle: dict[int, list[_Connection]] = {}
        self._all: set[_Connection] = set()

    async def ask(self, call: Call, wire: bytes) -> Call:
        """Send a request to the call's port, and note the answer in the call."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                connection = await self._free(call.port)
                try:
                    answer = await connection.ask(wire)
                except BaseException:
                    connection.end()
                    raise
            call.ended_s = time.monotonic()
            status = _STATUS.match(answer)
            call.status = int(status[1]) if status else 0
            if self._keeps_all or call.status not in (200, 429):
                call.answer = answer
            if b"\r\nconnection: close\r\n" in answer.lower():
                connection.end()
            else:
                self._idle[call.port].append(connection)
        return call

    async def _free(self, port: int) -> "_Connection":
        idle = self._idle.setdefault(port, [])
        while idle:
            if not (connection := idle.pop()).ended:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        self._all = {it for it in self._all if not it.ended} | {connection}
        return connection

    def close(self) -> None:
        """End them all."""
        for connection in self._all:
            connection.end()


class _Connection(asyncio.Protocol):
    """One connection to a web process."""

    def __init__(self) -> None:
        self.ended = False
        self._transport: asyncio.BaseTransport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._received = b""

    def ask(self, wire: bytes) -> asyncio.Future[bytes]:
        """The future answer, head and body."""
        assert isinstance(self._transport, asyncio.WriteTransport)
        self._answer, self._received = asyncio.get_running_loop().create_future(), b""
        self._transport.write(wire)
        return self._answer

    def end(self) -> None:
        self.ended = True
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0 or self._answer is None or self._answer.done():
            return
        length = _LENGTH.search(self._received, 0, head_end + 2)
        if len(self._received) >= head_end + 4 + (int(length[1]) if length else 0):
            self._answer.set_result(self._received)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the connection ended without an answer"))


class Load:
    """Users who call in turn, each call to the next web process.

    Args:
        ports: of the web processes.
        tokens: user id to token.
        calls_a_second: of all users together.
        hasty: a user who calls between any two others, and so makes half of all calls.
    """

    def __init__(
        self, ports: Sequence[int], tokens: Mapping[int, str], calls_a_second: float, *, hasty: int | None = None
    ) -> None:
        self.calls: list[Call] = []
        self.admitted: Counter[int] = Counter()
        # Two calls in a row to each port, else a hasty user would always meet the same one of two.
        self._ports = cycle(port for port in ports for _ in range(2))
        order = [user for user_id in tokens if user_id != hasty for user in (hasty, user_id) if user is not None]
        self._users = cycle([(user_id, request("GET", "/ping", tokens[user_id])) for user_id in order])
        self._every_s = 1 / calls_a_second
        self._connections = Connections()
        self._going = asyncio.Event()
        self._on_their_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._going.set()
        self._pacing = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pacing.cancel()
        await asyncio.wait([self._pacing])
        if self._on_their_way:
            await asyncio.wait(self._on_their_way)
        self._connections.close()

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Nobody calls meanwhile, and every call has been answered or given up."""
        self._going.clear()
        if self._on_their_way:
            await asyncio.wait(self._on_their_way)
        try:
            yield
        finally:
            self._going.set()

    async def _pace(self) -> None:
        due_s = time.monotonic()
        for (user_id, wire), port in zip(self._users, self._ports, strict=False):
            now_s = time.monotonic()
            due_s = max(due_s + self._every_s, now_s)
            await asyncio.sleep(due_s - now_s)
            await self._going.wait()
            call = Call(user_id, port, time.monotonic())
            self.calls.append(call)
            task = asyncio.create_task(self._call(call, wire))
            self._on_their_way.add(task)
            task.add_done_callback(self._on_their_way.discard)

    async def _call(self, call: Call, wire: bytes) -> None:
        await self._connections.ask(call, wire)
        if call.status == 200:
            self.admitted[call.user_id] += 1
