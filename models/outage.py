"""The gate of one process while Redis is away: limits from its own memory, counts kept until Redis is back."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from models.limits import RateLimit
from models.records import ADMITTED, LIMITED, Verdict
from models.store import bucket_of

MAX_TIMES = 500_000
"""Times of calls that are remembered for the limits; beyond, the users who called longest ago are forgotten first."""

MAX_USERS = 50_000
"""Users whose counts wait; the calls of further ones are admitted and not counted."""


class LocalGate:
    """Exact limits of one process, so at most (processes × quota) for a user, and a bounded ledger of calls to add.

    Args:
        limits: all must allow a call.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self._limits = tuple(limits)
        self._longest_us = max((limit.window_s for limit in limits), default=0) * 1_000_000
        self._called_at: OrderedDict[int, list[int]] = OrderedDict()
        self._remembered = 0
        self._uncounted: dict[int, int] = {}

    def admit(self, user_id: int, now_us: int, *, count: bool) -> Verdict:
        """Judge one call of a user whose session is valid.

        Args:
            now_us: microseconds of a clock that never goes back.
            count: keep the call for `take_uncounted`; not when Redis may have counted it before its reply was lost.
        """
        times = self._called_at.setdefault(user_id, [])
        self._called_at.move_to_end(user_id)
        expired = bisect_right(times, now_us - self._longest_us)
        del times[:expired]
        self._remembered -= expired
        remaining, reset_us = [], []
        for limit in self._limits:
            window_us = limit.window_s * 1_000_000
            first = max(bisect_right(times, now_us - window_us), len(times) - limit.calls)
            remaining.append(limit.calls - (len(times) - first))
            reset_us.append((times[first] if first < len(times) else now_us) + window_us - now_us)
        if min(remaining, default=1) <= 0:
            return Verdict(LIMITED, remaining, reset_us)
        self._remember(times, now_us)
        if count and (user_id in self._uncounted or len(self._uncounted) < MAX_USERS):
            self._uncounted[user_id] = self._uncounted.get(user_id, 0) + 1
        return Verdict(ADMITTED, [left - 1 for left in remaining], reset_us)

    def _remember(self, times: list[int], now_us: int) -> None:
        times.append(now_us)
        self._remembered += 1
        while self._remembered > MAX_TIMES and len(self._called_at) > 1:
            _, forgotten = self._called_at.popitem(last=False)
            self._remembered -= len(forgotten)

    @property
    def has_uncounted(self) -> bool:
        """Whether there are calls that Redis has not counted."""
        return bool(self._uncounted)

    def take_uncounted(self) -> dict[int, list[tuple[int, int]]]:
        """The calls that Redis has not counted, by bucket as (user id, calls), and forget them here."""
        taken, self._uncounted = self._uncounted, {}
        buckets: dict[int, list[tuple[int, int]]] = {}
        for user_id, calls in taken.items():
            buckets.setdefault(bucket_of(user_id), []).append((user_id, calls))
        return buckets

    def put_back(self, rows: Sequence[tuple[int, int]]) -> None:
        """Keep calls that could not be added after all."""
        for user_id, calls in rows:
            self._uncounted[user_id] = self._uncounted.get(user_id, 0) + calls
