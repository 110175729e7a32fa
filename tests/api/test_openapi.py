"""The OpenAPI document: valid, of exactly the routes that there are, and true for real answers of every status."""

import copy
import re
import tomllib
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from api.errors import REFUSALS, STATUS
from api.gate import WHY
from api.openapi import VERSION, document
from api.routes.verify import METHODS
from api.viewer import SCRIPT
from models.credentials import check_username
from models.errors import InvalidInput
from models.limits import parse_limits
from models.policies import parse_policies
from models.settings import Settings
from models.tokens import TokenSigner
from tests.api.conftest import JSON, PASSWORD, Api, Start, decoded
from tests.api.openapi_rules import Json, codes, invalid, operations, parts, response_of, unlike_the_routes, untrue
from tests.api.test_answers import SITUATIONS

EVERYWHERE = {"invalid_request", "incomplete_request", "request_timeout", "payload_too_large", "uri_too_long"} | {
    "expectation_failed", "headers_too_large", "internal_error", "unavailable"
}  # fmt: skip
CODES: dict[str, set[str]] = {
    "POST /signup": {"signup_disabled", "username_taken", "unsupported_media_type", "overloaded", "store_unavailable"},
    "POST /login": {"invalid_credentials", "login_throttled", "unsupported_media_type", "overloaded"}
    | {"store_unavailable"},
    "POST /logout": {*WHY, "store_unavailable"},
    "GET /session": {*WHY, "store_unavailable"},
    "GET /ping": {*WHY, "rate_limited", "store_unavailable"},
    "GET /top": {"store_unavailable"},
    "GET /count": {"store_unavailable"},
    "GET /health/live": set(),
    "GET /health/ready": {"not_ready", "store_unavailable"},
    "GET /openapi.json": set(),
    "GET /metrics": {"metrics_key_required"},
    "GET /docs": set(),
    f"GET /docs/{SCRIPT}": set(),
    **{f"{method} /verify": {*WHY, "rate_limited", "store_unavailable", "unknown_policy"} for method in METHODS},
}
"""Route → the codes that it can answer, besides those that every route can."""


@pytest.fixture(scope="module")
def described(settings: Settings) -> Json:
    return document(settings)


def unlike_the_codes(described: Json) -> set[str]:
    """Route and code that only one of the document and the list above has."""
    listed = {f"{route} {code}" for route, found in CODES.items() for code in found | EVERYWHERE}
    return listed ^ {
        f"{route} {code}" for route, operation in operations(described).items() for code in codes(described, operation)
    }


def test_the_document_is_valid(described: Json) -> None:
    assert invalid(described) == []


def test_it_is_served_as_it_is(api: Api) -> None:
    answer = api.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    assert decoded(answer) == document(api.settings)


def test_it_has_the_routes_that_there_are(api: Api, described: Json) -> None:
    assert unlike_the_routes(described, api._app) == set()


def test_every_error_is_described_where_it_can_occur(described: Json) -> None:
    assert unlike_the_codes(described) == set()
    anywhere = {code for part in parts(described["components"]["responses"]) for code in part.get("enum", [])}
    ours = {kind.code for kind in STATUS} | {code for _, code in REFUSALS.values()} | {*WHY}
    ours |= {"rate_limited", "not_ready", "internal_error", "incomplete_request", "metrics_key_required"}
    assert ours == anywhere


def _without(*names: str) -> Callable[[Json], None]:
    """Leaves out what these names lead to."""

    def leave_out(described: Json) -> None:
        *before, last = names
        for name in before:
            described = described[name]
        del described[last]

    return leave_out


def _two_pings(described: Json) -> None:
    described["paths"]["/top"]["get"]["operationId"] = "ping"


def _another_example(described: Json) -> None:
    content = described["paths"]["/count"]["get"]["responses"]["200"]["content"]["application/json"]
    content["examples"]["Count"]["value"] = {"count": 1}


BROKEN: list[tuple[Callable[[Json], None], str]] = [
    (_without("info"), "no OpenAPI"),
    (_without("components", "responses", "Fault"), "refers to nothing"),
    (_two_pings, "ping is the name of two"),
    (_another_example, "{'count': 1} is no example"),
    (_without("paths", "/top"), "GET /top"),
    (_without("paths", "/login", "post", "responses", "429"), "POST /login login_throttled"),
    (_without("paths", "/count", "get", "responses", "503"), "GET /count store_unavailable"),
]


@pytest.mark.parametrize(("break_", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_each_rule_can_fail(api: Api, described: Json, break_: Callable[[Json], None], said: str) -> None:
    broken = copy.deepcopy(described)
    break_(broken)
    found = invalid(broken)
    if not found:
        found = [*unlike_the_routes(broken, api._app), *unlike_the_codes(broken)]
    assert said in " ".join(found)


WHERE = {
    200: "GET /top",
    201: "POST /signup",
    204: "POST /logout",
    400: "POST /login",
    401: "GET /session",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "POST /login",
    414: "GET /top",
    415: "POST /login",
    417: "GET /health/live",
    431: "GET /health/live",
}


@pytest.mark.parametrize("status", SITUATIONS)
def test_answers_are_as_described(api: Api, described: Json, status: int) -> None:
    found, headers, body = api.raw(SITUATIONS[status](api))
    response = response_of(described, WHERE[status], status)
    assert (found, untrue(described, response, headers, body)) == (status, [])
    # And what is not as described is seen.
    assert untrue(described, response, headers | {"x-new": "1"}, body) == ["x-new is not described"]
    assert untrue(described, response, headers | {"cache-control": "public"}, body) == ["cache-control: 'public'"]
    assert untrue(described, response, headers | {"content-type": "text/html"}, body)
    if headers.get("content-type") == JSON:
        assert untrue(described, response, headers, b"[]")


def check(described: Json, answer: httpx.Response, where: str, status: int) -> None:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert answer.status_code == status
    assert untrue(described, response_of(described, where, status), headers, answer.content) == []


def test_refusals_of_accounts_are_as_described(api: Api, start: Start, described: Json) -> None:
    ada, wrong = {"username": "ada", "password": PASSWORD}, {"username": "ada", "password": "wrong"}
    check(described, api.post("/signup", json=ada), "POST /signup", 201)
    check(described, api.post("/signup", json=ada), "POST /signup", 409)
    check(described, api.post("/login", json=wrong), "POST /login", 401)
    check(described, api.post("/login", json=ada), "POST /login", 200)
    closed = start(signup=False, login_limits_user_address=parse_limits("1/1h"))
    check(described, closed.post("/signup", json=ada), "POST /signup", 403)
    closed.post("/login", json=wrong)
    check(described, closed.post("/login", json=wrong), "POST /login", 429)


def test_answers_to_a_token_are_as_described(api: Api, start: Start, described: Json) -> None:
    limited = start(rate_limits=parse_policies("1/5s, 10/1h"))
    api.sign_up("ada")
    token = api.log_in("ada")
    for server in (api, limited):
        check(described, server.get("/ping", token), "GET /ping", 200 if server is api else 429)
        check(described, server.get("/ping", token), "GET /ping", 429)
    check(described, api.get("/session", token), "GET /session", 200)
    check(described, api.post("/logout", token), "POST /logout", 204)
    for code in ("session_revoked", "malformed_token"):
        answer = api.get("/ping", token if code == "session_revoked" else "x")
        check(described, answer, "GET /ping", 401)
        assert decoded(answer)["code"] == code


@pytest.mark.parametrize("window", ["hour", "day", "all"])
def test_answers_about_a_window_are_as_described(api: Api, described: Json, window: str) -> None:
    token = api.start_session(1)
    assert api.get("/ping", token).status_code == 200
    check(described, api.get(f"/top?window={window}"), "GET /top", 200)
    check(described, api.get(f"/count?window={window}"), "GET /count", 200)
    assert decoded(api.get(f"/top?window={window}")) == {"window": window, "users": [{"userId": 1, "calls": 1}]}
    for wrong in ("window=week", "window=hour&window=hour"):
        check(described, api.get(f"/top?{wrong}"), "GET /top", 400)
        check(described, api.get(f"/count?{wrong}"), "GET /count", 400)


def test_answers_by_named_limits_are_as_described(start: Start) -> None:
    api = start(
        rate_limits=parse_policies("1/1h; search=2/1m, 9/1h; shadow:strict=1/1h"), policy_header="X-Gate-Policy"
    )
    described = document(api.settings)
    assert invalid(described) == []
    parameters = {it["name"]: it for it in described["paths"]["/verify"]["parameters"] if "name" in it}
    assert set(parameters) == {"dialect", "policy", "X-Gate-Policy"}
    assert parameters["policy"]["schema"]["items"] == {"enum": ["default", "search", "strict"]}
    token = api.start_session(1)
    for query, status in [
        ("policy=search,strict", 200),
        ("policy=strict", 200),  # which only a shadow judges: no limit is told
        ("policy=search", 200),
        ("policy=search", 429),
        ("policy=nobody", 400),
        ("policy=search,search", 400),
        ("policy=search&dialect=nginx", 403),
        ("policy=nobody&dialect=nginx", 403),
    ]:
        check(described, api.get(f"/verify?{query}", token), "GET /verify", status)
    answer = api.get("/verify", token, headers={"X-Gate-Policy": "nobody"})
    check(described, answer, "GET /verify", 400)
    assert decoded(answer)["code"] == "unknown_policy"
    check(described, api.get("/ping", token), "GET /ping", 200)


def test_a_shadow_tells_no_limits(start: Start) -> None:
    api = start(rate_limits=parse_policies("shadow:default=1/1h"))
    check(document(api.settings), api.get("/ping", api.start_session(1)), "GET /ping", 200)


def test_without_the_page_for_people_the_document_has_none(start: Start) -> None:
    api = start(docs=False)
    assert api.get("/docs").status_code == 404
    assert unlike_the_routes(document(api.settings), api._app) == set()


def test_answers_without_stores_are_as_described(start: Start, described: Json) -> None:
    alone = start(redis_url="redis://127.0.0.1:1/0", database_url="postgres://app@127.0.0.1:1/gatehouse")
    token = TokenSigner(alone.settings.secret_keys).sign(1, 1, 2**42, bytes(30))
    for route in CODES:
        method, path = route.split(" ")
        body = {"json": {"username": "ada", "password": PASSWORD}} if path in ("/login", "/signup") else {}
        open_to_all = path in ("/health/live", "/openapi.json") or path.startswith("/docs")
        status = 401 if path == "/metrics" else 200 if open_to_all else 503
        check(described, alone.request(method, path, token, **body), route, status)


def test_the_password_length_is_the_one_that_is_set(settings: Settings) -> None:
    made = document(replace(settings, password_min_length=12))["components"]["schemas"]
    assert made["NewAccount"]["properties"]["password"]["minLength"] == 12
    assert made["Credentials"]["properties"]["password"]["minLength"] == 1


def test_the_pattern_of_usernames_is_the_rule(described: Json) -> None:
    """For every character that Unicode knows and has not left to private use."""
    pattern = re.compile(described["components"]["schemas"]["Credentials"]["properties"]["username"]["pattern"])
    for letter in filter(lambda it: unicodedata.category(it) not in ("Cn", "Co", "Cs"), map(chr, range(0xE1000))):
        for name in (letter, f"a{letter}b", f"a{letter}"):
            assert bool(pattern.fullmatch(name)) == _is_username(name), ascii(name)


def _is_username(name: str) -> bool:
    try:
        check_username(name)
    except InvalidInput:
        return False
    return True


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
