"""Worker processes that tell each step of a snapshot or a restore before they take it, and can be killed at it.

They are forked from a process that has imported everything, so that a new one works within hundredths of a second.
"""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from models import lua, snapshots
from models.connections import open_stores
from models.counters import Counters, Drained
from models.errors import StoreUnavailable
from models.keys import bucket_key
from models.link import pack
from models.settings import Settings
from tests.soak.stage import ROOT, STOP_DEADLINE_S

SNAPSHOT_STEPS = ("drained", "sketch", "finish_drain")
RESTORE_STEPS = ("begin_restore", "restore_totals", "finish_restore")
STARTED, SAVED, FAILED, ENDED = "started", "saved", "failed", "ended"
START_DEADLINE_S = 30.0
CHUNK = 10
"""Users that are restored at a time: few, so that there is a step between them to be killed at."""

LONGEST_PAUSE_S = 0.03

FORGETTING, REPLACING, HASTY = "restore without the cursor", "sketch replaced", "snapshot before the restore"
_SABOTAGE: dict[str, tuple[str, str, str]] = {
    FORGETTING: ("BEGIN_RESTORE", "cursor and string.match(cursor, ':(%w+:%d+)$') or 'all:0'", "'all:0'"),
    REPLACING: (
        "FINISH_RESTORE",
        "redis.call('PFMERGE', KEYS[2], KEYS[3])",
        "redis.call('COPY', KEYS[3], KEYS[2], 'REPLACE')",
    ),
    HASTY: ("DRAIN", "if not ready or tonumber(ready) < tonumber(ARGV[2]) then return -1 end", ""),
}
PLANTED = tuple(_SABOTAGE)


class Told(msgspec.Struct, frozen=True):
    """What a worker said, one line of JSON.

    Args:
        worker: its process id.
        step: STARTED; the Store's method that it is about to call; SAVED: a snapshot of the bucket is complete; FAILED;
            ENDED: it was killed.
        at_s: for SAVED when the snapshot began, on the clock of `time.monotonic`, which all processes share.
    """

    worker: int
    step: str
    bucket: int = 0
    at_s: float = 0.0
    why: str = ""


class Workers:
    """Processes that publish, restore and snapshot without a pause, until they are killed.

    Args:
        environ: of a process of the service; `SOAK_PLANTED` may name one of `PLANTED`.
        log: takes what else they print.
        hear: is told what they say.
    """

    def __init__(self, environ: Mapping[str, str], log: Path, hear: Callable[[Told], None]) -> None:
        self.alive: list[int] = []
        self._hear = hear
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._read = b""
        command = [sys.executable, "-m", "tests.soak.killable"]
        with log.open("ab") as errors:
            self._nursery = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._nursery.stdout is not None
        self._pipe = self._nursery.stdout.fileno()
        os.set_blocking(self._pipe, False)
        asyncio.get_running_loop().add_reader(self._pipe, self._listen)

    def close(self) -> None:
        """End all of them."""
        asyncio.get_running_loop().remove_reader(self._pipe)
        self._nursery.communicate(timeout=STOP_DEADLINE_S)

    async def start(self, number: int) -> None:
        """Fork some, and wait until they work."""
        wanted = len(self.alive) + number
        self._say("fork " * number)
        async with asyncio.timeout(START_DEADLINE_S):
            while len(self.alive) < wanted:
                assert self._nursery.poll() is None, "there is nobody to fork workers"
                await asyncio.sleep(0.002)

    async def kill(self, worker: int) -> None:
        """SIGKILL, and wait for its end."""
        ended = self._ended[worker] = asyncio.get_running_loop().create_future()
        self.alive.remove(worker)
        self._say(f"{worker} ")
        async with asyncio.timeout(STOP_DEADLINE_S):
            await ended

    def _say(self, words: str) -> None:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(words.replace(" ", "\n").encode())
        self._nursery.stdin.flush()

    def _listen(self) -> None:
        received = os.read(self._pipe, 65_536)
        if not received:
            asyncio.get_running_loop().remove_reader(self._pipe)
        *lines, self._read = (self._read + received).split(b"\n")
        for line in lines:
            told = msgspec.json.decode(line, type=Told)
            if told.step == STARTED:
                self.alive.append(told.worker)
            elif told.step == ENDED:
                self._ended.pop(told.worker).set_result(None)
            else:
                self._hear(told)


def _main() -> None:
    """Fork and kill as standard input says; its end is the end of all."""
    workers: set[int] = set()
    settings, planted = Settings.from_environ(os.environ), os.environ.get("SOAK_PLANTED")
    if planted:
        _sabotage(*_SABOTAGE[planted])
    for word in sys.stdin:
        if word == "fork\n":
            worker = os.fork()
            if not worker:
                os._exit(_work(settings))
            workers.add(worker)
        else:
            _end(int(word))
            workers.discard(int(word))
            _tell(Told(int(word), ENDED))
    for worker in workers:
        _end(worker)


def _end(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)


def _tell(told: Told) -> None:
    # One write of less than PIPE_BUF bytes: whole, whoever else writes at the same time.
    os.write(1, msgspec.json.encode(told) + b"\n")


def _work(settings: Settings) -> int:
    try:
        with patch.object(snapshots, "CHUNK", CHUNK):
            asyncio.run(_keep_working(settings))
    except BaseException as error:
        _tell(Told(os.getpid(), FAILED, why=repr(error)[:500]))
    return 1


def _sabotage(name: str, line: str, instead: str) -> None:
    script: lua.Script = getattr(lua, name)
    text = script.text.decode()
    assert line in text, f"the planted fault no longer fits: {line}"
    script.text = text.replace(line, instead).encode()
    script.sha = hashlib.sha1(script.text).hexdigest()  # noqa: S324  # what EVALSHA takes
    script.load = pack("SCRIPT", "LOAD", script.text)


async def _keep_working(settings: Settings) -> None:
    forked_by = os.getppid()
    async with open_stores(settings) as stores, Redis.from_url(settings.redis_url) as redis:
        counters = snapshots.Snapshots(stores.database, cast(Counters, _TellingCounters(stores.store.counters, redis)))
        _tell(Told(os.getpid(), STARTED))
        # Nobody is left to kill it once the process that forked it is gone.
        while os.getppid() == forked_by:
            for job in (stores.sessions.sync, counters.restore, counters.take):
                with suppress(StoreUnavailable):
                    await job()
            await asyncio.sleep(random.random() * LONGEST_PAUSE_S)


class _TellingCounters:
    """The real counters, each of whose steps is told before it is taken."""

    def __init__(self, counters: Counters, redis: Any) -> None:
        self._counters, self._redis = counters, redis
        # By bucket: several are snapshotted side by side.
        self._folded_at_s: dict[int, float] = {}
        self._began_at_s: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._counters, name)
        if name not in RESTORE_STEPS and name != "sketch":
            return method

        def telling(bucket: int, *rest: Any) -> Any:
            _tell(Told(os.getpid(), name, bucket))
            return method(bucket, *rest)

        return telling

    async def fold_bucket(self, bucket: int) -> None:
        self._folded_at_s[bucket] = time.monotonic()
        await self._counters.fold_bucket(bucket)

    async def drain_dirty(self, bucket: int, *rest: Any) -> int:
        try:
            unfinished = await self._redis.exists(bucket_key(bucket, "draining"))
        except (OSError, RedisError):
            unfinished = True
        drained = await self._counters.drain_dirty(bucket, *rest)
        # What another left unfinished is finished first, without the users who called since.
        self._began_at_s[bucket] = 0.0 if unfinished else self._folded_at_s[bucket]
        return drained

    def drained(self, bucket: int, *rest: Any) -> AsyncIterator[Drained]:
        _tell(Told(os.getpid(), "drained", bucket))
        return self._counters.drained(bucket, *rest)

    async def finish_drain(self, bucket: int, *rest: Any) -> bool:
        _tell(Told(os.getpid(), "finish_drain", bucket))
        finished = await self._counters.finish_drain(bucket, *rest)
        if finished:
            _tell(Told(os.getpid(), SAVED, bucket, self._began_at_s[bucket]))
        return finished


if __name__ == "__main__":
    _main()
