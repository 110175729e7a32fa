"""The gate of one process while Redis is away: limits from its own memory, counts kept until Redis is back."""

import time
from collections.abc import Collection, Sequence

from models.keys import bucket_of
from models.local_limits import LocalLimiter
from models.policies import Policy
from models.records import ADMITTED, LIMITED, Verdict
from models.windows import HOUR_US

MAX_USERS = 50_000
"""Users whose counts wait; the calls of further ones are admitted and not counted."""

Uncounted = tuple[str, int]
"""User id and hour since 1970, as `pending` has them, and the number of calls."""


class LocalGate:
    """Exact limits of one process, so at most (processes × quota) for a user, and a bounded ledger of calls to add."""

    def __init__(self) -> None:
        self._limiter = LocalLimiter()
        self._uncounted: dict[tuple[int, int], int] = {}

    def admit(self, user_id: int, policies: Sequence[Policy], now_us: int, *, count: bool) -> Verdict:
        """Judge one call of a user whose session is valid.

        Args:
            policies: the enforced ones first.
            now_us: microseconds of a clock that never goes back.
            count: keep the call for `take_uncounted`; not when Redis may have counted it before its reply was lost.
        """
        judged = [self._limiter.judge((user_id, policy.name), policy.limits, now_us) for policy in policies]
        remaining = [left for lefts, _ in judged for left in lefts]
        reset_us = [reset for _, resets in judged for reset in resets]
        allowing = [policy for policy, (lefts, _) in zip(policies, judged, strict=True) if min(lefts) > 0]
        if not all(policy.shadow or policy in allowing for policy in policies):
            return Verdict(LIMITED, remaining, reset_us)
        for policy in allowing:
            self._limiter.admit((user_id, policy.name), policy.limits, now_us)
        if count:
            self._keep(user_id, time.time_ns() // 1_000 // HOUR_US)
        return Verdict(ADMITTED, [left - 1 for left in remaining], reset_us)

    def _keep(self, user_id: int, hour: int, calls: int = 1) -> None:
        call = user_id, hour
        if call in self._uncounted or len(self._uncounted) < MAX_USERS:
            self._uncounted[call] = self._uncounted.get(call, 0) + calls

    @property
    def has_uncounted(self) -> bool:
        """Whether there are calls that Redis has not counted."""
        return bool(self._uncounted)

    @property
    def uncounted(self) -> int:
        """How many calls Redis has not counted."""
        return sum(self._uncounted.values())

    def has_uncounted_of(self, buckets: Collection[int]) -> bool:
        """The same, of some buckets."""
        return any(bucket_of(user_id) in buckets for user_id, _ in self._uncounted)

    def take_uncounted(self, buckets: Collection[int]) -> dict[int, list[Uncounted]]:
        """The calls that Redis has not counted, of these buckets and by bucket, and forget them here."""
        taken: dict[int, list[Uncounted]] = {}
        kept = {}
        for (user_id, hour), calls in self._uncounted.items():
            if (bucket := bucket_of(user_id)) in buckets:
                taken.setdefault(bucket, []).append((f"{user_id}:{hour}", calls))
            else:
                kept[user_id, hour] = calls
        self._uncounted = kept
        return taken

    def put_back(self, rows: Sequence[Uncounted]) -> None:
        """Keep calls that could not be added after all."""
        for field, calls in rows:
            user_id, hour = map(int, field.split(":"))
            self._keep(user_id, hour, calls)
