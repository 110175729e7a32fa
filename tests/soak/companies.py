"""Rows 16 to 18: a cluster whose slots move and whose masters die, and a master whose sentinels choose another."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Protocol
from unittest.mock import patch

from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.devservers import ValkeyServer
from models.keys import BUCKETS, bucket_of
from models.servers import BUCKET_SLOTS, Server
from tests.soak.endings import ALWAYS, BELIEVED, USERS, cycle
from tests.soak.load import Load, percentile_ms
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.valkeys import ClusterNode, ValkeyCluster, Watched, until

CALLERS = 30
BUCKET = 6
"""Of all users whose master dies."""

CALLS_A_SECOND = 200


class _Company(Protocol):
    """Servers of which one takes over when another dies."""

    @property
    def url(self) -> str: ...
    def leaders(self) -> tuple[ValkeyServer, ValkeyServer]:
        """A master, and the replica that will take its place."""
        ...

    def wait_for_failover(self, dead: ValkeyServer) -> None:
        """Wait until another server is the master."""
        ...

    def heal(self, dead: ValkeyServer) -> None:
        """Bring the dead server back."""
        ...


class _Cluster(ValkeyCluster):
    """The master of a user's slot dies."""

    def __init__(self, stage: Stage, slot: int) -> None:
        super().__init__(stage.folder / "cluster")
        self._slot = slot

    def leaders(self) -> tuple[ClusterNode, ClusterNode]:
        master = self.master_of(self._slot)
        (replica,) = self.replicas_of(master)
        return master, replica

    def wait_for_failover(self, dead: ValkeyServer) -> None:
        until(lambda: self.master_of(self._slot) is not dead)

    def heal(self, dead: ValkeyServer) -> None:
        dead.start()
        self.wait_until_whole()


async def _lose(company: _Company, stores: Stores, users: list[int], outcome: Outcome, planted: str) -> int:
    master, replica = company.leaders()

    async def keep_older() -> None:
        # What was on its way would wait in the stopped process's socket, so that connection has to end as well.
        os.kill(replica.pid, signal.SIGSTOP)
        async with Redis(port=master.port or 0) as client:
            await client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # type: ignore[no-untyped-call]

    async def lose() -> None:
        os.kill(master.pid, signal.SIGKILL)
        master.stop()
        os.kill(replica.pid, signal.SIGCONT)
        await asyncio.to_thread(company.wait_for_failover, master)

    try:
        calls = await cycle(stores, users, outcome, keep_older, lose, planted=bool(planted))
    finally:
        if replica.alive:
            os.kill(replica.pid, signal.SIGCONT)
    await asyncio.to_thread(company.heal, master)
    return calls


async def _losses(stage: Stage, company: _Company, rounds: int, planted: str) -> Outcome:
    outcome, calls = Outcome(), 0
    async with AsyncExitStack() as stack:
        if planted:
            stack.enter_context(patch.object(Server, "trusted", ALWAYS, create=True))
        stores = await stack.enter_async_context(open_stores(replace(stage.settings, redis_url=company.url)))
        if planted:
            await stores.sessions.sync()  # and then nobody, as a worker would mend what is to be seen
        else:
            stage.worker(REDIS_URL=company.url, ARQ_REDIS_URL=stage.valkey.url)
        users = [BUCKET + BUCKETS * number for number in range(1, USERS + 1)]
        await stores.database.fetch(
            "INSERT INTO users (id, username, username_key, password_hash, created_at)"
            " SELECT id, 'user' || id, 'user' || id, '', now() FROM unnest($1::bigint[]) AS id",
            users,
        )
        for _ in range(rounds):
            calls += await _lose(company, stores, users, outcome, planted)
            outcome.tried += 1
            stage.progress(outcome.tried)
    outcome.figures["calls"] = calls
    return outcome


@scenario(
    16,
    "cluster-failover",
    "a master of a cluster dies, whose replica had not heard of the last logouts: no ended token is admitted",
    full=50,
    short=1,
    planted=(BELIEVED,),
)
async def cluster_failover(stage: Stage, rounds: int, planted: str) -> Outcome:
    """All users are of one bucket, so of the master that dies."""
    with _Cluster(stage, BUCKET_SLOTS[BUCKET]) as company:
        return await _losses(stage, company, rounds, planted)


@scenario(
    17,
    "sentinel-failover",
    "a master dies, and sentinels choose its replica, which had not heard of the last logouts: none comes back",
    full=50,
    short=1,
    planted=(BELIEVED,),
)
async def sentinel_failover(stage: Stage, rounds: int, planted: str) -> Outcome:
    """As a cluster's, behind three sentinels, which also lead the worker to its queue."""
    with Watched(stage.folder / "watched") as company:
        return await _losses(stage, company, rounds, planted)


@scenario(
    18,
    "cluster-migration",
    "slots move from master to master under load: every call is answered and counted, exactly",
    full=200,
    short=3,
)
async def cluster_migration(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Two web processes and a worker; a bucket in use moves, key by key, in each round."""
    outcome = Outcome()
    with ValkeyCluster(stage.folder / "cluster", replicas=False) as cluster:
        async with AsyncExitStack() as stack:
            environ = {"REDIS_URL": cluster.url, "ARQ_REDIS_URL": stage.valkey.url}
            stores = await stack.enter_async_context(open_stores(replace(stage.settings, redis_url=cluster.url)))
            users = [await stores.accounts.add(f"user{number}", "password") for number in range(CALLERS)]
            tokens = {user_id: await stores.sessions.start(user_id) for user_id in users}
            webs = [await asyncio.to_thread(stage.web, None, **environ) for _ in range(2)]
            stage.worker(SNAPSHOT_INTERVAL_S="1", **environ)
            async with Load([web.port or 0 for web in webs], tokens, CALLS_A_SECOND) as load:
                for _ in range(rounds):
                    await asyncio.sleep(0.3)
                    slot = BUCKET_SLOTS[bucket_of(random.choice(users))]
                    source = cluster.master_of(slot)
                    target = random.choice([node for node in cluster.masters if node is not source])
                    await asyncio.to_thread(cluster.migrate, slot, source, target, 1)
                    outcome.tried += 1
                    stage.progress(outcome.tried)
                await asyncio.sleep(0.5)
                async with load.quiet():
                    await _compare(stores, load, outcome)
    return outcome


async def _compare(stores: Stores, load: Load, outcome: Outcome) -> None:
    wrong = [call for call in load.calls if call.status != 200]
    outcome.violations += [f"a call is answered {call.status} {call.answer[-90:]!r}" for call in wrong[:5]]
    admitted = dict(load.admitted)
    for _ in range(100):  # what was admitted while Redis could not, is counted a moment later
        counted = dict(await stores.usage.top(count=len(admitted)))
        if counted == admitted:
            break
        await asyncio.sleep(0.1)
    off = {uid: (calls, counted.get(uid)) for uid, calls in admitted.items() if counted.get(uid) != calls}
    outcome.check(not off, f"admitted and counted differ: {off}")
    hours = dict(await stores.usage.top("hour", count=len(admitted)))
    outcome.check(sum(hours.values()) <= sum(admitted.values()), "the hour has more calls than were admitted")
    callers = await stores.usage.count_callers()
    outcome.check(abs(callers - len(admitted)) <= 1, f"{callers} callers, not {len(admitted)}")
    outcome.figures = {"calls": len(load.calls), "p99_ms": percentile_ms(load.calls, 0.99)}
