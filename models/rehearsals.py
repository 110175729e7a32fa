"""Rehearsals: users who are made up to try a service under load, and removed again.

Those of one rehearsal are called `load-<its id>-<number>`, so that they are found when it was cut short.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence

from models.database import BATCH_DEADLINE_S, Database, load_sql
from models.errors import InvalidInput
from models.passwords import Passwords
from models.resets import Resets
from models.sessions import Sessions

MAX_USERS = 100_000
BATCH = 500
AT_ONCE = 8
"""Sessions that are started or ended at a time; fewer than the pool has connections."""

_ID = re.compile(r"[0-9a-f]{8}")
_ENROL = load_sql("enrol_users")
_FIND = load_sql("find_enrolled")
_COUNT = load_sql("count_enrolled")
_DELETE = load_sql("delete_users")


class Rehearsals:
    """Every method raises StoreUnavailable when a store is away; what was done until then stays."""

    def __init__(self, database: Database, sessions: Sessions, passwords: Passwords, resets: Resets) -> None:
        self._database = database
        self._sessions = sessions
        self._passwords = passwords
        self._resets = resets

    async def enrol(self, rehearsal: str, count: int) -> AsyncIterator[list[str]]:
        """Create users with sessions, in batches; yields the tokens of each.

        Args:
            rehearsal: its id, from `new_id`.
        """
        if not 1 <= count <= MAX_USERS:
            raise InvalidInput(f"A rehearsal has 1 to {MAX_USERS} users")
        # Nobody logs in with it: one hash for all spares a tenth of a second each.
        password_hash = await self._passwords.hash(secrets.token_urlsafe(32))
        for first in range(0, count, BATCH):
            names = [f"{_prefix(rehearsal)}{number:06d}" for number in range(first, min(first + BATCH, count))]
            rows = await self._database.fetch(_ENROL, names, password_hash, deadline_s=BATCH_DEADLINE_S)
            tokens: list[str] = []
            for at in range(0, len(rows), AT_ONCE):
                starts = [self._sessions.start(row["id"]) for row in rows[at : at + AT_ONCE]]
                tokens += await asyncio.gather(*starts)
            yield tokens

    async def remove(self, rehearsal: str) -> AsyncIterator[int]:
        """Remove the users of a rehearsal, their sessions and their calls, in batches; yields how many each had.

        The sessions end first: a row that goes alone would leave its session live in Redis.
        """
        while rows := await self._find(rehearsal):
            for at in range(0, len(rows), AT_ONCE):
                await asyncio.gather(*(self._sessions.revoke(user_id) for user_id in rows[at : at + AT_ONCE]))
            await self._resets.reset_users(rows)
            await self._database.fetch(_DELETE, rows, deadline_s=BATCH_DEADLINE_S)
            yield len(rows)

    async def count(self, rehearsal: str) -> int:
        """How many users of a rehearsal there are."""
        rows = await self._database.fetch(_COUNT, _prefix(rehearsal), deadline_s=BATCH_DEADLINE_S)
        return int(rows[0]["users"])

    async def _find(self, rehearsal: str) -> Sequence[int]:
        rows = await self._database.fetch(_FIND, _prefix(rehearsal), BATCH, deadline_s=BATCH_DEADLINE_S)
        return [row["id"] for row in rows]


def new_id() -> str:
    """The id of a new rehearsal."""
    return secrets.token_hex(4)


def _prefix(rehearsal: str) -> str:
    if not _ID.fullmatch(rehearsal):
        raise InvalidInput(f"{rehearsal!r} is no rehearsal: it has eight digits, 0 to 9 and a to f")
    return f"load-{rehearsal}-"
