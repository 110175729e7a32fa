"""GET /metrics: who may see it, in which words, and what it says while stores are away."""

import re

import pytest

from models.devservers import free_port
from tests.api.conftest import Api, Start, decoded

SAMPLE = re.compile(r"^(gatehouse_\w+(?:\{.*\})?) (\S+)$", re.MULTILINE)


def shown(api: Api) -> dict[str, float]:
    answer = api.get("/metrics", api.settings.metrics_key)
    assert answer.status_code == 200
    return {name: float(number) for name, number in SAMPLE.findall(answer.text)}


def test_without_a_key_that_is_set_there_is_nothing(start: Start) -> None:
    closed = start(metrics_key="")
    assert closed.get("/metrics", "x").status_code == 404
    assert closed.get("/metrics").status_code == 404
    assert "/metrics" not in decoded(closed.get("/openapi.json"))["paths"]


@pytest.mark.parametrize("given", [None, "", "x", "é", "{key}x", "{short}", "{key}, Bearer {key}"])
def test_another_key_opens_nothing(api: Api, given: str | None) -> None:
    key = api.settings.metrics_key
    token = given.format(key=key, short=key[:-1]) if given is not None else None
    sent = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    sent += b"" if token is None else b"Authorization: Bearer %s\r\n" % token.encode()
    status, headers, body = api.raw(sent + b"\r\n")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert b"metrics_key_required" in body
    assert key.encode() not in body


def test_a_session_is_no_key(api: Api) -> None:
    assert api.get("/metrics", api.start_session(1)).status_code == 401


def test_it_speaks_openmetrics_to_whoever_asks_for_it(api: Api) -> None:
    plain = api.get("/metrics", api.settings.metrics_key)
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    other = api.get("/metrics", api.settings.metrics_key, headers=accept)
    assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert other.text.endswith("# EOF\n")
    assert other.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("version", ["x", "1.x", "9" * 5_000])
def test_what_nobody_can_speak_is_answered_plainly(api: Api, version: str) -> None:
    accept = {"accept": f"application/openmetrics-text; version={version}"}
    answer = api.get("/metrics", api.settings.metrics_key, headers=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_away_stores_are_told_at_once(start: Start) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    alone = start(redis_url=f"redis://{nowhere}/0", database_url=f"postgres://app@{nowhere}/d")
    found = shown(alone)
    assert (found["gatehouse_redis_up"], found["gatehouse_redis_trusted"], found["gatehouse_postgres_up"]) == (0, 0, 0)
    assert found["gatehouse_postgres_connections_max"] == 10


def test_every_answer_is_counted_once(start: Start) -> None:
    """Of each kind, whoever made it: a route, the framework, or the reader of what is no HTTP."""
    api = start()
    api.get("/health/live")
    api.request("HEAD", "/health/live")
    api.get("/nope")
    api.request("DELETE", "/ping")
    api.raw(b"no HTTP\r\n\r\n")
    api.raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    shown(api)
    kind = 'gatehouse_http_requests_total{{method="{}",route="{}",status="{}"}}'
    counted = {name: number for name, number in shown(api).items() if name.startswith("gatehouse_http_requests")}
    assert counted == {
        kind.format("GET", "/health/live", 200): 3,
        kind.format("GET", "/metrics", 200): 1,
        kind.format("GET", "unmatched", 404): 1,
        kind.format("DELETE", "unmatched", 405): 1,
        kind.format("OTHER", "unmatched", 400): 1,
    }
