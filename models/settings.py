"""The settings: read once from the environment, checked together, frozen, then passed down."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from models.errors import SettingsError
from models.limits import RateLimit, parse_limits
from models.policies import Policy, parse_policies
from models.postgres_target import parse_postgres
from models.redis_target import parse_redis

T = TypeVar("T")

MIN_KEY_LENGTH = 32
MIN_OPERATORS_KEY_LENGTH = 24
_DIVISORS_OF_60 = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
_INTERVALS_S = _DIVISORS_OF_60 + tuple(60 * minutes for minutes in _DIVISORS_OF_60[1:])


@dataclass(frozen=True)
class Settings:
    """Everything an operator can set; docs/reference.md has the table.

    Args:
        secret_keys: token signing keys, at least 32 characters each; the first signs, all verify.
        web_processes: on one port; more than one are kept alive by `api.supervisor`.
        session_ttl_s: seconds from login to the session's end.
        login_limits_*: wrong attempts to log in, see `models.throttle`.
        docs: whether `/docs` is there, the page that shows `/openapi.json`.
        policy_header: a field that a proxy sets to choose the policies of `/verify`; none when empty.
        trusted_proxies: how many in front of us; as many entries at the end of `proxy_header` are believed.
        metrics_key: opens `/metrics`, 24 characters at least; empty: there is no such route.
        prometheus_multiproc_dir: a folder that the web processes of this machine share, for `/metrics` to tell of all.
        admin_key: opens the dashboard, see `models.admin`; none when empty.
        *_interval_s: seconds between two runs of a worker's job.
        log_format: `auto` is text on a terminal and JSON elsewhere.
        access_log: `on`, `off`, or `errors` for answers of 400 and more.
        tracing: the environment wants OpenTelemetry to send traces; its own variables say where.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    queue_redis_url: str = field(repr=False)
    secret_keys: tuple[str, ...] = field(repr=False)
    metrics_key: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    web_processes: int = 1
    session_ttl_s: int = 1800
    rate_limits: tuple[Policy, ...] = parse_policies("1/5s")
    login_limits_user: tuple[RateLimit, ...] = parse_limits("10/15m, 100/1d")
    login_limits_user_address: tuple[RateLimit, ...] = parse_limits("10/15m")
    login_limits_address: tuple[RateLimit, ...] = parse_limits("200/10m")
    login_limits_all: tuple[RateLimit, ...] = parse_limits("600/1m")
    trusted_proxies: int = 0
    proxy_header: str = "X-Forwarded-For"
    policy_header: str = ""
    ping_delay_ms: int = 200
    password_min_length: int = 8
    signup: bool = True
    docs: bool = True
    sync_interval_s: int = 1
    expire_interval_s: int = 60
    snapshot_interval_s: int = 10
    restore_interval_s: int = 1
    prometheus_multiproc_dir: str = ""
    log_format: str = "auto"
    log_level: str = "info"
    access_log: str = "on"
    tracing: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from environment variables.

        Raises:
            SettingsError: one message that names every value that is missing or wrong.
        """
        read = _Reader(environ)
        redis_url = read("REDIS_URL", None, _redis_url, _REDIS_TAKES, secret=True)
        settings = cls(
            database_url=read("DATABASE_URL", None, _database_url, _DATABASE_TAKES, secret=True),
            redis_url=redis_url,
            queue_redis_url=read.queue(redis_url),
            secret_keys=read("SECRET_KEYS", None, parse_secret_keys, _KEYS_TAKE, secret=True),
            metrics_key=read("METRICS_KEY", "", _operators_key, _OPERATORS_KEY_TAKES, secret=True),
            admin_key=read("ADMIN_KEY", "", _operators_key, _OPERATORS_KEY_TAKES, secret=True),
            tracing=_wants_traces(environ),
            **{
                name: read(name.upper(), getattr(cls, name), parse, takes) for name, (parse, takes) in _OPTIONAL.items()
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
            got = f"a value that is kept out of this message ({error})" if secret else f"{text!r} ({error})"
            self.problems.append(f"{name}: got {got}; it takes {takes}")
            return default  # type: ignore[return-value]

    def queue(self, redis_url: str | None) -> str:
        """Where the worker's queue is: with the rest, unless that is a cluster, which cannot hold it."""
        is_cluster = redis_url is not None and parse_redis(redis_url).kind == "cluster"
        return self("ARQ_REDIS_URL", None if is_cluster else redis_url or "", _queue_url, _QUEUE_TAKES, secret=True)


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


def _proxy_header(text: str) -> str:
    names = {name.lower(): name for name in ("X-Forwarded-For", "Forwarded")}
    if text.lower() not in names:
        raise ValueError("not a header that proxies use for it")
    return names[text.lower()]


def _policy_header(text: str) -> str:
    if not re.fullmatch(r"X-[A-Za-z0-9-]{1,62}", text):
        raise ValueError("not a name like X-Gate-Policy")
    return text


def _switch(text: str) -> bool:
    words = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("neither on nor off")
    return words[text.lower()]


def _one_of(*words: str) -> tuple[Callable[[str], str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError("not one of these words")
        return text.lower()

    return parse, f"{', '.join(words[:-1])} or {words[-1]}"


def _wants_traces(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces: an address for them, or the console."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter == "console" or any(environ.get(name, "").strip() for name in endpoints)


def parse_secret_keys(text: str) -> tuple[str, ...]:
    """Read signing keys between commas.

    Raises:
        ValueError: what is wrong with them, as half a sentence without them.
    """
    keys = tuple(key.strip() for key in text.split(","))
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise ValueError(f"a key is shorter than {MIN_KEY_LENGTH} characters")
    if any(len(set(key)) < 10 for key in keys):
        raise ValueError("a key is not random")
    if len({key_id(key) for key in keys}) < len(keys):
        raise ValueError("two keys share their id: drop the repeated one or make another")
    return keys


def _operators_key(text: str) -> str:
    if len(text) < MIN_OPERATORS_KEY_LENGTH or len(set(text)) < 10:
        raise ValueError("too short, or not random")
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("it has characters that no header field can carry")
    return text


def _folder(text: str) -> str:
    if not Path(text).is_dir():
        raise ValueError("no such folder")
    return text


def _redis_url(text: str) -> str:
    parse_redis(text)
    return text


def _queue_url(text: str) -> str:
    if parse_redis(text).kind == "cluster":
        raise ValueError("the worker's queue cannot be in a cluster: give it a small Redis of its own")
    return text


def _database_url(text: str) -> str:
    parse_postgres(text)
    return text


_DATABASE_TAKES = "postgres://user:password@host:port/database; several host:port with commas"
_QUEUE_TAKES = "redis://[user:password@]host:port/database, or redis+sentinel://host:port,…/name"
_REDIS_TAKES = f"{_QUEUE_TAKES}, or redis+cluster://host:port,…; rediss for TLS"
_KEYS_TAKE = (
    f"one or more random keys of {MIN_KEY_LENGTH}+ characters between commas, the signing one first; "
    'python -c "import secrets; print(secrets.token_urlsafe(48))" makes one'
)
_OPERATORS_KEY_TAKES = f"a random key of {MIN_OPERATORS_KEY_LENGTH}+ characters, made like one of SECRET_KEYS"
_LIMITS = parse_limits, "limits like 1/5s or 1/5s, 100/1h"
_INTERVAL = _interval, "seconds: a divisor of 60, or 60 times one"
_OPTIONAL: dict[str, tuple[Callable[[str], Any], str]] = {
    "host": (_text, "an address to listen on"),
    "port": (_whole(1, 65_535), "a port, 1 to 65535"),
    "web_processes": (_whole(1, 64), "how many processes serve the port, 1 to 64"),
    "session_ttl_s": (_whole(1, 31_536_000), "seconds, 1 to 31536000"),
    "rate_limits": (parse_policies, "limits like 1/5s, or policies like default=1/5s; search=20/1m, 500/1h"),
    "login_limits_user": _LIMITS,
    "login_limits_user_address": _LIMITS,
    "login_limits_address": _LIMITS,
    "login_limits_all": _LIMITS,
    "trusted_proxies": (_whole(0, 10), "how many proxies are in front, 0 to 10"),
    "proxy_header": (_proxy_header, "X-Forwarded-For or Forwarded"),
    "policy_header": (_policy_header, "the name of a header field that your proxy sets, such as X-Gate-Policy"),
    "ping_delay_ms": (_whole(0, 20_000), "milliseconds, 0 to 20000"),
    "password_min_length": (_whole(1, 128), "characters, 1 to 128"),
    "signup": (_switch, "on or off"),
    "docs": (_switch, "on or off"),
    "sync_interval_s": _INTERVAL,
    "expire_interval_s": _INTERVAL,
    "snapshot_interval_s": _INTERVAL,
    "restore_interval_s": _INTERVAL,
    "prometheus_multiproc_dir": (_folder, "a folder that the web processes of this machine share"),
    "log_format": _one_of("auto", "json", "text"),
    "log_level": _one_of("debug", "info", "warning", "error"),
    "access_log": _one_of("on", "off", "errors"),
}
