"""What crosses between the stores and the domain: frozen values, never a reply or a row."""

from collections.abc import Sequence

import msgspec

TOMBSTONE_MARGIN_MS = 60_000
"""A tombstone outlives its session by more than any deadline, so that no slow reader can publish past it."""


LIMITED, ADMITTED, MISSING, SUPERSEDED = 0, 1, 2, 3
"""What `admit.lua` can say of a call; MISSING: only PostgreSQL knows."""


class Verdict(msgspec.Struct, frozen=True):
    """What one run of `admit.lua` said.

    Args:
        outcome: LIMITED, ADMITTED, MISSING or SUPERSEDED.
        remaining: for each limit, calls left in its current window.
        reset_us: for each limit, microseconds until the oldest counted call leaves its window.
        cached: of a superseded session, what is cached instead: a newer session, or a tombstone with its reason.
    """

    outcome: int
    remaining: list[int] = []
    reset_us: list[int] = []
    cached: str = ""


class Entry(msgspec.Struct, frozen=True):
    """A session as it is cached: live, or a tombstone that says why it ended.

    Args:
        expires_ms: the session's end, in milliseconds since 1970.
        digest: of the live session's token.
        reason: of the end: `revoked`, `expired` or `unknown`; empty while it lives.
    """

    user_id: int
    version: int
    expires_ms: int
    digest: bytes = b""
    reason: str = ""

    @property
    def value(self) -> bytes:
        if self.reason:
            return b"%d:%s" % (self.version, self.reason.encode())
        return b"%d:%s:%d" % (self.version, self.digest.hex().encode(), self.expires_ms)

    @property
    def keep_until_ms(self) -> int:
        return self.expires_ms + (TOMBSTONE_MARGIN_MS if self.reason else 0)


class SyncState(msgspec.Struct, frozen=True):
    """How far sessions were published to one run of a Redis server.

    Args:
        watermark_us: PostgreSQL's time of the last sync, in microseconds since 1970.
        beat_us: that Redis server's own time when the sync began, in microseconds since 1970: the heartbeat.
    """

    watermark_us: int
    beat_us: int


class SyncBegun(msgspec.Struct, frozen=True):
    """How far a first sync to a run of a Redis server has come.

    Args:
        watermark_us: PostgreSQL's time, in microseconds since 1970, up to which these buckets were published.
        buckets: those of which all sessions were.
    """

    watermark_us: int
    buckets: Sequence[int]
