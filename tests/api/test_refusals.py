"""What the framework refuses, in our words: no route, no method, too large, not JSON, not HTTP, and our own faults."""

import logging
import os
from collections.abc import Iterator

import pytest

from models.passwords import QUEUE_PER_THREAD
from tests.api.conftest import JSON, PASSWORD, Api, is_problem, problem

NOT_HTTP = problem("The request is not valid HTTP", "invalid_request")
TOO_LARGE = problem("The request is too large", "payload_too_large")
POST_LOGIN = b"POST /login HTTP/1.1\r\nContent-Type: application/json\r\n"
MAX_BODY_BYTES = 16 * 1024


@pytest.mark.parametrize("path", ["/", "/nope", "/ping/1", "/health", "/%ff", "/..%2fping", "//ping", "/Ping"])
def test_404(api: Api, path: str) -> None:
    status, headers, body = api.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (status, body) == (404, problem("There is nothing here", "not_found"))
    assert headers["content-type"] == JSON


METHODS = {
    "/signup": "POST",
    "/login": "POST",
    "/logout": "POST",
    "/session": "GET",
    "/ping": "GET",
    "/top": "GET",
    "/count": "GET",
    "/health/live": "GET",
    "/health/ready": "GET",
}


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"])
def test_405_names_the_method_that_is_allowed(api: Api, path: str, method: str) -> None:
    status, headers, body = api.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if method == METHODS[path]:
        assert status != 405
    else:
        assert (status, headers["allow"], headers["content-type"]) == (405, METHODS[path], JSON)
        assert body == problem("This method is not allowed here", "method_not_allowed")


@pytest.mark.parametrize(
    "media_type",
    [None, "", "text/plain", "text/json", "application/jsonx", "application/x-www-form-urlencoded", "*/*", "\xff"],
)
def test_415_unless_the_body_says_that_it_is_json(api: Api, media_type: str | None) -> None:
    body = b'{"username":"ada","password":"%s"}' % PASSWORD.encode()
    header = b"" if media_type is None else b"Content-Type: %s\r\n" % media_type.encode()
    sent = b"POST /signup HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (header, len(body), body)
    status, headers, answer = api.raw(sent)
    assert (status, headers["content-type"]) == (415, JSON)
    assert answer == problem("The body must be application/json", "unsupported_media_type")
    assert api.sql("SELECT id FROM users") == []


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_json_may_be_spelt_as_http_allows(api: Api, media_type: str) -> None:
    body = b'{"username":"ada","password":"%s"}' % PASSWORD.encode()
    assert api.post("/signup", content=body, headers={"Content-Type": media_type}).status_code == 201


def _credentials_of_size(size_bytes: int) -> bytes:
    return (b'{"username":"ada","password":"%s"}' % PASSWORD.encode()).ljust(size_bytes)


@pytest.mark.parametrize(("excess_bytes", "status"), [(-1, 201), (0, 201), (1, 413), (80_000, 413)])
def test_a_body_has_16_kib_at_most(api: Api, excess_bytes: int, status: int) -> None:
    body = _credentials_of_size(MAX_BODY_BYTES + excess_bytes)
    answer = api.post("/signup", content=body, headers={"Content-Type": JSON})
    assert (answer.status_code, answer.content) == (status, b"{}" if status == 201 else TOO_LARGE)
    assert len(api.sql("SELECT id FROM users")) == (status == 201)


@pytest.mark.parametrize(("excess_bytes", "status"), [(0, 201), (1, 413)])
def test_a_body_in_chunks_has_16_kib_at_most(api: Api, excess_bytes: int, status: int) -> None:
    body = _credentials_of_size(MAX_BODY_BYTES + excess_bytes)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:10_000], body[10_000:]))
    sent = b"POST /signup HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answered, _, answer = api.raw(sent + chunks + b"0\r\n\r\n")
    assert (answered, answer) == (status, b"{}" if status == 201 else TOO_LARGE)


@pytest.mark.parametrize(
    "head", [b"GET /%s HTTP/1.1\r\n" % (b"a" * 20_000), b"GET /ping HTTP/1.1\r\n" + b"A: b\r\n" * 5_000]
)
def test_too_long_a_head_is_too_large(api: Api, head: bytes) -> None:
    status, headers, body = api.raw(head + b"\r\n")
    assert (status, headers["content-type"], body) == (413, JSON, TOO_LARGE)


MALFORMED = {
    "no request line": b"GARBAGE\r\n\r\n",
    "nothing": b"\r\n\r\n",
    "no version": b"GET /ping\r\n\r\n",
    "an unknown version": b"GET /ping HTTP/3.0\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a header without colon": b"GET /ping HTTP/1.1\r\nAuthorization\r\n\r\n",
    "a folded header": b"GET /ping HTTP/1.1\r\nAuthorization: Bearer\r\n token\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /\xff HTTP/1.1\r\n\r\n",
    "a target that is no path": b"GET ping HTTP/1.1\r\n\r\n",
    "a target with a broken host": b"GET http://[::1 HTTP/1.1\r\n\r\n",
    "NUL in the target": b"GET /ping\x00 HTTP/1.1\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    "a length that is no number": POST_LOGIN + b"Content-Length: abc\r\n\r\n",
    "a negative length": POST_LOGIN + b"Content-Length: -1\r\n\r\n",
    "a length with underscore": POST_LOGIN + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length in other digits": POST_LOGIN + "Content-Length: ²\r\n\r\n{}".encode(),
    "an endless length": POST_LOGIN + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    "two lengths": POST_LOGIN + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a length and chunks": POST_LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST_LOGIN + b"Transfer-Encoding: gzip\r\n\r\n",
    "a chunk without size": POST_LOGIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_http_gets_400_in_the_error_shape(api: Api, case: str) -> None:
    status, headers, body = api.raw(MALFORMED[case])
    assert (status, headers["content-type"], body) == (400, JSON, NOT_HTTP)
    assert headers["connection"] == "close"
    assert api.get("/health/live").status_code == 200


def test_an_unknown_expectation_gets_417(api: Api) -> None:
    status, headers, body = api.raw(POST_LOGIN + b"Content-Length: 2\r\nExpect: magic\r\n\r\n{}")
    assert (status, body) == (417, problem("The expectation cannot be met", "expectation_failed"))
    assert headers["content-type"] == JSON


def test_a_request_that_never_ends_gets_408(api: Api) -> None:
    with Api(api.settings, REQUEST_TIMEOUT=1).running() as impatient:
        status, headers, body = impatient.raw(b"GET /pi")
        assert (status, body) == (408, problem("The request took too long to arrive", "request_timeout"))
        assert is_problem(status, headers, body)


@pytest.fixture
def no_users_table(api: Api) -> Iterator[None]:
    """A schema that is not ours: something that only we can have done."""
    api.sql("ALTER TABLE users RENAME TO users_elsewhere")
    yield
    api.sql("ALTER TABLE users_elsewhere RENAME TO users")


@pytest.mark.usefixtures("no_users_table")
def test_a_fault_of_ours_gets_500_and_tells_nothing(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    answer = api.post("/login", json={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.headers["content-type"]) == (500, JSON)
    assert answer.content == problem("Something went wrong here; the log has more", "internal_error")
    assert "unexpected error on POST /login" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /pi", POST_LOGIN + b"Content-Length: 50\r\n\r\n{", POST_LOGIN + b"Transfer-Encoding: chunked\r\n\r\n5"],
)
def test_a_client_who_hangs_up_is_no_fault_of_ours(api: Api, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    """Anyone can do it as often as they like: it must not fill the log with errors."""
    api.hang_up(sent)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.skipif((os.cpu_count() or 1) > 4, reason="one client cannot flood so many hashing threads")
def test_more_logins_than_can_wait_get_503_and_when_to_come_back(api: Api) -> None:
    bound = (os.cpu_count() or 1) * (1 + QUEUE_PER_THREAD)
    credentials = {"json": {"username": "nobody", "password": PASSWORD}}
    answers = api.at_once([("POST", "/login", credentials)] * (bound + 50))
    refused = [answer for answer in answers if answer.status_code != 401]
    assert 1 <= len(refused) <= 50
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "1")}
    assert {answer.content for answer in refused} == {
        problem("Too many logins at once; try again shortly", "overloaded")
    }
