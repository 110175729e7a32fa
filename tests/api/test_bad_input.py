"""Bad input is a 4xx in the error shape and leaves no trace; a forged token is refused without asking any store."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models.tokens import TOKEN_LENGTH, TokenSigner
from tests.api.conftest import JSON, PASSWORD, Api, decoded, is_problem, problem
from tests.dump import dump_stores, traffic

MALFORMED_TOKEN = problem("The token is not one of ours", "malformed_token")
NOT_HTTP = problem("The request is not valid HTTP", "invalid_request")
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"
USER_ID = 1
CONTROLS = {*range(32), 127} - {ord("\t")}
"""Characters that no field's value holds (RFC 9110, 5.5)."""

ATTEMPTS = b"gate:{login}:"
QUICK_S = 0.25
"""Of the processor, for client and server together; a password's hash, or JSON read in square time, takes longer."""


@pytest.fixture
def token(api: Api) -> str:
    """A live session's token: cached, with a call counted, so that both stores hold something to spoil."""
    token = api.start_session(USER_ID)
    assert api.get("/ping", token).status_code == 200
    return token


@pytest.fixture
def nothing_written(api: Api, token: str) -> Iterator[None]:
    before = api.run(dump_stores(api.settings))
    yield
    assert api.run(dump_stores(api.settings)) == before


@pytest.fixture
def only_the_attempt_written(api: Api, token: str) -> Iterator[None]:
    def dump() -> tuple[dict[bytes, Any], Any]:
        redis, postgres = api.run(dump_stores(api.settings))
        return {key: held for key, held in redis.items() if not key.startswith(ATTEMPTS)}, postgres

    before = dump()
    yield
    assert dump() == before


@pytest.fixture
def costs_nothing(api: Api, nothing_written: None) -> Iterator[None]:
    before = api.run(traffic(api.settings))
    yield
    assert api.run(traffic(api.settings)) == before


def _body(username: bytes = b'"ada"', password: bytes = b'"correct horse"', more: bytes = b"") -> bytes:
    return b'{"username":%s,"password":%s%s}' % (username, password, more)


LONG_LIGATURE = "\ufdfa" * 64  # each is 18 letters once it is normalized

BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n",
    "cut off": _body()[:-1],
    "followed by more": _body() + b"{}",
    "single quotes": _body().replace(b'"', b"'"),
    "a comment": b"/* */" + _body(),
    "a trailing comma": _body(more=b","),
    "a form": b"username=ada&password=correct+horse",
    "an empty object": b"{}",
    "an array": b"[]",
    "an array of the two": b'["ada","correct horse"]',
    "the object in an array": b"[%s]" % _body(),
    "null": b"null",
    "a number": b"1",
    "a text": b'"ada"',
    "true": b"true",
    "NaN": b"NaN",
    "NaN for a username": _body(b"NaN"),
    "Infinity for a password": _body(password=b"-Infinity"),
    "an endless number": _body(b"1e999999"),
    "a number of 5,000 digits": _body(b"9" * 5_000),
    "a number of 5,000 digits in an unknown field": _body(more=b',"more":' + b"9" * 5_000),
    "a fraction of 5,000 digits": _body(b"0." + b"9" * 5_000),
    "null for a username": _body(b"null"),
    "null for a password": _body(password=b"null"),
    "a number for a username": _body(b"1"),
    "a number for a password": _body(password=b"12345678"),
    "true for a username": _body(b"true"),
    "an array for a username": _body(b'["ada"]'),
    "an object for a password": _body(password=b'{"$ne":""}'),
    "no username": b'{"password":"correct horse"}',
    "no password": b'{"username":"ada"}',
    "two usernames": b'{"username":"eva","username":"ada","password":"correct horse"}',
    "two equal passwords": _body(more=b',"password":"correct horse"'),
    "two passwords, one of them escaped": _body(more=rb',"p\u0061ssword":"correct horse"'),
    "names in capitals": b'{"Username":"ada","Password":"correct horse"}',
    "an unknown field": _body(more=b',"admin":true'),
    "an empty username": _body(b'""'),
    "an empty password": _body(password=b'""'),
    "NUL in a username": _body(rb'"a\u0000da"'),
    "NUL in a password": _body(password=rb'"correct\u0000horse"'),
    "a bare NUL": _body(b'"a\0da"'),
    "a bare newline": _body(b'"a\nda"'),
    "NUL after the end": _body() + b"\0",
    "a high surrogate in a username": _body(rb'"\ud800"'),
    "a low surrogate in a username": _body(rb'"\udc00x"'),
    "a high surrogate in a password": _body(password=rb'"correct horse\ud83d"'),
    "surrogates in the wrong order": _body(password=rb'"correct horse\ude00\ud83d"'),
    "a surrogate as bytes": _body(b'"\xed\xa0\x80"'),
    "no UTF-8 in a username": _body(b'"\xff"'),
    "no UTF-8 in a password": _body(password=b'"correct horse\xc3"'),
    "NUL in an overlong form": _body(b'"a\xc0\x80"'),
    "Latin-1": _body('"zoë"'.encode("latin-1")),
    "UTF-16": _body().decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + _body(),
    "an unknown escape": _body(rb'"\x41"'),
    "a username of 65": _body(b'"%s"' % (b"a" * 65)),
    "a username that grows": _body(b'"%s"' % LONG_LIGATURE.encode()),
    "a password of 257": _body(password=b'"%s"' % (b"a" * 257)),
    "a username of 15000": _body(b'"%s"' % (b"a" * 15_000)),
    "a space before the username": _body(b'" ada"'),
    "a blank username": _body(b'"   "'),
    "a control character in the username": _body(rb'"a\u0007da"'),
    "a zero-width character in the username": _body(rb'"a\u200bda"'),
    "an unassigned character in the username": _body(rb'"a\u0378da"'),
    "deep arrays": b"[" * 16_000,
    "deep objects": b'{"a":' * 3_000,
    "deep arrays in a field": _body(b"[" * 8_000 + b"]" * 8_000),
    "deep objects in an unknown field": _body(more=b',"more":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000),
}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("case", BODIES)
def test_a_bad_body_gets_400_and_nothing_is_written(api: Api, case: str) -> None:
    for path in ("/signup", "/login"):
        started_at = time.process_time()
        answer = api.post(path, content=BODIES[case], headers={"Content-Type": JSON})
        assert time.process_time() - started_at < QUICK_S
        assert (answer.status_code, decoded(answer)["code"]) == (400, "invalid_request")
        assert is_problem(answer.status_code, answer.headers, answer.content)
        assert "correct horse" not in answer.text


@pytest.mark.usefixtures("nothing_written")
def test_json_a_hundred_thousand_deep_is_too_large(api: Api) -> None:
    for path in ("/signup", "/login"):
        answer = api.post(path, content=b"[" * 100_000, headers={"Content-Type": JSON})
        assert (answer.status_code, decoded(answer)["code"]) == (413, "payload_too_large")


@pytest.mark.usefixtures("only_the_attempt_written")
@pytest.mark.parametrize(
    "username", ["'; DROP TABLE users; --", "$1", "*\r\n$1", "%00", "{0}", "\\", "a" * 64, "😀" * 64]
)
def test_a_strange_unknown_user_is_just_unknown(api: Api, username: str) -> None:
    """Valid as far as it is checked, or not: never a fault, never a session."""
    answer = api.post("/login", json={"username": username, "password": PASSWORD})
    assert answer.status_code == (400 if "\r" in username else 401)


@pytest.mark.parametrize("length", [1, 64])
def test_names_and_passwords_up_to_the_limits_are_taken(api: Api, length: int) -> None:
    name, password = "ñ" * length, "😀" * 256
    assert api.post("/signup", json={"username": name, "password": password}).status_code == 201
    assert api.post("/login", json={"username": name, "password": password}).status_code == 200
    assert api.post("/login", json={"username": name, "password": password[:-1] + "x"}).status_code == 401


def test_no_flipped_bit_of_a_token_is_let_in(api: Api, token: str, costs_nothing: None) -> None:
    """All 768 of them, as bytes on a connection, because many are no character that a client would send."""
    for place in range(len(token)):
        for bit in range(8):
            forged = bytearray(token.encode())
            forged[place] ^= 1 << bit
            status, headers, body = api.raw(PING % bytes(forged))
            if forged[place] in CONTROLS:
                assert (status, body) == (400, NOT_HTTP), (place, bit)
                continue
            assert (status, body) == (401, MALFORMED_TOKEN), (place, bit)
            assert headers["www-authenticate"] == 'Bearer error="invalid_token"'


def _with_expiry(api: Api, after_ms: int) -> str:
    return TokenSigner(api.settings.secret_keys).sign(USER_ID, 1, int(time.time() * 1000) + after_ms, bytes(30))


def _foreign(api: Api) -> str:
    return TokenSigner(["another key " * 4]).sign(USER_ID, 1, int(time.time() * 1000) + 60_000, bytes(30))


def _foreign_with_our_key_id(api: Api) -> str:
    """Signed with another key, but naming ours."""
    ours, theirs = (urlsafe_b64decode(made(api)) for made in (lambda api: _with_expiry(api, 60_000), _foreign))
    return urlsafe_b64encode(ours[:2] + theirs[2:]).decode()


def _for_another_user(api: Api) -> str:
    raw = bytearray(urlsafe_b64decode(_with_expiry(api, 60_000)))
    raw[9] += 1
    return urlsafe_b64encode(raw).decode()


FORGED: dict[str, Callable[[Api, str], str]] = {
    "short": lambda api, token: "x",
    "cut at the end": lambda api, token: token[:-1],
    "cut at the start": lambda api, token: token[1:],
    "half": lambda api, token: token[: TOKEN_LENGTH // 2],
    "extended": lambda api, token: token + "A",
    "padded": lambda api, token: token + "=",
    "twice": lambda api, token: token + token,
    "two": lambda api, token: f"{token} {token}",
    "a list": lambda api, token: f"{token},{token}",
    "quoted": lambda api, token: f'"{token}"',
    "spaced": lambda api, token: token[:48] + " " + token[48:],
    "of zeros": lambda api, token: "A" * TOKEN_LENGTH,
    "reversed": lambda api, token: token[::-1],
    "in capitals": lambda api, token: token.upper(),
    "in percent code": lambda api, token: token + "%41",
    "very long": lambda api, token: "A" * 4_000,
    "foreign": lambda api, token: _foreign(api),
    "foreign with our key's id": lambda api, token: _foreign_with_our_key_id(api),
    "for another user": lambda api, token: _for_another_user(api),
    "unsigned": lambda api, token: urlsafe_b64encode(urlsafe_b64decode(token)[:-16] + bytes(16)).decode(),
    "a JWT": lambda api, token: "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
}

ROUTES = [("GET", "/ping"), ("GET", "/session"), ("POST", "/logout")]


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_token_costs_nothing(api: Api, token: str, costs_nothing: None, case: str) -> None:
    for method, path in ROUTES:
        answer = api.request(method, path, FORGED[case](api, token))
        assert (answer.status_code, answer.content) == (401, MALFORMED_TOKEN)


@pytest.mark.parametrize("after_ms", [0, -1, -86_400_000])
def test_an_expired_token_costs_nothing(api: Api, costs_nothing: None, after_ms: int) -> None:
    for method, path in ROUTES:
        answer = api.request(method, path, _with_expiry(api, after_ms))
        assert (answer.status_code, decoded(answer)["code"]) == (401, "session_expired")


HEADERS: dict[str, Callable[[str, str], list[tuple[str, str]]]] = {
    "a good one twice": lambda good, bad: [("Authorization", f"Bearer {good}")] * 2,
    "a good and a bad one": lambda good, bad: [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {bad}")],
    "a bad and a good one": lambda good, bad: [("authorization", f"Bearer {bad}"), ("AUTHORIZATION", f"Bearer {good}")],
    "a good one and Basic": lambda good, bad: [("Authorization", f"Bearer {good}"), ("Authorization", "Basic eDp5")],
    "a good and an empty one": lambda good, bad: [("Authorization", f"Bearer {good}"), ("Authorization", "")],
    "another scheme": lambda good, bad: [("Authorization", f"Token {good}")],
    "Basic": lambda good, bad: [("Authorization", f"Basic {good}")],
    "a bare value": lambda good, bad: [("Authorization", good)],
    "a colon": lambda good, bad: [("Authorization", f"Bearer: {good}")],
    "a tab": lambda good, bad: [("Authorization", f"Bearer\t{good}")],
    "an equals sign": lambda good, bad: [("Authorization", f"Bearer={good}")],
    "the scheme alone": lambda good, bad: [("Authorization", "Bearer")],
    "an empty header": lambda good, bad: [("Authorization", "")],
    "another header": lambda good, bad: [
        ("X-Authorization", f"Bearer {good}"),
        ("Proxy-Authorization", f"Bearer {good}"),
    ],
    "a cookie": lambda good, bad: [("Cookie", f"token={good}; sessionToken={good}; Authorization=Bearer {good}")],
}


@pytest.mark.parametrize("case", HEADERS)
def test_only_one_bearer_header_is_taken(api: Api, token: str, costs_nothing: None, case: str) -> None:
    for method, path in ROUTES:
        answer = api.request(method, path, headers=HEADERS[case](token, token[::-1]))
        assert answer.status_code == 401
        assert decoded(answer)["code"] in ("missing_token", "malformed_token")
        assert is_problem(answer.status_code, answer.headers, answer.content)


def test_a_token_in_query_or_body_is_no_token(api: Api, token: str, costs_nothing: None) -> None:
    query = f"?access_token={token}&sessionToken={token}&authorization=Bearer%20{token}"
    for method, path in ROUTES:
        for encoding in ("json", "data"):
            given: dict[str, Any] = {encoding: {"sessionToken": token, "access_token": token}}
            answer = api.request(method, path + query, **given)
            assert (answer.status_code, decoded(answer)["code"]) == (401, "missing_token")


def test_the_traffic_of_a_valid_token_is_seen(api: Api, token: str) -> None:
    """So that the tests above can fail: an admitted or refused call shows in Redis, a forgotten session in both."""
    seen = [api.run(traffic(api.settings))]
    assert api.get("/ping", token).status_code == 429
    seen.append(api.run(traffic(api.settings)))
    assert seen[1][0] != seen[0][0]
    assert seen[1][1] == seen[0][1]
    api.forget_cache()
    assert api.get("/ping", token).status_code == 200
    seen.append(api.run(traffic(api.settings)))
    assert seen[2][1] != seen[1][1]
