"""The parsers that meet text of others, each with what must hold for any bytes at all.

A target takes bytes, gives them to a parser, and raises WrongError, or what the parser raised, if that does not hold.
What is right is said a second time here, in other words than the parser's.
"""

import hmac
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
from redis.asyncio.connection import parse_url
from sanic.compat import Header
from sanic.exceptions import SanicException

from api import bodies, gate, heads
from api.requests import IdentifiedRequest
from models import limits, postgres_target, settings, tokens
from models.errors import InvalidInput, SettingsError
from models.postgres_target import parse_postgres

KEYS = "k9Zr3mQx7Lw2Vt5Ny8Bc1Hd4Jf6Gs0Pa", "Qa1Ws2Ed3Rf4Tg5Yh6Uj7Ik8Ol9Pz0Xc"
_SIGNER = tokens.TokenSigner(KEYS)
_TOKENS = tuple(
    tokens.TokenSigner([key]).sign(
        user_id, 1 + user_id, 1_900_000_000_000 + user_id, bytes(range(user_id, user_id + 30))
    )
    for user_id, key in enumerate(KEYS, start=1)
)
_SECRET = "s3cr3t-0f-0urs"


class WrongError(Exception):
    """Something does not hold."""


def hold(condition: bool, otherwise: object) -> None:
    """Raise unless something holds."""
    if not condition:
        raise WrongError(otherwise)


class Target(NamedTuple):
    """A parser to be tried.

    Args:
        check: raises if something does not hold.
        seeds: what to begin with.
        words: what the parser looks for.
        planted: makes the parser lax, as one of ours once was or as the obvious one is.
    """

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    planted: Callable[[], Any]


class Found(msgspec.Struct):
    """What became of a target.

    Args:
        tried: inputs.
        failed: what did not hold, empty if all did.
    """

    tried: int
    failed: str


def token(data: bytes) -> None:
    """Whatever the text, it is refused without a fault, unless it is one of the two that were signed here."""
    for text in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        claims = _SIGNER.verify(text)
        hold((claims is not None) == (text in _TOKENS), f"{text!r} gives {claims}")
        hold(claims is None or _TOKENS[claims.user_id - 1] == text, f"{text!r} gives {claims}")


def changed_token(data: bytes) -> None:
    """A signed token of which bytes are changed, put in or cut out is refused: `data` tells which, three bytes each."""
    made = bytearray(_TOKENS[len(data) % 2].encode())
    for how, at, byte in zip(data[::3], data[1::3], data[2::3], strict=False):
        at %= len(made) + 1
        if how % 3 == 0:
            made[at : at + 1] = bytes([byte])
        elif how % 3 == 1:
            made.insert(at, byte)
        else:
            del made[at : at + 1 + byte % 4]
    token(bytes(made))


def bearer(data: bytes) -> None:
    """A head's field lines give a token only by one `Authorization` of the right scheme; a head is read or refused."""
    raw = b"GET /ping HTTP/1.1\r\nHost: x\r\n" + data + b"\r\n"
    try:
        head = heads.read_head(raw)
    except SanicException as error:
        hold(error.status_code in (400, 413, 417, 431), repr(error))
        return
    found = gate.bearer_token(_request(head.fields))
    sent = re.findall(rb"^authorization:[ \t]*(.*?)[ \t]*$", raw.replace(b"\r\n", b"\n"), re.IGNORECASE | re.MULTILINE)
    scheme = re.fullmatch(rb"bearer(?: +(.*?))? *", sent[0], re.IGNORECASE | re.DOTALL) if len(sent) == 1 else None
    expected = "" if len(sent) > 1 else (scheme[1] or b"").decode("latin-1") if scheme else None
    hold(found == expected, f"{sent} gives {found!r}")
    if found:
        token(found.encode("latin-1"))


def body(data: bytes) -> None:
    """A body is two texts, each once, in JSON and UTF-8, said to be so; or it is refused with 400 or 415.

    Args:
        data: the value of `Content-Type`, a line feed and the body.
    """
    media_type, _, sent = data.partition(b"\n")
    request = _request([("content-type", media_type.decode("latin-1"))])
    request.body = sent
    try:
        found = bodies.read_credentials(request)
    except InvalidInput as error:
        hold(_strictly(sent) is None, f"{sent!r} is refused: {error}")
    except SanicException as error:
        hold(error.status_code == 415 and media_type != b"application/json", f"{media_type!r}: {error!r}")
    else:
        hold({"username": found.username, "password": found.password} == _strictly(sent), f"{sent!r} gives {found}")
        plainly = _SPACED.sub(b";", media_type.lower().replace(b'"', b"")).strip(b" \t;")
        hold(plainly in (b"application/json", b"application/json;charset=utf-8"), media_type)


def _strictly(sent: bytes) -> dict[str, str] | None:
    """The two texts, if the standard library finds them and nothing else."""
    try:
        pairs = json.loads(sent.decode("utf-8"), object_pairs_hook=_Pairs)
        texts = [text.encode("utf-8") for pair in pairs for text in pair]
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
    return dict(pairs) if isinstance(pairs, _Pairs) and len(texts) == 4 and {*dict(pairs)} == _NAMES else None


class _Pairs(list[tuple[str, str]]):
    """An object, told from an array."""


_NAMES = {"username", "password"}
_SPACED = re.compile(rb"[ \t]*;[ \t]*")


def rate_limits(data: bytes) -> None:
    """Limits are read, within their bounds, or refused with half a sentence; written out again they are the same."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = limits.parse_limits(text)
    except ValueError:
        return
    bounds = (1 <= it.calls <= limits.MAX_CALLS and 1 <= it.window_s <= limits.MAX_WINDOW_S for it in found)
    hold(1 <= len(found) <= limits.MAX_LIMITS and all(bounds), found)
    hold(limits.parse_limits(",".join(f"{it.calls}/{it.window_s}s" for it in found)) == found, found)


_GOOD = {
    "DATABASE_URL": "postgres://app@localhost/gatehouse",
    "REDIS_URL": "redis://localhost/0",
    "SECRET_KEYS": ",".join(KEYS),
}
_NAMES_OF_SETTINGS = (*_GOOD, "ARQ_REDIS_URL", *(name.upper() for name in settings._OPTIONAL))


def setting(data: bytes) -> None:
    """A setting is taken, so that the drivers take it too, or the start is refused without telling what is secret.

    Args:
        data: the number of the setting, and its text; `#` stands for a secret.
    """
    name = _NAMES_OF_SETTINGS[(data[:1] or b"\0")[0] % len(_NAMES_OF_SETTINGS)]
    text = data[1:].decode("utf-8", "surrogateescape").replace("\0", "").replace("#", _SECRET)
    try:
        found = settings.Settings.from_environ(_GOOD | {name: text})
    except SettingsError as error:
        (problem,) = error.problems
        hold(problem.startswith(f"{name}: "), problem)
        hold(_SECRET not in problem or name not in (*_GOOD, "ARQ_REDIS_URL"), problem)
        return
    for url in (found.redis_url, found.queue_redis_url):
        parse_url(url)
    parse_postgres(found.database_url)


def _request(fields: list[tuple[str, str]]) -> IdentifiedRequest:
    nowhere: Any = None
    return IdentifiedRequest(b"/", Header(fields), "1.1", "GET", nowhere, nowhere)


def _quoting_hosts(_: str, there: str) -> tuple[tuple[str, int], ...]:
    """The planted reading of hosts, whose error tells what it could not read."""
    host, _, port = there.rpartition(":")
    return ((host, int(port)),)


def _alike(one: bytes, other: bytes) -> bool:
    """The planted comparison, of too few bytes."""
    return one[:8] == other[:8]


_BEARERS = tuple(
    b"Authorization: " + scheme + b" " + _TOKENS[0].encode() for scheme in (b"Bearer", b"bEARER", b"Token")
)
_CREDENTIALS = rb'{"username":"ada","password":"correct \u00e9 horse"}'

TARGETS: dict[str, Target] = {
    "token": Target(
        token,
        (*(it.encode() for it in _TOKENS), b"A" * 96, _TOKENS[0].encode() + b"="),
        (),
        lambda: patch.object(tokens, "_SHAPE", re.compile("(?s:.{96})=*")),
    ),
    "changed-token": Target(
        changed_token,
        (b"", b"\0\0A", b"\0\x5eA", b"\1\x60=", b"\2\5\0", bytes(range(30))),
        (),
        lambda: patch.object(tokens, "hmac", SimpleNamespace(digest=hmac.digest, compare_digest=_alike)),
    ),
    "bearer": Target(
        bearer,
        (b"", *(it + b"\r\n" for it in _BEARERS), _BEARERS[0] + b"\r\n" + _BEARERS[1] + b"\r\n", b"X: y\r\n"),
        (b"Authorization:", b"Bearer ", b"\r\n", b"authorization", b"Content-Length:", b"Transfer-Encoding: chunked"),
        lambda: patch.object(gate, "bearer_token", lambda request: request.token),
    ),
    "body": Target(
        body,
        tuple(
            media_type + b"\n" + sent
            for media_type in (b"application/json", b'application/JSON; charset="UTF-8"', b"text/plain")
            for sent in (_CREDENTIALS, _CREDENTIALS[:-1] + b',"password":"x"}', b'{"username":1}', b"[" * 5_000)
        ),
        (
            b"application/json",
            b"charset=",
            b'"username":',
            b'"password":',
            b'"',
            rb"\u",
            rb"\ud800",
            b"null",
            b"{",
            b"}",
        ),
        lambda: patch.object(bodies, "json", SimpleNamespace(loads=lambda *_, **__: _NAMES)),
    ),
    "rate-limits": Target(
        rate_limits,
        (b"1/5s", b"1/5s, 100/1h", b"10000/31d", b"0/1s", b"1/1w", "²/1s".encode()),
        (b"/", b"s", b"m", b"h", b"d", b", ", b"999999999"),
        lambda: patch.object(limits, "_LIMIT", re.compile(r"([0-9]+)/([0-9]+)([a-z])")),
    ),
    "setting": Target(
        setting,
        tuple(
            bytes([number]) + text
            for number in range(4)
            for text in (
                b"postgres://u:#@h:1/d?sslmode=require",
                b"postgres://u:pw@h:#/d",
                b"redis://u:#@h:1/0",
                b"redis://h:#",
                b"redis://[::1/#",
                b"#",
            )
        ),
        (b"postgres://", b"redis://", b"rediss://", b"?sslmode=", b"?host=", b"#", b"[::1]", b"@", b":", b"//", b"%"),
        lambda: patch.object(postgres_target, "_hosts", _quoting_hosts),
    ),
}
"""Name → target."""
