"""The client's address comes from as many proxies as the operator trusts, and from nobody else."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sanic import Request
from sanic.compat import Header

from api.origin import origin_of
from models.events import Origin, record
from models.settings import Settings

SPOOFED = "203.0.113.66"
XFF = "X-Forwarded-For"


def address_of(settings: Settings, proxies: int, headers: list[tuple[str, str]], **more: Any) -> str:
    app = SimpleNamespace(
        ctx=SimpleNamespace(stores=SimpleNamespace(settings=replace(settings, trusted_proxies=proxies, **more)))
    )
    request = SimpleNamespace(ip=more.pop("peer", "10.0.0.1"), headers=Header(headers), app=app, id="r1")
    return origin_of(cast(Request, request)).address


@pytest.mark.parametrize(
    ("proxies", "headers", "address"),
    [
        (0, [(XFF, SPOOFED)], "10.0.0.1"),
        (0, [("Forwarded", f"for={SPOOFED}")], "10.0.0.1"),
        (1, [], "10.0.0.1"),
        (1, [(XFF, "192.0.2.9")], "192.0.2.9"),
        (1, [(XFF, f"{SPOOFED}, 192.0.2.9")], "192.0.2.9"),
        (1, [(XFF, SPOOFED), (XFF, "192.0.2.9")], "192.0.2.9"),
        (1, [("Forwarded", f"for={SPOOFED}"), (XFF, "192.0.2.9")], "192.0.2.9"),
        (2, [(XFF, f"{SPOOFED}, 192.0.2.9, 10.0.0.2")], "192.0.2.9"),
        (2, [(XFF, "192.0.2.9")], "192.0.2.9"),
        (1, [(XFF, "192.0.2.9:4711")], "192.0.2.9"),
        (1, [(XFF, "[2001:db8:1:2:3::4]:4711")], "2001:db8:1:2::/64"),
        (1, [(XFF, "2001:db8:1:2:ffff::1")], "2001:db8:1:2::/64"),
        (1, [(XFF, "::ffff:192.0.2.9")], "192.0.2.9"),
        (1, [(XFF, "unknown")], "10.0.0.1"),
        (1, [(XFF, "192.0.2.9\r\nx")], "10.0.0.1"),
        (1, [(XFF, " , ,")], "10.0.0.1"),
    ],
)
def test_x_forwarded_for(settings: Settings, proxies: int, headers: list[tuple[str, str]], address: str) -> None:
    assert address_of(settings, proxies, headers) == address


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("for=192.0.2.9", "192.0.2.9"),
        (f'for={SPOOFED};proto=https, For="192.0.2.9:80";by=10.0.0.1', "192.0.2.9"),
        ('proto=https;for="[2001:db8:1:2::3]"', "2001:db8:1:2::/64"),
        ("for=_hidden", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
    ],
)
def test_forwarded(settings: Settings, told: str, address: str) -> None:
    headers = [("Forwarded", told), (XFF, SPOOFED)]
    assert address_of(settings, 1, headers, proxy_header="Forwarded") == address


def test_an_event_is_one_line_whatever_is_in_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gatehouse.auth")
    record("login", "refused", Origin('a"\r\n{}\u2028', "r\n1"), user_id=7, why="x")
    (line,) = caplog.messages
    assert len(line.splitlines()) == 1 or "\u2028" in line
    assert "\n" not in line
    assert "\r" not in line
    assert json.loads(line) == {
        "event": "login",
        "outcome": "refused",
        "user_id": 7,
        "why": "x",
        "address": 'a"\r\n{}\u2028',
        "request_id": "r\n1",
    }
