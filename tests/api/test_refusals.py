"""What the framework refuses, in our words: no route, no method, too large, not JSON, not HTTP, and our own faults."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from unittest.mock import patch

import httpx
import pytest

from models import throttle
from tests.api.conftest import JSON, PASSWORD, Api, problem

TOO_LARGE = problem("The request is too large", "payload_too_large")
POST_LOGIN = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MAX_BODY_BYTES = 16 * 1024
MAX_HEAD_BYTES = 8 * 1024


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
        allowed = "GET, HEAD" if METHODS[path] == "GET" else "POST"
        assert (status, headers["allow"], headers["content-type"]) == (405, allowed, JSON)
        assert body == problem("This method is not allowed here", "method_not_allowed")


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/x-www-form-urlencoded",
        "*/*",
        "\xff",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; charset",
        "application/json; charset=utf-8; charset=latin-1",
        "application/json, text/plain",
        "application/json\r\nContent-Type: text/plain",
        "application/json\r\nContent-Encoding: gzip",
    ],
)
def test_415_unless_the_body_says_that_it_is_json(api: Api, media_type: str | None) -> None:
    body = b'{"username":"ada","password":"%s"}' % PASSWORD.encode()
    header = b"" if media_type is None else b"Content-Type: %s\r\n" % media_type.encode()
    sent = b"POST /signup HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (header, len(body), body)
    status, headers, answer = api.raw(sent)
    assert (status, headers["content-type"]) == (415, JSON)
    assert answer == problem("The body must be application/json", "unsupported_media_type")
    assert api.sql("SELECT id FROM users") == []


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON", 'application/json;charset="UTF-8"'])
def test_json_may_be_spelt_as_http_allows(api: Api, media_type: str) -> None:
    body = b'{"username":"ada","password":"%s"}' % PASSWORD.encode()
    assert api.post("/signup", content=body, headers={"Content-Type": media_type}).status_code == 201


def test_a_name_that_comes_twice_would_be_taken_by_the_decoder_alone(api: Api) -> None:
    """Planted: without the second look, the last one would count; `test_bad_input` has it refused."""
    body = b'{"username":"eva","username":"ada","password":"%s"}' % PASSWORD.encode()
    with patch("api.bodies.json.loads", lambda *_given, **_more: ["username", "password"]):
        assert api.post("/signup", content=body, headers={"Content-Type": JSON}).status_code == 201
    assert [row[0] for row in api.sql("SELECT username FROM users")] == ["ada"]


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
    sent = POST_LOGIN.replace(b"login", b"signup") + b"Transfer-Encoding: chunked\r\n\r\n"
    answered, _, answer = api.raw(sent + chunks + b"0\r\n\r\n")
    assert (answered, answer) == (status, b"{}" if status == 201 else TOO_LARGE)


@pytest.mark.parametrize(("excess_bytes", "status"), [(-1, 200), (0, 200), (1, 431)])
def test_a_head_has_8_kib_at_most(api: Api, excess_bytes: int, status: int) -> None:
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n"
    sent = head % (b"y" * (MAX_HEAD_BYTES + excess_bytes - len(head % b"")))
    assert len(sent) == MAX_HEAD_BYTES + excess_bytes
    answered, headers, body = api.raw(sent)
    assert (answered, headers["content-type"]) == (status, JSON)
    assert status == 200 or body == problem("The headers are too large", "headers_too_large")


@pytest.fixture
def no_users_table(api: Api) -> Iterator[None]:
    """A schema that is not ours: something that only we can have done."""
    api.sql("ALTER TABLE users RENAME TO users_elsewhere")
    yield
    api.sql("ALTER TABLE users_elsewhere RENAME TO users")


@pytest.mark.usefixtures("no_users_table")
def test_a_fault_of_ours_gets_500_and_tells_nothing(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    credentials = {"username": "ada", "password": PASSWORD}
    answer = api.post("/login", json=credentials, headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, JSON)
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert answer.content == problem("Something went wrong here; the log has more", "internal_error")
    assert answer.headers["x-request-id"] == "mine-1"
    assert "unexpected error on POST /login, request mine-1" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /pi", POST_LOGIN + b"Content-Length: 50\r\n\r\n{", POST_LOGIN + b"Transfer-Encoding: chunked\r\n\r\n5"],
)
def test_a_client_who_hangs_up_is_no_fault_of_ours(api: Api, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    """Anyone can do it as often as they like: it must not fill the log with errors."""
    api.hang_up(sent)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("users", [1, 30], ids=["of one user", "of many users"])
def test_more_logins_than_can_wait_get_503_and_when_to_come_back(api: Api, users: int) -> None:
    """A user's own have a bound, and the hashing of all has one: tests/unit/test_passwords.py."""
    bound, tries, go_on = 20, 30, threading.Event()
    passwords = api.stores.accounts._passwords

    def held(*_: object) -> tuple[bool, None]:
        assert go_on.wait(30)
        return False, None

    async def flood() -> list[httpx.Response]:
        logins = [{"username": f"nobody {number % users}", "password": PASSWORD} for number in range(tries)]
        async with httpx.AsyncClient(base_url=api.url, limits=httpx.Limits(max_connections=None), timeout=30) as client:
            asked = {asyncio.create_task(client.post("/login", json=login)) for login in logins}
            refused: set[asyncio.Task[httpx.Response]] = set()
            while len(refused) < tries - bound:
                refused |= (await asyncio.wait(asked - refused, return_when=asyncio.FIRST_COMPLETED))[0]
            go_on.set()
            assert [(await task).status_code for task in asked - refused] == [401] * bound
            return [task.result() for task in refused]

    waiting = patch.object(throttle, "MAX_WAITING", bound - throttle.AT_ONCE)
    with waiting, patch.object(passwords, "_most_pending", bound), patch.object(passwords, "_verify", held):
        refused = api.run(flood())
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "1")}
    assert {answer.content for answer in refused} == {
        problem("Too many logins at once; try again shortly", "overloaded")
    }
