"""The way to the dashboard: the key, the cookie, the forms, and the files; what it shows is in `tests/dashboard`."""

import logging
import re
import time
from typing import Any

import httpx
import pytest

from api.pages import names
from models.admin import TICKET_TTL_S, Admin
from models.limits import parse_limits
from tests.api.conftest import JSON, KEY, Api, Start, decoded, problem

FORM = "application/x-www-form-urlencoded"
PATHS = [("GET", "/dashboard"), ("GET", "/dashboard/events"), ("GET", "/dashboard/dashboard.js")]
PATHS += [("POST", "/dashboard/login"), ("POST", "/dashboard/logout")]


def send_key(site: Api, key: str = KEY, **headers: str) -> httpx.Response:
    # By hand: the shared client would keep the cookie for the other tests.
    content = httpx.Request("POST", "http://x", data={"key": key}).content
    given = {"Content-Type": FORM} | {name.replace("_", "-"): value for name, value in headers.items()}
    return site.at_once([("POST", "/dashboard/login", {"content": content, "headers": given})])[0]


def cookie_of(answer: httpx.Response) -> str:
    return str(answer.headers["set-cookie"]).partition(";")[0]


def signed_in(site: Api, path: str, **headers: str) -> httpx.Response:
    return site.get(path, headers={"Cookie": cookie_of(send_key(site))} | headers)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_a_key_there_is_no_dashboard(api: Api, method: str, path: str) -> None:
    answer = api.request(method, path)
    assert (answer.status_code, answer.content) == (404, problem("There is nothing here", "not_found"))


def test_the_key_opens_it_for_half_a_day(site: Api) -> None:
    assert "Admin key" in site.get("/dashboard").text
    answer = send_key(site)
    assert (answer.status_code, answer.headers["location"], answer.content) == (303, "/dashboard", b"")
    _, *attributes = answer.headers["set-cookie"].split("; ")
    assert attributes == ["Path=/dashboard", f"Max-Age={TICKET_TTL_S}", "HttpOnly", "SameSite=Strict"]
    shown = site.get("/dashboard", headers={"Cookie": cookie_of(answer)})
    assert "Sign out" in shown.text
    left = site.post("/dashboard/logout", headers={"Cookie": cookie_of(answer)}, follow_redirects=False)
    assert (left.status_code, left.headers["location"]) == (303, "/dashboard")
    assert left.headers["set-cookie"].startswith("gatehouse_dashboard=; Path=/dashboard; Max-Age=0;")


@pytest.mark.parametrize("key", ["wrong", KEY[:-1], KEY + "x", KEY.lower(), "\ud7ff" * 30])
def test_a_wrong_key_is_refused_and_nowhere_repeated(site: Api, key: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = send_key(site, key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert re.search(r'role="alert"><p class="problem">This is not the admin key</p>', answer.text)
    assert key not in answer.text + caplog.text
    assert '"event":"dashboard_login","outcome":"refused","why":"invalid_credentials"' in caplog.text


@pytest.mark.parametrize("content", [b"", b"key", b"key=", b"key=a&key=b", b"other=a", b"key=\xff", b"&" * 999])
def test_a_form_without_one_key_is_refused(site: Api, content: bytes) -> None:
    answer = site.post("/dashboard/login", content=content, headers={"Content-Type": FORM})
    assert answer.status_code in (400, 401)
    assert "Admin key" in answer.text


def test_the_key_is_taken_from_a_form_alone(site: Api) -> None:
    assert site.post("/dashboard/login", json={"key": KEY}).status_code == 415


def test_wrong_keys_are_throttled_by_address_and_lock_nobody_else_out(start: Start) -> None:
    site = start(admin_key=KEY, login_limits_user_address=parse_limits("3/1h"), trusted_proxies=1)
    assert [send_key(site, "wrong", X_Forwarded_For="192.0.2.1").status_code for _ in range(4)] == [401, 401, 401, 429]
    throttled = send_key(site, X_Forwarded_For="192.0.2.1")
    assert throttled.status_code == 429
    assert int(throttled.headers["retry-after"]) > 3_000
    assert "Too many login attempts" in throttled.text
    assert [send_key(site, X_Forwarded_For="192.0.2.2").status_code for _ in range(5)] == [303] * 5


FOREIGN: list[dict[str, str]] = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site", "Origin": "http://other.example"},
    {"Origin": "http://other.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_form_from_another_site_is_refused(site: Api, headers: dict[str, str]) -> None:
    answer = send_key(site, **headers)
    assert (answer.status_code, decoded(answer)["code"]) == (403, "foreign_form")
    assert "set-cookie" not in answer.headers


def test_a_form_of_our_own_is_taken(site: Api) -> None:
    assert send_key(site, Origin=site.url).status_code == 303
    assert send_key(site, Sec_Fetch_Site="same-origin").status_code == 303


PROXIES: list[tuple[dict[str, Any], dict[str, str], bool]] = [
    ({}, {"X_Forwarded_Proto": "https"}, False),
    ({"trusted_proxies": 1}, {"X_Forwarded_Proto": "https"}, True),
    ({"trusted_proxies": 1}, {"X_Forwarded_Proto": "https, http"}, False),
    ({"trusted_proxies": 1}, {}, False),
    ({"trusted_proxies": 1, "proxy_header": "Forwarded"}, {"Forwarded": "for=192.0.2.1;proto=https"}, True),
    ({"trusted_proxies": 1, "proxy_header": "Forwarded"}, {"X_Forwarded_Proto": "https"}, False),
]


@pytest.mark.parametrize(("changes", "headers", "secure"), PROXIES)
def test_the_cookie_is_secure_where_a_trusted_proxy_says_https(
    start: Start, changes: dict[str, Any], headers: dict[str, str], secure: bool
) -> None:
    answer = send_key(start(admin_key=KEY, **changes), **headers)
    assert answer.headers["set-cookie"].endswith("; Secure") is secure


def test_only_our_own_tickets_open_it(site: Api) -> None:
    stores = site.stores
    now_s, ours = time.time(), stores.admin
    ticket = ours.issue(now_s)
    end, rest, signature = ticket.split(".")
    forged = [
        "", "x", ticket[:-1], ticket + "0", f"{int(end) + 1}.{rest}.{signature}", f"{end}.{rest[::-1]}.{signature}",
        f"{end}.{rest}.{'0' * 64}", Admin(KEY[::-1], stores.accounts._throttle).issue(now_s),
        Admin("", stores.accounts._throttle).issue(now_s), ours.issue(now_s - TICKET_TTL_S - 1),
    ]  # fmt: skip
    for cookie in forged:
        headers = {"Cookie": f"gatehouse_dashboard={cookie}"}
        assert "Admin key" in site.get("/dashboard", headers=headers).text, cookie
        answer = site.get("/dashboard/events", headers=headers)
        assert (answer.status_code, decoded(answer)["code"]) == (401, "not_signed_in"), cookie
    assert ours.seconds_left(ticket, now_s) == pytest.approx(TICKET_TTL_S, abs=1)
    assert ours.seconds_left(ticket, now_s + TICKET_TTL_S) == 0


def test_pages_and_files_allow_nothing_but_our_own(site: Api) -> None:
    answers = [site.get("/dashboard"), signed_in(site, "/dashboard"), send_key(site, "wrong"), send_key(site)]
    answers += [site.get(f"/dashboard/{name}") for name in names()]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]
    for answer in answers[:2]:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son[a-z]+=|https?://", answer.text)


@pytest.mark.parametrize("name", names())
def test_files_have_their_type_and_are_asked_for_again_by_their_tag(site: Api, name: str) -> None:
    answer = site.get(f"/dashboard/{name}")
    kind = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    assert answer.headers["content-type"] == kind[name.rpartition(".")[2]]
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = site.get(f"/dashboard/{name}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert site.get(f"/dashboard/{name}", headers={"If-None-Match": '"other"'}).content == answer.content
    head = site.request("HEAD", f"/dashboard/{name}")
    assert (head.status_code, head.content, int(head.headers["content-length"])) == (200, b"", len(answer.content))


@pytest.mark.parametrize("path", ["index.html", "..%2fapp.py", "dashboard.css.map", "login.html", "events/x"])
def test_nothing_else_of_the_folder_is_served(site: Api, path: str) -> None:
    answer = site.get(f"/dashboard/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, JSON)
