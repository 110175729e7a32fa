"""Row 4: Redis killed, hung, slow, read-only, full, emptied, or its connections cut, under load."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from unittest.mock import patch

from redis.asyncio import Redis

from models import servers
from models.connections import open_stores
from models.store import Store
from tests.soak.between import enrol
from tests.soak.broken_web import ERRORS_ARE_ANSWERS, NO_BREAKER, NO_LIMIT_ALONE
from tests.soak.load import Call, Load, percentile_ms
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.system.faultproxy import FaultProxy

USERS = 40
CALLS_A_SECOND = 200
PROCESSES = 2
QUOTA = 20
"""Calls a second of a user: one makes half of all calls and is refused most; the others stay far below."""

BREAKER_S = 2.0
"""Long after the breaker must be open, at which no call may wait for Redis any more."""

WAITED_S = 0.19
CAUGHT_UP_S = 15.0
PATIENCE_S = 5.0
"""Of whoever adds up what was counted, on a busy machine."""

Fault = Callable[[Stage, FaultProxy, float], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(stage: Stage, proxy: FaultProxy, lasting_s: float) -> AsyncIterator[None]:
    os.kill(stage.valkey.pid, signal.SIGKILL)
    yield
    await asyncio.to_thread(stage.valkey.restart)


@asynccontextmanager
async def hung(stage: Stage, proxy: FaultProxy, lasting_s: float) -> AsyncIterator[None]:
    os.kill(stage.valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stage.valkey.pid, signal.SIGCONT)


def slow(delay_s: float) -> Fault:
    @asynccontextmanager
    async def fault(stage: Stage, proxy: FaultProxy, lasting_s: float) -> AsyncIterator[None]:
        proxy.delay_s, proxy.jitter_s = delay_s, delay_s / 4
        yield
        proxy.heal()

    return fault


@asynccontextmanager
async def half_open(stage: Stage, proxy: FaultProxy, lasting_s: float) -> AsyncIterator[None]:
    proxy.half_open = True
    yield
    proxy.heal()


def commanded(begin: str, end: str = "PING", *, again: bool = False) -> Fault:
    """A command to Redis at the start, every tenth of a second or once; and one at the end."""

    @asynccontextmanager
    async def fault(stage: Stage, proxy: FaultProxy, lasting_s: float) -> AsyncIterator[None]:
        async def repeat() -> None:
            while again:
                await asyncio.sleep(0.1)
                await redis.execute_command(*begin.split())

        async with Redis.from_url(stage.valkey.url) as redis:
            await redis.execute_command(*begin.split())
            task = asyncio.create_task(repeat())
            yield
            task.cancel()
            await asyncio.wait([task])
            await redis.execute_command(*end.split())

    return fault


def repeated(what: Callable[[FaultProxy], None]) -> Fault:
    @asynccontextmanager
    async def fault(stage: Stage, proxy: FaultProxy, lasting_s: float) -> AsyncIterator[None]:
        async def repeat() -> None:
            while True:
                what(proxy)
                await asyncio.sleep(0.2)

        task = asyncio.create_task(repeat())
        yield
        task.cancel()
        proxy.heal()

    return fault


FAULTS: dict[str, Fault] = {
    "hung": hung,
    "killed": killed,
    "slow 50 ms": slow(0.05),
    "slow 200 ms": slow(0.2),
    "slow 1 s": slow(1.0),
    "slow 5 s": slow(5.0),
    "read-only": commanded("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "out of memory": commanded("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "SCRIPT FLUSH": commanded("SCRIPT FLUSH", again=True),
    "CLIENT KILL": commanded("CLIENT KILL TYPE normal SKIPME yes", again=True),
    "half-open": half_open,
    "cut": repeated(FaultProxy.cut),
    "replies lost": repeated(FaultProxy.drop_replies),
    "emptied": commanded("FLUSHALL"),
}

SHORT = ("hung", "slow 1 s", "read-only", "half-open", "replies lost", "emptied")


@scenario(
    4,
    "redis-faults",
    "14 faults of Redis under load: every valid token is admitted, nobody waits for long, the counts arrive",
    full=3,
    short=1,
    planted=(NO_BREAKER, ERRORS_ARE_ANSWERS, NO_LIMIT_ALONE),
    durable=True,
)
async def redis_faults(stage: Stage, rounds: int, planted: str) -> Outcome:
    """All faults, so many times: a hung Redis first for 30 s, the others for 5 s; the short form has six, shorter."""
    outcome, short = Outcome(), rounds == 1
    faults = {name: FAULTS[name] for name in SHORT} if short else FAULTS
    async with FaultProxy("127.0.0.1", stage.valkey.port or 0) as proxy, open_stores(stage.settings) as stores:
        environ = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", "RATE_LIMITS": f"{QUOTA}/1s"}
        module = f"tests.soak.broken_web {planted}" if planted else "api"
        starting = [asyncio.to_thread(stage.web, None, module=module, **environ) for _ in range(PROCESSES)]
        webs = await asyncio.gather(*starting)
        stage.worker(SNAPSHOT_INTERVAL_S="1")
        users = await enrol(stores, USERS)
        tokens = {user_id: await stores.sessions.start(user_id) for user_id in users}
        ports = [web.port or 0 for web in webs]
        for number in range(rounds):
            for name, fault in faults.items():
                if planted and name != "hung":
                    continue
                lasting_s = 5.0
                if name == "hung":
                    lasting_s = 3.0 if short else 30.0 if number == 0 else 5.0
                elif short:
                    lasting_s = 1.0
                async with Load(ports, tokens, CALLS_A_SECOND, hasty=users[0]) as load:
                    await _play(stage, proxy, load, users[0], name, fault(stage, proxy, lasting_s), lasting_s, outcome)
                outcome.tried += 1
                stage.progress(outcome.tried)
        if not planted:
            await _check_counts(stage, outcome)
    return outcome


async def _play(
    stage: Stage,
    proxy: FaultProxy,
    load: Load,
    hasty: int,
    name: str,
    fault: AbstractAsyncContextManager[None],
    lasting_s: float,
    outcome: Outcome,
) -> None:
    await asyncio.sleep(0.5)
    began_s = time.monotonic()
    async with fault:
        await asyncio.sleep(lasting_s)
        during = [call for call in load.calls if call.started_s >= began_s]
    healed_s = time.monotonic()
    await asyncio.sleep(1.0)
    async with load.quiet():
        await _counted(stage, load, name, outcome)
    wrong = [call for call in load.calls if call.status != 200 and (call.status, call.user_id) != (429, hasty)]
    for call in wrong[:5]:
        said = call.answer[-90:].decode(errors="replace")
        outcome.violations.append(f"{name}: a valid token gets {call.status} {said}")
    late = [call for call in during if call.started_s > began_s + BREAKER_S]
    waited = sum(call.took_s > WAITED_S for call in late)
    outcome.check(
        waited <= len(late) / 5, f"{name}: {waited} of {len(late)} calls wait for a Redis that is known to fail"
    )
    _check_limit([call for call in load.calls if call.user_id == hasty], name, outcome)
    slow_until_s = max((call.ended_s for call in load.calls if call.took_s > 0.15), default=began_s)
    outcome.figures[name] = (
        f"p99 {percentile_ms(during, 0.99)} ms, settled after {_settled(during, began_s):.2f} s,"
        f" normal {max(0.0, slow_until_s - healed_s):.2f} s after"
    )


def _check_limit(calls: list[Call], name: str, outcome: Outcome) -> None:
    """Each process and Redis keep the limit on their own; the window in which they take over has the quota of each."""
    admitted = [call for call in calls if call.status == 200]
    most = 0
    for first in admitted:
        # Only what began and ended within the second was certainly admitted within it.
        most = max(most, sum(first.started_s <= it.started_s and it.ended_s <= first.started_s + 1 for it in admitted))
    outcome.figures["most admitted in a second"] = max(most, outcome.figures.get("most admitted in a second", 0))
    allowed = QUOTA * (PROCESSES + 1)
    outcome.check(most <= allowed, f"{name}: {most} calls of a user are admitted in a second, {allowed} allowed")


def _settled(calls: list[Call], began_s: float) -> float:
    """Seconds from the fault's begin until calls were quick again for its duration."""
    slow = [call.ended_s for call in calls if call.took_s > 0.3]
    return max(slow, default=began_s) - began_s


async def _counted(stage: Stage, load: Load, name: str, outcome: Outcome) -> None:
    """Wait for the late counts: of each fault on its own, so the totals are taken away afterwards."""
    known = outcome.figures.setdefault("calls admitted, counted, lost with their reply or the wipe", [0, 0, 0])
    admitted, end_at = sum(load.admitted.values()), time.monotonic() + CAUGHT_UP_S
    counted = await _total(stage) - known[1]
    while counted < admitted and time.monotonic() < end_at:
        before = counted
        await asyncio.sleep(0.3)
        counted = await _total(stage) - known[1]
        if counted == before and admitted - counted <= admitted * 0.2:
            break
    outcome.check(counted <= admitted, f"{name}: {counted} calls counted, {admitted} admitted")
    missing = admitted - counted
    allowed = admitted * (0.7 if name == "emptied" else 0.35 if name in ("cut", "replies lost", "CLIENT KILL") else 0.2)
    outcome.check(missing <= allowed, f"{name}: {missing} of {admitted} calls are not counted")
    known[0], known[1], known[2] = known[0] + admitted, known[1] + counted, known[2] + missing


async def _total(stage: Stage) -> int:
    with patch.object(servers, "JOB_DEADLINE_S", PATIENCE_S):
        redis = Store(stage.settings.redis_url)
    try:
        await redis.counters.fold()
        return sum(calls for _, calls in await redis.counters.top(USERS, None))
    finally:
        await redis.close()


async def _check_counts(stage: Stage, outcome: Outcome) -> None:
    admitted, counted, lost = outcome.figures["calls admitted, counted, lost with their reply or the wipe"]
    outcome.check(counted + lost == admitted, "the ledger does not add up")
