"""The contract (design, section 1) on the wire: accounts, sessions, usage and health, byte for byte."""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import bcrypt
import pytest

from models.policies import parse_policies
from models.tokens import TokenSigner
from tests.api.conftest import JSON, PASSWORD, Api, Start, decoded, problem

INVALID_CREDENTIALS = problem("Invalid credentials", "invalid_credentials")


def test_sign_up_answers_201_and_an_empty_object(api: Api) -> None:
    answer = api.post("/signup", json={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.content) == (201, b"{}")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (JSON, "no-store")


@pytest.mark.parametrize("again", ["ada", "ADA", "\uff21da"])
def test_a_username_is_taken_in_any_case_and_width(api: Api, again: str) -> None:
    api.sign_up("ada")
    answer = api.post("/signup", json={"username": again, "password": PASSWORD})
    assert (answer.status_code, answer.content) == (409, problem("Username already exists", "username_taken"))
    assert answer.headers["content-type"] == JSON


def test_of_ten_simultaneous_sign_ups_of_one_name_one_succeeds(api: Api) -> None:
    credentials = {"username": "ada", "password": PASSWORD}
    answers = api.at_once([("POST", "/signup", {"json": credentials})] * 10)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


def test_sign_up_can_be_off(start: Start) -> None:
    closed = start(signup=False)
    answer = closed.post("/signup", json={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.content) == (403, problem("Sign-up is switched off here", "signup_disabled"))
    assert closed.sql("SELECT id FROM users") == []


def test_sign_up_wants_the_password_length_that_is_set(api: Api, start: Start) -> None:
    answer = api.post("/signup", json={"username": "ada", "password": "1234567"})
    assert answer.content == problem("A password needs at least 8 characters", "invalid_request")
    assert answer.status_code == 400
    assert api.post("/signup", json={"username": "ada", "password": "12345678"}).status_code == 201
    lax = start(password_min_length=1)
    assert lax.post("/signup", json={"username": "eva", "password": "1"}).status_code == 201


def test_login_answers_with_a_message_and_a_token(api: Api) -> None:
    api.sign_up("ada")
    answer = api.post("/login", json={"username": "Ada", "password": PASSWORD})
    assert answer.status_code == 200
    assert re.fullmatch(rb'\{"message":"Login successful","sessionToken":"[A-Za-z0-9_-]{96}"\}', answer.content)
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (JSON, "no-store")


def test_unknown_user_wrong_password_and_disabled_user_get_the_same_answer(api: Api) -> None:
    api.sign_up("ada")
    api.sign_up("eva")
    api.sql("UPDATE users SET disabled_at = now() WHERE username = 'eva'")
    tries = [("nobody", PASSWORD), ("ada", PASSWORD + "!"), ("eva", PASSWORD), ("eva", PASSWORD + "!")]
    answers = [api.post("/login", json={"username": name, "password": password}) for name, password in tries]
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, INVALID_CREDENTIALS)}
    heads = ({name: said for name, said in answer.headers.items() if name != "x-request-id"} for answer in answers)
    assert len({tuple(sorted(head.items())) for head in heads}) == 1
    assert api.sql("SELECT user_id FROM sessions") == []


def test_a_newer_login_replaces_the_session(api: Api) -> None:
    api.sign_up("ada")
    older, newer = api.log_in("ada"), api.log_in("ada")
    assert api.get("/ping", older).content == problem("The session was replaced by a newer login", "session_replaced")
    assert api.get("/ping", newer).status_code == 200
    assert len(api.sql("SELECT user_id FROM sessions")) == 1


def test_a_bcrypt_user_of_the_go_service_logs_in_and_gets_an_argon2id_hash(api: Api) -> None:
    old_hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10, prefix=b"2a")).decode()
    assert old_hash.startswith("$2a$10$")
    api.sign_up("ada")
    api.sql("UPDATE users SET password_hash = $1", old_hash)
    wrong = api.post("/login", json={"username": "ada", "password": PASSWORD + "!"})
    assert (wrong.status_code, wrong.content) == (401, INVALID_CREDENTIALS)
    assert api.sql("SELECT password_hash FROM users")[0][0] == old_hash
    api.log_in("ada")
    assert api.sql("SELECT password_hash FROM users")[0][0].startswith("$argon2id$")
    api.log_in("ada")


def test_logout_answers_204_once(api: Api) -> None:
    token = api.start_session(1)
    answer = api.post("/logout", token)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    again = api.post("/logout", token)
    assert (again.status_code, decoded(again)["code"]) == (401, "session_revoked")


def test_session_tells_whose_and_until_when_without_limit_or_count(api: Api) -> None:
    user_id = api.sign_up("Ada")
    token = api.log_in("ada")
    answers = [api.get("/session", token) for _ in range(5)]
    assert len({answer.content for answer in answers}) == 1
    at = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"
    shape = rf'\{{"userId":{user_id},"username":"Ada","createdAt":"{at}","expiresAt":"{at}"\}}'
    match = re.fullmatch(shape, answers[0].text)
    assert match is not None
    assert answers[0].status_code == 200
    created_at, expires_at = (datetime.fromisoformat(text) for text in match.groups())
    assert abs(expires_at - created_at - timedelta(seconds=1800)) < timedelta(milliseconds=50)
    assert "ratelimit" not in answers[0].headers
    assert decoded(api.get("/count")) == {"estimatedCount": 0}


# Ties whose order differs as text and as numbers: over several buckets, and of twelve users in one.
MIXED = {7: 2, 71: 2, 711_543: 2, 9: 1, 10: 1, 99: 1, 100: 1, 1_000: 1, 12_345: 4, 64: 3, 128: 3, 8: 1, 11: 1}
ONE_BUCKET = dict.fromkeys((7 + 64 * number for number in (16, 15, *range(10))), 1)


@pytest.mark.parametrize("calls", [MIXED, ONE_BUCKET])
def test_top_is_ten_at_most_most_calls_first_ties_by_lower_id(start: Start, calls: dict[int, int]) -> None:
    api = start(rate_limits=parse_policies("1000/1s"))
    assert api.get("/top").content == b'{"topUsersCallingAPIAllTime":[]}'
    for user_id, count in calls.items():
        token = api.start_session(user_id)
        for _ in range(count):
            assert api.get("/ping", token).status_code == 200
    best = sorted(calls.items(), key=lambda item: (-item[1], item[0]))[:10]
    lines = ",".join(f'"CallingPingAPI userID:{user_id} called {count} times"' for user_id, count in best)
    answer = api.get("/top")
    assert (answer.status_code, answer.text) == (200, f'{{"topUsersCallingAPIAllTime":[{lines}]}}')


def test_count_is_the_number_of_different_callers(api: Api) -> None:
    assert api.get("/count").content == b'{"estimatedCount":0}'
    for user_id in range(1, 151):
        token = api.start_session(user_id)
        assert api.get("/ping", token).status_code == 200
        assert user_id > 3 or api.get("/ping", token).status_code == 429
    answer = api.get("/count")
    assert (answer.status_code, answer.content) == (200, b'{"estimatedCount":150}')
    assert answer.headers["content-type"] == JSON


Ended = Callable[[Api], str | None]


def _signer(api: Api) -> TokenSigner:
    return TokenSigner(api.settings.secret_keys)


def _expired(api: Api) -> str:
    return _signer(api).sign(1, 1, int(time.time() * 1000) - 1, bytes(30))


def _replaced(api: Api) -> str:
    token = api.start_session(1)
    api.run(api.stores.sessions.start(1))
    return token


def _revoked(api: Api) -> str:
    token = api.start_session(1)
    assert api.post("/logout", token).status_code == 204
    return token


def _never_issued(api: Api) -> str:
    claims = _signer(api).verify(api.start_session(1))
    assert claims is not None
    return _signer(api).sign(1, claims.version, claims.expires_ms, bytes(30))


def _deleted(api: Api) -> str:
    token = api.start_session(1)
    api.sql("DELETE FROM sessions")
    api.forget_cache()
    return token


def _uncached(ended: Ended) -> Ended:
    def then_forgotten(api: Api) -> str | None:
        token = ended(api)
        api.forget_cache()
        return token

    return then_forgotten


ENDED: dict[str, tuple[Ended, str]] = {
    "no header": (lambda api: None, "missing_token"),
    "not one of ours": (lambda api: "x" * 96, "malformed_token"),
    "expired": (_expired, "session_expired"),
    "replaced": (_replaced, "session_replaced"),
    "replaced, by PostgreSQL": (_uncached(_replaced), "session_replaced"),
    "revoked": (_revoked, "session_revoked"),
    "revoked, by PostgreSQL": (_uncached(_revoked), "session_revoked"),
    "signed but never issued": (_never_issued, "session_unknown"),
    "signed but never issued, by PostgreSQL": (_uncached(_never_issued), "session_unknown"),
    "deleted": (_deleted, "session_unknown"),
}


@pytest.mark.parametrize(("method", "path"), [("GET", "/ping"), ("GET", "/session"), ("POST", "/logout")])
@pytest.mark.parametrize("case", ENDED)
def test_a_401_says_why(api: Api, method: str, path: str, case: str) -> None:
    ended, code = ENDED[case]
    token = ended(api)
    for _ in range(2):  # the second time it is cached
        answer = api.request(method, path, token)
        assert (answer.status_code, set(decoded(answer)), decoded(answer)["code"]) == (401, {"error", "code"}, code)
        challenge = "Bearer" if token is None else 'Bearer error="invalid_token"'
        assert (answer.headers["www-authenticate"], answer.headers["content-type"]) == (challenge, JSON)


def test_a_session_ends_by_itself(start: Start) -> None:
    api = start(session_ttl_s=1, rate_limits=parse_policies("10000/1s"))
    token = api.start_session(1)
    started_at = time.monotonic()
    while (answer := api.get("/ping", token)).status_code == 200:
        assert time.monotonic() < started_at + 5
    assert (answer.status_code, decoded(answer)["code"]) == (401, "session_expired")
    api.forget_cache()
    assert decoded(api.get("/session", token))["code"] == "session_expired"
