"""Exports: every user's calls, as of one moment, in pages."""

from collections.abc import AsyncGenerator

import msgspec

from models.counters import Counters
from models.database import Database, load_sql
from models.keys import BUCKETS
from models.snapshots import Snapshots
from models.windows import Period, current

PAGE = 1_000
EXPORT_DEADLINE_S = 3_600.0

_TOTALS = load_sql("export_call_totals")
_WINDOWS = load_sql("export_call_windows")


class Calls(msgspec.Struct, frozen=True, rename="camel"):
    """A user's admitted calls.

    Args:
        username: None when the user is there no more.
    """

    user_id: int
    username: str | None
    calls: int


class Exports:
    """Reads the snapshot in PostgreSQL, brought up to date: one statement sees one moment, however long it takes.

    Straight from Redis, a user could be met twice or never, as the sorted sets move while they are walked through.
    """

    def __init__(self, database: Database, counters: Counters, snapshots: Snapshots) -> None:
        self._database = database
        self._counters = counters
        self._snapshots = snapshots

    async def pages(self, period: Period) -> AsyncGenerator[list[Calls], None]:
        """The calls of all users who called, by user id, as of now or a little later.

        Args:
            period: of this hour or this day, in UTC, or of all time.

        Raises:
            StoreUnavailable: PostgreSQL or Redis is away; the pages so far are not all.
        """
        window = current(period, await self._counters.now_us())
        await self._snapshots.restore()
        await self._snapshots.settle(range(BUCKETS))
        async with self._database.transaction(EXPORT_DEADLINE_S) as connection:
            # Without a name: one would stay with a connection of PgBouncer's, where another export may have the same.
            if window is None:
                cursor = await (await connection.prepare(_TOTALS, name="")).cursor()
            else:
                statement = await connection.prepare(_WINDOWS, name="")
                cursor = await statement.cursor(window.starts_at, window.hours)
            while rows := await cursor.fetch(PAGE):
                yield [Calls(*row) for row in rows]
