"""Answers whose head is bytes before they are sent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sanic.http import Stage
from sanic.response import HTTPResponse

from api.answered import answered
from api.exchange import ON_EVERY_ANSWER, Exchange

_STATUS = {
    200: b"200 OK",
    201: b"201 Created",
    204: b"204 No Content",
    400: b"400 Bad Request",
    401: b"401 Unauthorized",
    403: b"403 Forbidden",
    404: b"404 Not Found",
    405: b"405 Method Not Allowed",
    408: b"408 Request Timeout",
    409: b"409 Conflict",
    413: b"413 Content Too Large",
    414: b"414 URI Too Long",
    415: b"415 Unsupported Media Type",
    417: b"417 Expectation Failed",
    429: b"429 Too Many Requests",
    431: b"431 Request Header Fields Too Large",
    500: b"500 Internal Server Error",
    503: b"503 Service Unavailable",
}
_CONNECTION = {True: b"keep-alive", False: b"close"}
_JSON = "application/json"


def as_sent(fields: Mapping[str, str]) -> bytes:
    """Header fields, each with its CR LF. Names and values are ours, never a client's."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()


_HEAD = b"HTTP/1.1 %b\r\n" + as_sent(ON_EVERY_ANSWER) + b"X-Request-Id: %b\r\n%bConnection: %b\r\n"
_WITHOUT_BODY = _HEAD + b"\r\n"
_WITH_BODY = _HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Answer(HTTPResponse):
    """A whole answer, JSON or empty, with a head of few, known fields.

    The framework cleans, encodes and joins each field of each answer, which costs more than the gate itself. Here the
    fields are bytes from the start, and leave in one piece with the body.

    Args:
        body: JSON; nothing with 204.
        fields: further header fields as they are sent; never a client's text.
        code: an error's, for the log.
    """

    __slots__ = ("code", "fields")

    def __init__(self, body: bytes, status: int = 200, fields: bytes = b"", code: str = "") -> None:
        self.asgi = False
        self.body = body
        self.status = status
        self.content_type = _JSON
        self.stream = None
        self.headers = {}  # type: ignore[assignment]  # the framework's own type costs a microsecond to make
        self._cookies = None
        self.fields = fields
        self.code = code

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Send all of it; the framework's own reader, where that is used, lets the framework send it."""
        stream = self.stream
        if type(stream) is not Exchange:
            for name, value in (field.split(b": ", 1) for field in self.fields.split(b"\r\n") if field):
                self.headers[name.decode()] = value.decode()
            await super().send(data, end_stream)
            return
        if stream.expecting_continue:
            stream.decline_the_rest()
        elif stream.request_body:
            stream.response = None  # type: ignore[assignment]  # else the framework logs that we ignored a GET's body
        status, request_id = _STATUS[self.status], str(stream.request.id).encode()
        connection, body = _CONNECTION[stream.keep_alive], self.body or b""
        if self.status == 204:
            sent = _WITHOUT_BODY % (status, request_id, self.fields, connection)
        else:
            shown = b"" if stream.head_only else body
            sent = _WITH_BODY % (status, request_id, self.fields, connection, len(body), shown)
        stream.response_func = None  # type: ignore[assignment]  # how the framework itself marks the end
        stream.response_size = len(body)
        await stream._send(sent)
        stream.stage = Stage.IDLE
        if self.code:
            stream.request.ctx.code = self.code
        answered(stream.request, self.status, len(body), stream.perft0)


def json(content: dict[str, Any], status: int = 200) -> Answer:
    """A JSON body."""
    return Answer(msgspec.json.encode(content), status)


def rfc3339(at: datetime) -> str:
    """A time in UTC, to the millisecond, as every answer writes it (RFC 3339, 5.6)."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def empty() -> Answer:
    """204."""
    return Answer(b"", 204)
