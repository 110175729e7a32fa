"""What callers were told, and so what the counters have to be, whatever was lost meanwhile."""

import time
from collections import defaultdict
from collections.abc import Mapping
from math import inf

import msgspec

from models.keys import bucket_of


class Call(msgspec.Struct):
    """One call; `ended_s` stays infinite unless it was admitted. Times are those of `time.monotonic`."""

    begun_s: float
    ended_s: float = inf


class Ledger:
    """Of each user's calls the least and the most that the counters may hold.

    A period ends with `settle`, at a moment without calls: the counters are then known exactly. Within a period,
    counters that were lost come back to what was stored at least, to which the calls begun after the loss are added.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.lost = 0
        self._known: dict[int, int] = {}
        self._base: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        self._log: defaultdict[int, list[Call]] = defaultdict(list)
        self._saved_at_s: dict[int, float] = {}
        self._counting_from_s = 0.0
        self._firm_from_s = 0.0

    def begin(self, user_id: int) -> Call:
        """A call leaves."""
        self.calls += 1
        call = Call(time.monotonic())
        self._log[user_id].append(call)
        return call

    def saved(self, bucket: int, began_at_s: float) -> None:
        """A snapshot of a bucket is complete, which began then."""
        if began_at_s >= self._firm_from_s:
            self._saved_at_s[bucket] = max(began_at_s, self._saved_at_s.get(bucket, 0.0))

    def lose(self) -> None:
        """The counters were lost by now: what is stored is what remains."""
        self._base = {user_id: self._least_stored(user_id) for user_id in self._known.keys() | self._log.keys()}
        self._stored = dict(self._base)
        self._saved_at_s = {}
        self._counting_from_s, self._firm_from_s = time.monotonic(), inf

    def firm(self) -> None:
        """Calls are counted before they are answered again: a snapshot from now on holds those answered before it."""
        if self._firm_from_s == inf:
            self._firm_from_s = time.monotonic()

    def close(self) -> None:
        """The counters are read next: a snapshot that is complete from now on may not be in what is read."""
        self._firm_from_s = inf

    def settle(self, totals: Mapping[int, int], stored: Mapping[int, int]) -> list[str]:
        """Compare with the counters, and take them as the start of the next period.

        Args:
            totals: what Redis holds, read after `close`; there is no call on its way.
            stored: what PostgreSQL holds, read after that.

        Returns:
            A sentence for each user whose counters cannot be right.
        """
        wrong = []
        for user_id in totals.keys() | stored.keys() | self._known.keys() | self._log.keys():
            total, kept = totals.get(user_id, 0), stored.get(user_id, 0)
            least, most = self._least(user_id), self._known.get(user_id, 0) + len(self._log.get(user_id, ()))
            self.lost += most - total
            if not least <= total <= most:
                wrong.append(f"user {user_id} has {total} calls, not {least} to {most}")
            if not self._least_stored(user_id) <= kept <= total:
                wrong.append(f"user {user_id} has {kept} stored, not {self._least_stored(user_id)} to {total}")
        self._known, self._base, self._stored = dict(totals), dict(totals), dict(stored)
        self._log.clear()
        self._saved_at_s = {}
        self._counting_from_s = self._firm_from_s = time.monotonic()
        return wrong

    def _least(self, user_id: int, until_s: float = inf) -> int:
        """What was counted at least, of the calls that were answered until then."""
        base = self._base.get(user_id, 0)
        log = self._log.get(user_id, ())
        return base + sum(call.begun_s >= self._counting_from_s and call.ended_s < until_s for call in log)

    def _least_stored(self, user_id: int) -> int:
        """What PostgreSQL holds at least."""
        stored, saved_at_s = self._stored.get(user_id, 0), self._saved_at_s.get(bucket_of(user_id))
        return stored if saved_at_s is None else max(stored, self._least(user_id, saved_at_s))
