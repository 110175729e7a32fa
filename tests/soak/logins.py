"""Row 1: many logins at once of one user, in several processes, some of which are killed half-way."""

import asyncio
import random
import time
from collections import defaultdict
from contextlib import AsyncExitStack

import msgspec
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.keys import user_key
from models.tokens import Claims
from tests.conftest import RawRedis
from tests.soak.between import UNFENCED, enrol
from tests.soak.login_actors import Answer, Order, Troupe, troupe
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage

UNSYNCED = "no sync"
PROCESSES = 4
LOGINS_EACH = 4
ROUNDS_AT_ONCE = 25
"""Each of another user; more at once would queue for connections and no longer meet their like."""

KILL_EVERY = 5
"""Batches of which in one a process is killed: of the four, so 1 in 20 processes in each round."""

GOAL_S = 1.0
DEADLINE_S = 6.0
"""Well above the goal, which is a figure: in a busy machine's test suite time decides nothing."""

UNSYNCED_DEADLINE_S = 1.0
"""Nobody is waited for."""

_ROWS = "SELECT user_id, version FROM sessions WHERE user_id = ANY($1::bigint[])"


class _Seen(msgspec.Struct):
    """What was seen beside the violations.

    Args:
        orphaned: sessions in PostgreSQL whose token nobody got, as their login was killed.
        apart: rounds that ended with the stores apart, because of a kill.
    """

    logins: int = 0
    refused: int = 0
    kills: int = 0
    orphaned: int = 0
    apart: int = 0
    late: int = 0
    slowest_s: float = 0.0


class _Judge:
    """Knows every token that was ever handed out, and what may be valid of them.

    Args:
        redis: to look behind the domain.
        deadline_s: from the last login of a user until the stores agree.
    """

    def __init__(self, stores: Stores, redis: RawRedis, outcome: Outcome, deadline_s: float) -> None:
        self.seen = _Seen()
        self._stores, self._redis, self._outcome, self._deadline_s = stores, redis, outcome, deadline_s
        self._tokens: defaultdict[int, list[Claims]] = defaultdict(list)
        self._token_of: dict[int, str] = {}
        self._unpublished: set[int] = set()

    def hear(self, answer: Answer) -> None:
        """Note one login's end."""
        self.seen.logins += 1
        self.seen.refused += not answer.token
        if not answer.published:
            self._unpublished.add(answer.user_id)
        claims = self._stores.sessions.verify(answer.token)
        if claims is not None:
            self._tokens[answer.user_id].append(claims)
            self._token_of[claims.version] = answer.token

    async def judge(self, user_ids: list[int], *, all_lived: bool) -> None:
        """All their logins are over: the stores agree, and the last session is the valid one."""
        quiet_at_s = time.monotonic()
        apart = await self._apart(user_ids)
        if all_lived:
            answered = apart - self._unpublished
            self._outcome.check(not answered, f"all logins were answered, and the stores differ: {answered}")
        self._unpublished -= set(user_ids)
        self.seen.apart += len(apart)
        while apart and time.monotonic() - quiet_at_s < self._deadline_s:
            await asyncio.sleep(0.01)
            apart, before = await self._apart(list(apart)), len(apart)
            took_s = time.monotonic() - quiet_at_s
            self.seen.late += (before - len(apart)) * (took_s > GOAL_S)
            self.seen.slowest_s = max(self.seen.slowest_s, took_s)
        self._outcome.check(not apart, f"{self._deadline_s:.0f} s after the last login the stores differ: {apart}")
        versions = await self._versions(user_ids)
        await asyncio.gather(*(self._judge_tokens(user_id, versions.get(user_id)) for user_id in user_ids))

    async def _versions(self, user_ids: list[int]) -> dict[int, int]:
        rows = await self._stores.database.fetch(_ROWS, user_ids)
        return {row["user_id"]: row["version"] for row in rows}

    async def _apart(self, user_ids: list[int]) -> set[int]:
        """The users of whom Redis holds another session than PostgreSQL."""
        versions = await self._versions(user_ids)
        cached = await self._redis.mget([user_key(user_id, "session") for user_id in user_ids])
        return {
            user_id
            for user_id, entry in zip(user_ids, cached, strict=True)
            if versions.get(user_id) != (int(entry.partition(":")[0]) if entry else None)
        }

    async def _judge_tokens(self, user_id: int, version: int | None) -> None:
        """Exactly the token of the session in PostgreSQL is admitted: one, or none when its login was killed."""
        known = self._tokens[user_id]
        self.seen.orphaned += version is not None and not any(claims.version == version for claims in known)
        for claims in known:
            admission = await self._stores.usage.admit(self._token_of[claims.version])
            holds = admission.admitted == (claims.version == version)
            self._outcome.check(holds, f"user {user_id}, session {claims.version} of {version}: {admission.reason}")


async def _play(troupe: Troupe, judge: _Judge, user_ids: list[int], *, killing: bool) -> None:
    """One round for each of some users: their logins all at once, spread over the processes."""
    order = Order(user_ids, LOGINS_EACH)
    await troupe.fill(PROCESSES)
    victim = random.choice(troupe.actors) if killing else None
    kill_after = random.randrange(LOGINS_EACH * len(user_ids))
    lived = await asyncio.gather(
        *(actor.log_in(order, judge.hear, kill_after if actor is victim else None) for actor in troupe.actors)
    )
    for actor, alive in zip(list(troupe.actors), lived, strict=True):
        assert alive or actor is victim, f"a process ended by itself: {troupe.said}"
        if not alive:
            troupe.actors.remove(actor)
    judge.seen.kills += not all(lived)
    await judge.judge(user_ids, all_lived=all(lived))


async def _until_synced(stores: Stores) -> None:
    async with asyncio.timeout(30):
        while not await stores.store.sync_states():
            await asyncio.sleep(0.02)


@scenario(
    1,
    "logins",
    "sixteen logins of one user at once in four processes, some of them killed: one token is valid, the stores agree",
    full=10_000,
    short=100,
    planted=(UNFENCED, UNSYNCED),
    planted_rounds=1_000,
)
async def logins(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Rounds of different users side by side; each user plays about two, so a row is inserted and then updated."""
    outcome, synced = Outcome(), planted != UNSYNCED
    async with AsyncExitStack() as stack:
        if synced:
            stage.worker()
        actors = await stack.enter_async_context(troupe(stage, planted))
        stores = await stack.enter_async_context(open_stores(stage.settings))
        redis = await stack.enter_async_context(Redis.from_url(stage.settings.redis_url, decode_responses=True))
        judge = _Judge(stores, redis, outcome, DEADLINE_S if synced else UNSYNCED_DEADLINE_S)
        users = await enrol(stores, max(ROUNDS_AT_ONCE, rounds // 2))
        if synced:
            await _until_synced(stores)
        for begin in range(0, rounds, ROUNDS_AT_ONCE):
            playing = [users[n % len(users)] for n in range(begin, min(begin + ROUNDS_AT_ONCE, rounds))]
            killing = not synced or (planted != UNFENCED and begin % (KILL_EVERY * ROUNDS_AT_ONCE) == 0)
            await _play(actors, judge, playing, killing=killing)
            outcome.tried += len(playing)
            stage.progress(outcome.tried)
            if planted and outcome.violations:
                break  # a killed process leaves the stores apart in about every second batch
        outcome.check(judge.seen.refused <= outcome.tried, f"{judge.seen.refused} logins were refused")
        outcome.figures = msgspec.structs.asdict(judge.seen) | {"slowest_s": round(judge.seen.slowest_s, 3)}
    return outcome
