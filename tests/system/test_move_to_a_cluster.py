"""From one Redis to a cluster by the steps of docs/redis.md: no session, no logout and no call is lost on the way."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from models.connections import Stores, open_stores
from models.devservers import ValkeyServer
from models.tokens import Claims
from tests.soak.stage import ROOT, Stage, stage
from tests.valkeys import ValkeyCluster

DEADLINE_S = 30.0
USERS = 12
SYNCED_S = 2.5
"""While the processes are divided, a logout at one reaches the other's Redis with the next sync."""


class Callers:
    """Users who call without a pause at whichever process they are sent to."""

    def __init__(self, tokens: dict[int, str]) -> None:
        self.tokens = tokens
        self.ended: list[str] = []
        self.admitted: Counter[int] = Counter()
        self.wrong: list[str] = []

    @asynccontextmanager
    async def calling(self, stores: Stores) -> AsyncIterator[None]:
        """At this process, until the end."""
        task = asyncio.create_task(self._call_on(stores))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _call_on(self, stores: Stores) -> None:
        while True:
            for user_id, token in list(self.tokens.items()):
                # Not given up in the middle: whether it was counted would not be known.
                await asyncio.shield(self._call(stores, user_id, token))
            for token in list(self.ended):
                if (await stores.usage.admit(token)).admitted:
                    self.wrong.append("an ended session is admitted")
            await asyncio.sleep(0.005)

    async def _call(self, stores: Stores, user_id: int, token: str) -> None:
        admission = await stores.usage.admit(token)
        if admission.admitted:
            self.admitted[user_id] += 1
        elif token == self.tokens.get(user_id):
            self.wrong.append(f"a valid session is refused: {admission.reason}")

    async def change(self, stores: Stores, known_after_s: float = 0.0) -> None:
        """One user logs in again, and one out; from then on the tokens that they had must be refused."""
        again, out = list(self.tokens)[:2]
        replaced = self.tokens.pop(again)
        self.tokens[again] = await stores.sessions.start(again)
        leaving = self.tokens.pop(out)
        claims = stores.sessions.read_token(leaving)
        assert isinstance(claims, Claims)
        assert await stores.accounts.log_out(claims) is None
        await asyncio.sleep(known_after_s)
        self.ended += [replaced, leaving]


async def test_a_move_loses_no_session_no_logout_and_no_call() -> None:
    with stage() as there, ValkeyCluster(there.folder / "cluster") as cluster, _queue(there) as queue:
        await _move(there, cluster, queue)


def _queue(there: Stage) -> ValkeyServer:
    return ValkeyServer(there.folder / "queue", durable=False)


async def _move(there: Stage, cluster: ValkeyCluster, queue: ValkeyServer) -> None:
    new = {"REDIS_URL": cluster.url, "ARQ_REDIS_URL": queue.url}
    to = replace(there.settings, redis_url=cluster.url, queue_redis_url=queue.url)
    async with AsyncExitStack() as stack:
        old_worker = there.worker(SNAPSHOT_INTERVAL_S="1")
        olds = [await stack.enter_async_context(open_stores(there.settings)) for _ in range(2)]
        users = [await olds[0].accounts.add(f"user{number}", "password") for number in range(USERS)]
        callers = Callers({user_id: await olds[0].sessions.start(user_id) for user_id in users})
        async with callers.calling(olds[0]), callers.calling(olds[1]):
            await _settled(olds)
            # 1: a worker that only publishes sessions to the cluster.
            publisher = there._start(
                ["-m", "worker.main", "--only", "sync_sessions"], "publisher", None, there.environ(**new)
            )
            await callers.change(olds[0])
            await _published(to)
        # 2: the web processes, one after the other.
        news = [await stack.enter_async_context(open_stores(to)) for _ in range(2)]
        async with callers.calling(olds[1]), callers.calling(news[0]):
            await asyncio.sleep(0.3)
            await callers.change(olds[1], SYNCED_S)
            await asyncio.sleep(0.3)
        async with callers.calling(news[0]), callers.calling(news[1]):
            # 3: the last snapshot of the old Redis, and the end of its worker.
            assert old_worker.stop() == 0
            assert _gatehouse(there, "usage", "snapshot") == "PostgreSQL has every call\n"
            # 4: a whole worker in place of the publisher.
            assert publisher.stop() == 0
            there.worker(SNAPSHOT_INTERVAL_S="1", **new)
            await callers.change(news[1])
            async with asyncio.timeout(DEADLINE_S):
                while None in await news[0].store.counters.snapshot_numbers():
                    await asyncio.sleep(0.05)
        assert callers.wrong == []
        assert dict(await news[0].usage.top(count=USERS)) == callers.admitted
        assert await news[0].usage.count_callers() == USERS


async def _settled(processes: list[Stores]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not all(stores.usage.trusts_redis for stores in processes):
            await asyncio.sleep(0.02)


async def _published(settings: object) -> None:
    """Until the cluster has the sessions, as `gatehouse doctor` with its settings says."""
    async with open_stores(settings) as stores, asyncio.timeout(DEADLINE_S):  # type: ignore[arg-type]
        while len(await stores.store.sync_states()) < ValkeyCluster.masters_count:
            await asyncio.sleep(0.05)


def _gatehouse(there: Stage, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "api.cli", *words],
        cwd=ROOT,
        env=there.environ() | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
