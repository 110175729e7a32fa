"""One of the worker's jobs in a process of its own, for worker_jobs.py to watch: `python -m tests.bench.job NAME`.

Opens the stores, prints a line when it idles, runs the job when a line comes in, prints a line of JSON about it.
"""

import os
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from models.connections import Stores, open_stores
from models.settings import Settings
from tests.bench.processes import resident_kib


class JobResult(msgspec.Struct, frozen=True):
    """What a job did, in how long, and the memory of its process before it and at its highest."""

    rows: int
    seconds: float
    idle_kib: int
    peak_kib: int


async def run_watched(name: str) -> None:
    """Open the stores, wait for the word, run the job."""
    async with open_stores(Settings.from_environ(os.environ)) as stores:
        await stores.away()  # connects to both
        idle_kib = _begin_peak()
        sys.stdout.write("idle\n")
        sys.stdout.flush()
        sys.stdin.readline()
        started_at = time.perf_counter()
        rows = await _run(name, stores)
        seconds = time.perf_counter() - started_at
    result = JobResult(rows, seconds, idle_kib, resident_kib(os.getpid(), "VmHWM"))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def _begin_peak() -> int:
    """Let VmHWM be the job's own peak, not that of the imports (proc(5), clear_refs); returns what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_kib(os.getpid())


async def _run(name: str, stores: Stores) -> int:
    if name == "snapshot_usage":
        return (await stores.snapshots.take()).users
    if name == "restore_usage":
        return (await stores.snapshots.restore()).users
    return await stores.sessions.expire()


if __name__ == "__main__":
    uvloop.run(run_watched(sys.argv[1]))
