"""A throttled login over HTTP: 429, how long to wait, and the event in the log."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from models.limits import parse_limits
from models.settings import Settings
from tests.api.conftest import Api, decoded
from tests.conftest import empty


@pytest.fixture
def strict(settings: Settings) -> Iterator[Api]:
    own = replace(settings, login_limits_user=parse_limits("2/600s"), trusted_proxies=1)
    with Api(own).running() as running:
        running.run(empty(running.stores))
        yield running


def test_the_third_wrong_attempt_waits(strict: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gatehouse.auth")
    guess = {"username": "ada", "password": "a guess"}
    seen = [strict.post("/login", json=guess, headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(3)]
    assert [answer.status_code for answer in seen] == [401, 401, 429]
    assert decoded(seen[2]) == {"error": "Too many login attempts; try again later", "code": "login_throttled"}
    assert 590 <= int(seen[2].headers["Retry-After"]) <= 600
    events = [json.loads(message) for message in caplog.messages if message.startswith("{")]
    assert [(event["outcome"], event["address"]) for event in events] == [
        ("refused", "192.0.2.0"),
        ("refused", "192.0.2.1"),
        ("throttled", "192.0.2.2"),
    ]
    assert all(event["request_id"] for event in events)
    assert "a guess" not in caplog.text
