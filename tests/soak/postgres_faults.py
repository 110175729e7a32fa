"""Row 5: PostgreSQL stopped, hung, locked or out of connections, and both stores away, under load."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from models.connections import open_stores
from tests.soak.between import enrol
from tests.soak.broken_web import ERRORS_ARE_ANSWERS, NO_DEADLINE
from tests.soak.load import Call, Connections, Load, percentile_ms, request
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

USERS = 20
CALLS_A_SECOND = 100
LOGIN_DEADLINE_S = 8.0
"""More than the deadlines of its queries and the hashing of all who try at once."""

SHORT = ("hung", "table sessions locked", "both away")
RECOVERY_DEADLINE_S = 15.0
BOTH_AWAY = "both away"

Fault = Callable[[Stage], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stopped(stage: Stage) -> AsyncIterator[None]:
    os.kill(stage.postgres.pid, signal.SIGQUIT)
    yield
    await asyncio.to_thread(stage.postgres.restart)


@asynccontextmanager
async def hung(stage: Stage) -> AsyncIterator[None]:
    family = [stage.postgres.pid, *_children(stage.postgres.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def locked(table: str) -> Fault:
    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        connection = await asyncpg.connect(stage.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()

    return fault


@asynccontextmanager
async def no_connections(stage: Stage) -> AsyncIterator[None]:
    """The server has none left: whoever has one is ended, and all places are taken."""
    admin = await asyncpg.connect(stage.postgres.url)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse'"
    held: list[asyncpg.Connection] = []
    for _ in range(3):  # places that are freed must not go back to the service
        await admin.execute(ended)
        with suppress(asyncpg.TooManyConnectionsError):
            while len(held) < 300:
                held.append(await asyncpg.connect(stage.postgres.url))
    try:
        yield
    finally:
        await asyncio.gather(*(connection.close() for connection in (*held, admin)))


@asynccontextmanager
async def both_away(stage: Stage) -> AsyncIterator[None]:
    os.kill(stage.valkey.pid, signal.SIGKILL)
    os.kill(stage.postgres.pid, signal.SIGQUIT)
    yield
    await asyncio.to_thread(stage.valkey.restart)
    await asyncio.to_thread(stage.postgres.restart)


FAULTS: dict[str, Fault] = {
    "stopped": stopped,
    "hung": hung,
    "table users locked": locked("users"),
    "table sessions locked": locked("sessions"),
    "no connection left": no_connections,
    BOTH_AWAY: both_away,
}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@scenario(
    5,
    "postgres-faults",
    "6 faults of PostgreSQL under load: cached sessions go on, logins get 503 in time, all recovers by itself",
    full=5,
    short=1,
    planted=(NO_DEADLINE, ERRORS_ARE_ANSWERS),
    durable=True,
)
async def postgres_faults(stage: Stage, rounds: int, planted: str) -> Outcome:
    """All faults, so many times, for 4 s each."""
    outcome = Outcome()
    module = f"tests.soak.broken_web {planted}" if planted else "api"
    web = await asyncio.to_thread(stage.web, None, module=module)
    stage.worker()
    async with open_stores(stage.settings) as stores:
        await stores.accounts.add("ada", "password")
        tokens = {user_id: await stores.sessions.start(user_id) for user_id in await enrol(stores, USERS - 1)}
    faults = FAULTS if rounds > 1 else {name: FAULTS[name] for name in SHORT}
    only = {NO_DEADLINE: "hung", ERRORS_ARE_ANSWERS: BOTH_AWAY}.get(planted)
    for _ in range(rounds):
        for name, fault in faults.items():
            if only in (None, name):
                await _play(web.port or 0, tokens, name, fault(stage), outcome)
                outcome.tried += 1
                stage.progress(outcome.tried)
    return outcome


async def _play(
    port: int, tokens: dict[int, str], name: str, fault: AbstractAsyncContextManager[None], outcome: Outcome
) -> None:
    connections, logins = Connections(), list[Call]()
    async with Load([port], tokens, CALLS_A_SECOND) as load:
        await asyncio.sleep(0.7)
        async with fault:
            began_s = time.monotonic()
            # More at once than the pool has connections, so that each of them waits in the fault.
            trying = [asyncio.create_task(_log_in(connections, port)) for _ in range(12)]
            await asyncio.sleep(4.0)
            during = [call for call in load.calls if call.started_s >= began_s]
            logins = list(await asyncio.gather(*trying))
        healed_s = time.monotonic()
        async with asyncio.timeout(RECOVERY_DEADLINE_S + LOGIN_DEADLINE_S):
            while (await _log_in(connections, port)).status != 200:
                await asyncio.sleep(0.1)
        recovered_s = time.monotonic() - healed_s
        await asyncio.sleep(0.5)
    connections.close()
    for call in logins:
        if name == "no connection left" and call.status == 200:
            continue  # it was quicker than we to take a place that was freed
        unavailable = call.status == 503 and b"\r\nretry-after: " in call.answer.lower()
        outcome.check(unavailable, f"{name}: a login gets {call.status} without a word of when to come back")
        outcome.check(call.took_s < LOGIN_DEADLINE_S, f"{name}: a login takes {call.took_s:.1f} s")
    _judge(name, load, during, outcome)
    outcome.figures[name] = (
        f"calls p99 {percentile_ms(during, 0.99)} ms, logins {max(call.took_s for call in logins):.2f} s at most,"
        f" login works {recovered_s:.2f} s after"
    )


def _judge(name: str, load: Load, during: list[Call], outcome: Outcome) -> None:
    allowed = (200, 503) if name == BOTH_AWAY else (200,)
    wrong = [call for call in load.calls if call.status not in allowed]
    for call in wrong[:5]:
        said = call.answer[-90:].decode(errors="replace")
        outcome.violations.append(f"{name}: a valid token gets {call.status} {said}")
    if name == BOTH_AWAY:
        refused = [call for call in during if call.status == 503]
        outcome.check(len(refused) > len(during) / 2, f"{name}: {len(refused)} of {len(during)} calls got 503")
        told = all(b"\r\nretry-after: " in call.answer.lower() for call in refused)
        outcome.check(told, f"{name}: a 503 does not say when to come back")
    outcome.check(load.calls[-1].status == 200, f"{name}: calls are not answered again")


async def _log_in(connections: Connections, port: int) -> Call:
    call = Call(0, port, time.monotonic())
    return await connections.ask(call, request("POST", "/login", body={"username": "ada", "password": "password"}))
