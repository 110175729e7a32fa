"""The gate on the wire (design, section 1): admitted and refused calls, the limits' headers, the Bearer header."""

import time

import pytest

from models.policies import parse_policies
from tests.api.conftest import JSON, Api, Start, decoded, problem

RATE_LIMITED = problem("Rate limit exceeded", "rate_limited")
POLICY = '"default";q=1;w=5'


def test_an_admitted_ping_answers_an_empty_object_and_where_the_limit_stands(api: Api) -> None:
    answer = api.get("/ping", api.start_session(1))
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (JSON, "no-store")
    assert (answer.headers["ratelimit-policy"], answer.headers["ratelimit"]) == (POLICY, '"default";r=0;t=5')
    assert "retry-after" not in answer.headers


def test_a_refused_ping_answers_429_and_when_to_come_back(api: Api) -> None:
    token = api.start_session(1)
    api.get("/ping", token)
    api.let_pass(1, 2)
    answer = api.get("/ping", token)
    assert (answer.status_code, answer.content) == (429, RATE_LIMITED)
    assert (answer.headers["ratelimit-policy"], answer.headers["ratelimit"]) == (POLICY, '"default";r=0;t=3')
    assert (answer.headers["retry-after"], answer.headers["content-type"]) == ("3", JSON)


def test_refused_calls_are_free(api: Api) -> None:
    """However often a user is refused, neither the wait nor the counters change."""
    token = api.start_session(1)
    assert [api.get("/ping", token).status_code for _ in range(4)] == [200, 429, 429, 429]
    assert decoded(api.get("/top")) == {"topUsersCallingAPIAllTime": ["CallingPingAPI userID:1 called 1 times"]}
    api.let_pass(1, 5)
    assert api.get("/ping", token).status_code == 200


def test_of_simultaneous_calls_only_the_quota_is_admitted(api: Api) -> None:
    token = api.start_session(1)
    answers = api.at_once([("GET", "/ping", {"headers": {"Authorization": f"Bearer {token}"}})] * 30)
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 29


def test_the_limit_is_the_users_not_the_sessions(api: Api) -> None:
    """A new login buys no calls, and one user's calls cost another nothing."""
    api.sign_up("ada")
    assert api.get("/ping", api.log_in("ada")).status_code == 200
    assert api.get("/ping", api.log_in("ada")).status_code == 429
    assert api.get("/ping", api.start_session(900)).status_code == 200


@pytest.mark.parametrize("passed_s", [0, 0.001, 0.5, 0.9, 1, 1.0001, 2, 2.5, 3.2, 3.99, 4.001, 4.5, 4.9])
def test_whoever_waits_as_long_as_retry_after_says_is_admitted(api: Api, passed_s: float) -> None:
    token = api.start_session(1)
    api.get("/ping", token)
    api.let_pass(1, passed_s)
    answer = api.get("/ping", token)
    wait_s = int(answer.headers["retry-after"])
    assert answer.status_code == 429
    assert wait_s - 1 <= 5 - passed_s <= wait_s + 1  # a second for the calls themselves
    api.let_pass(1, wait_s)
    assert api.get("/ping", token).status_code == 200


def test_retry_after_holds_on_the_real_clock(start: Start) -> None:
    api = start(rate_limits=parse_policies("1/1s"))
    token = api.start_session(1)
    assert api.get("/ping", token).status_code == 200
    refused = api.get("/ping", token)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    waited_at = time.monotonic() + 1
    asked_at = time.monotonic()
    while api.get("/ping", token).status_code == 429:
        assert asked_at < waited_at
        asked_at = time.monotonic()


def test_several_limits_are_checked_all_or_nothing(start: Start) -> None:
    """`1/5s, 2/60s`: what the second limit refuses does not use up the first."""
    api = start(rate_limits=parse_policies("1/5s, 2/60s"))
    token = api.start_session(1)

    def ping_after(passed_s: float) -> tuple[int, str, str | None]:
        api.let_pass(1, passed_s)
        answer = api.get("/ping", token)
        assert answer.headers["ratelimit-policy"] == '"default";q=1;w=5, "default-2";q=2;w=60'
        assert answer.status_code == 200 or answer.content == RATE_LIMITED
        return answer.status_code, answer.headers["ratelimit"], answer.headers.get("retry-after")

    # Whole seconds pass, so that the calls themselves may take almost one more before a rounded time changes.
    assert ping_after(0) == (200, '"default";r=0;t=5, "default-2";r=1;t=60', None)
    assert ping_after(2) == (429, '"default";r=0;t=3, "default-2";r=1;t=58', "3")
    assert ping_after(3) == (200, '"default";r=0;t=5, "default-2";r=0;t=55', None)
    assert ping_after(2) == (429, '"default";r=0;t=3, "default-2";r=0;t=53', "53")
    assert ping_after(10) == (429, '"default";r=1;t=5, "default-2";r=0;t=43', "43")
    assert ping_after(42) == (429, '"default";r=1;t=5, "default-2";r=0;t=1', "1")
    assert ping_after(1) == (200, '"default";r=0;t=5, "default-2";r=0;t=5', None)
    assert ping_after(4) == (429, '"default";r=0;t=1, "default-2";r=0;t=1', "1")
    assert ping_after(1) == (200, '"default";r=0;t=5, "default-2";r=0;t=55', None)
    assert decoded(api.get("/top"))["topUsersCallingAPIAllTime"] == ["CallingPingAPI userID:1 called 4 times"]


def test_the_simulated_delay_is_waited(start: Start) -> None:
    api = start(ping_delay_ms=300)
    token = api.start_session(1)
    started_at = time.perf_counter()
    assert api.get("/ping", token).content == b"{}"
    assert time.perf_counter() - started_at >= 0.3
    started_at = time.perf_counter()
    assert api.get("/ping", token).status_code == 429
    assert time.perf_counter() - started_at < 0.3


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_case_insensitive(api: Api, scheme: str) -> None:
    answer = api.get("/session", headers={"Authorization": f"{scheme} {api.start_session(1)}"})
    assert answer.status_code == 200


def test_rotated_keys_log_nobody_out(api: Api, start: Start) -> None:
    """The first key signs, all verify; a key that was dropped opens nothing any more."""
    old = api.settings.secret_keys
    token = api.start_session(1)
    rotated = start(secret_keys=("n3w-" * 8 + "0123456789abcdef", *old))
    assert rotated.get("/session", token).status_code == 200
    newer = rotated.run(rotated.stores.sessions.start(1))
    assert decoded(api.get("/session", newer))["code"] == "malformed_token"
    assert rotated.get("/session", newer).status_code == 200
