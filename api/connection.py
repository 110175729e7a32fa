"""A client's connection, and how long it may take for what."""

import asyncio
from math import inf
from time import perf_counter
from typing import Any

from sanic.exceptions import RequestCancelled, RequestTimeout, SanicException, ServiceUnavailable
from sanic.http import Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from api.exchange import Exchange
from api.heads import MAX_BODY_BYTES, MAX_HEAD_BYTES

HEAD_DEADLINE_S = 10.0
"""For a whole head, from its first byte; and for that first byte on a new connection."""

BODY_DEADLINE_S = 10.0
"""For a whole body, from the end of its head."""

WRITE_DEADLINE_S = 10.0
"""For a client that reads nothing to make room for its answers."""

LINGER_S = 1.0
"""For a client that was refused before it had sent all to read why."""

LAST_CALL_S = 0.2
"""While the server stops: for what a client has sent, or is sending at this moment, to be read and answered."""

SHORTEST_LOOK_S = 0.1

READ_BUFFER_BYTES = MAX_HEAD_BYTES + MAX_BODY_BYTES
WRITE_BUFFER_BYTES = 16 * 1024
"""What a connection holds in either direction, and what arrives at once; then the client waits."""


class Connection(HttpProtocol):
    """A connection with absolute deadlines: sending or reading a byte now and then gains a client no time.

    The framework measures each wait from the last byte. Here it is measured from its beginning, and by one look at the
    clock that comes back when the next deadline can have passed: nothing is armed or disarmed for a request.
    """

    HTTP_CLASS = Exchange
    __slots__ = (
        "_arrival",
        "_full_since",
        "_lingers",
        "_look_s",
        "_overdue",
        "_pauses",
        "_quiet_since",
        "leaves_unread",
        "peer_address",
    )
    transport: Any
    _callback_check_timeouts: Any

    def connection_made(self, transport: Any) -> None:
        """Begin, as if quiet for so long already that only the time for a head is left."""
        self._quiet_since = perf_counter() + HEAD_DEADLINE_S - self.keep_alive_timeout
        self._arrival: asyncio.Future[None] | None = None
        self._pauses = False
        self._full_since: float | None = None
        self._overdue = self._lingers = self.leaves_unread = False
        self.peer_address: str | None = None
        """As `api.origin` spells it, once the access log has asked."""
        limits_s = HEAD_DEADLINE_S, BODY_DEADLINE_S, WRITE_DEADLINE_S, self.keep_alive_timeout, self.response_timeout
        self._look_s = max(SHORTEST_LOOK_S, min(limits_s))
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Keep what arrives for whoever reads, a bounded amount."""
        if self._lingers:
            return
        buffer = self.recv_buffer
        buffer += data
        if len(buffer) >= READ_BUFFER_BYTES:
            self._pauses = True
            self.transport.pause_reading()
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():
            arrival.set_result(None)

    async def receive_more(self) -> None:
        """Wait until more has arrived: the framework's event costs several times what this future does."""
        if self._pauses:
            self._pauses = False
            self.transport.resume_reading()
        self._arrival = self.loop.create_future()
        await self._arrival

    async def send(self, data: bytes) -> None:
        """Write, once the client has read enough of what was written before."""
        if self._full_since is not None:
            await self._can_write.wait()
        transport = self.transport
        if transport is None or transport.is_closing():
            raise RequestCancelled()
        transport.write(data)
        self._quiet_since = perf_counter()

    def pause_writing(self) -> None:
        self._full_since = perf_counter()
        super().pause_writing()  # type: ignore[no-untyped-call]

    def resume_writing(self) -> None:
        self._full_since = None
        super().resume_writing()  # type: ignore[no-untyped-call]

    def check_timeouts(self) -> None:
        """Look at the clock, end what is overdue, and look again when the next deadline can have passed."""
        if self._task is None or self.transport is None:
            return
        until, why = self._deadline()
        left_s = until - perf_counter()
        if left_s <= 0:
            if self._overdue or self._full_since is not None:
                self.transport.abort()
                return
            self._overdue, left_s = True, LINGER_S
            self._http.exception = why
            self._task.cancel()
        self._callback_check_timeouts = self.loop.call_later(min(left_s, self._look_s), self.check_timeouts)

    def _deadline(self) -> tuple[float, SanicException | None]:
        """Until when the present wait may last, and what the client is told then."""
        http = self._http
        if self._full_since is not None:
            return self._full_since + WRITE_DEADLINE_S, None
        if http.stage is Stage.REQUEST:
            return http.began_at + HEAD_DEADLINE_S, RequestTimeout()
        if http.request_body:
            return http.perft0 + BODY_DEADLINE_S, RequestTimeout()
        if http.stage is Stage.IDLE:
            return self._quiet_since + self.keep_alive_timeout, None
        if http.streams:
            return inf, None
        return http.perft0 + self.response_timeout, ServiceUnavailable()

    def close_if_idle(self) -> bool:
        """The server stops: the next answer is the last, and a client that asks for none soon is let go."""
        http = getattr(self, "_http", None)
        if http is None or http.stage is Stage.IDLE:
            self.loop.call_later(LAST_CALL_S, super().close_if_idle)
        else:
            http.keep_alive = False
        return False

    def close(self, timeout: float | None = None) -> None:
        """End the connection; if the client may be sending still, only our half of it at first.

        A socket that is closed with bytes unread resets the connection, and the client may never see the answer that
        says why (RFC 9112, 9.6).
        """
        transport = self.transport
        lingers = self.leaves_unread and not self._lingers
        if lingers and transport and not transport.is_closing() and transport.can_write_eof():
            self._lingers = True
            self._callback_check_timeouts.cancel()
            self._callback_check_timeouts = self.loop.call_later(LINGER_S, self.close)
            transport.write_eof()
            transport.resume_reading()
        else:
            super().close(timeout)
