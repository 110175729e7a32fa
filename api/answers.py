"""Answers whose head is bytes before they are sent."""

from typing import Any

import msgspec
from sanic.http import Http, Stage
from sanic.response import HTTPResponse

_STATUS = {
    200: b"200 OK",
    201: b"201 Created",
    400: b"400 Bad Request",
    401: b"401 Unauthorized",
    403: b"403 Forbidden",
    409: b"409 Conflict",
    429: b"429 Too Many Requests",
    500: b"500 Internal Server Error",
    503: b"503 Service Unavailable",
}
_JSON = "application/json"


class Answer(HTTPResponse):
    """A whole JSON answer with a head of few, known fields.

    The framework cleans, encodes and joins each field of each answer, which costs more than the gate itself. Here the
    fields are bytes from the start, and leave in one piece with the body, unless the request asks for something more
    than that: a HEAD, a `100-continue`, the end of the connection. Then the framework sends it as it sends all others.

    Args:
        body: JSON.
        fields: further header fields, each with its CR LF; never a client's text.
    """

    __slots__ = ("fields",)

    def __init__(self, body: bytes, status: int = 200, fields: bytes = b"Cache-Control: no-store\r\n") -> None:
        self.asgi = False
        self.body = body
        self.status = status
        self.content_type = _JSON
        self.stream = None
        self.headers = {}  # type: ignore[assignment]  # the framework's own type costs a microsecond to make
        self._cookies = None
        self.fields = fields

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        stream = self.stream
        if (
            type(stream) is not Http
            or stream.head_only
            or stream.expecting_continue
            or not stream.keep_alive
            or self.status not in _STATUS
        ):
            for name, value in (field.split(b": ", 1) for field in self.fields.split(b"\r\n") if field):
                self.headers[name.decode()] = value.decode()
            await super().send(data, end_stream)
            return
        body = self.body or b""
        stream.response_func = None  # type: ignore[assignment]  # how the framework itself marks the end
        stream.response_size = len(body)
        await stream._send(
            b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\nconnection: keep-alive\r\ncontent-type: application/json\r\n\r\n%b"
            % (_STATUS[self.status], self.fields, len(body), body)
        )
        stream.stage = Stage.IDLE


def json(content: dict[str, Any], status: int = 200) -> Answer:
    """A JSON body. Nothing here may be kept by a cache: answers are personal or of the moment."""
    return Answer(msgspec.json.encode(content), status)


def empty() -> HTTPResponse:
    """204."""
    return HTTPResponse(None, 204, {"Cache-Control": "no-store"})
