"""Every answer is one that we wrote, with the same fields on it, whatever was asked and however it went wrong."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from sanic import HTTPResponse, Request, text

from tests.api.conftest import JSON, PASSWORD, Api, Start
from tests.api.raw_requests import HOST, POST, REFUSED

LIVE = b'{"status":"live"}'
OURS = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")


def get(path: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: x", *fields, b"", b""])


@pytest.mark.parametrize("fields", [(b"Connection: close",), (b"Connection: keep-alive",), ()], ids=repr)
def test_an_answer_has_these_fields_and_no_other(api: Api, fields: tuple[bytes, ...]) -> None:
    status, headers, body = api.raw(get(b"/health/live", *fields))
    assert (status, body) == (200, LIVE)
    assert OURS.fullmatch(headers.pop("x-request-id"))
    assert headers == {
        "cache-control": "no-store",
        "connection": "close" if b"Connection: close" in fields else "keep-alive",
        "content-length": str(len(LIVE)),
        "content-type": "application/json",
        "x-content-type-options": "nosniff",
    }


def test_requests_sent_together_are_answered_in_order(api: Api) -> None:
    sent = get(b"/health/live") + get(b"/count") + get(b"/health/live", b"Connection: close")
    answers = api.raw_all(sent).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [LIVE, b'{"estimatedCount":0}', LIVE]


def test_head_is_get_without_the_body(api: Api) -> None:
    """RFC 9110, 9.3.2: the same fields, so that the length is that of the body which is not sent."""
    fields = b"Connection: close", b"X-Request-Id: 1"
    head = api.raw_all(get(b"/health/live", *fields, method=b"HEAD"))
    assert head + LIVE == api.raw_all(get(b"/health/live", *fields))
    then = api.raw_all(get(b"/count", method=b"HEAD") + get(b"/health/live", b"Connection: close"))
    assert then.count(b"HTTP/1.1 200 OK") == 2
    assert b"estimatedCount" not in then


def test_head_of_a_limited_route_counts_as_the_get_that_it_stands_for(api: Api) -> None:
    token = b"Authorization: Bearer " + api.start_session(1).encode()
    answers = api.raw_all(get(b"/ping", token, method=b"HEAD") + get(b"/ping", token, b"Connection: close"))
    assert [answer[:3] for answer in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"429"]


def test_head_of_nothing_is_404_and_of_a_post_route_405(api: Api) -> None:
    assert api.raw_all(get(b"/nope", b"Connection: close", method=b"HEAD")).startswith(b"HTTP/1.1 404 ")
    refused = api.raw_all(get(b"/login", b"Connection: close", method=b"HEAD"))
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: POST\r\n" in refused
    assert refused.endswith(b"\r\n\r\n")


def _slow_token(api: Api) -> bytes:
    return b"Authorization: Bearer " + api.start_session(1).encode()


SITUATIONS: dict[int, Callable[[Api], bytes]] = {
    200: lambda api: get(b"/top"),
    201: lambda api: POST.replace(b"login", b"signup") + _json(b"ada"),
    204: lambda api: POST.replace(b"login", b"logout") + _slow_token(api) + b"\r\n\r\n",
    400: lambda api: POST + b"Content-Length: 2\r\n\r\n{}",
    401: lambda api: get(b"/session"),
    404: lambda api: get(b"/nope"),
    405: lambda api: get(b"/login"),
    413: lambda api: POST + b"Content-Length: 99999\r\n\r\n",
    414: lambda api: REFUSED["a target that is too long"][1],
    415: lambda api: b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    417: lambda api: REFUSED["an unknown expectation"][1],
    431: lambda api: REFUSED["too many lines"][1],
}


def _json(username: bytes) -> bytes:
    body = b'{"username":"%s","password":"%s"}' % (username, PASSWORD.encode())
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def assert_marked(status: int, headers: dict[str, str], body: bytes) -> None:
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert OURS.fullmatch(headers["x-request-id"])
    assert "server" not in headers
    assert (status == 204) == ("content-type" not in headers)
    assert headers.get("content-type", JSON) == JSON
    telling = (b"sanic", b"python", b"traceback", b"exception", b"uvloop", b"api/", b".py")
    assert not [word for word in telling if word in body.lower()]


@pytest.mark.parametrize("status", SITUATIONS)
def test_every_answer_is_marked_and_tells_nothing(api: Api, status: int) -> None:
    found, headers, body = api.raw(SITUATIONS[status](api))
    assert found == status
    assert_marked(found, headers, body)


def test_what_is_no_http_at_all_is_answered_alike(api: Api) -> None:
    for case in ("no request line", "a folded line", "two hosts", "a size with plus", "a handshake of TLS"):
        assert_marked(*api.raw(REFUSED[case][1]))


def test_what_is_refused_and_what_is_away_is_answered_alike(api: Api, start: Start) -> None:
    token = _slow_token(api)
    api.raw(get(b"/ping", token))
    status, headers, body = api.raw(get(b"/ping", token))
    assert (status, headers["retry-after"]) == (429, "5")
    assert_marked(status, headers, body)
    away = start(redis_url="redis://127.0.0.1:1/0")
    status, headers, body = away.raw(get(b"/top"))
    assert (status, headers["retry-after"]) == (503, "1")
    assert_marked(status, headers, body)


def test_an_answer_that_the_framework_made_is_marked_too(api: Api) -> None:
    """None of our routes does that; if one ever should, nothing is forgotten."""

    async def hello(_request: Request) -> HTTPResponse:
        return text("hello")

    plain = Api(api.settings)
    plain._app.add_route(hello, "/hello")
    with plain.running():
        status, headers, body = plain.raw(get(b"/hello"))
    assert (status, body, headers["cache-control"]) == (200, b"hello", "no-store")
    assert headers["x-content-type-options"] == "nosniff"
    assert OURS.fullmatch(headers["x-request-id"])


@pytest.mark.parametrize("given", ["a", "A-Za.z_09", "0123456789abcdef" * 4, "550e8400-e29b-41d4-a716-446655440000"])
def test_a_harmless_request_id_is_kept(api: Api, given: str) -> None:
    for path in ("/health/live", "/nope", "/session"):
        assert api.get(path, headers={"x-request-id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a" * 65, "é", "a,b", "{}", "<x>", "%0d%0a", "a\tb", "../x"])
def test_another_gets_one_of_ours(api: Api, given: str) -> None:
    sent = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: %s\r\n\r\n" % given.encode()
    assert OURS.fullmatch(api.raw(sent)[1]["x-request-id"])


def test_no_two_requests_have_the_same_id_in_whatever_process(api: Api) -> None:
    ids = [api.get("/health/live").headers["x-request-id"] for _ in range(50)]
    ids += [api.raw(b"no HTTP\r\n\r\n")[1]["x-request-id"] for _ in range(50)]
    made = "import os; from api.requests import _ids; os.fork() and os.wait(); print(_ids.new())"
    ids += subprocess.run([sys.executable, "-c", made], check=True, capture_output=True, text=True).stdout.split()
    assert len(set(ids)) == len(ids) == 102
    assert len({made_id.partition("-")[0] for made_id in ids}) == 3
