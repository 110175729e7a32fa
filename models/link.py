"""One connection to Redis that all calls of an event loop share: the gate's short cut past the general client.

A client that takes a connection from a pool, packs, writes, awaits and reads for each call spends several times more
on that than Redis does on the script. Here the commands of one turn of the event loop leave in few writes, and hiredis
reads the replies that come back in one go. Redis answers in the order it was asked, so the oldest waiting call gets the
next reply, whether its caller still waits or not: a cancelled call keeps its place and shifts nobody's reply.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import hiredis

from models.errors import RedisAway, RedisBusy, ReplyLost
from models.redis_target import Address, Credentials, RedisTarget

MAX_WAITING = 10_000
"""Calls that wait for a reply; more are refused, so that memory is bounded when Redis is slow."""

BATCH = 16
"""Commands that leave at once. Fewer cost more system calls; with no bound Redis idles while the next are gathered,
then this process idles while Redis works, and a third of both goes unused."""

LOOKS_A_DEADLINE = 4

log = logging.getLogger("gatehouse.redis")

_ELSEWHERE = ("READONLY", "MASTERDOWN", "LOADING")


def pack(*words: str | bytes | int) -> bytes:
    """A command in Redis's protocol (RESP2)."""
    return cast(bytes, hiredis.pack_command(words))  # type: ignore[arg-type]  # annotated as a tuple of one


ASKING = pack("ASKING")

Find = Callable[[], Awaitable[Address]]
"""Where the server is now: sentinels may name another one each time."""


class Link:
    """A connection that opens when it is first needed, and again after it was lost.

    Args:
        find: tells the server's address, for each connection anew.
        target: whom to log in as, which database, how to encrypt.
        deadline_s: for connecting, and for each reply. A late one ends the connection, because a server that owes one
            reply owes all those behind it.
        greeting: packed commands for each new connection, after authentication: the scripts' `SCRIPT LOAD`.
    """

    def __init__(self, find: Find, target: RedisTarget, deadline_s: float, greeting: Sequence[bytes] = ()) -> None:
        self._find = find
        self._deadline_s = deadline_s
        self._greeting = [*_introduction(target.credentials, target.database), *greeting]
        self._tls = target.tls_context()
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None
        self._closed = False
        self.generation = 0
        """Which connection this is: rises with each new one, and with the end of one, so that nobody who trusts a
        connection takes the one that the next call opens for it."""

    def call(self, command: bytes) -> Awaitable[Any]:
        """Send one packed command; its reply is awaited, an error reply too, as `hiredis.ReplyError`.

        No coroutine of its own: every call of the gate comes here.

        Raises, when it is awaited:
            RedisAway, RedisBusy: no connection, or too many calls wait already; the command did not run.
            ReplyLost: no reply, or not in time; whether the command ran is not known.
        """
        connection = self._connection
        if connection is None or connection.lost:
            return self._open_and_call(command)
        return connection.send(command)

    async def _open_and_call(self, command: bytes) -> Any:
        return await (await self._open()).send(command)

    async def call_asking(self, command: bytes) -> Any:
        """The same, for a slot that a cluster is moving to this server: `ASKING` goes right before it."""
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._open()
        asking, reply = connection.send(ASKING), connection.send(command)
        await asyncio.wait([asking, reply])
        return await reply

    def close(self) -> None:
        """End the connection for good; calls that wait fail, and all further ones."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self.drop()

    def drop(self) -> None:
        """End the connection; calls that wait fail, the next one opens another."""
        if self._connection is not None:
            self._connection.drop()

    async def _open(self) -> "_Connection":
        """Connect once for all who wait for it."""
        if self._closed:
            raise RedisAway()
        if self._connection is not None and not self._connection.lost:  # since the caller looked
            return self._connection
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled() and not _is_cancelled():  # by `close`: whoever waited here was not
                raise RedisAway() from None
            raise

    def _opened(self, opening: "asyncio.Task[_Connection]") -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._connection = opening.result()
            self.generation += 1
            if self._closed:  # in the moment between
                self.drop()

    def _ended(self) -> None:
        self.generation += 1

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        connection = _Connection(loop, self._deadline_s, self._ended)
        try:
            async with asyncio.timeout(self._deadline_s):
                host, port = await self._find()
                await loop.create_connection(lambda: connection, host, port, ssl=self._tls)
                for command in self._greeting:
                    if isinstance(answer := await connection.send(command), hiredis.ReplyError):
                        log.error("Redis refuses the connection: %s", answer)
                        raise RedisAway() from answer
        except (OSError, TimeoutError) as error:
            connection.drop()
            raise RedisAway() from error
        except BaseException:
            connection.drop()
            raise
        return connection


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def fixed(address: Address) -> Find:
    """Always the same address."""

    async def find() -> Address:
        return address

    return find


def _introduction(credentials: Credentials, database: int) -> list[bytes]:
    commands = []
    if credentials.password:
        user = (credentials.username,) if credentials.username else ()
        commands.append(pack("AUTH", *user, credentials.password))
    if database:
        commands.append(pack("SELECT", database))
    return commands


class _Connection(asyncio.Protocol):
    """One connection's life: calls go out in order, replies come back in the same order, until it is lost."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline_s: float, ended: Callable[[], None]) -> None:
        self.lost = False
        self._ended = ended
        self._loop = loop
        self._look_every_s = deadline_s / LOOKS_A_DEADLINE
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._outgoing: list[bytes] = []
        self._sent = self._answered = 0
        self._sent_by_look: deque[int] = deque(maxlen=LOOKS_A_DEADLINE + 1)

    def send(self, command: bytes) -> asyncio.Future[Any]:
        """The future reply to a packed command."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        if self.lost or len(self._waiting) >= MAX_WAITING:
            reply.set_exception(RedisAway() if self.lost else RedisBusy())
            return reply
        outgoing = self._outgoing
        if not outgoing:
            self._loop.call_soon(self._flush)
        outgoing.append(command)
        self._waiting.append(reply)
        self._sent += 1
        if len(outgoing) >= BATCH:
            self._flush()
        return reply

    def drop(self) -> None:
        """End the connection: what waits fails, and nothing that still arrives is read."""
        if not self.lost:
            self.lost = True
            self._ended()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(ReplyLost())

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if not outgoing or self.lost or self._transport is None:
            return
        if self._transport.is_closing():  # reset a moment ago, and not told yet
            self.drop()
        else:
            self._transport.write(b"".join(outgoing))

    def _look(self) -> None:
        """End the connection when something that was sent a deadline ago has no reply.

        Looks are counted and the clock is not read: a process that was itself held up has looked once, and reads what
        has arrived meanwhile before it looks again.
        """
        if self.lost:
            return
        self._sent_by_look.append(self._sent)
        if len(self._sent_by_look) > LOOKS_A_DEADLINE and self._answered < self._sent_by_look[0]:
            self.drop()
        else:
            self._loop.call_later(self._look_every_s, self._look)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.lost:
            self._transport.abort()
        self._look()

    def data_received(self, data: bytes) -> None:
        waiting, gets = self._waiting, self._reader.gets
        if self.lost:
            return
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:
                call = waiting.popleft()
                self._answered += 1
                if not call.done():
                    call.set_result(reply)
                if type(reply) is hiredis.ReplyError and str(reply).startswith(_ELSEWHERE):
                    self.drop()  # a server that gave up its role may keep us; its address leads to another by now
                    return
        except (hiredis.ProtocolError, IndexError):
            self.drop()  # a reply that nobody asked for: the order is lost, and with it whose reply is whose

    def connection_lost(self, _error: Exception | None) -> None:
        self.drop()
