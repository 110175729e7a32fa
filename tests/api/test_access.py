"""The access log: exactly one line for each answer, whatever was asked, with nothing secret in it."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from api.access import MAX_PATH_CHARS, AccessLog, open_access_log
from api.requests import current_request_id
from models.logs import Log, LogHandler
from tests.api.conftest import PASSWORD, Api

RAW = [
    b'GET /"}{"status":200 HTTP/1.1\r\nHost: a\r\n\r\n',
    b"GET /a%0d%0a%7b%22level%22:1%7d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\xe2\x80\xa8\x85 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /x\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
    b'GET /ping HTTP/1.1\r\nHost: a\r\nX-Request-Id: "},{"a":"\r\n\r\n',
    b'GET /ping HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: "}{\r\n\r\n',
    b"M'\"~ /ping HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a?token=hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //a/b?token=hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET /" + b"p" * 7_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /" + b"p" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
]


class Lines:
    """What the API writes, from one look to the next."""

    def __init__(self, api: Api, path: Path) -> None:
        self._api, self._path, self._seen = api, path, 0

    def new(self) -> list[dict[str, Any]]:
        access: AccessLog = self._api._app.ctx.access
        assert access._log.writer.flush()
        text = self._path.read_text()
        fresh, self._seen = text[self._seen :], len(text)
        assert fresh.isascii()
        return [json.loads(line) for line in fresh.splitlines()]

    def one(self) -> dict[str, Any]:
        (line,) = self.new()
        return line


@contextmanager
def logged(api: Api, **changes: Any) -> Iterator[Lines]:
    """Have the running API write its access log to a file."""
    before = api._app.ctx.access
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "access.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            api._app.ctx.access = open_access_log(Log(descriptor), replace(api.settings, **changes))
            yield Lines(api, path)
        finally:
            api._app.ctx.access = before
            os.close(descriptor)


def test_each_call_leaves_one_line_that_says_what_became_of_it(api: Api) -> None:
    user_id = api.sign_up("ada")
    token = api.log_in("ada")
    with logged(api) as lines:
        answer = api.get("/ping", token)
        line = lines.one()
        assert line.pop("ts").endswith("Z")
        assert 0 < line.pop("duration_ms") < 5_000
        assert line == {
            "level": "info",
            "logger": "gatehouse.access",
            "event": "request",
            "method": "GET",
            "path": "/ping",
            "route": "/ping",
            "status": 200,
            "bytes": 2,
            "user_id": user_id,
            "address": "127.0.0.1",
            "request_id": answer.headers["X-Request-Id"],
        }
        api.get("/ping", token)
        assert {"status": 429, "code": "rate_limited", "user_id": user_id}.items() <= lines.one().items()


def test_a_refusal_says_why_and_names_no_user(api: Api) -> None:
    api.sign_up("ada")
    older, _ = api.log_in("ada"), api.log_in("ada")
    with logged(api) as lines:
        for token, code in ((None, "missing_token"), ("forged", "malformed_token"), (older, "session_replaced")):
            api.get("/ping", token)
            line = lines.one()
            assert (line["status"], line["code"]) == (401, code)
            assert "user_id" not in line
        api.get("/verify?dialect=nginx", older)
        assert {"status": 401, "code": "session_replaced", "path": "/verify"}.items() <= lines.one().items()


def test_neither_query_nor_token_nor_password_is_told(api: Api) -> None:
    api.sign_up("ada")
    with logged(api) as lines:
        token = api.log_in("ada")
        api.get(f"/ping?token={token}", token)
        api.get(f"/nowhere?token={token}", token)
        api.post("/login", json={"username": "ada", "password": "wrong"})
        told = json.dumps(lines.new())
    assert "/nowhere" in told
    assert not any(secret in told for secret in (token, token[-20:], PASSWORD, "wrong"))


@pytest.mark.parametrize("sent", RAW)
def test_a_hostile_request_leaves_one_line_as_well(api: Api, sent: bytes) -> None:
    with logged(api) as lines:
        status, headers, _ = api.raw(sent)
        line = lines.one()
        assert (line["status"], line["request_id"]) == (status, headers["x-request-id"])
        assert len(line["path"]) <= MAX_PATH_CHARS + 1
        assert "hidden" not in json.dumps(line)
        assert line["address"] == "127.0.0.1"


@given(
    path=st.binary(max_size=60),
    request_id=st.binary(max_size=70),
    method=st.binary(min_size=1, max_size=12),
    told=st.binary(max_size=40),
)
@effort(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_are_sent_each_answer_has_its_line(
    api: Api, path: bytes, request_id: bytes, method: bytes, told: bytes
) -> None:
    head = b"%b /%b HTTP/1.1\r\nHost: a\r\nX-Request-Id: %b\r\nX-Forwarded-For: %b\r\nConnection: close\r\n\r\n"
    with logged(api, trusted_proxies=1) as lines:
        came_back = api.raw_all(head % (method, path, request_id, told))
        answers = [part.split(b"\r\n") for part in came_back.split(b"HTTP/1.1 ")[1:]]
        found = [(line["status"], line["request_id"]) for line in lines.new()]
        ids = [next(field[14:] for field in fields if field.startswith(b"X-Request-Id: ")) for fields in answers]
        assert found == [(int(fields[0][:3]), found_id.decode()) for fields, found_id in zip(answers, ids, strict=True)]


def test_the_clients_own_id_and_address_are_told(api: Api) -> None:
    with logged(api, trusted_proxies=1) as lines:
        api.get("/count", headers={"X-Request-Id": "mine-1", "X-Forwarded-For": "192.0.2.7, 2001:db8::1"})
        assert {"request_id": "mine-1", "address": "2001:db8::/64", "route": "/count"}.items() <= lines.one().items()
        api.get("/count", headers={"X-Forwarded-For": "192.0.2.8"})
        assert lines.one()["address"] == "192.0.2.8"


def test_what_goes_wrong_in_a_request_has_its_id(api: Api) -> None:
    api.sign_up("ada")
    with tempfile.TemporaryFile() as file:
        handler = LogHandler(Log(file.fileno()), current_request_id)
        logging.getLogger("gatehouse").addHandler(handler)
        api.sql("ALTER TABLE users RENAME TO users_elsewhere")
        try:
            given = {"username": "ada", "password": PASSWORD}
            assert api.post("/login", json=given, headers={"X-Request-Id": "mine-1"}).status_code == 500
        finally:
            api.sql("ALTER TABLE users_elsewhere RENAME TO users")
            logging.getLogger("gatehouse").removeHandler(handler)
        file.seek(0)
        (line,) = [json.loads(text) for text in file.read().splitlines()]
    assert (line["logger"], line["level"], line["request_id"]) == ("gatehouse.api", "error", "mine-1")
    assert 'relation "users" does not exist' in line["traceback"]
    assert PASSWORD not in json.dumps(line)


def test_head_is_told_as_head_and_get_as_get(api: Api) -> None:
    with logged(api) as lines:
        for method in ("GET", "HEAD", "GET"):
            api.request(method, "/health/live")
            assert lines.one()["method"] == method


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({"access_log": "on"}, [200, 404]),
        ({"access_log": "errors"}, [404]),
        ({"access_log": "on", "log_level": "warning"}, []),
    ],
)
def test_what_is_left_out(api: Api, changes: dict[str, str], statuses: list[int]) -> None:
    with logged(api, **changes) as lines:
        api.get("/health/live")
        api.get("/nowhere")
        assert [line["status"] for line in lines.new()] == statuses


def test_off_is_nothing_at_all(api: Api) -> None:
    for quiet in (replace(api.settings, access_log="off"), replace(api.settings, log_level="error")):
        assert open_access_log(Log(2), quiet) is None


def test_many_paths_are_not_kept_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.KNOWN_KINDS", 3)
    with logged(api) as lines:
        for path in ("/count", "/health/live", "/openapi.json", "/top", "/count", "/nowhere", "/none"):
            api.get(path)
            assert lines.one()["path"] == path
        assert len(api._app.ctx.access._kinds) <= 3


def test_a_person_gets_a_sentence(api: Api) -> None:
    with tempfile.TemporaryFile() as file, logged(api):
        api._app.ctx.access = AccessLog(Log(file.fileno(), text=True), api.settings)
        api.get("/ping", headers={"X-Request-Id": "mine-1"})
        api._app.ctx.access._log.writer.flush()
        file.seek(0)
        line = file.read().decode()
    assert " info    access   GET /ping 401 in " in line
    assert line.endswith(" ms  code=missing_token address=127.0.0.1 request_id=mine-1\n")
