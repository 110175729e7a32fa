"""What Redis can tell about itself: counters, command times, slow commands, memory."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from models.keys import BUCKETS, bucket_key
from tests.bench.processes import ROOT

SLOW_US = 1_000
SLOWLOG_LENGTH = 10_000

_SCRIPTS = {
    hashlib.sha1(path.read_bytes()).hexdigest(): path.name  # noqa: S324  # what EVALSHA takes
    for path in (ROOT / "models" / "scripts").glob("*.lua")
}


@dataclass(frozen=True)
class CommandTime:
    """What Redis spent on one command since the last reset."""

    command: str
    calls: int
    mean_us: float


class RedisFacts:
    """A look behind the services' backs, with the synchronous client."""

    def __init__(self, redis_url: str) -> None:
        self.client: Redis = Redis.from_url(redis_url)

    def calls_counted(self) -> int:
        """All calls that Gatehouse counted, of all users: those in the totals and those that wait to be added."""
        with self.client.pipeline() as pipe:  # in one transaction, or a fold in between would be seen twice or never
            for bucket in range(BUCKETS):
                pipe.zrange(bucket_key(bucket, "totals"), 0, -1, withscores=True)
                pipe.hvals(bucket_key(bucket, "pending"))
            replies = pipe.execute()
        totals = sum(-int(score) for reply in replies[::2] for _, score in reply)
        return totals + sum(int(calls) for reply in replies[1::2] for calls in reply)

    def used_bytes(self) -> int:
        return int(cast(dict[str, Any], self.client.info("memory"))["used_memory"])

    def version(self) -> str:
        server = cast(dict[str, Any], self.client.info("server"))
        return str(server.get("valkey_version") or server["redis_version"])

    def reset(self) -> None:
        """Begin to watch: command times from zero, the slow log empty, at most a millisecond goes unrecorded."""
        self.client.config_set("slowlog-log-slower-than", SLOW_US)
        self.client.config_set("slowlog-max-len", SLOWLOG_LENGTH)
        self.client.config_set("latency-monitor-threshold", SLOW_US // 1000)
        self.client.config_resetstat()
        self.client.slowlog_reset()
        self._do("LATENCY RESET")

    def command_times(self) -> list[CommandTime]:
        """Each command since `reset`, those in scripts too, the one with most time in all first."""
        stats = cast(dict[str, dict[str, float]], self.client.info("commandstats"))
        times = [
            CommandTime(name.removeprefix("cmdstat_"), int(one["calls"]), one["usec_per_call"])
            for name, one in stats.items()
        ]
        return sorted(times, key=lambda time: -time.calls * time.mean_us)

    def script_time(self) -> CommandTime | None:
        """The mean time of a script, all its commands together, since `reset`."""
        return next((time for time in self.command_times() if time.command in ("evalsha", "fcall")), None)

    def longest(self) -> tuple[int, str]:
        """The longest command since `reset`, in microseconds, and its name; (0, "") when none passed a millisecond.

        Redis looks at the clock on the wall: on a busy machine its own waiting for a processor is in it.
        """
        entries = cast(list[dict[str, Any]], self.client.slowlog_get(SLOWLOG_LENGTH))
        ours = [entry for entry in entries if not entry["command"].upper().startswith((b"CONFIG", b"SLOWLOG", b"INFO"))]
        if not ours:
            return 0, ""
        worst = max(ours, key=lambda entry: int(entry["duration"]))
        name, first_argument = [*worst["command"].decode(errors="replace").split(" "), ""][:2]
        return int(worst["duration"]), _SCRIPTS.get(first_argument, name)

    def latency_events(self) -> dict[str, int]:
        """The worst of each event of Redis's own latency monitor since `reset`, in milliseconds."""
        events = cast(list[list[Any]], self._do("LATENCY LATEST"))
        return {event[0].decode(): int(event[3]) for event in events}

    def _do(self, command: str) -> object:
        run = cast(Callable[[str], object], self.client.execute_command)  # the library left it untyped
        return run(command)
