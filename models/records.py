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
        beat_us: that Redis server's own time when the last round of the sync began, in microseconds since 1970: the
            heartbeat; 0 until it has got all sessions.
        buckets: those of which it has got all sessions; None of a version that did not tell: all that are its own.
    """

    watermark_us: int
    beat_us: int
    buckets: Sequence[int] | None = None

    @property
    def value(self) -> str:
        return f"{self.watermark_us}:{self.beat_us}" + (
            "" if self.buckets is None else f":{','.join(map(str, self.buckets))}"
        )


class Run(msgspec.Struct, frozen=True):
    """Which run of a Redis server a connection leads to.

    Args:
        id: changes with every restart, and by failover, as another server has another.
        now_us: its clock, in microseconds since 1970.
        generation: of the connection.
    """

    id: str
    now_us: int
    generation: int
