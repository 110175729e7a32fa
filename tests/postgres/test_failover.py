"""The primary goes, and another takes over: what is under way is refused with 503, and nothing comes back twice."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from models.connections import Stores, open_stores
from models.database import migrate
from models.errors import StoreUnavailable
from models.policies import parse_policies
from models.settings import Settings
from models.tokens import Claims
from tests.conftest import RawRedis
from tests.postgres.replication import Pair, Primary

USERS = 4


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="gatehouse-failover-") as folder:
        Path(folder).chmod(0o755)
        with Pair(Path(folder)) as started:
            asyncio.run(migrate(started.url))
            yield started


@asynccontextmanager
async def opened(settings: Settings, url: str, redis: RawRedis) -> AsyncIterator[Stores]:
    await redis.flushall()
    limits = parse_policies("10000/1s")
    async with open_stores(replace(settings, database_url=url, rate_limits=limits)) as stores:
        async with asyncio.timeout(10):
            while not stores.usage.trusts_redis:
                await asyncio.sleep(0.01)
        await stores.snapshots.restore()
        yield stores


class Load:
    """Cached sessions that call, and users who log in again and again, until the block ends."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.tokens: dict[int, list[str]] = {}
        self.refused = 0
        self.calls = 0
        self._stopping = False

    async def __aenter__(self) -> "Load":
        self._caller = await self._stores.sessions.start(await self._stores.accounts.add("caller", "password"))
        users = [await self._stores.accounts.add(f"user{number}", "password") for number in range(USERS)]
        self._tasks = [asyncio.create_task(work) for work in (self._call(), *map(self._log_in, users))]
        return self

    async def __aexit__(self, *_: object) -> None:
        # Not cancelled: of a login that is cut off nobody knows the token.
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        while not self._stopping:
            assert (await self._stores.usage.admit(self._caller)).admitted
            self.calls += 1
            await asyncio.sleep(0.002)

    async def _log_in(self, user_id: int) -> None:
        mine = self.tokens[user_id] = []
        while not self._stopping:
            try:
                mine.append(await self._stores.sessions.start(user_id))
            except StoreUnavailable:
                self.refused += 1
            await asyncio.sleep(0.005)

    async def everybody_logs_in(self) -> None:
        """Until each user has logged in three times more."""
        goal = {user_id: len(tokens) + 3 for user_id, tokens in self.tokens.items()}
        async with asyncio.timeout(20):
            while any(len(self.tokens[user_id]) < count for user_id, count in goal.items()):
                await asyncio.sleep(0.01)


async def claims_of(stores: Stores, token: str) -> Claims:
    claims = stores.sessions.read_token(token)
    assert isinstance(claims, Claims)
    return claims


async def check(stores: Stores, load: Load, redis: RawRedis) -> None:
    """Versions rose in the order of the logins, and of each user's tokens the last is the valid one, in both stores."""
    for emptied in (False, True):
        if emptied:
            await redis.flushall()
        for tokens in load.tokens.values():
            versions = [(await claims_of(stores, token)).version for token in tokens]
            assert versions == sorted(set(versions))
            admitted = [(await stores.usage.admit(token)).admitted for token in tokens[-5:]]
            assert admitted == [False] * (len(admitted) - 1) + [True]
    rows = await stores.database.fetch("SELECT count(*) AS rows, count(DISTINCT user_id) AS users FROM sessions")
    assert rows[0]["rows"] == rows[0]["users"]


async def test_another_host_takes_over(pair: Pair, settings: Settings, redis: RawRedis) -> None:
    async with opened(settings, pair.url, redis) as stores:
        ended = await stores.sessions.start(await stores.accounts.add("leaver", "password"))
        async with Load(stores) as load:
            await load.everybody_logs_in()
            assert await stores.accounts.log_out(await claims_of(stores, ended)) is None
            await asyncio.to_thread(pair.primary.die)
            calls = load.calls
            async with asyncio.timeout(10):
                while load.refused < USERS or load.calls < calls + 50:
                    await asyncio.sleep(0.01)
            with pytest.raises(StoreUnavailable):
                await stores.accounts.sign_up("newcomer", "password")
            await pair.standby.promote()
            await load.everybody_logs_in()
            await stores.accounts.sign_up("newcomer", "password")
        await check(stores, load, redis)
        assert (await stores.usage.admit(ended)).reason == "session_revoked"


@pytest.fixture
def alone() -> Iterator[Primary]:
    with tempfile.TemporaryDirectory(prefix="gatehouse-failover-") as folder:
        Path(folder).chmod(0o755)
        with Primary(Path(folder) / "postgres", durable=False) as server:
            asyncio.run(migrate(server.url))
            yield server


async def test_another_server_takes_over_at_the_same_address(
    alone: Primary, settings: Settings, redis: RawRedis
) -> None:
    """First nobody is there, then a standby that refuses to write, then it is the primary."""
    async with opened(settings, alone.url, redis) as stores:
        async with Load(stores) as load:
            await load.everybody_logs_in()
            await asyncio.to_thread(alone.become_standby)
            await refuse_writes(stores)
            assert not await stores.away()
            await alone.promote()
            await load.everybody_logs_in()
            await stores.accounts.sign_up("newcomer", "password")
        await check(stores, load, redis)


async def refuse_writes(stores: Stores) -> None:
    """Each of them with StoreUnavailable, by whichever way it comes to PostgreSQL."""
    writes: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: stores.accounts.sign_up("newcomer", "password"),
        lambda: stores.accounts.log_in("caller", "password"),
        lambda: stores.roster.disable(1),
        stores.snapshots.take,
        stores.sessions.expire,
    )
    for write in writes:
        with pytest.raises(StoreUnavailable):
            await write()
