"""The gate of one process while Redis is away: limits from its own memory, counts kept until Redis is back."""

from collections import OrderedDict, deque
from collections.abc import Sequence

from models.limits import RateLimit
from models.records import ADMITTED, LIMITED, Verdict
from models.store import bucket_of

MAX_USERS = 50_000
"""Users whose calls are remembered, and users whose counts wait; beyond, the longest silent are forgotten first."""


class LocalGate:
    """Exact limits of one process, so at most (processes × quota) for a user, and a bounded ledger of calls to add.

    Args:
        limits: all must allow a call.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self._limits = tuple(limits)
        self._longest_us = max((limit.window_s for limit in limits), default=0) * 1_000_000
        self._called_at: OrderedDict[int, deque[int]] = OrderedDict()
        self._uncounted: dict[int, int] = {}

    def admit(self, user_id: int, now_us: int, *, count: bool) -> Verdict:
        """Judge one call of a user whose session is valid.

        Args:
            now_us: microseconds of a clock that never goes back.
            count: keep the call for `take_uncounted`; not when Redis may have counted it before its reply was lost.
        """
        times = self._called_at.setdefault(user_id, deque())
        self._called_at.move_to_end(user_id)
        if len(self._called_at) > MAX_USERS:
            self._called_at.popitem(last=False)
        while times and times[0] <= now_us - self._longest_us:
            times.popleft()
        remaining, reset_us = [], []
        for limit in self._limits:
            window_us = limit.window_s * 1_000_000
            inside = [at_us for at_us in times if at_us > now_us - window_us]
            remaining.append(limit.calls - len(inside))
            reset_us.append((inside[-limit.calls :][0] if inside else now_us) + window_us - now_us)
        if min(remaining, default=1) <= 0:
            return Verdict(LIMITED, remaining, reset_us)
        times.append(now_us)
        if count and (user_id in self._uncounted or len(self._uncounted) < MAX_USERS):
            self._uncounted[user_id] = self._uncounted.get(user_id, 0) + 1
        return Verdict(ADMITTED, [left - 1 for left in remaining], reset_us)

    @property
    def has_uncounted(self) -> bool:
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
