"""Bytes that another server might read differently are refused, and nothing behind them is taken for a request."""

import re
from typing import Any
from unittest.mock import patch

import pytest
from sanic.server.protocols.http_protocol import HttpProtocol

from api import connection, exchange, heads
from api.app import App
from tests.api.conftest import JSON, Api, Start, is_problem
from tests.api.raw_requests import BEHIND, CHUNKS, LAST, POST, REFUSED, TAKEN

CODES = {
    400: b"invalid_request",
    413: b"payload_too_large",
    414: b"uri_too_long",
    417: b"expectation_failed",
    431: b"headers_too_large",
}


def answers_in(received: bytes) -> list[bytes]:
    return received.split(b"HTTP/1.1 ")[1:]


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first[:3]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_http_is_refused_and_nothing_behind_it_is_read(api: Api, case: str) -> None:
    expected, sent = REFUSED[case]
    (answer,) = answers_in(api.raw_all(sent + BEHIND))  # all until the connection has ended
    status, headers, body = split(answer)
    assert (status, headers["connection"], len(body)) == (expected, "close", int(headers["content-length"]))
    assert is_problem(status, headers, body)
    assert b'"code":"%s"' % CODES[expected] in body


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_http_is_taken_and_so_is_what_follows_it(api: Api, case: str) -> None:
    expected, sent = TAKEN[case]
    status, headers, body = api.raw(sent)
    assert (status, headers["content-type"]) == (expected, JSON)
    assert b"not valid HTTP" not in body
    if headers["connection"] == "keep-alive":
        answers = answers_in(api.raw_all(sent + LAST))
        assert len(answers) == 2
        assert answers[1].endswith(b'{"status":"live"}')


def test_a_body_that_nobody_wants_is_read_strictly_too(api: Api) -> None:
    """The answer, 404, does not need it; the next request begins behind it all the same."""
    nowhere = CHUNKS.replace(b"/login", b"/nowhere")
    assert [split(answer)[0] for answer in answers_in(api.raw_all(nowhere + b"2\r\n{}\r\n0\r\n\r\n" + LAST))] == [
        404,
        200,
    ]
    for broken in (b"2\r\n{}XX0\r\n\r\n", b"2 \r\n{}\r\n0\r\n\r\n", b"4001\r\n"):
        assert [split(answer)[0] for answer in answers_in(api.raw_all(nowhere + broken + BEHIND))] == [404]


def test_a_body_is_asked_for_only_when_it_is_wanted(api: Api) -> None:
    expecting = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert api.raw(expecting)[0] == 100
    assert [answer[:3] for answer in answers_in(api.raw_all(expecting + b"{}" + LAST))] == [b"100", b"400", b"200"]
    (answer,) = answers_in(api.raw_all(expecting.replace(b"/login", b"/nowhere")))
    status, headers, _ = split(answer)
    assert (status, headers["connection"]) == (404, "close")


# The framework's own reader takes these for HTTP, and what is behind them for the next request.
HOLES = [
    "a method that is no token",
    "a fragment",
    "a quote in the target",
    "a broken percent code",
    "a URL with a user",
    "an asterisk",
    "a space before the colon",
    "a space before the colon of a length",
    "a tab before the colon",
    "no name",
    "a name with a space",
    "a name in brackets",
    "a name beyond ASCII",
    "a name with NUL",
    "a first line that is folded",
    "a bare LF ends a line",
    "a bare CR in a value",
    "CR CR LF",
    "NUL in a value",
    "an escape in a value",
    "too many lines",
    "no host",
    "two hosts",
    "two equal hosts",
    "an empty host",
    "a list of hosts",
    "a host with a path",
    "chunked after a vertical tab",
    "a size in another notation",
    "a size after a space",
    "a size before a space",
    "an endless size",
    "an extension with NUL",
    "a chunk that is longer",
    "two other bytes behind a chunk",
    "two expectations",
]


@pytest.fixture
def lax(start: Start) -> Api:
    """The same service on the framework's own reader."""
    with patch.object(App, "connection", HttpProtocol):
        return start()


def test_without_the_strict_reader_these_would_be_taken(lax: Api) -> None:
    for case in HOLES:
        answers = answers_in(lax.raw_all(REFUSED[case][1] + LAST))
        assert len(answers) >= 2, f"the framework refuses by itself: {case}"


def anything(pattern: str) -> Any:
    return patch.object(heads, pattern, re.compile(".*", re.DOTALL))


LENIENT_HEAD = re.compile(r"(\S+) (?:(\S+)|(\*)) +HTTP/1\.([01]) ?\r\n(?:[^\n]*\n)*")
LENIENT_CHUNK = re.compile(rb"(?:0x|\+| )*([0-9A-Fa-f]+)[^\r\n]*\r?\n")
WEAKER: dict[str, tuple[Any, list[str]]] = {
    "request and field lines": (
        patch.object(heads, "_HEAD", LENIENT_HEAD),
        ["a space after the version", "two spaces before the version", "no colon", "a space before the colon"],
    ),
    "hosts": (anything("_ONE_HOST"), ["two hosts", "an empty host", "a host with a path", "a port that is no number"]),
    "that there is a host": (patch.object(heads, "_check_host", lambda _host, _minor: None), ["no host"]),
    "lengths": (anything("_ONE_LENGTH"), ["a length with plus", "a length with underscore"]),
    "one length": (
        patch.object(heads, "_ABOUT_THE_MESSAGE", frozenset(("host", "transfer-encoding", "connection"))),
        ["two lengths", "a list of equal lengths", "a length and chunks", "chunks and a length"],
    ),
    "one coding": (
        patch.object(heads, "_ABOUT_THE_MESSAGE", frozenset(("host", "content-length", "connection"))),
        ["a length and chunks", "an unknown coding", "chunked twice"],
    ),
    "the number of lines": (patch.object(heads, "MAX_FIELDS", 1_000), ["too many lines"]),
    "the size of a head": (patch.object(exchange, "MAX_HEAD_BYTES", 100_000), ["a line that is too long"]),
    "the size of a body": (patch.object(heads, "MAX_BODY_BYTES", 100_000), ["a length that is too large"]),
    "the size of chunks": (patch.object(exchange, "MAX_BODY_BYTES", 100_000), ["chunks that are too large"]),
    "chunk lines": (
        patch.object(exchange, "_CHUNK_LINE", LENIENT_CHUNK),
        ["a size in another notation", "a size with plus", "a bare LF after the size", "an extension with NUL"],
    ),
    "the length of chunk lines": (patch.object(exchange, "MAX_CHUNK_LINE_BYTES", 10**6), ["a long extension"]),
}


@pytest.mark.parametrize("rule", WEAKER)
def test_each_rule_is_missed_when_it_is_gone(api: Api, rule: str) -> None:
    """Planted: without the rule, what it forbids no longer gets the answer that the tests above want."""
    weaker, cases = WEAKER[rule]
    with weaker, patch.object(connection, "HEAD_DEADLINE_S", 0.2), patch.object(connection, "BODY_DEADLINE_S", 0.2):
        for case in cases:
            expected, sent = REFUSED[case]
            answers = answers_in(api.raw_all(sent + LAST))
            assert [split(answer)[0] for answer in answers] != [expected], case
