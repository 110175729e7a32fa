"""However slowly a client sends or reads, it is let go of in a time that its bytes do not lengthen."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import pytest
from sanic.server.protocols.http_protocol import HttpProtocol

from api import connection
from api.app import App
from tests.api.conftest import Api, problem
from tests.api.raw_requests import BEHIND, CHUNKS, HOST, LIVE, POST

LIMIT_S = 0.4
TRICKLE_S = 0.05
SLACK_S = 2.5  # for a busy machine; without a deadline a client would stay for as long as these tests let it
GIVE_UP_S = 4.0
TOO_LATE = problem("The request took too long to arrive", "request_timeout")

Sent = Callable[[], Iterator[bytes]]


def head() -> Iterator[bytes]:
    yield LIVE + HOST
    yield from (b"X-%d: y\r\n" % number for number in range(95))


def head_by_bytes() -> Iterator[bytes]:
    yield from (bytes([byte]) for byte in LIVE + HOST + b"X: " + b"y" * 200)


def second_head() -> Iterator[bytes]:
    yield BEHIND
    yield from head()


def body() -> Iterator[bytes]:
    yield POST + b"Content-Length: 1000\r\n\r\n"
    yield from (b" " for _ in range(1_000))


def chunks() -> Iterator[bytes]:
    yield CHUNKS
    yield from (b"1\r\n \r\n" for _ in range(1_000))


def body_that_nobody_wants() -> Iterator[bytes]:
    yield POST.replace(b"/login", b"/nowhere") + b"Content-Length: 1000\r\n\r\n"
    yield from (b" " for _ in range(1_000))


def stalled_head() -> Iterator[bytes]:
    yield LIVE


def stalled_body() -> Iterator[bytes]:
    yield POST + b"Content-Length: 1000\r\n\r\n{"


def stalled_chunk() -> Iterator[bytes]:
    yield CHUNKS + b"5\r\n{"


def expecting() -> Iterator[bytes]:
    yield POST + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"


async def slow_client(port: int, sent: Sent) -> tuple[float, bytes]:
    """Send each piece after a rest; returns after how many seconds the connection was ended, and what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started_at = time.monotonic()

    async def trickle() -> None:
        for piece in sent():
            writer.write(piece)
            await asyncio.sleep(TRICKLE_S)

    sending = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(GIVE_UP_S):
            received = await reader.read()
        return time.monotonic() - started_at, received
    except TimeoutError:
        return float("inf"), b""
    finally:
        sending.cancel()
        writer.transport.abort()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Every deadline so short that a test can wait for it."""
    with ExitStack() as patched:
        for name in ("HEAD_DEADLINE_S", "BODY_DEADLINE_S", "WRITE_DEADLINE_S", "LINGER_S"):
            patched.enter_context(patch.object(connection, name, LIMIT_S))
        yield


SLOW: dict[str, tuple[Sent, list[bytes]]] = {
    "a head, line by line": (head, [b"408"]),
    "a head, byte by byte": (head_by_bytes, [b"408"]),
    "a second head": (second_head, [b"200", b"408"]),
    "a body": (body, [b"408"]),
    "chunks": (chunks, [b"408"]),
    "a body that nobody wants": (body_that_nobody_wants, [b"404"]),
    "half a head": (stalled_head, [b"408"]),
    "half a body": (stalled_body, [b"408"]),
    "half a chunk": (stalled_chunk, [b"408"]),
    "no body, though asked for it": (expecting, [b"100", b"408"]),
    "nothing": (lambda: iter(()), []),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("case", SLOW)
def test_who_sends_slowly_is_told_so_and_let_go(api: Api, caplog: pytest.LogCaptureFixture, case: str) -> None:
    sent, expected = SLOW[case]
    took_s, received = api.run(slow_client(api.port, sent))
    assert LIMIT_S * 0.9 <= took_s <= LIMIT_S + SLACK_S
    answers = received.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == expected
    if expected[-1:] == [b"408"]:
        assert b"\r\nConnection: close\r\n" in answers[-1]
        assert answers[-1].endswith(TOO_LATE)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def lax(api: Api) -> Iterator[Api]:
    """The same service on the framework's own connections, whose timeouts are as short."""
    with patch.object(App, "connection", HttpProtocol):
        lax = Api(api.settings, REQUEST_TIMEOUT=LIMIT_S, RESPONSE_TIMEOUT=LIMIT_S)
        with lax.running():
            yield lax


@pytest.mark.parametrize("case", ["a head, line by line", "a body", "chunks"])
def test_the_framework_alone_would_keep_who_trickles(lax: Api, case: str) -> None:
    """Planted: there each byte gives another delay."""
    with patch(f"{__name__}.GIVE_UP_S", LIMIT_S * 5):
        assert lax.run(slow_client(lax.port, SLOW[case][0])) == (float("inf"), b"")


async def never_reads(port: int) -> float:
    """Ask without end and read nothing; returns after how many seconds the connection was ended."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        started_at = time.monotonic()
        asked = BEHIND * 100
        sent = 0
        while time.monotonic() < started_at + GIVE_UP_S:
            try:
                sent += client.send(asked[sent % len(asked) :])
                await asyncio.sleep(0)
            except BlockingIOError:
                await asyncio.sleep(TRICKLE_S)
            except OSError:
                return time.monotonic() - started_at
    return float("inf")


@pytest.mark.usefixtures("impatient")
def test_who_never_reads_is_let_go(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    assert LIMIT_S <= api.run(never_reads(api.port)) < float("inf")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_framework_alone_would_keep_who_never_reads(lax: Api) -> None:
    """Planted: there the answer that says so waits for room too."""
    with patch(f"{__name__}.GIVE_UP_S", LIMIT_S * 5):
        assert lax.run(never_reads(lax.port)) == float("inf")


async def sends_on(port: int) -> bytes:
    """Send a body that was refused as soon as its length was known, and only then read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(POST + b"Content-Length: 5000000\r\n\r\n")
        for _ in range(100):
            writer.write(bytes(50_000))
            await asyncio.sleep(0.002)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def test_who_sends_on_after_a_refusal_reads_why(api: Api) -> None:
    assert api.run(sends_on(api.port)).startswith(b"HTTP/1.1 413 ")


def test_a_connection_closed_at_once_would_not_tell(api: Api) -> None:
    """Planted: bytes that nobody reads any more reset the connection, and the answer is lost with it."""
    with patch.object(connection.Connection, "close", HttpProtocol.close):
        assert api.run(sends_on(api.port)) == b""


def test_a_quiet_connection_is_kept_as_long_as_is_set_and_then_closed(api: Api) -> None:
    def one_request() -> Iterator[bytes]:
        yield BEHIND

    with Api(api.settings, KEEP_ALIVE_TIMEOUT=1).running() as brief:
        took_s, received = brief.run(slow_client(brief.port, one_request))
    assert 0.9 <= took_s <= 1 + SLACK_S
    assert received.count(b"HTTP/1.1 ") == 1


def test_an_answer_that_takes_too_long_becomes_503(api: Api) -> None:
    """However much the client says meanwhile."""
    token = api.start_session(1)

    def request_and_more() -> Iterator[bytes]:
        yield b"GET /ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % token.encode()
        yield from (bytes([byte]) for byte in BEHIND * 3)

    with Api(replace(api.settings, ping_delay_ms=60_000), RESPONSE_TIMEOUT=LIMIT_S).running() as slow:
        took_s, received = slow.run(slow_client(slow.port, request_and_more))
    assert LIMIT_S * 0.9 <= took_s <= LIMIT_S + SLACK_S
    assert received.startswith(b"HTTP/1.1 503 ")
    assert received.endswith(problem("The service cannot answer now; try again shortly", "unavailable"))
