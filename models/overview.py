"""The service at a glance, for its operators: one reading of both stores, whatever of them is there."""

import asyncio
import time
from collections import deque

import msgspec

from models.accounts import Accounts
from models.database import Database, load_sql
from models.heartbeat import Heartbeat
from models.meters import Facts
from models.operations import Operations
from models.pace import MAX_GAP_MS, Pace, Rates, Shares
from models.refreshed import Refreshed
from models.settings import Settings
from models.store import Store
from models.usage import TOP_COUNT
from models.windows import PERIODS, Period, current

RANKINGS_EVERY_S, RANKINGS_DEADLINE_S = 2.0, 2.0
"""They fold what was admitted since the last time, as `/top` does: not for every look."""

SESSIONS_EVERY_S, SESSIONS_DEADLINE_S = 10.0, 2.0
MAX_COUNTED_SESSIONS = 100_000
"""More are not counted but estimated: counting ten million rows takes PostgreSQL seconds."""

MAX_HISTORY = 120
"""Looks: two minutes of them."""

_COUNT_SESSIONS = load_sql("count_live_sessions")


class Caller(msgspec.Struct, frozen=True, rename="camel"):
    """One who calls much; `name` is None for a deleted user, or while PostgreSQL does not say it."""

    user_id: int
    name: str | None
    calls: int


class Ranking(msgspec.Struct, frozen=True, rename="camel"):
    """Who called in a window: how many, and the ten who called most, most calls first."""

    callers: int
    top: list[Caller]


class LiveSessions(msgspec.Struct, frozen=True, rename="camel"):
    """How many sessions are live; estimated when they are too many to count."""

    count: int
    estimated: bool
    counted_at_ms: int


class Overview(msgspec.Struct, frozen=True, rename="camel"):
    """What one reading found; None stands for what nobody could say.

    Args:
        at_ms: this process's clock, in milliseconds since 1970.
        redis, postgresql: they answer.
        rates, shares: None also at the first reading, and `shares` while no call comes.
        heartbeat_age_s: since the worker's last sync of the sessions began; None also when there was none.
        worker_late, snapshot_late: longer ago than is normal, or never.
    """

    at_ms: int
    redis: bool
    postgresql: bool
    rates: Rates | None
    shares: Shares | None
    rankings: dict[Period, Ranking] | None
    sessions: LiveSessions | None
    heartbeat_age_s: float | None
    worker_late: bool
    snapshot_age_s: float | None
    snapshot_late: bool


class Overviews:
    """Reads an overview: three round trips to Redis at most, one or two to PostgreSQL."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: Store,
        accounts: Accounts,
        operations: Operations,
        heartbeat: Heartbeat,
    ) -> None:
        self._database = database
        self._store = store
        self._accounts = accounts
        self._operations = operations
        self._worker_late_s = heartbeat.late_s
        self._snapshot_late_s = heartbeat.late_s + 3.0 * settings.snapshot_interval_s
        self._rankings = Refreshed(self._rank, RANKINGS_EVERY_S, RANKINGS_DEADLINE_S)
        self._sessions = Refreshed(self._count_sessions, SESSIONS_EVERY_S, SESSIONS_DEADLINE_S)
        self._pace = Pace()
        self._history: deque[tuple[int, Rates]] = deque(maxlen=MAX_HISTORY)

    async def close(self) -> None:
        await self._rankings.close()
        await self._sessions.close()

    @property
    def history(self) -> list[tuple[int, Rates]]:
        """The rates of the last readings, each with its `at_ms`, unless nobody has looked for a while."""
        recent = bool(self._history) and _now_ms() - self._history[-1][0] <= MAX_GAP_MS
        return list(self._history) if recent else []

    async def read(self) -> Overview:
        """Read what can be read, within about a second."""
        facts, postgresql = await self._operations.look()
        if facts is None:
            self._rankings.forget()
        else:
            self._pace.note(facts.now_ms, facts.meters)
        if not postgresql:
            self._sessions.forget()
        rankings = None if facts is None else await self._rankings.get()
        sessions = await self._sessions.get() if postgresql else None
        overview = self._overview(facts, rankings, sessions, postgresql=postgresql)
        if overview.rates is not None:
            if not self.history:
                self._history.clear()
            self._history.append((overview.at_ms, overview.rates))
        return overview

    def _overview(
        self,
        facts: Facts | None,
        rankings: dict[Period, Ranking] | None,
        sessions: LiveSessions | None,
        *,
        postgresql: bool,
    ) -> Overview:
        heartbeat_age_s = facts.heartbeat_age_s if facts else None
        snapshot_age_s = facts.snapshot_age_s if facts else None
        return Overview(
            at_ms=_now_ms(),
            redis=facts is not None,
            postgresql=postgresql,
            rates=self._pace.rates() if facts else None,
            shares=self._pace.shares() if facts else None,
            rankings=rankings,
            sessions=sessions,
            heartbeat_age_s=heartbeat_age_s,
            worker_late=facts is not None and not _within(heartbeat_age_s, self._worker_late_s),
            snapshot_age_s=snapshot_age_s,
            snapshot_late=facts is not None and not _within(snapshot_age_s, self._snapshot_late_s),
        )

    async def _rank(self) -> dict[Period, Ranking]:
        counters = self._store.counters
        await counters.fold()
        now_us = await counters.now_us()
        windows = [current(period, now_us) for period in PERIODS]
        tops = await asyncio.gather(*(counters.top(TOP_COUNT, window) for window in windows))
        counts = await asyncio.gather(*(counters.count_callers(window) for window in windows))
        names = await self._accounts.names_of({user_id for top in tops for user_id, _ in top})
        callers = [[Caller(user_id, names.get(user_id), calls) for user_id, calls in top] for top in tops]
        return {period: Ranking(n, top) for period, n, top in zip(PERIODS, counts, callers, strict=True)}

    async def _count_sessions(self) -> LiveSessions:
        rows = await self._database.fetch(_COUNT_SESSIONS, MAX_COUNTED_SESSIONS + 1, deadline_s=SESSIONS_DEADLINE_S)
        counted, about = rows[0]["counted"], rows[0]["about"]
        estimated = counted > MAX_COUNTED_SESSIONS
        return LiveSessions(max(counted, about) if estimated else counted, estimated, _now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)


def _within(age_s: float | None, late_s: float) -> bool:
    return age_s is not None and age_s < late_s
