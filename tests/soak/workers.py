"""Row 6: four workers, two with wrong clocks, killed at random, their stores lost; and no worker at all."""

import asyncio
import os
import random
import shutil
import signal
import time
from collections import Counter

import httpx
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.keys import user_key
from models.records import SyncState
from tests.soak.between import enrol
from tests.soak.broken_web import LOOKING_OFTEN
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Process, Stage

USERS = 12
SKEWS_S = (0, 0, 120, -120)
RESTORED_TWICE = "a restore that never ends"
CAUGHT_UP_S = 30.0
LOST_REPLIES = 2
"""Calls whose reply was lost when Redis hung: they are admitted, and not counted a second time."""


def _worker(stage: Stage, skew_s: int, planted: str) -> Process:
    module = ["-m", "tests.soak.broken_worker" if planted == RESTORED_TWICE else "worker.main"]
    environ = stage.environ(SNAPSHOT_INTERVAL_S="1", EXPIRE_INTERVAL_S="1")
    worker = stage._start(module, f"worker-{len(stage.processes)}", None, environ)
    if skew_s:
        faketime = shutil.which("faketime")
        assert faketime, "install faketime: .ci/run does"
        worker.kill()
        worker._command = [faketime, "-f", f"{skew_s:+d}s", *worker._command]
        worker.start()
    return worker


class _World:
    """Users who call all the time, log in now and then, and what has to be true of them at last."""

    def __init__(self, stores: Stores, outcome: Outcome) -> None:
        self._stores, self._outcome = stores, outcome
        self.admitted: Counter[int] = Counter()
        self.tokens: dict[int, str] = {}
        self.gap_s = 0.0
        self.over = False

    async def sign_up(self) -> None:
        for user_id in await enrol(self._stores, USERS):
            self.tokens[user_id] = await self._stores.sessions.start(user_id)

    async def live(self) -> None:
        """Until it is over: a call that is on its way then is still counted."""
        while not self.over:
            for user_id in self.tokens:
                if random.random() < 0.02:
                    self.tokens[user_id] = await self._stores.sessions.start(user_id)
                admission = await self._stores.usage.admit(self.tokens[user_id])
                if admission.reason:
                    self._outcome.violations.append(f"a valid token is refused: {admission.reason}")
                self.admitted[user_id] += admission.admitted
            await asyncio.sleep(0.01)

    async def watch_heartbeat(self) -> None:
        """Until cancelled: the longest time without a sync, by Redis's clock."""
        while True:
            try:
                now_us, state = await self._stores.store.counters.now_us(), await self._stores.store.sync_states()
                self.gap_s = max(
                    self.gap_s, (now_us - max(it.beat_us for it in state.values())) / 1e6 if state else 0.0
                )
            except Exception:  # Redis is away: nobody can sync
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.1)

    async def judge(self, caught_up_s: float) -> None:
        """Wait until the workers have caught up, and compare both stores with what happened."""
        end_at = time.monotonic() + caught_up_s
        while (wrong := await self._wrong()) and time.monotonic() < end_at:
            await asyncio.sleep(0.5)
        self._outcome.violations += wrong

    async def _wrong(self) -> list[str]:
        totals = dict(await self._stores.usage.top()) | await self._totals()
        rows = await self._stores.database.fetch("SELECT user_id, calls FROM call_totals")
        stored = {row["user_id"]: row["calls"] for row in rows}
        found = [
            f"user {uid}: {calls} calls, {totals.get(uid)} in Redis, {stored.get(uid)} in PostgreSQL"
            for uid, calls in self.admitted.items()
            if totals.get(uid) != stored.get(uid) or not 0 <= calls - totals.get(uid, 0) <= LOST_REPLIES
        ]
        async with Redis.from_url(self._stores.settings.redis_url, decode_responses=True) as redis:
            for row in await self._stores.database.fetch("SELECT user_id, version FROM sessions"):
                cached = await redis.get(user_key(row["user_id"], "session"))
                if row["user_id"] in self.tokens and cached is not None and not cached.startswith(f"{row['version']}:"):
                    found.append(f"user {row['user_id']}: PostgreSQL has version {row['version']}, Redis {cached[:12]}")
        expired = await self._stores.database.fetch("SELECT 1 FROM sessions WHERE expires_at < now()")
        return found + ["an expired session is still there"] * bool(expired)

    async def _totals(self) -> dict[int, int]:
        async with Redis.from_url(self._stores.settings.redis_url) as redis:
            scores = {uid: await redis.zscore(f"gate:{{{uid % 64}}}:totals", f"{uid:012d}") for uid in self.tokens}
        return {uid: -int(score or 0) for uid, score in scores.items()}


@scenario(
    6,
    "workers",
    "four workers, clocks 120 s off, killed at random, Redis and PostgreSQL hung: each effect once, all caught up",
    full=300,
    short=6,
    planted=(RESTORED_TWICE,),
    durable=True,
)
async def workers(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Each round kills a worker; in the middle each store hangs for a tenth of a second a round, a minute at most."""
    outcome = Outcome()
    team = [_worker(stage, skew_s, planted) for skew_s in SKEWS_S]
    async with open_stores(stage.settings) as stores:
        world = _World(stores, outcome)
        await world.sign_up()
        await stores.database.fetch(
            "INSERT INTO users (id, username, username_key, password_hash, created_at)"
            " SELECT n, 'gone' || n, 'gone' || n, '', now() FROM generate_series(1001, 1050) AS n"
        )
        await stores.database.fetch(
            "INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at)"
            " SELECT id, 1, '', now(), now(), now() FROM users WHERE id > 1000"
        )
        tasks = [asyncio.create_task(world.watch_heartbeat()), asyncio.create_task(world.live())]
        for number in range(rounds):
            await asyncio.sleep(random.random() * 0.8)
            victim = random.choice(team)
            victim.kill()
            victim.start()
            if number == rounds // 2:
                await _hang(stage, min(60.0, 0.3 * rounds))
            outcome.tried += 1
            stage.progress(outcome.tried)
        gap_s = world.gap_s
        world.over = True
        await tasks[1]
        tasks[0].cancel()
        await asyncio.wait(tasks)
        await world.judge(5.0 if planted else CAUGHT_UP_S)
    outcome.check(all(worker.running() for worker in team), "a worker has ended by itself")
    outcome.figures |= {"calls": sum(world.admitted.values()), "longest time without a sync, s": round(gap_s, 1)}
    return outcome


async def _hang(stage: Stage, lasting_s: float) -> None:
    for pid in (stage.valkey.pid, stage.postgres.pid):
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(lasting_s if pid == stage.valkey.pid else 1.0)
        os.kill(pid, signal.SIGCONT)


@scenario(
    6,
    "no-worker",
    "no worker for ten minutes: calls, limits and refusals stay right, and /health/ready and the log say so",
    full=600,
    short=2,
)
async def no_worker(stage: Stage, rounds: int, planted: str) -> Outcome:
    """So many seconds; in the short form the last heartbeat is made older, and the process looks for it often."""
    outcome = Outcome()
    short = rounds < 60
    module = f"tests.soak.broken_web {LOOKING_OFTEN}" if short else "api"
    web = await asyncio.to_thread(stage.web, None, module=module, RATE_LIMITS="5/2s")
    async with open_stores(stage.settings) as stores, httpx.AsyncClient(base_url=web.url) as client:
        await stores.sessions.sync()
        ((run_id, state),) = (await stores.store.sync_states()).items()
        if short:
            older = SyncState(state.watermark_us, state.beat_us - 600_000_000)
            await stores.store.save_sync_states({run_id: older})
        user_id = await stores.accounts.add("ada", "password")
        old = await stores.sessions.start(user_id)
        token = await stores.sessions.start(user_id)
        for second in range(rounds):
            if second % 2 == 0:
                await asyncio.sleep(2.05)
                statuses = [(await client.get("/ping", headers=_bearer(token))).status_code for _ in range(7)]
                outcome.check(statuses == [200] * 5 + [429] * 2, f"the limit lets {statuses} through")
                refused = await client.get("/ping", headers=_bearer(old))
                outcome.check(refused.status_code == 401, "a replaced session is admitted")
            outcome.tried += 1
            stage.progress(outcome.tried)
        ready = await client.get("/health/ready")
        outcome.check(ready.status_code == 200, f"/health/ready says {ready.status_code}")
        outcome.check("No worker has published" in ready.text, f"/health/ready does not tell: {ready.text}")
        outcome.check("No worker has published" in web.said, "the log does not tell")
        outcome.figures["/health/ready"] = ready.json().get("warnings", [""])[0]
    return outcome


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
