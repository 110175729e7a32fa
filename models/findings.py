"""What an examination finds: a check, how it went, a sentence, and what to do."""

from collections.abc import Iterable
from typing import Literal

import msgspec

State = Literal["ok", "warning", "failed", "unknown"]

WARN_SKEW_S = 1.0
FAIL_SKEW_S = 5.0


class Finding(msgspec.Struct, frozen=True):
    """One check's outcome.

    Args:
        state: `unknown` when something else that failed stands before it.
        advice: what to do, without a full stop; empty when nothing is to be done.
    """

    check: str
    state: State
    sentence: str
    advice: str = ""


def unknown(checks: Iterable[str], why: str) -> list[Finding]:
    """Findings of checks that could not be made."""
    return [Finding(check, "unknown", why) for check in checks]


def skewed(check: str, whose: str, skew_s: float, latency_s: float) -> Finding:
    """What to think of a clock that is `skew_s` ahead of this machine's, known to half of `latency_s`."""
    off_s = max(abs(skew_s) - latency_s / 2, 0.0)
    if off_s <= WARN_SKEW_S:
        return Finding(check, "ok", f"this machine and {whose} agree on the time to {max(off_s, latency_s / 2):.3f} s")
    way = "ahead of" if skew_s > 0 else "behind"
    sentence = f"the clock of {whose} is {off_s:.1f} s {way} this machine's"
    advice = "set the clocks of both by NTP: tokens end by this machine's, limits and the heartbeat go by Redis's"
    return Finding(check, "failed" if off_s > FAIL_SKEW_S else "warning", sentence, advice)
