"""Requests with a few bytes changed: never a fault of ours, and what is taken means the same to another reader."""

import asyncio
import logging
import re
from unittest.mock import patch

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sanic.exceptions import SanicException

from api import connection, heads
from api.heads import CHUNKED, Head, read_head
from tests.api.conftest import Api
from tests.api.raw_requests import LAST, REFUSED, TAKEN

STARTS = sorted({sent for _, sent in (*TAKEN.values(), *REFUSED.values()) if len(sent) < 600})
PIECES = [
    b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n ", b"\0", b":", b",", b"/", b"*", b"%", b"#", b"?", b"@", b"0",
    b"9", b"+", b"-", b"_", b";", b'"', b"\x7f", b"\x80", b"\xff", b"HTTP/1.1", b"HTTP/1.0", b"http://z", b"OPTIONS",
    b"HEAD ", b"POST ", b"Host: y\r\n", b"Content-Length: 3\r\n", b"Content-Length: 1_0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"X-Request-Id: a b\r\n",
    b"\r\n\r\n", b"x" * 9_000,
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One of the corpus, with up to four places replaced."""
    sent = bytearray(draw(st.sampled_from(STARTS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(sent)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
        sent[at : at + draw(st.integers(0, 4))] = piece
    return bytes(sent)


def means_the_same(head: Head, raw: bytes) -> bool:
    """Whether another strict reader finds the same method, target, fields and length in these bytes."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    reader.receive_data(raw + b"\r\n")
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    fields = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
    length = CHUNKED if dict(fields).get("transfer-encoding") else int(dict(fields).get("content-length", "0"))
    return (
        request.method.decode() == head.method
        and (re.sub("^https?://[^/]+", "", request.target.decode()) or "/") == head.target
        and fields == [(n, value.lower() if n == "transfer-encoding" else value) for n, value in head.fields]
        and length == head.length
        and (reader.next_event() is h11.NEED_DATA) == (length != 0)
    )


def read_or_refuse(raw: bytes) -> Head | int:
    """The head, or the status that it is refused with."""
    try:
        return read_head(raw)
    except SanicException as error:
        return error.status_code


@settings(max_examples=1_000, deadline=None)
@given(mutated())
def test_what_is_taken_means_the_same_to_another_reader(sent: bytes) -> None:
    raw = sent.partition(b"\r\n\r\n")[0] + b"\r\n"
    found = read_or_refuse(raw)
    if isinstance(found, Head):
        assert means_the_same(found, raw)
    else:
        assert found in (400, 413, 417, 431)


@pytest.mark.parametrize("rule", ["_HEAD", "_ABOUT_THE_MESSAGE"])
def test_a_laxer_reader_is_caught(rule: str) -> None:
    """Planted: spaces before colons are taken, or two lengths."""
    laxer = {"_HEAD": re.compile(heads._HEAD.pattern.replace("++:", "++[ ]*:")), "_ABOUT_THE_MESSAGE": frozenset()}
    with patch.object(heads, rule, laxer[rule]), patch.object(heads, "_check_host", lambda _host, _minor: None):
        raw = {
            "_HEAD": b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n",
            "_ABOUT_THE_MESSAGE": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
        }[rule]
        head = read_head(raw)
        with pytest.raises(h11.RemoteProtocolError):
            means_the_same(head, raw)


async def ask(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.transport.abort()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutated(), min_size=20, max_size=20))
def test_no_change_makes_a_fault_of_ours(api: Api, caplog: pytest.LogCaptureFixture, requests: list[bytes]) -> None:
    async def ask_all() -> list[bytes]:
        return await asyncio.gather(*(ask(api.port, sent + LAST) for sent in requests))

    with patch.object(connection, "HEAD_DEADLINE_S", 0.1), patch.object(connection, "BODY_DEADLINE_S", 0.1):
        for received in api.run(ask_all()):
            for answer in received.split(b"HTTP/1.1 ")[1:]:
                assert answer[:3] in {
                    b"100",
                    b"200",
                    b"400",
                    b"404",
                    b"405",
                    b"408",
                    b"413",
                    b"414",
                    b"415",
                    b"417",
                    b"431",
                }
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
