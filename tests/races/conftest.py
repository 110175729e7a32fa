"""What all races share; and a process of the service on a server that may be stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.connections import Stores, open_stores
from models.devservers import ValkeyServer
from models.policies import parse_policies
from models.settings import Settings
from tests.conftest import empty
from tests.valkeys import let_in


@pytest.fixture(autouse=True)
def cheaply(cheap_hashes: None) -> None:
    """What a password costs is not raced here."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that a test may stop, with a file that survives it."""
    with ValkeyServer(let_in(tmp_path) / "valkey", durable=True) as server:
        yield server


@pytest.fixture
async def service(settings: Settings, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """A process of the service on that server, trusting it."""
    own = replace(settings, redis_url=valkey.url, rate_limits=parse_policies("1000/1s"))
    async with open_stores(own) as stores:
        await empty(stores)
        await stores.snapshots.restore()
        await until(lambda: stores.usage.trusts_redis)
        yield stores
