"""Clients that are as slow as they can be, in a process of their own so that they delay nobody but the server.

    python -m tests.soak.slow_sockets PORT COUNT LIMIT_S PATIENCE_S

opens COUNT sockets and prints as JSON what became of each, once all have ended or PATIENCE_S is over. A byte leaves
every tenth of LIMIT_S, so that no pause is as long as the limit.
"""

import asyncio
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec

AT_ONCE = 100
"""Sockets that connect at the same time."""

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
UNREAD_SHARE = 40
"""Every so many sockets one never reads: until all that lies between is full, the server answers it."""

UNREAD_BATCH = 20


class Fate(msgspec.Struct):
    """What became of a socket.

    Args:
        ended_s: after how many seconds the server ended it; None when it never did.
        status: of the answer, 0 without one.
    """

    kind: str
    ended_s: float | None = None
    status: int = 0


def _head() -> Iterator[bytes]:
    yield GET + b"X: "
    while True:
        yield b"y"


def _body() -> Iterator[bytes]:
    yield POST + b"Content-Length: 16000\r\n\r\n"
    while True:
        yield b" "


def _chunks() -> Iterator[bytes]:
    yield POST + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"1\r\n \r\n"


def _nothing() -> Iterator[bytes]:
    yield from ()


SENDERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "trickled head": _head,
    "trickled body": _body,
    "trickled chunks": _chunks,
    "silent": _nothing,
}
NEVER_READS = "never reads"


async def _trickle(client: socket.socket, pieces: Iterator[bytes], pause_s: float) -> None:
    loop = asyncio.get_running_loop()
    for piece in pieces:
        await loop.sock_sendall(client, piece)
        await asyncio.sleep(pause_s)


async def _send_slowly(client: socket.socket, fate: Fate, limit_s: float) -> None:
    sending = asyncio.create_task(_trickle(client, SENDERS[fate.kind](), limit_s / 10))
    started_at, received = time.monotonic(), b""
    try:
        while more := await asyncio.get_running_loop().sock_recv(client, 4096):
            received += more
    except OSError:
        pass  # a reset is an end too
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    fate.ended_s = time.monotonic() - started_at
    fate.status = int(received[9:12] or 0)


async def _never_read(client: socket.socket, fate: Fate, limit_s: float) -> None:
    asked = (GET + b"\r\n") * UNREAD_BATCH
    sent, started_at = 0, time.monotonic()
    while fate.ended_s is None:
        try:
            sent += client.send(asked[sent % len(asked) :])
        except BlockingIOError:
            pass
        except OSError:
            fate.ended_s = time.monotonic() - started_at
        await asyncio.sleep(limit_s / 50)


async def _live(port: int, fate: Fate, limit_s: float, connecting: asyncio.Semaphore) -> None:
    behave: Callable[[socket.socket, Fate, float], Awaitable[None]]
    behave = _never_read if fate.kind == NEVER_READS else _send_slowly
    with socket.socket() as client:
        if fate.kind == NEVER_READS:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        async with connecting:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        await behave(client, fate, limit_s)


async def attack(port: int, count: int, limit_s: float, patience_s: float) -> list[Fate]:
    """Open the sockets and watch them to their end, or to ours."""
    kinds = list(SENDERS)
    fates = [Fate(NEVER_READS if number % UNREAD_SHARE == 0 else kinds[number % len(kinds)]) for number in range(count)]
    connecting = asyncio.Semaphore(AT_ONCE)
    living = [asyncio.create_task(_live(port, fate, limit_s, connecting)) for fate in fates]
    _, left = await asyncio.wait(living, timeout=patience_s)
    for socket_of in left:
        socket_of.cancel()
    await asyncio.gather(*living, return_exceptions=True)
    return fates


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port, count, limit_s, patience_s = sys.argv[1:]
    fates = asyncio.run(attack(int(port), int(count), float(limit_s), float(patience_s)))
    sys.stdout.buffer.write(msgspec.json.encode(fates))
