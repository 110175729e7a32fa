"""Row 7: Redis is emptied or killed, workers are killed at any step, under load: the counters come back, once."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

from redis.asyncio import Redis

from models import servers
from models.connections import Stores, open_stores
from models.keys import BUCKETS, bucket_key
from tests.soak.callers import USED_BUCKETS, Callers
from tests.soak.killable import FAILED, FORGETTING, PLANTED, RESTORE_STEPS, SAVED, SNAPSHOT_STEPS, Told, Workers
from tests.soak.ledger import Ledger
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

WORKERS = 2
STEP_DEADLINE_S = 0.3
AWAY_DEADLINE_S = 1.0
BACK_DEADLINE_S = 20.0
PATIENCE_S = 10.0
"""For Redis: a machine that is busy with something else is none of the faults here."""

EMPTY, KILL, WORKER = "emptied", "killed", "worker killed"
FAULTS = (EMPTY, EMPTY, KILL, WORKER, WORKER)


class _Siege:
    """Two workers, what they say, and the faults that befall them and Redis."""

    def __init__(self, stage: Stage, callers: Callers, ledger: Ledger, outcome: Outcome, planted: str) -> None:
        self._stage, self._callers, self._ledger, self._outcome = stage, callers, ledger, outcome
        self._planted = planted
        self._awaited: tuple[str, asyncio.Future[int]] | None = None
        self._workers = Workers(stage.environ(SOAK_PLANTED=planted), stage.folder / "killable.log", self._hear)
        self.redis: Any = Redis.from_url(stage.settings.redis_url)
        self.done: Counter[str] = Counter()
        self.wrong_sketches: set[int] = set()

    async def close(self) -> None:
        self._workers.close()
        await self.redis.aclose()

    async def begin(self) -> None:
        """Have the workers work."""
        await self._workers.start(WORKERS)
        await self.recovered()

    def _hear(self, told: Told) -> None:
        if told.step == SAVED:
            self._ledger.saved(told.bucket, told.at_s)
        elif told.step == FAILED:
            self._outcome.violations.append(f"a worker failed: {told.why}")
        elif self._awaited and told.step == self._awaited[0] and not self._awaited[1].done():
            self._awaited[1].set_result(told.worker)

    async def cycle(self) -> None:
        """One fault, or two of which the second meets the work on the first."""
        first = EMPTY if self._planted else random.choice(FAULTS)
        await self._suffer(first, SNAPSHOT_STEPS)
        if self._planted == FORGETTING:
            await self._suffer(WORKER, RESTORE_STEPS[1:])
        elif random.random() < 0.5:
            await self._suffer(random.choice(FAULTS), SNAPSHOT_STEPS if first == WORKER else RESTORE_STEPS)

    async def _suffer(self, fault: str, steps: tuple[str, ...]) -> None:
        """Let a fault happen as a worker takes one of the steps."""
        worker = await self._who_comes_to(random.choice(steps))
        self.done[fault] += 1
        if fault == WORKER:
            await self._workers.kill(worker)
            await self._workers.start(1)
        elif fault == EMPTY:
            await self.redis.flushall()
            self._ledger.lose()
        else:
            await self._kill_valkey()

    async def _who_comes_to(self, step: str) -> int:
        """The worker that takes a step next, or any when none does."""
        self._awaited = step, asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(STEP_DEADLINE_S):
                return await self._awaited[1]
        except TimeoutError:
            return random.choice(self._workers.alive)
        finally:
            self._awaited = None

    async def _kill_valkey(self) -> None:
        valkey = self._stage.valkey
        os.kill(valkey.pid, signal.SIGKILL)
        valkey.stop()
        # A call that leaves before its process has noticed finds no reply, and is not counted: it may have been.
        deadline_s = time.monotonic() + AWAY_DEADLINE_S
        while not self._callers.all_away and time.monotonic() < deadline_s:
            await asyncio.sleep(0.001)
        self._ledger.lose()
        await asyncio.to_thread(valkey.start)

    async def recovered(self) -> bool:
        """Wait until the counters of every bucket are whole, and every call of the outage is counted."""
        deadline_s = time.monotonic() + BACK_DEADLINE_S
        while time.monotonic() < deadline_s:
            if self._callers.all_counted:
                self._ledger.firm()
                if await self.redis.exists(*(bucket_key(bucket, "ready") for bucket in range(BUCKETS))) == BUCKETS:
                    return True
            await asyncio.sleep(0.003)
        return False


async def _compare(siege: _Siege, stores: Stores, ledger: Ledger, outcome: Outcome) -> None:
    """With no call on its way: counters within the ledger, sketches those of exactly the users who have a total."""
    ledger.close()
    totals: dict[int, int] = {}
    await stores.store.counters.fold()
    for bucket in USED_BUCKETS:
        for member, score in await siege.redis.zrange(bucket_key(bucket, "totals"), 0, -1, withscores=True):
            totals[int(member)] = -int(score)
    stored = {row["user_id"]: row["calls"] for row in await stores.database.fetch("SELECT * FROM call_totals")}
    sketches = {row["bucket"]: row["sketch"] for row in await stores.database.fetch("SELECT * FROM caller_sketches")}
    outcome.violations += ledger.settle(totals, stored)
    for bucket in USED_BUCKETS:
        callers = [user_id for user_id in totals if user_id % BUCKETS == bucket]
        held, expected = await _registers(siege.redis, bucket, sketches.get(bucket), callers)
        # Registers that are lost stay lost: each bucket is told once.
        if held != expected and bucket not in siege.wrong_sketches:
            siege.wrong_sketches.add(bucket)
            outcome.violations.append(f"bucket {bucket}: the sketch is not that of the stored one and its callers")


async def _registers(redis: Any, bucket: int, stored: bytes | None, callers: list[int]) -> tuple[bytes, bytes]:
    """The registers of a bucket's sketch, and of the stored one joined with the users who have a total."""
    held, expected, other = "soak:held", "soak:expected", "soak:stored"
    async with redis.pipeline() as pipe:
        pipe.delete(held, expected, other)
        pipe.pfadd(expected, *callers)
        if stored:
            pipe.set(other, stored)
            pipe.pfmerge(expected, other)
        pipe.pfmerge(held, bucket_key(bucket, "callers"))
        for key in (held, expected):
            pipe.execute_command("PFDEBUG", "TODENSE", key)
            pipe.getrange(key, 16, -1)  # after the head, which holds a cached cardinality
        pipe.delete(held, expected, other)
        replies = await pipe.execute()
    return replies[-4], replies[-2]


@scenario(
    7,
    "counters",
    "Redis emptied or killed, workers killed at any step, under load: loss within a snapshot, nothing counted twice",
    full=1_000,
    short=8,
    planted=PLANTED,
    planted_rounds=40,
)
async def counters(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Cycles of one or two faults, each followed by a moment without calls in which everything is compared."""
    outcome, ledger = Outcome(), Ledger()
    async with AsyncExitStack() as stack:
        stack.enter_context(patch.object(servers, "GATE_DEADLINE_S", PATIENCE_S))
        gates = [await stack.enter_async_context(open_stores(stage.settings)) for _ in range(2)]
        callers = Callers(gates, ledger, outcome)
        siege = _Siege(stage, callers, ledger, outcome, planted)
        stack.push_async_callback(siege.close)
        await stack.enter_async_context(callers.calling())
        started_at_s = time.monotonic()
        await siege.begin()
        for _ in range(rounds):
            callers.resume()
            await callers.enrol()
            await siege.cycle()
            await callers.enrol()
            outcome.check(await siege.recovered(), f"not all is counted after {BACK_DEADLINE_S} s")
            await callers.pause()
            outcome.check(await siege.recovered(), f"not all is counted after {BACK_DEADLINE_S} s")
            await _compare(siege, gates[0], ledger, outcome)
            outcome.tried += 1
            stage.progress(outcome.tried)
            if planted and outcome.violations:
                break
        took_s = time.monotonic() - started_at_s
    outcome.figures = {
        "calls": ledger.calls,
        "calls a second": round(ledger.calls / took_s),
        "cycles a second": round(outcome.tried / took_s, 1),
        "lost since the last snapshot": ledger.lost,
        **dict(siege.done),
    }
    return outcome
