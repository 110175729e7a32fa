"""What is read from a connection: a head, a body, and then the next head, or nothing more."""

import re
from time import perf_counter
from typing import Any

from sanic.exceptions import BadRequest, PayloadTooLarge, SanicException
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE

from api.answered import answered
from api.heads import CHUNKED, MAX_BODY_BYTES, MAX_HEAD_BYTES, check_beginning, read_head, too_long

MAX_CHUNK_LINE_BYTES = 64
"""A chunk's size with its extensions, which mean nothing to us (RFC 9112, 7.1.1)."""

ON_EVERY_ANSWER = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class Exchange(Http):
    """The framework's reader and writer of one connection's requests, with a strict reader in place of its own.

    Where another reader could see a request end elsewhere, the request is refused and the connection ended, so that
    nothing behind it is taken for a request.
    """

    __slots__ = ("began_at", "streams")
    protocol: Any
    recv_buffer: bytearray
    request_body: Any
    perft0: Any

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.began_at = 0.0
        """When the head began that is being waited for."""
        self.streams = False
        """The answer goes on for as long as it likes; it is the connection's last."""
        self.init_for_request()  # type: ignore[no-untyped-call]

    async def http1_request_header(self) -> None:
        """Read a head. HEAD is handled as the GET that it stands for; the answer leaves without its body."""
        buffer = self.recv_buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            end = await self._receive_head()
        if end + 4 > MAX_HEAD_BYTES:
            raise too_long(buffer)
        raw = bytes(buffer[: end + 2])
        del buffer[: end + 4]
        head = read_head(raw)
        self.keep_alive = head.keep_alive and not self.protocol.signal.stopped
        self.head_only = head.method == "HEAD"
        if head.length:
            self.request_body = "chunked" if head.length == CHUNKED else True
            self.request_bytes = head.length
            self.expecting_continue = head.expects_continue
        method = "GET" if self.head_only else head.method
        self._make_request(head.target.encode(), head.fields, f"1.{head.minor}", method, raw)

    def _make_request(
        self, target: bytes, fields: list[tuple[str, str]], version: str, method: str, raw: bytes
    ) -> None:
        protocol = self.protocol
        request = protocol.request_class(target, fields, version, method, protocol.transport, protocol.app, raw)
        request.stream = self
        request._current.set(request)
        self.request = request
        protocol.state["requests_count"] += 1

    def create_empty_request(self) -> None:
        """What stands for a request that could not be read, for those who answer it."""
        self._make_request(b"*", [], "1.1", "NONE", b"")
        self.request.conn_info = self.protocol.conn_info  # for the access log

    async def _receive_head(self) -> int:
        """Wait for the rest of a head, as long as the connection lets it; returns where its empty line is."""
        self.began_at = perf_counter()
        buffer, seen = self.recv_buffer, 0
        while (end := buffer.find(b"\r\n\r\n", max(seen - 3, 0))) < 0:
            check_beginning(buffer, seen)
            seen = len(buffer)
            await self._receive_more()
        return end

    async def read(self) -> bytes | None:
        """The whole body at once: it is small."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        if self.request_body == "chunked":
            body = await self._read_chunks()
        else:
            body = await self._take(self.request_bytes or 0)
        self.request_body = None
        return body

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := await self._read_chunk_size():
            if len(body) + size > MAX_BODY_BYTES:
                raise self._refusal(PayloadTooLarge())
            body += await self._take(size)
            await self._take_line_end()
        await self._take_line_end()  # a trailer is refused: nobody here would look at it
        return bytes(body)

    async def _read_chunk_size(self) -> int:
        buffer = self.recv_buffer
        while (end := buffer.find(b"\n")) < 0 and len(buffer) < MAX_CHUNK_LINE_BYTES:
            await self._receive_more()
        line = _CHUNK_LINE.fullmatch(await self._take(end + 1)) if 0 <= end < MAX_CHUNK_LINE_BYTES else None
        if line is None:
            raise self._refusal(BadRequest())
        return int(line[1], 16)

    async def _take_line_end(self) -> None:
        if await self._take(2) != b"\r\n":
            raise self._refusal(BadRequest())

    async def _take(self, size: int) -> bytes:
        buffer = self.recv_buffer
        while len(buffer) < size:
            await self._receive_more()
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    def _refusal(self, error: SanicException) -> SanicException:
        self.decline_the_rest()
        return error

    def decline_the_rest(self) -> None:
        """Answer without reading on: the connection ends with the answer."""
        self.keep_alive = self.expecting_continue = False
        self.request_body = None
        self.protocol.leaves_unread = True

    async def error_response(self, exception: Exception) -> None:
        """Answer what went wrong before or beside a route."""
        if self.stage is Stage.REQUEST or not self.keep_alive:
            self.decline_the_rest()
        if self.perft0 is None:
            self.perft0 = perf_counter()
        await super().error_response(exception)

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send an answer that is no `Answer`, a page or one that the framework made: with the fields of all others."""
        if self.expecting_continue:
            self.decline_the_rest()
        headers = self.response.headers
        for name, value in (ON_EVERY_ANSWER | {"X-Request-Id": self.request.id}).items():
            headers.setdefault(name, value)
        await super().http1_response_header(data, end_stream)
        body = data or getattr(self.response, "body", None) or b""
        answered(self.request, self.response.status, len(body), self.perft0)
