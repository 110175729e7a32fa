"""Row 14: four web processes under one supervisor and three workers, killed at random while users come and go."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.keys import user_key
from tests.soak.broken_web import UNPUBLISHED
from tests.soak.load import DEADLINE_S, Call, Connections, request
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Process, Stage

WEBS, WORKERS, USERS = 4, 3, 10
QUOTA, WINDOW_S = 5, 1.0
CAUGHT_UP_S = 20.0
TOKENS_KEPT = 5


class _User:
    """Somebody who logs in and out, calls, and tries old tokens; every answer is held against what may be.

    An answer that never came, as its process was killed, leaves open which token is valid: then they log in again.
    """

    def __init__(self, user_id: int, name: str, port: int, outcome: Outcome) -> None:
        self.user_id, self._port, self._outcome = user_id, port, outcome
        self._credentials = {"username": name, "password": "correct horse"}
        self._connections = Connections(keeps_all=True)
        self.admitted: list[Call] = []
        self.seen: Counter[str] = Counter()
        self.token = ""
        self.ended: list[str] = []

    async def live(self, over: asyncio.Event) -> None:
        """Until it is over; at last with a token that is surely valid."""
        while not over.is_set():
            if not self.token:
                await self.log_in()
            if not self.token:
                continue
            deed = random.choices((self.call, self.try_old, self.log_in, self.log_out), (80, 8, 3, 3))[0]
            await deed()
            await asyncio.sleep(random.random() * 0.05)
        while not self.token:
            await self.log_in()

    def close(self) -> None:
        self._connections.close()

    async def log_in(self) -> None:
        """One login, or two at once of which one is to be valid."""
        wire = request("POST", "/login", body=self._credentials)
        answers = await asyncio.gather(*(self._ask(wire) for _ in range(random.choice((1, 1, 2)))))
        self._end()
        tokens = [_token_of(answer) for answer in answers if answer.status == 200]
        self.seen["logins"] += len(tokens)
        if len(tokens) == len(answers):
            shown = [await self._ask(request("GET", "/session", token)) for token in tokens]
            valid = [token for token, answer in zip(tokens, shown, strict=True) if answer.status == 200]
            if all(answer.status in (200, 401) for answer in shown):
                self._outcome.check(len(valid) == 1, f"of {len(tokens)} logins {len(valid)} have a valid token")
                self.token = valid[0] if valid else ""
            self.ended += [token for token in tokens if token not in valid]
        else:
            await asyncio.sleep(0.05)

    async def log_out(self) -> None:
        answer = await self._ask(request("POST", "/logout", self.token))
        self._outcome.check(answer.status in (204, 503, 0), f"a logout is answered {answer.status}")
        if answer.status == 204:
            self.seen["logouts"] += 1
            self._end()
        self.token = ""

    def _end(self) -> None:
        if self.token:
            self.ended = [*self.ended, self.token][-TOKENS_KEPT:]
        self.token = ""

    async def call(self) -> None:
        answer = await self._ask(request("GET", "/ping", self.token))
        self._outcome.check(answer.status in (200, 429, 503, 0), f"a valid token is refused: {_said(answer)}")
        self.seen[f"calls {answer.status}"] += 1
        if answer.status == 200:
            answer.answer = b""
            self.admitted.append(answer)

    async def try_old(self) -> None:
        answer = await self._ask(request("GET", "/ping", random.choice(self.ended or ["-"])))
        self.seen["ended tokens tried"] += 1
        self._outcome.check(answer.status not in (200, 429), f"an ended token is admitted: {_said(answer)}")

    async def _ask(self, wire: bytes) -> Call:
        answer = await self._connections.ask(Call(self.user_id, self._port, time.monotonic()), wire)
        if not answer.status:
            waited_s = time.monotonic() - answer.started_s
            self._outcome.check(waited_s < DEADLINE_S, f"no answer within {DEADLINE_S:.0f} s: {wire[:12]!r}")
        return answer


def _said(call: Call) -> str:
    return f"{call.status} {call.answer[-80:].decode(errors='replace')}"


def _token_of(answer: Call) -> str:
    return str(msgspec.json.decode(answer.answer.partition(b"\r\n\r\n")[2])["sessionToken"])


def exceeds(calls: list[Call]) -> bool:
    """Whether more than the quota were surely admitted within one window: begun and answered in it."""
    for first in calls:
        within = sum(first.started_s <= it.started_s and it.ended_s < first.started_s + WINDOW_S for it in calls)
        if within > QUOTA:
            return True
    return False


class _Team:
    """The processes, and who kills them."""

    def __init__(self, stage: Stage, planted: str) -> None:
        module = f"tests.soak.broken_web {planted}" if planted else "api"
        self.web = stage.web(
            None, module=module, WEB_PROCESSES=str(WEBS), RATE_LIMITS=f"{QUOTA}/{WINDOW_S:.0f}s", ACCESS_LOG="off"
        )
        self._workers = [stage.worker(SNAPSHOT_INTERVAL_S="1") for _ in range(WORKERS)]
        self.kills: Counter[str] = Counter()

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.web.pid}/task/{self.web.pid}/children").read_text().split()]

    async def kill_one(self) -> None:
        """SIGKILL to a web process, while half of them live, or to a worker, which is started again."""
        webs = self.children()
        if len(webs) > WEBS // 2 and random.random() < 0.6:
            self.kills["web"] += 1
            with suppress(ProcessLookupError):
                os.kill(random.choice(webs), signal.SIGKILL)
        else:
            self.kills["worker"] += 1
            victim: Process = random.choice(self._workers)
            await asyncio.to_thread(victim.kill)
            victim.launch()


async def _wrong(stores: Stores, users: list[_User]) -> list[str]:
    """What the stores do not agree on, with each other or with what the users were told."""
    rows = await stores.database.fetch("SELECT user_id, calls FROM call_totals")
    totals = {row["user_id"]: row["calls"] for row in rows}
    versions = {row["user_id"]: row["version"] for row in await stores.database.fetch("SELECT * FROM sessions")}
    found = []
    async with Redis.from_url(stores.settings.redis_url, decode_responses=True) as redis:
        for user in users:
            uid, told = user.user_id, len(user.admitted)
            score = await redis.zscore(f"gate:{{{uid % 64}}}:totals", f"{uid:012d}")
            counted = -int(score or 0)
            if not told <= counted <= told + user.seen["calls 0"] or totals.get(uid, 0) != counted:
                lost = user.seen["calls 0"]
                found.append(f"user {uid}: {told} calls and {lost} lost, {counted} in Redis, {totals.get(uid)} stored")
            cached = await redis.get(user_key(uid, "session"))
            if not str(cached).startswith(f"{versions.get(uid)}:"):
                found.append(f"user {uid}: PostgreSQL has session {versions.get(uid)}, Redis {cached}")
    return found


@scenario(
    14,
    "many-processes",
    "4 web processes and 3 workers killed at random: one session a user, no ended token admitted, exact limits, counts",
    full=600,
    short=3,
    planted=(UNPUBLISHED,),
    planted_rounds=3,
)
async def many_processes(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Each round, of a second on average, kills a process; half-way the web processes are replaced as well."""
    outcome, over = Outcome(), asyncio.Event()
    team = await asyncio.to_thread(_Team, stage, planted)
    async with open_stores(stage.settings) as stores:
        assert team.web.port
        names = [f"user{number}" for number in range(USERS)]
        ids = [await stores.accounts.add(name, "correct horse") for name in names]
        users = [_User(uid, name, team.web.port, outcome) for uid, name in zip(ids, names, strict=True)]
        lives = [asyncio.create_task(user.live(over)) for user in users]
        for number in range(rounds):
            await asyncio.sleep(0.5 + random.random())
            await team.kill_one()
            if number == rounds // 2:
                team.web.signal(signal.SIGHUP)
            outcome.tried += 1
            stage.progress(outcome.tried)
            if planted and outcome.violations:
                break
        over.set()
        await asyncio.gather(*lives)
        end_at = time.monotonic() + (2.0 if planted else CAUGHT_UP_S)
        while (wrong := await _wrong(stores, users)) and time.monotonic() < end_at:
            await asyncio.sleep(0.2)
        outcome.violations += wrong
    for user in users:
        user.close()
        outcome.check(not exceeds(user.admitted), f"user {user.user_id} got more than {QUOTA} calls in {WINDOW_S} s")
    outcome.check(team.web.running(), "the supervisor has ended")
    seen = sum((user.seen for user in users), Counter[str]())
    outcome.check(bool(seen["calls 429"] or planted), "nobody has met the limit")
    outcome.figures |= {f"{who} kills": count for who, count in sorted(team.kills.items())} | dict(sorted(seen.items()))
    return outcome
