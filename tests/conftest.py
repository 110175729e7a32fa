"""Real servers for every test: one PostgreSQL and one Valkey for each process of the suite, on free ports."""

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from passlib.context import CryptContext
from sanic import Sanic

from models.connections import Stores, open_stores
from models.database import migrate
from models.devservers import PostgresServer, ValkeyServer
from models.limits import parse_limits
from models.policies import parse_policies
from models.settings import Settings
from tests.redis_client import connect
from tests.valkeys import ValkeyCluster, Watched

Sanic.test_mode = True

MANY = parse_limits("10000/1s")
CHEAP = CryptContext(
    ["argon2", "bcrypt"], deprecated="auto", argon2__memory_cost=64, argon2__time_cost=1, argon2__parallelism=1
)
LONGEST_TEST_S = 20.0
"""Of those that look at the calls of an hour."""

RawRedis = Any
"""redis.asyncio.Redis, whose annotations mix its synchronous and asynchronous answers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The contract and the races hold on each of these."""
    parser.addoption("--redis", choices=["server", "sentinel", "cluster"], default="server", help="what Redis is")


@dataclass(frozen=True)
class Servers:
    """The stores that this process of the suite has to itself."""

    postgres: PostgresServer
    valkey: ValkeyServer
    redis_url: str


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        Path(folder).chmod(0o755)
        postgres = PostgresServer(Path(folder) / "postgres", durable=False)
        valkey = ValkeyServer(Path(folder) / "valkey", durable=False)
        kind = pytestconfig.getoption("--redis")
        with postgres, valkey, ExitStack() as more:
            asyncio.run(migrate(postgres.url))
            url = valkey.url
            if kind == "cluster":
                url = more.enter_context(ValkeyCluster(Path(folder) / "cluster")).url
            elif kind == "sentinel":
                url = more.enter_context(Watched(Path(folder) / "watched")).url
            yield Servers(postgres, valkey, url)


@pytest.fixture(scope="session")
def settings(servers: Servers) -> Settings:
    return Settings(
        database_url=servers.postgres.url,
        redis_url=servers.redis_url,
        queue_redis_url=servers.valkey.url,
        secret_keys=(secrets.token_urlsafe(48),),
        metrics_key=secrets.token_urlsafe(24),
        rate_limits=parse_policies("1/5s"),
        login_limits_user=MANY,
        login_limits_user_address=MANY,
        login_limits_address=MANY,
        login_limits_all=MANY,
        ping_delay_ms=0,
    )


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    """The domain on empty stores, with limits that no test reaches by chance."""
    async with connect(settings.redis_url) as redis:
        await redis.flushall()  # an empty one is believed at once
    async with open_stores(replace(settings, rate_limits=parse_policies("10000/1s"))) as opened:
        await empty(opened)
        async with asyncio.timeout(10):
            while not opened.usage.trusts_redis:
                await asyncio.sleep(0.01)
        yield opened


async def empty(stores: Stores) -> None:
    """Forget everything in both stores."""
    await stores.database.fetch("TRUNCATE users, sessions, call_totals, call_windows, caller_sketches")
    async with connect(stores.settings.redis_url) as redis:
        await redis.flushall()


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[RawRedis]:
    """Redis itself, to look behind the domain."""
    async with connect(settings.redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def hour() -> int:
    """This hour since 1970, with so much of it left that a test ends in it: for who counts calls by the hour."""
    left_s = 3_600 - time.time() % 3_600
    if left_s < LONGEST_TEST_S:
        await asyncio.sleep(left_s + 0.05)
    return int(time.time() // 3_600)


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else than what a hash has to cost."""
    monkeypatch.setattr("models.passwords._CONTEXT", CHEAP)


@pytest.fixture
def few_buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many buckets are looked at, eight by default: the first users are in them, and it takes an eighth of the
    time. Parametrized with 64 it changes nothing."""
    for module in ("counters", "resets", "snapshots"):
        monkeypatch.setattr(f"models.{module}.BUCKETS", getattr(request, "param", 8))
