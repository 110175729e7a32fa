"""The call totals of the service that Gatehouse replaces: strings `CallingPingAPI userID:<id>` in its Redis.

They are stored as ours, and never as less than what is there: so `/top` and `/count` go on where the original stopped,
and a second run adds nothing. Calls that a user has made here before count as part of the original's.
"""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.database import load_sql
from models.errors import InvalidInput, StoreUnavailable
from models.snapshots import Snapshots

DEADLINE_S = 10.0
STORE_DEADLINE_S = 60.0
SCAN_KEYS = 1_000
"""Keys that the original's Redis looks at in one command, and so about how many totals are stored at once."""

MAX_SCANS = 10_000_000

_KEEP = load_sql("keep_original_calls")
_PREFIX = b"CallingPingAPI userID:"
_ID = re.compile(rb"[1-9][0-9]{0,10}")
_CALLS = re.compile(rb"[0-9]{1,15}")


class OriginalCounts:
    """Takes the totals over: first into PostgreSQL, in the transaction of the users, and then into our Redis."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    async def keep(self, connection: Any, redis_url: str) -> int:
        """Store the totals of the users that are staged; returns of how many.

        Raises:
            StoreUnavailable: the original's Redis does not answer.
        """
        kept = 0
        async for totals in _read(redis_url):
            columns = list(totals), list(totals.values())
            kept += await connection.fetchval(_KEEP, *columns, timeout=STORE_DEADLINE_S)
        return kept

    async def publish(self) -> None:
        """Raise the counters to what is stored.

        Raises:
            StoreUnavailable: do it again.
        """
        await self._snapshots.raise_counters()


async def _read(redis_url: str) -> AsyncIterator[dict[int, int]]:
    """User id → calls, some at a time; one that is found twice is the same both times, or has risen."""
    try:
        fits = re.match("rediss?://.", redis_url) and urlsplit(redis_url).port != 0
    except ValueError:  # its text quotes what may be a password
        fits = False
    if not fits:
        raise InvalidInput("The original's Redis is given as redis://[user:password@]host:port/database")
    cursor = 0
    try:
        async with Redis.from_url(redis_url, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S) as redis:
            for _ in range(MAX_SCANS):
                cursor, keys = await redis.scan(cursor, match=_PREFIX + b"*", count=SCAN_KEYS)
                found = zip(keys, await redis.mget(keys), strict=True) if keys else ()
                ids = {key.removeprefix(_PREFIX): calls or b"" for key, calls in found}
                if totals := {int(n): int(calls) for n, calls in ids.items() if _is_total(n, calls)}:
                    yield totals
                if cursor == 0:
                    return
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        raise StoreUnavailable(f"The original's Redis cannot be read, and nothing was imported: {error}") from error


def _is_total(user_id: bytes, calls: bytes) -> bool:
    return bool(_ID.fullmatch(user_id) and _CALLS.fullmatch(calls)) and int(calls) > 0
