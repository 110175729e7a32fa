"""Row 3: Redis comes back as an older copy of itself, from a file or as a replica that lagged."""

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from unittest.mock import patch

from redis.asyncio import Redis

from models.connections import open_stores
from models.devservers import ValkeyServer
from models.servers import Server
from tests.soak.between import enrol
from tests.soak.endings import ALWAYS, BELIEVED, USERS, cycle
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.system.faultproxy import FaultProxy

DEADLINE_S = 20.0


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
        users = await enrol(stores, USERS)
        if planted == BELIEVED:
            stack.enter_context(patch.object(Server, "trusted", ALWAYS, create=True))
        calls = 0
        for number in range(rounds):
            promote = bool(number % 2)
            if promote:
                await copies.follow()
            steps = partial(copies.keep_older, promote=promote), partial(copies.lose, promote=promote)
            calls += await cycle(stores, users, outcome, *steps)
            outcome.tried += 1
            stage.progress(outcome.tried)
        outcome.figures["calls"] = calls
    return outcome
