"""What the stores hold after a whole session of use: declared keys with known ends, and no secret (invariant 8)."""

import logging
import re
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

import models.keys
from models.connections import Stores, open_stores
from models.errors import InvalidCredentials
from models.limits import parse_limits
from models.policies import parse_policies
from models.tokens import TokenSigner
from tests.conftest import RawRedis
from tests.dump import dump_postgres, dump_redis
from worker import jobs

ROW = re.compile(r"^ {4}(gate:\S+) +(string|list|set|sorted set|hash|HyperLogLog)  +(.*\S)$", re.MULTILINE)
TYPE_NAMES = {"sorted set": b"zset", "HyperLogLog": b"string"}
WINDOW_S = 600
"""Long enough for no key to end during a test."""

AT_REST = {"session:<uid>", "calls_at:<uid>", "totals", "totals:<window>", "callers", "dirty", "drainer", "ready"}


@dataclass(frozen=True)
class Declared:
    """One row of the table in the docstring of `models.keys`."""

    key: str
    kind: bytes
    forever: bool

    def matches(self, key: bytes) -> bool:
        pattern = (
            re.escape(self.key)
            .replace(r"\{b\}", r"\{\d+\}")
            .replace("<uid>", r"\d+")
            .replace("<window>", r"[hd]\d+")
            .replace("<policy>", r"[a-z]\w*")
        )
        pattern = pattern.replace("<scope>", r"[a-z_]+(:[0-9a-f]{32})?")
        return re.fullmatch(pattern, key.decode()) is not None


def dictionary() -> list[Declared]:
    rows = ROW.findall(models.keys.__doc__ or "")
    return [
        Declared(key, TYPE_NAMES.get(kind, kind.encode()), re.search(r"  none$", rest) is not None)
        for key, kind, rest in rows
    ]


def undeclared(found: dict[bytes, tuple[bytes, Any, int]]) -> list[str]:
    """Keys that the dictionary lacks, or that are of another type, or that stay when they should go."""
    wrong = []
    for key, (kind, _, expires_ms) in found.items():
        rows = [row for row in dictionary() if row.matches(key)]
        if len(rows) != 1:
            wrong.append(f"{key!r} is in {len(rows)} rows")
        elif (rows[0].kind, rows[0].forever) != (kind, expires_ms == -1):
            wrong.append(f"{key!r} is a {kind!r} until {expires_ms}")
    return wrong


def texts(held: Any) -> Iterator[bytes]:
    """All texts and bytes inside what a dump holds."""
    if isinstance(held, dict):
        held = [*held.keys(), *held.values()]
    if isinstance(held, list | tuple | set):
        for item in held:
            yield from texts(item)
    else:
        yield held if isinstance(held, bytes) else str(held).encode()


def told(held: Any, needles: dict[str, bytes]) -> set[str]:
    """Which of these are somewhere inside, as they are or in hexadecimal."""
    everything = b"\n".join(texts(held))
    return {name for name, needle in needles.items() if needle in everything or needle.hex().encode() in everything}


def secrets_of(token: str) -> dict[str, bytes]:
    raw = urlsafe_b64decode(token)
    return {"token": token.encode(), "its bytes": raw, "its random part": raw[26:56], "its signature": raw[56:]}


@pytest.fixture
async def used(stores: Stores, caplog: pytest.LogCaptureFixture) -> dict[str, bytes]:
    """Two users' sessions from sign-up to logout, with every job in between; returns all secrets that they had."""
    caplog.set_level(logging.DEBUG)
    policies, limits = parse_policies(f"100/{WINDOW_S}s"), parse_limits(f"100/{WINDOW_S}s")
    async with open_stores(replace(stores.settings, rate_limits=policies, login_limits_user_address=limits)) as patient:
        return await use(patient)


async def use(stores: Stores) -> dict[str, bytes]:
    context = {"stores": stores}
    passwords = {name: secrets.token_urlsafe(12) for name in ("ada", "eva")}
    tokens: list[str] = []
    await jobs.restore_usage(context)
    for name, password in passwords.items():
        await stores.accounts.sign_up(name, password)
        for _ in range(2):
            tokens.append(await stores.accounts.log_in(name, password))
            assert (await stores.usage.admit(tokens[-1])).admitted
        with pytest.raises(InvalidCredentials):
            await stores.accounts.log_in(name, password + "!")
    assert (await stores.usage.admit(tokens[0])).reason == "session_replaced"
    await jobs.snapshot_usage(context)
    await jobs.sync_sessions(context)
    await jobs.expire_sessions(context)
    claims = TokenSigner(stores.settings.secret_keys).verify(tokens[-1])
    assert claims is not None
    assert (await stores.usage.admit(tokens[-1])).admitted
    assert await stores.accounts.log_out(claims) is None
    await stores.usage.top()
    await stores.usage.count_callers()
    found = {f"{name}'s password": password.encode() for name, password in passwords.items()}
    found |= {f"{name} {number}": secret for number, t in enumerate(tokens) for name, secret in secrets_of(t).items()}
    return found | {"signing key": stores.settings.secret_keys[0].encode()}


@pytest.mark.usefixtures("used")
async def test_every_key_is_declared_with_its_type_and_its_end(stores: Stores) -> None:
    found = await dump_redis(stores.settings)
    assert undeclared(found) == []
    names = {row.key for row in dictionary() if any(row.matches(key) for key in found)}
    of_all = {"gate:sync", "gate:meters", "gate:jobs", "gate:{login}:<scope>"}
    assert names == {f"gate:{{b}}:{name}" for name in AT_REST} | of_all


@pytest.mark.usefixtures("used")
async def test_keys_that_end_do_so_in_time(stores: Stores, redis: RawRedis) -> None:
    """A session with its token, a tombstone at most a minute later, the times of calls with the longest window."""
    ends_s = {key: await redis.ttl(key) async for key in redis.scan_iter("*:*:*:*")}
    # Of two users the sessions, the calls and the wrong logins at a known address; of two buckets the hour and the day.
    assert len(ends_s) == 4 + 2 + 4
    longest_s = {"session": stores.settings.session_ttl_s + 60, "totals:h": 2 * 3_600, "totals:d": 2 * 86_400}
    for key, end_s in ends_s.items():
        kind = next((kind for kind in longest_s if f"}}:{kind}" in key), "")
        assert 0 <= end_s <= longest_s.get(kind, WINDOW_S)


async def test_no_store_and_no_log_holds_a_secret(
    stores: Stores, used: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert told(await dump_redis(stores.settings), used) == set()
    assert told(await dump_postgres(stores.settings), used) == set()
    logged = [record.getMessage() for record in caplog.get_records("setup")]
    assert told(logged, used) == set()
    assert len(logged) > 10


async def test_the_stores_hold_the_digest_instead(stores: Stores) -> None:
    await stores.accounts.add("ada", "pass123")
    claims = TokenSigner(stores.settings.secret_keys).verify(await stores.accounts.log_in("ada", "pass123"))
    assert claims is not None
    digest = {"digest": claims.digest}
    assert told(await dump_redis(stores.settings), digest) == {"digest"}
    assert told(await dump_postgres(stores.settings), digest) == {"digest"}


async def test_a_planted_key_or_secret_is_found(stores: Stores, redis: RawRedis, used: dict[str, bytes]) -> None:
    """So that the tests above can fail."""
    for name, plant in {
        b"gate:{1}:oops": redis.set("gate:{1}:oops", "1"),
        b"gate:{9}:session:9": redis.set("gate:{9}:session:9", "1:aa:1"),  # without an end
        b"gate:{9}:ready": redis.set("gate:{9}:ready", "1", ex=60),  # with one
        b"gate:{9}:totals": redis.sadd("gate:{9}:totals", "1"),  # another type
    }.items():
        await redis.delete(name)
        await plant
        (wrong,) = undeclared(await dump_redis(stores.settings))
        assert repr(name) in wrong
        await redis.delete(name)
    await redis.zadd("gate:{1}:totals", {used["token 1"].decode(): 1})
    await stores.database.fetch("UPDATE sessions SET token_digest = $1", used["its random part 2"])
    assert told(await dump_redis(stores.settings), used) == {"token 1"}
    assert told(await dump_postgres(stores.settings), used) == {"its random part 2"}
