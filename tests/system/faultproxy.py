"""A TCP proxy that fails on purpose: slow, jittery, cut, half-open, or losing a reply after the command ran.

async with FaultProxy("127.0.0.1", server_port) as proxy:
    connect("127.0.0.1", proxy.port)
    proxy.delay_s = 0.2
"""

import asyncio
import random
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Self

CHUNK = 65_536
POLL_S = 0.01


class FaultProxy:
    """Forwards each connection to a server, with whatever fault is set at the moment.

    Args:
        host, port: of the server.

    Attributes:
        upstream: the server's address; connections made after a change go to the new one.
        delay_s, jitter_s: each piece from the server waits so long, and up to `jitter_s` more.
        half_open: nothing is forwarded either way, and no connection ends: a network that swallows packets.
        refusing: new connections are reset.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = host, port
        self._server: asyncio.Server | None = None
        self._connections: set[_Pair] = set()
        self.port = 0
        self.delay_s = self.jitter_s = 0.0
        self.half_open = self.refusing = False
        self.replies_dropped = 0
        self._drops_left = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection there is."""
        for pair in list(self._connections):
            pair.reset()

    def drop_replies(self, count: int = 1) -> None:
        """Take the next `count` pieces that the server sends, and reset their connections instead of forwarding."""
        self._drops_left = count

    def heal(self) -> None:
        """No faults from here on; connections that were half-open are reset, as they have lost bytes."""
        swallowed = self.half_open
        self.delay_s = self.jitter_s = 0.0
        self.half_open = self.refusing = False
        self._drops_left = 0
        if swallowed:
            self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            _reset(writer)
            return
        try:
            upstream = await asyncio.open_connection(*self.upstream)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(writer, upstream[1])
        self._connections.add(pair)
        try:
            await asyncio.gather(
                self._forward(reader, upstream[1], pair, from_server=False),
                self._forward(upstream[0], writer, pair, from_server=True),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(pair)
            pair.reset()

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, pair: "_Pair", *, from_server: bool
    ) -> None:
        late = _Late(target)
        while data := await source.read(CHUNK):
            if self.half_open:
                continue
            if from_server and self._drops_left > 0:
                self._drops_left -= 1
                self.replies_dropped += 1
                pair.reset()
                return
            wait_s = self.delay_s + random.random() * self.jitter_s if from_server else 0.0
            if wait_s or late.pieces:
                late.write(data, wait_s)
                continue
            target.write(data)
            await target.drain()
        while late.pieces:
            await asyncio.sleep(self.delay_s or POLL_S)
        if not self.half_open:
            pair.reset()


class _Late:
    """Pieces that arrive later, in their order; a piece does not wait for the one before it to arrive."""

    def __init__(self, target: asyncio.StreamWriter) -> None:
        self.pieces: deque[bytes] = deque()
        self._target = target

    def write(self, piece: bytes, wait_s: float) -> None:
        self.pieces.append(piece)
        asyncio.get_running_loop().call_later(wait_s, self._deliver)

    def _deliver(self) -> None:
        piece = self.pieces.popleft()
        if not self._target.is_closing():
            self._target.write(piece)


class _Pair:
    """Both sides of one connection, which end together."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a crashed host's successor does; no orderly end."""
    with suppress(OSError, AttributeError):
        link = writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
