"""Row 13: sockets that send or read a byte now and then are let go in time, and cost other users little."""

import asyncio
import statistics
import subprocess
import sys
import time
from contextlib import suppress

import msgspec

from api import connection
from models.connections import Stores, open_stores
from tests.soak import impatient_web
from tests.soak.scenario import Outcome, scenario
from tests.soak.slow_sockets import NEVER_READS, Fate
from tests.soak.stage import ROOT, Process, Stage

PLANTED = "the framework's own connections"
SHORT_BELOW = 500
"""Fewer sockets than this meet shortened deadlines."""

SLACK_S = 3.0
"""Beyond a deadline, for a busy machine; a planted fault never ends them."""

OTHERS = 8
PAUSE_S = 0.01


class _Others:
    """Ordinary users: each calls, waits for the answer, and rests."""

    def __init__(self, web: Process, tokens: list[str], outcome: Outcome) -> None:
        self._port, self._tokens, self._outcome = web.port, tokens, outcome
        self.took_ms: list[float] = []
        self.calls = 0

    async def call_for(self, until: asyncio.Task[object]) -> float:
        """Call until something is done; returns the 99th percentile of the calls' times in ms."""
        self.took_ms = []
        callers = [asyncio.create_task(self._call(token)) for token in self._tokens]
        await asyncio.wait([until, *callers], return_when=asyncio.FIRST_COMPLETED)
        for caller in callers:
            caller.cancel()
        for end in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(end, Exception):
                self._outcome.violations.append(f"another user's connection failed: {end!r}")
        self.calls += len(self.took_ms)
        return statistics.quantiles(self.took_ms, n=100)[98] if len(self.took_ms) > 1 else 0.0

    async def _call(self, token: str) -> None:
        request = f"GET /ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                started_at = time.perf_counter()
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n{}")
                self.took_ms.append((time.perf_counter() - started_at) * 1000)
                self._outcome.check(answer.startswith(b"HTTP/1.1 200 "), f"another user gets {answer[:100]!r}")
                await asyncio.sleep(PAUSE_S)
        finally:
            writer.close()


def _memory_kib(process: Process) -> int:
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(process.pid)], text=True))


async def _attack(web: Process, rounds: int, limit_s: float) -> list[Fate]:
    arguments = [str(argument) for argument in (web.port, rounds, limit_s, 2 * limit_s + SLACK_S)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.slow_sockets", *arguments, cwd=ROOT, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
        return msgspec.json.decode(output, type=list[Fate])
    finally:
        with suppress(ProcessLookupError):
            process.kill()


def _judge(fates: list[Fate], limit_s: float, outcome: Outcome) -> None:
    for fate in fates:
        # For one that never reads, time begins when all that lies between is full, which takes it about as long.
        most_s = limit_s * (2 if fate.kind == NEVER_READS else 1) + SLACK_S
        ended_in_time = fate.ended_s is not None and fate.ended_s <= most_s
        outcome.check(ended_in_time, f"{fate.kind}: ended after {fate.ended_s} s, the limit is {limit_s} s")
        told = fate.status == (408 if fate.kind.startswith("trickled") else 0)
        outcome.check(told or not ended_in_time, f"{fate.kind}: answered {fate.status}")


@scenario(
    13,
    "slow-clients",
    "1,000 sockets that trickle heads or bodies, say nothing or never read: each is ended in time, others go on",
    full=1_000,
    short=50,
    planted=(PLANTED,),
)
async def slow_clients(stage: Stage, rounds: int, planted: str) -> Outcome:
    """One real web process, the slow ones in a process of their own, ordinary users before and meanwhile."""
    outcome, short = Outcome(), rounds < SHORT_BELOW
    limit_s = impatient_web.LIMIT_S if short else connection.HEAD_DEADLINE_S
    async with open_stores(stage.settings) as stores:
        tokens = [await stores.sessions.start(user_id) for user_id in await _enrol(stores)]
    web = stage.web(module="tests.soak.lax_web" if planted else "tests.soak.impatient_web" if short else "api")
    others = _Others(web, tokens, outcome)
    before_ms = await others.call_for(asyncio.create_task(asyncio.sleep(limit_s / 2)))
    memory_kib = [_memory_kib(web)]
    attacking = asyncio.create_task(_attack(web, rounds, limit_s))
    looking = asyncio.create_task(_memory_after(web, limit_s * 0.6))
    during_ms = await others.call_for(attacking)
    fates = await attacking
    memory_kib += [await looking, _memory_kib(web)]
    _judge(fates, limit_s, outcome)
    outcome.check(web.stop() == 0, "the web process does not end as it should")
    outcome.check("Traceback" not in web.said, f"the web process failed: {web.said[-2_000:]}")
    outcome.tried = len(fates)
    outcome.figures = {
        "others' p99 before, ms": round(before_ms, 1),
        "during / before": round(during_ms / max(before_ms, 0.001), 2),
        "others' calls": others.calls,
        "last slow sender ended, s": _last(fates, unread=False),
        "last unread one ended, s": _last(fates, unread=True),
        "KiB a socket": round((memory_kib[1] - memory_kib[0]) / rounds, 1),
        "MiB before / after": f"{memory_kib[0] / 1024:.0f} / {memory_kib[2] / 1024:.0f}",
    }
    return outcome


def _last(fates: list[Fate], *, unread: bool) -> float:
    return round(max(fate.ended_s or float("inf") for fate in fates if (fate.kind == NEVER_READS) == unread), 1)


async def _enrol(stores: Stores) -> list[int]:
    rows = await stores.database.fetch(
        "INSERT INTO users (username, username_key, password_hash, created_at)"
        " SELECT 'user' || n, 'user' || n, '', now() FROM generate_series(1, $1) AS n RETURNING id",
        OTHERS,
    )
    return [row["id"] for row in rows]


async def _memory_after(web: Process, wait_s: float) -> int:
    await asyncio.sleep(wait_s)
    return await asyncio.to_thread(_memory_kib, web)
