"""The settings: what each variable may be, what it is by default, and how everything wrong is told at once."""

import dataclasses
import re

import pytest

from models.errors import SettingsError
from models.limits import parse_limits
from models.policies import parse_policies
from models.settings import Settings, key_id

KEY, OLDER_KEY = "zR6R1ZwckLoYcFDNiZ6SGJcJDaV0pdEp7ov2tgH7", "a84lQUBeKQFBHsRkEbi6e8Tm46PF8l4T3kFRwWI48Xr5feg"
DATABASE_URL = "postgres://app:hush@db.example:5433/gatehouse"
REDIS_URL = "redis://:whisper@cache.example:6380/2"
LEAST = {"DATABASE_URL": DATABASE_URL, "REDIS_URL": REDIS_URL, "SECRET_KEYS": KEY}


def problems(**changes: str) -> list[str]:
    """What is wrong with an environment that is fine but for these variables."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(LEAST | changes)
    return caught.value.problems


def test_the_least_environment_gives_every_default() -> None:
    assert Settings.from_environ(LEAST) == Settings(
        database_url=DATABASE_URL,
        redis_url=REDIS_URL,
        queue_redis_url=REDIS_URL,
        secret_keys=(KEY,),
        host="127.0.0.1",
        port=8000,
        session_ttl_s=1800,
        rate_limits=parse_policies("1/5s"),
        ping_delay_ms=200,
        password_min_length=8,
        signup=True,
        sync_interval_s=1,
        expire_interval_s=60,
        snapshot_interval_s=10,
        restore_interval_s=1,
    )


VALID: list[tuple[str, str, str, object]] = [
    ("DATABASE_URL", "postgresql://h/d?sslmode=require", "database_url", "postgresql://h/d?sslmode=require"),
    ("DATABASE_URL", "postgres:///d?host=/run/pg", "database_url", "postgres:///d?host=/run/pg"),
    ("REDIS_URL", "rediss://u:p@h", "redis_url", "rediss://u:p@h"),
    ("REDIS_URL", "redis://[::1]:6379/15", "redis_url", "redis://[::1]:6379/15"),
    ("ARQ_REDIS_URL", "redis://queue/1", "queue_redis_url", "redis://queue/1"),
    ("SECRET_KEYS", f" {KEY} , {OLDER_KEY} ", "secret_keys", (KEY, OLDER_KEY)),
    ("ADMIN_KEY", f" {KEY[:24]} ", "admin_key", KEY[:24]),
    ("ADMIN_KEY", "", "admin_key", ""),
    ("HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104
    ("PORT", " 65535 ", "port", 65_535),
    ("PORT", "", "port", 8000),
    ("SESSION_TTL_S", "1", "session_ttl_s", 1),
    ("SESSION_TTL_S", "31536000", "session_ttl_s", 31_536_000),
    ("RATE_LIMITS", "1/5s, 2/1m", "rate_limits", parse_policies("1/5s, 2/60s")),
    ("METRICS_KEY", " " + KEY[:24], "metrics_key", KEY[:24]),
    ("PROMETHEUS_MULTIPROC_DIR", "/", "prometheus_multiproc_dir", "/"),
    ("LOGIN_LIMITS_USER", "3/1m, 9/1h", "login_limits_user", parse_limits("3/1m, 9/1h")),
    ("LOGIN_LIMITS_USER_ADDRESS", "3/1m", "login_limits_user_address", parse_limits("3/1m")),
    ("LOGIN_LIMITS_ADDRESS", "3/1m", "login_limits_address", parse_limits("3/1m")),
    ("LOGIN_LIMITS_ALL", "3/1m", "login_limits_all", parse_limits("3/1m")),
    ("TRUSTED_PROXIES", "2", "trusted_proxies", 2),
    ("PROXY_HEADER", "forwarded", "proxy_header", "Forwarded"),
    ("PROXY_HEADER", "x-forwarded-for", "proxy_header", "X-Forwarded-For"),
    ("PING_DELAY_MS", "0", "ping_delay_ms", 0),
    ("PASSWORD_MIN_LENGTH", "128", "password_min_length", 128),
    *(("SIGNUP", word, "signup", True) for word in ("on", "ON", "true", "yes", "1")),
    *(("SIGNUP", word, "signup", False) for word in ("off", "Off", "false", "no", "0")),
    ("SYNC_INTERVAL_S", "2", "sync_interval_s", 2),
    ("EXPIRE_INTERVAL_S", "3600", "expire_interval_s", 3_600),
    ("SNAPSHOT_INTERVAL_S", "60", "snapshot_interval_s", 60),
    ("RESTORE_INTERVAL_S", "120", "restore_interval_s", 120),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), VALID)
def test_a_valid_value_is_taken(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(Settings.from_environ(LEAST | {variable: text}), name) == value


WRONG: list[tuple[str, str]] = [
    *(("PORT", text) for text in ("0", "65536", "-1", "80.5", "http", "0x50", "1e3", "\u0661", "99999999999")),
    *(("SESSION_TTL_S", text) for text in ("0", "31536001", "30m")),
    *(("RATE_LIMITS", text) for text in ("1", "0/5s", "1/5s,,", "none")),
    *(("LOGIN_LIMITS_ALL", text) for text in ("off", "1/0s")),
    *(("TRUSTED_PROXIES", text) for text in ("all", "11", "-1")),
    *(("PROXY_HEADER", text) for text in ("X-Real-IP", "Forwarded, X-Forwarded-For")),
    *(("PING_DELAY_MS", text) for text in ("-1", "60001", "200ms")),
    *(("PASSWORD_MIN_LENGTH", text) for text in ("0", "129", "eight")),
    *(("SIGNUP", text) for text in ("maybe", "2", "enabled")),
    *(("SYNC_INTERVAL_S", text) for text in ("0", "7", "61", "90", "7200", "1.5")),
    *((f"{job}_INTERVAL_S", "59") for job in ("EXPIRE", "SNAPSHOT", "RESTORE")),
    *(("REDIS_URL", text) for text in ("h:6379", "http://h", "redis://", "redis://h/db", "redis://h:port/0")),
    *(("ARQ_REDIS_URL", text) for text in ("h:6379", "unix:///run/redis")),
    *(("DATABASE_URL", text) for text in ("h/d", "mysql://h/d", "postgres://h", "postgres://h/", "postgres:///d")),
    *(("DATABASE_URL", text) for text in ("postgres://h:port/d", "postgres://h/d?ssl=true", "postgres://h/d?a=1&b=2")),
]


@pytest.mark.parametrize(("variable", "text"), WRONG)
def test_a_wrong_value_is_named_with_what_it_takes(variable: str, text: str) -> None:
    (problem,) = problems(**{variable: text})
    got = "" if variable.endswith("_URL") else repr(text)  # an address may hold a password
    assert problem.startswith(f"{variable}: got {got}")
    assert re.search(r"\); it takes \S", problem)


@pytest.mark.parametrize("variable", LEAST)
@pytest.mark.parametrize("text", [None, "", "  "])
def test_there_is_no_start_without_stores_and_keys(variable: str, text: str | None) -> None:
    environ = LEAST | {variable: text or ""}
    if text is None:
        del environ[variable]
    with pytest.raises(SettingsError, match=rf"^Gatehouse cannot start:\n  {variable}: missing; it takes \S"):
        Settings.from_environ(environ)


@pytest.mark.parametrize(
    "keys",
    [
        KEY[:31],
        f"{KEY},",
        f"{KEY},short",
        f"{KEY},{KEY}",
        "a" * 48,
        "abcabcabcabcabcabcabcabcabcabcabcabc",
        "your-secret-key-here",
    ],
)
def test_a_weak_or_repeated_key_is_refused_without_telling_it(keys: str) -> None:
    (problem,) = problems(SECRET_KEYS=keys)
    assert problem.startswith("SECRET_KEYS: got a value that is kept out of this message (")
    assert keys not in problem
    assert KEY not in problem


def test_one_message_names_every_problem() -> None:
    wrong = {"DATABASE_URL": "", "SECRET_KEYS": "short", "PORT": "web", "SIGNUP": "maybe", "SYNC_INTERVAL_S": "7"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(LEAST | wrong)
    first, *lines = str(caught.value).split("\n")
    assert first == "Gatehouse cannot start:"
    assert {line.partition(":")[0].strip() for line in lines} == set(wrong)
    assert len(lines) == len(wrong)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DATABASE_URL", "postgres://app:hush@h/d?password=hush"),
        ("DATABASE_URL", "app:hush@h/d"),
        ("DATABASE_URL", "postgres//app:hush@h/d"),
        ("DATABASE_URL", "postgres://app:hush/x@h/d"),  # unescaped, the slash ends the host and leaves a port
        ("DATABASE_URL", "postgres://app:1/x?hush@h/d"),
        ("REDIS_URL", "redis://:hush@h:6379/zero"),
        ("REDIS_URL", "redis://:hush@h\u2100:6379"),  # Python's parser quotes what NFKC would turn into a/c
        ("REDIS_URL", "redis://:hush@[h"),
        ("REDIS_URL", "redis://:hush@h/hush"),
        ("REDIS_URL", "redis://:hush@h:hush/0"),
        ("REDIS_URL", ":hush@h:6379"),
        ("ARQ_REDIS_URL", "http://:hush@h"),
        ("ARQ_REDIS_URL", ":hush@h:6379/1"),
        ("SECRET_KEYS", "hush"),
        ("METRICS_KEY", "hush"),
        ("METRICS_KEY", "hush" * 8),
        ("METRICS_KEY", f"{KEY} hush"),
        ("ADMIN_KEY", "hush"),
        ("ADMIN_KEY", "hush" * 12),
    ],
)
def test_no_message_tells_a_secret(variable: str, text: str) -> None:
    assert "hush" not in "".join(problems(**{variable: text}))


def test_repr_hides_what_is_secret() -> None:
    metrics_key = "mutter-0123456789-abcdef"
    given = {"ARQ_REDIS_URL": "redis://:mumble@h", "METRICS_KEY": metrics_key, "ADMIN_KEY": OLDER_KEY}
    shown = repr(Settings.from_environ(LEAST | given))
    assert "port=8000" in shown
    assert not [secret for secret in (KEY, OLDER_KEY, "hush", "whisper", "mumble", "mutter") if secret in shown]


def test_settings_are_frozen() -> None:
    settings = Settings.from_environ(LEAST)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_an_unknown_variable_is_not_ours_to_judge() -> None:
    assert Settings.from_environ(LEAST | {"PATH": "/bin", "GATEHOUSE": "x"}) == Settings.from_environ(LEAST)


def test_a_key_id_is_short_stable_and_not_the_key() -> None:
    assert key_id(KEY) == key_id(KEY) != key_id(OLDER_KEY)
    assert len(key_id(KEY)) == 2
