"""How fast totals rise that only ever rise: calls per second, and in which way their sessions were judged."""

from collections import deque

import msgspec

from models.meters import OUTCOMES, WAYS, Metered

RATE_OVER_MS = 5_000
SHARES_OVER_MS = 60_000
MAX_GAP_MS = 15_000
"""After a longer time without a look what went before is no part of the present."""


class Rates(msgspec.Struct, frozen=True):
    """Calls per second over the last seconds, by how they ended: see `models.meters.OUTCOMES`."""

    admitted: float
    limited: float
    unauthorized: float
    unavailable: float


class Shares(msgspec.Struct, frozen=True):
    """Of the calls of the last minute with a signed token, from 0 to 1: see `models.meters.WAYS`.

    Args:
        judged: how many calls that were.
    """

    judged: int
    cached: float
    fallback: float
    tombstone: float
    degraded: float


class Pace:
    """Remembers the totals of the last minute."""

    def __init__(self) -> None:
        self._noted: deque[tuple[int, Metered]] = deque()

    def note(self, now_ms: int, totals: Metered) -> None:
        """Take note of the totals of all processes.

        Args:
            now_ms: by the clock of where they are kept.
        """
        if self._noted:
            before_ms, before = self._noted[-1]
            # Totals that fell began anew, as Redis was emptied; a clock that went back measures nothing.
            if not 0 < now_ms - before_ms <= MAX_GAP_MS or _fell(before, totals):
                self._noted.clear()
        self._noted.append((now_ms, totals))
        while now_ms - self._noted[0][0] > SHARES_OVER_MS:
            self._noted.popleft()

    def rates(self) -> Rates | None:
        """None until there are two looks to compare."""
        (now_ms, totals), (then_ms, before) = self._since(RATE_OVER_MS)
        if now_ms == then_ms:
            return None
        per_s = {name: (getattr(totals, name) - getattr(before, name)) * 1000 / (now_ms - then_ms) for name in OUTCOMES}
        return Rates(**{name: round(rate, 2) for name, rate in per_s.items()})

    def shares(self) -> Shares | None:
        """None when no call was judged."""
        (_, totals), (_, before) = self._since(SHARES_OVER_MS)
        calls = {name: getattr(totals, name) - getattr(before, name) for name in WAYS}
        judged = sum(calls.values())
        if not judged:
            return None
        return Shares(judged, **{name: round(count / judged, 4) for name, count in calls.items()})

    def _since(self, past_ms: int) -> tuple[tuple[int, Metered], tuple[int, Metered]]:
        """The last look, and the first that is not older than that."""
        last = self._noted[-1]
        return last, next(noted for noted in self._noted if last[0] - noted[0] <= past_ms)


def _fell(before: Metered, now: Metered) -> bool:
    return any(getattr(now, name) < getattr(before, name) for name in (*OUTCOMES, *WAYS))
