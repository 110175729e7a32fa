"""An answer sent as prepared bytes is as the framework would send it, and leaves to it what is out of the ordinary."""

import pytest

from tests.api.conftest import Api

LIVE = b'{"status":"live"}'


def get(path: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: x", *fields, b"", b""])


@pytest.mark.parametrize("fields", [(b"Connection: close",), (b"Connection: keep-alive",), ()], ids=repr)
def test_the_head_is_the_same_on_both_ways(api: Api, fields: tuple[bytes, ...]) -> None:
    """With `Connection: close` the framework writes the answer, otherwise we do."""
    status, headers, body = api.raw(get(b"/health/live", *fields))
    closing = b"Connection: close" in fields
    assert (status, body) == (200, LIVE)
    assert headers == {
        "cache-control": "no-store",
        "content-length": str(len(LIVE)),
        "content-type": "application/json",
        "connection": "close" if closing else "keep-alive",
    }


def test_requests_sent_together_are_answered_in_order(api: Api) -> None:
    sent = get(b"/health/live") + get(b"/count") + get(b"/health/live", b"Connection: close")
    answers = api.raw_all(sent).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [LIVE, b'{"estimatedCount":0}', LIVE]
