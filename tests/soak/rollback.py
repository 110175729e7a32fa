"""Row 3: Redis comes back as an older copy of itself, from a file or as a replica that lagged."""

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from unittest.mock import patch

from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.devservers import ValkeyServer
from models.tokens import Claims
from models.usage import Usage
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.system.faultproxy import FaultProxy

DEADLINE_S = 20.0
STAYING, REVOKED, REPLACED = 3, 2, 2
BELIEVED = "believed at once"


class _Copies:
    """A master that keeps a file and a replica of it, behind one address for the clients."""

    def __init__(self, stage: Stage, clients: FaultProxy, replication: FaultProxy) -> None:
        self.master = stage.valkey
        self.replica = ValkeyServer(stage.folder / "valkey-2", durable=True)
        self._older = stage.folder / "older"
        self._clients, self._replication = clients, replication

    async def follow(self) -> None:
        """Make the replica one, and wait until it has everything."""
        if not self.replica.alive:
            await asyncio.to_thread(self.replica.start)
        self._replication.upstream = "127.0.0.1", self.master.port or 0
        async with Redis.from_url(self.master.url) as redis:
            await redis.config_set("repl-diskless-sync-delay", 0)
        async with Redis.from_url(self.replica.url) as redis, asyncio.timeout(DEADLINE_S):
            await redis.execute_command("REPLICAOF", "127.0.0.1", self._replication.port)
            while (await redis.info("replication")).get("master_link_status") != "up":
                await asyncio.sleep(0.02)

    async def keep_older(self, *, promote: bool) -> None:
        """From here on the other copy learns nothing more."""
        if promote:
            async with Redis.from_url(self.master.url) as redis:
                await redis.execute_command("WAIT", 1, 5_000)
            self._replication.half_open = True
            return
        async with Redis.from_url(self.master.url) as redis:
            await redis.execute_command("WAITAOF", 1, 0, 5_000)
        shutil.rmtree(self._older, ignore_errors=True)
        shutil.copytree(self.master.data, self._older)

    async def lose(self, *, promote: bool) -> None:
        """The master dies, and what lagged takes its place."""
        os.kill(self.master.pid, signal.SIGKILL)
        self.master.stop()
        if promote:
            async with Redis.from_url(self.replica.url) as redis:
                await redis.execute_command("REPLICAOF", "NO", "ONE")
            self.master, self.replica = self.replica, self.master
        else:
            for kept in self._older.rglob("*"):
                if kept.is_file():
                    shutil.copyfile(kept, self.master.data / kept.relative_to(self._older))
            await asyncio.to_thread(self.master.start)
        self._clients.upstream = "127.0.0.1", self.master.port or 0
        self._clients.cut()
        self._replication.heal()


class _Callers:
    """Calls with every token without a pause, and what each answer has to be."""

    def __init__(self, stores: Stores, outcome: Outcome) -> None:
        self._stores, self._outcome = stores, outcome
        self.valid: list[str] = []
        self.ended: list[str] = []
        self.calls = 0

    async def call_on(self) -> None:
        """Until cancelled."""
        while True:
            await self.call_once()
            await asyncio.sleep(0.002)

    async def call_once(self) -> None:
        """Every token once; those that had ended before its call must be refused."""
        ended, valid = list(self.ended), list(self.valid)
        for token in (*ended, *valid):
            admission = await self._stores.usage.admit(token)
            self.calls += 1
            if token in ended and admission.admitted:
                self._outcome.violations.append("a token is admitted that had been ended")
            if token in self.valid and admission.reason is not None:
                self._outcome.violations.append(f"a valid token is refused: {admission.reason}")


async def _end_some(stores: Stores, callers: _Callers, users: list[int]) -> None:
    """Log some users out and others in again: two ways for a token to end."""
    for number, user_id in enumerate(users[STAYING:]):
        token = callers.valid.pop()
        claims = stores.sessions.read_token(token)
        assert isinstance(claims, Claims)
        if number < REPLACED:
            await stores.sessions.start(claims.user_id)
        else:
            assert await stores.accounts.log_out(claims) is None
        assert user_id in users
        callers.ended.append(token)


async def _cycle(stores: Stores, copies: _Copies, users: list[int], outcome: Outcome, *, promote: bool) -> int:
    callers = _Callers(stores, outcome)
    callers.valid = [await stores.sessions.start(user_id) for user_id in users]
    await callers.call_once()
    await _until_trusted(stores)
    await copies.keep_older(promote=promote)
    await _end_some(stores, callers, users)
    calling = [asyncio.create_task(callers.call_on()) for _ in range(2)]
    try:
        await copies.lose(promote=promote)
        await _until_trusted(stores)
        await asyncio.sleep(0.05)
    finally:
        for task in calling:
            task.cancel()
        ended = await asyncio.gather(*calling, return_exceptions=True)
    outcome.violations += [f"a call failed: {error!r}" for error in ended if isinstance(error, Exception)]
    return callers.calls


async def _until_trusted(stores: Stores) -> None:
    """Wait for a worker's heartbeat at whatever answers now."""
    async with asyncio.timeout(DEADLINE_S):
        while not stores.usage.trusts_redis or (await stores.store.sync_state()) is None:
            await asyncio.sleep(0.01)


@scenario(
    3,
    "rollback",
    "Redis comes back older, from its file or as a promoted replica: no ended token is admitted, no valid one refused",
    full=200,
    short=2,
    planted=(BELIEVED,),
    planted_rounds=1,
    durable=True,
)
async def rollback(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Cycles in turn from an older file and with a promoted replica."""
    outcome = Outcome()
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(FaultProxy("127.0.0.1", stage.valkey.port or 0))
        replication = await stack.enter_async_context(FaultProxy("127.0.0.1", stage.valkey.port or 0))
        copies = _Copies(stage, clients, replication)
        stack.callback(lambda: copies.replica.stop())
        stack.callback(lambda: copies.master.stop())
        address = f"redis://127.0.0.1:{clients.port}/0"
        stage.worker(REDIS_URL=address)
        stores = await stack.enter_async_context(open_stores(replace(stage.settings, redis_url=address)))
        users = [await stores.accounts.add(f"user{n}", "password") for n in range(STAYING + REVOKED + REPLACED)]
        if planted == BELIEVED:
            stack.enter_context(patch.object(Usage, "trusts_redis", property(lambda _: True)))
        calls = 0
        for number in range(rounds):
            promote = bool(number % 2)
            if promote:
                await copies.follow()
            calls += await _cycle(stores, copies, users, outcome, promote=promote)
            outcome.tried += 1
            stage.progress(outcome.tried)
        outcome.figures["calls"] = calls
    return outcome
