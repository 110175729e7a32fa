"""Row 9: hundreds of users over HTTP, half of whose requests are given up: nobody ever gets another's answer."""

import asyncio
import random
import re
import time
from dataclasses import dataclass, field
from itertools import accumulate

import msgspec
import uvloop
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.keys import bucket_key, bucket_of, member_of, user_key
from tests.soak.aborting import Crowd
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Stage
from tests.system.faultproxy import FaultProxy

SHIFTED = "replies shifted"
USERS = 500
LIVE, REVOKED, REPLACED = "live", "session_revoked", "session_replaced"
STATES = (LIVE, LIVE, LIVE, REVOKED, REPLACED)
QUOTA = 10_000
LIMITS = f"{QUOTA}/1d"
SESSION_SHARE = 0.04
VERIFY_SHARE = 0.3
EVICTIONS_A_SECOND = 20
REDIS_DELAY_S = 0.001
"""Each of its answers takes that long and up to twice: as most requests are given up early, more meet it waiting."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
_IDENTITY = re.compile(rb"\r\nx-user-id: (\d+)\r\n.*?\r\nx-user-name: ([^\r]*)\r\n", re.IGNORECASE | re.DOTALL)
_REMAINING = re.compile(rb'\r\nratelimit: "default";r=(\d+);t=', re.IGNORECASE)


@dataclass
class _User:
    """One user, and which of their calls are known to have been counted.

    Args:
        state: LIVE, or the code that each call of theirs must be refused with.
        sent: calls that left whole, so that the gate may have counted them.
        seen: what number each answered call had among the counted ones.
        highest: of those.
    """

    user_id: int
    name: str
    token: str
    state: str
    sent: int = 0
    seen: set[int] = field(default_factory=set)
    highest: int = 0


class _Request(msgspec.Struct):
    """`counted_before`: the user's calls that were answered before this one left."""

    user: _User
    path: str
    counted_before: int = 0

    @property
    def wire(self) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {self.user.token}\r\n\r\n".encode()


class _Judge:
    """Knows what each answer has to be: whose it is, why it is refused, and the count that rises by one a call."""

    def __init__(self, users: list[_User], outcome: Outcome) -> None:
        self._users, self._outcome = users, outcome
        # Some call ten times as often as others, so that their counts lie apart and a swapped one is seen.
        self._weights = list(accumulate(1 + 9 * number / len(users) for number in range(len(users))))

    def next_request(self) -> _Request:
        user = random.choices(self._users, cum_weights=self._weights)[0]
        shares = SESSION_SHARE, VERIFY_SHARE, 1 - SESSION_SHARE - VERIFY_SHARE
        return _Request(user, random.choices(("/session", "/verify", "/whoami"), shares)[0])

    def sent(self, request: _Request) -> None:
        request.counted_before = request.user.highest
        request.user.sent += request.path != "/session"

    def answered(self, request: _Request, head: bytes, body: bytes) -> None:
        status, user = _STATUS.match(head), request.user
        answer = msgspec.json.decode(body)
        if user.state != LIVE:
            holds = status is not None and status[1] == b"401" and answer.get("code") == user.state
        elif status is None or status[1] != b"200" or not _is_of(user, request.path, head, answer):
            holds = False
        elif request.path == "/session":
            holds = answer["username"] == user.name
        else:
            holds = self._is_next(request, head)
        self._outcome.check(holds, f"{user.state} user {user.user_id} was answered {head[:300]!r} {body!r}")

    def _is_next(self, request: _Request, head: bytes) -> bool:
        """Whether the remaining calls are those of this user: a new number, above all that were answered before."""
        remaining, user = _REMAINING.search(head), request.user
        number = QUOTA - int(remaining[1]) if remaining else 0
        holds = request.counted_before < number <= user.sent and number not in user.seen
        user.seen.add(number)
        user.highest = max(user.highest, number)
        return holds


def _is_of(user: _User, path: str, head: bytes, answer: dict[str, object]) -> bool:
    if path != "/verify":
        return answer.get("userId") == user.user_id
    identity = _IDENTITY.search(head)
    return identity is not None and identity.groups() == (b"%d" % user.user_id, user.name.encode())


async def _enrol(stores: Stores, count: int) -> list[_User]:
    """Users in all states, each with a token; without passwords, which nobody asks for here."""
    rows = await stores.database.fetch(
        "INSERT INTO users (username, username_key, password_hash, created_at)"
        " SELECT 'user' || n, 'user' || n, '', now() FROM generate_series(1, $1) AS n RETURNING id, username",
        count,
    )
    users = []
    for number, row in enumerate(rows):
        user = _User(row["id"], row["username"], await stores.sessions.start(row["id"]), STATES[number % len(STATES)])
        if user.state == REPLACED:
            await stores.sessions.start(user.user_id)
        elif user.state == REVOKED:
            await stores.sessions.revoke(user.user_id)
        users.append(user)
    return users


async def _evict(stage: Stage, users: list[_User]) -> None:
    """Now and then Redis forgets a session, so that requests are given up while they wait for PostgreSQL as well."""
    async with Redis.from_url(stage.settings.redis_url) as redis:
        while True:
            await redis.delete(user_key(random.choice(users).user_id, "session"))
            await asyncio.sleep(1 / EVICTIONS_A_SECOND)


async def _check_totals(stage: Stage, users: list[_User], outcome: Outcome) -> None:
    """What was counted at the end is what was answered, and at most what was sent."""
    async with open_stores(stage.settings) as stores, Redis.from_url(stage.settings.redis_url) as redis:
        await stores.store.counters.fold()
        for user in users:
            score = await redis.zscore(bucket_key(bucket_of(user.user_id), "totals"), member_of(user.user_id))
            total, most = -int(score or 0), user.sent if user.state == LIVE else 0
            outcome.check(
                user.highest <= total <= most,
                f"{user.state} user {user.user_id} counted {total}, answered {user.highest}, sent {user.sent}",
            )


@scenario(
    9,
    "crosstalk",
    "requests of 500 users, half of them given up at any point: each answer is that of its own user and call",
    full=1_000_000,
    short=3_000,
    planted=(SHIFTED,),
    planted_rounds=1_000,
)
async def crosstalk(stage: Stage, rounds: int, planted: str) -> Outcome:
    """One real web process, 64 clients at a time in a thread of their own."""
    outcome = Outcome()
    async with open_stores(stage.settings) as stores:
        users = await _enrol(stores, min(USERS, rounds // 20))
        await stores.sessions.sync()  # so that the web process believes the Redis that it finds
    judge = _Judge(users, outcome)
    async with FaultProxy("127.0.0.1", stage.valkey.port or 0) as slow:
        slow.delay_s, slow.jitter_s = REDIS_DELAY_S, REDIS_DELAY_S
        url = f"redis://127.0.0.1:{slow.port}/0"
        web = stage.web(module="tests.soak.whoami", RATE_LIMITS=LIMITS, REDIS_URL=url, SOAK_PLANTED=planted)
        crowd = Crowd(web.port or 0, judge.next_request, judge.sent, judge.answered)
        evicting = asyncio.create_task(_evict(stage, users))
        started_at = time.monotonic()
        try:
            await asyncio.to_thread(_run, crowd, rounds, stage)
        finally:
            crowd.stop()
            evicting.cancel()
            await asyncio.wait([evicting])
        took_s = time.monotonic() - started_at
        outcome.check(web.stop() == 0, "the web process does not end as it should")
    await _check_totals(stage, users, outcome)
    outcome.violations += crowd.broken
    outcome.check("Redis is away" not in web.said, "the web process lost Redis, which nobody had touched")
    outcome.check("Traceback" not in web.said, f"the web process failed: {web.said[-2_000:]}")
    outcome.tried = crowd.requests
    outcome.figures = {
        "aborted_%": round(100 * (1 - crowd.complete / crowd.requests), 1),
        "requests_a_second": round(crowd.requests / took_s),
        "answers_checked": crowd.complete,
        "connections": crowd.connections,
        **{f"aborted {when}": number for when, number in sorted(crowd.given_up.items())},
    }
    return outcome


def _run(crowd: Crowd[_Request], requests: int, stage: Stage) -> None:
    """In a loop of its own, which is faster, and leaves the scenario's alone."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(crowd.send(requests, stage.progress))
