"""Exact limits from one process's own memory, for when Redis cannot keep them."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from models.limits import RateLimit

MAX_TIMES = 500_000
"""Times that are remembered; beyond, those of whoever was silent longest are forgotten first."""


class LocalLimiter:
    """Remembers when each of many callers was admitted.

    Args:
        max_times: a bound for all callers together.
    """

    def __init__(self, max_times: int = MAX_TIMES) -> None:
        self._max_times = max_times
        self._admitted_at: OrderedDict[Hashable, list[int]] = OrderedDict()
        self._remembered = 0

    def judge(self, caller: Hashable, limits: Sequence[RateLimit], now_us: int) -> tuple[list[int], list[int]]:
        """For each limit, the calls left in its window and the microseconds until the oldest leaves it.

        Args:
            now_us: microseconds of a clock that never goes back.
        """
        times = self._admitted_at.get(caller, [])
        remaining, reset_us = [], []
        for limit in limits:
            window_us = limit.window_s * 1_000_000
            first = max(bisect_right(times, now_us - window_us), len(times) - limit.calls)
            remaining.append(limit.calls - (len(times) - first))
            reset_us.append((times[first] if first < len(times) else now_us) + window_us - now_us)
        return remaining, reset_us

    def admit(self, caller: Hashable, limits: Sequence[RateLimit], now_us: int) -> None:
        """Remember an admitted call, and forget what no window of these limits holds any more."""
        times = self._admitted_at.setdefault(caller, [])
        self._admitted_at.move_to_end(caller)
        longest_us = max((limit.window_s for limit in limits), default=0) * 1_000_000
        expired = bisect_right(times, now_us - longest_us)
        del times[:expired]
        times.append(now_us)
        self._remembered += 1 - expired
        while self._remembered > self._max_times and len(self._admitted_at) > 1:
            _, forgotten = self._admitted_at.popitem(last=False)
            self._remembered -= len(forgotten)

    def take_back(self, caller: Hashable, at_us: int) -> None:
        """Forget the call that was admitted at that time."""
        times = self._admitted_at.get(caller, [])
        at = bisect_right(times, at_us) - 1
        if at >= 0 and times[at] == at_us:
            del times[at]
            self._remembered -= 1
