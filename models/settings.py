"""The settings: read once from the environment, checked together, frozen, then passed down."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from models.errors import SettingsError
from models.limits import RateLimit, parse_limits

T = TypeVar("T")

MIN_KEY_LENGTH = 32
_DIVISORS_OF_60 = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
_INTERVALS_S = _DIVISORS_OF_60 + tuple(60 * minutes for minutes in _DIVISORS_OF_60[1:])


@dataclass(frozen=True)
class Settings:
    """Everything an operator can set; README.md has the table.

    Args:
        secret_keys: token signing keys, at least 32 characters each; the first signs, all verify.
        session_ttl_s: seconds from login to the session's end.
        *_interval_s: seconds between two runs of a worker's job.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    queue_redis_url: str = field(repr=False)
    secret_keys: tuple[str, ...] = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    session_ttl_s: int = 1800
    rate_limits: tuple[RateLimit, ...] = parse_limits("1/5s")
    ping_delay_ms: int = 200
    password_min_length: int = 8
    signup: bool = True
    sync_interval_s: int = 1
    expire_interval_s: int = 60
    snapshot_interval_s: int = 10
    restore_interval_s: int = 1

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from environment variables.

        Raises:
            SettingsError: one message that names every value that is missing or wrong.
        """
        read = _Reader(environ)
        redis_url = read("REDIS_URL", None, _redis_url, "redis://[user:password@]host:port/database")
        settings = cls(
            database_url=read("DATABASE_URL", None, _database_url, "postgres://user:password@host:port/database"),
            redis_url=redis_url,
            queue_redis_url=read("ARQ_REDIS_URL", redis_url or "", _redis_url, "redis://host:port/database"),
            secret_keys=read(
                "SECRET_KEYS",
                None,
                _secret_keys,
                f"one or more random keys of {MIN_KEY_LENGTH}+ characters between commas, the signing one first; "
                'python -c "import secrets; print(secrets.token_urlsafe(48))" makes one',
                secret=True,
            ),
            host=read("HOST", cls.host, _text, "an address to listen on"),
            port=read("PORT", cls.port, _whole(1, 65_535), "a port, 1 to 65535"),
            session_ttl_s=read("SESSION_TTL_S", cls.session_ttl_s, _whole(1, 31_536_000), "seconds, 1 to 31536000"),
            rate_limits=read("RATE_LIMITS", cls.rate_limits, parse_limits, "limits like 1/5s or 1/5s, 100/1h"),
            ping_delay_ms=read("PING_DELAY_MS", cls.ping_delay_ms, _whole(0, 60_000), "milliseconds, 0 to 60000"),
            password_min_length=read(
                "PASSWORD_MIN_LENGTH", cls.password_min_length, _whole(1, 128), "characters, 1 to 128"
            ),
            signup=read("SIGNUP", cls.signup, _switch, "on or off"),
            **{
                f"{job}_interval_s": read(
                    f"{job.upper()}_INTERVAL_S",
                    getattr(cls, f"{job}_interval_s"),
                    _interval,
                    "seconds: a divisor of 60, or 60 times one",
                )
                for job in ("sync", "expire", "snapshot", "restore")
            },
        )
        if read.problems:
            raise SettingsError(read.problems)
        return settings


class _Reader:
    """Reads one variable at a time and collects what is wrong, so that all of it is told at once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def __call__(
        self, name: str, default: T | None, parse: Callable[[str], T], takes: str, *, secret: bool = False
    ) -> T:
        text = self._environ.get(name, "").strip()
        if not text:
            if default is None:
                self.problems.append(f"{name}: missing; it takes {takes}")
            return default  # type: ignore[return-value]  # never used: problems stop the start
        try:
            return parse(text)
        except ValueError as error:
            got = "a value that is kept out of this message" if secret or "://" in text else repr(text)
            self.problems.append(f"{name}: got {got} ({error}); it takes {takes}")
            return default  # type: ignore[return-value]


def key_id(secret_key: str) -> bytes:
    """The two bytes that name a signing key inside a token, without telling anything of use about it."""
    return hashlib.sha256(b"gatehouse key id:" + secret_key.encode()).digest()[:2]


def _text(text: str) -> str:
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text):
            raise ValueError("not a whole number")
        if not low <= int(text) <= high:
            raise ValueError("out of range")
        return int(text)

    return parse


def _interval(text: str) -> int:
    seconds = _whole(1, 3_600)(text)
    if seconds not in _INTERVALS_S:
        raise ValueError(f"not one of {', '.join(map(str, _INTERVALS_S))}")
    return seconds


def _switch(text: str) -> bool:
    words = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("neither on nor off")
    return words[text.lower()]


def _secret_keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(","))
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise ValueError(f"a key is shorter than {MIN_KEY_LENGTH} characters")
    if any(len(set(key)) < 10 for key in keys):
        raise ValueError("a key is not random")
    if len({key_id(key) for key in keys}) < len(keys):
        raise ValueError("two keys share their id: drop the repeated one or make another")
    return keys


def _redis_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("redis", "rediss"):
        raise ValueError("not a redis:// or rediss:// address")
    if not url.hostname:
        raise ValueError("no host")
    _ = url.port  # raises ValueError when it is no port
    if not re.fullmatch(r"/?[0-9]*", url.path):
        raise ValueError("the database is not a number")
    return text


def _database_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("postgres", "postgresql"):
        raise ValueError("not a postgres:// address")
    _ = url.port
    if not url.path.strip("/"):
        raise ValueError("no database name")
    unknown = {item.partition("=")[0] for item in url.query.split("&") if item} - {"sslmode", "host"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is not supported in the address; sslmode and host are")
    if not url.hostname and "host=" not in url.query:
        raise ValueError("no host")
    return text
