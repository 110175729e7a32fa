"""Rate limits: how many calls a user may make in how long."""

import re

import msgspec

MAX_CALLS = 10_000
"""Each admitted call inside the window is kept as eight bytes, read and written as one value: a quota bounds both."""

MAX_WINDOW_S = 31 * 86_400
MAX_LIMITS = 8

_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LIMIT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})([smhd])")


class RateLimit(msgspec.Struct, frozen=True):
    """At most `calls` admitted calls of one user in any window of `window_s` seconds.

    Args:
        name: the policy's name in the `RateLimit-Policy` header.
        calls: the quota, at least 1.
        window_s: the window's length in seconds, at least 1.
    """

    name: str
    calls: int
    window_s: int


def parse_limits(text: str, policy: str = "default") -> tuple[RateLimit, ...]:
    """Read limits such as `1/5s` or `1/5s, 100/1h`; the first is named as the policy is, the next `<policy>-2`.

    Args:
        text: `N/W` items between commas, W a whole number of `s`, `m`, `h` or `d`.

    Raises:
        ValueError: what is wrong with it, as half a sentence.
    """
    items = [item.strip() for item in text.split(",")]
    if len(items) > MAX_LIMITS:
        raise ValueError(f"at most {MAX_LIMITS} limits")
    limits = []
    for number, item in enumerate(items, start=1):
        match = _LIMIT.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!r} is not like 1/5s")
        calls, window_s = int(match[1]), int(match[2]) * _UNIT_S[match[3]]
        if not 1 <= calls <= MAX_CALLS:
            raise ValueError(f"{item!r} must allow 1 to {MAX_CALLS} calls")
        if not 1 <= window_s <= MAX_WINDOW_S:
            raise ValueError(f"{item!r} must have a window of 1 second to 31 days")
        limits.append(RateLimit(policy if number == 1 else f"{policy}-{number}", calls, window_s))
    return tuple(limits)
