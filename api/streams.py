"""Answers that go on: server-sent events."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from sanic.http import Stage
from sanic.response import HTTPResponse

from api.answered import answered
from api.answers import as_sent
from api.exchange import ON_EVERY_ANSWER, Exchange

_HEAD = (
    b"HTTP/1.1 200 OK\r\n" + as_sent(ON_EVERY_ANSWER) + b"X-Request-Id: %b\r\n"
    # nginx would keep the events until it has a page of them.
    b"X-Accel-Buffering: no\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
)


class EventStream(HTTPResponse):
    """An answer of no known length: it ends with its connection (RFC 9112, 6.3), as every client and proxy understands.

    No time-out of answers holds for it. A client that reads nothing is cut off as any other.

    Args:
        pieces: what to send, each piece as soon as it is there.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(content_type="text/event-stream")
        self._pieces = pieces

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Send all of it; returns when it has ended."""
        stream: Exchange = self.stream  # type: ignore[assignment]
        stream.keep_alive = False
        stream.streams = True
        stream.stage = Stage.RESPONSE  # so that an error ends it, and adds nothing
        stream.response_func = None  # type: ignore[assignment]  # how the framework itself marks the end
        request = stream.request
        await stream._send(_HEAD % str(request.id).encode())
        answered(request, 200, 0, stream.perft0)
        async with aclosing(self._pieces) as pieces:  # type: ignore[type-var]
            while not stream.head_only and (piece := await anext(pieces, None)) is not None:
                await stream._send(piece)
        stream.stage = Stage.IDLE
