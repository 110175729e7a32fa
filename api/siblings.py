"""What the web processes of one machine know of each other, so that any of them answers `/metrics` for all.

Each keeps its tally in a file of its own in `PROMETHEUS_MULTIPROC_DIR`, renewed about once a second, and a lock on
another file that says that it lives: the kernel lets go of it however the process ends, and no number is taken for
another's. What dead ones counted stays counted: the next process that starts adds it to one file and removes theirs.
"""

import asyncio
import fcntl
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from sanic.exceptions import ServiceUnavailable

from api.tally import Tally, remains, together
from models.tasks import end

log = logging.getLogger("gatehouse.metrics")

RENEW_EVERY_S = 1.0
"""What a process that is killed counted since the last time is lost."""

TURN_DEADLINE_S, TRY_EVERY_S = 1.0, 0.01


class _Legacy(msgspec.Struct):
    """What dead processes counted, and whose files are in it and may not be removed yet."""

    tally: Tally
    names: list[str]


class Siblings:
    """The processes that share a folder.

    Args:
        folder: one for this service and boot, on a local disk or in memory; None: this process is alone.
        mine: tells this process's tally.
    """

    def __init__(self, folder: Path | None, mine: Callable[[], Tally]) -> None:
        self._mine = mine
        self._folder = folder
        self._name = f"web-{os.getpid()}-{secrets.token_hex(4)}"
        self._task: asyncio.Task[None] | None = None
        self._life = -1

    async def open(self) -> None:
        """Begin to be seen by the others."""
        if self._folder is None:
            return
        async with self._turn(fcntl.LOCK_EX):
            self._life = os.open(self._folder / f"{self._name}.alive", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._life, fcntl.LOCK_EX)
            self._renew()
            self._inherit()
        self._task = asyncio.create_task(self._renew_on())

    async def close(self) -> None:
        """Leave the last counts."""
        if self._task is None:
            return
        await end(self._task)
        self._renew()
        os.close(self._life)

    async def tally(self) -> Tally:
        """Of all of them: what any ever counted, and what those are that live.

        Raises:
            ServiceUnavailable: another has been adding up for too long.
        """
        mine = self._mine()
        if self._folder is None:
            return mine
        async with self._turn(fcntl.LOCK_SH):
            legacy = self._legacy()
            others = [self._tally_of(name) for name in self._names() if name not in (self._name, *legacy.names)]
        return together([mine, legacy.tally, *others])

    async def _renew_on(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                self._renew()
            except OSError:
                log.exception("this process's counts cannot be kept in PROMETHEUS_MULTIPROC_DIR")

    def _renew(self) -> None:
        self._write(f"{self._name}.tally", msgspec.msgpack.encode(self._mine()))

    def _inherit(self) -> None:
        """Add what dead ones counted to one file. A crash in between neither loses nor doubles it."""
        legacy = self._legacy()
        dead = [name for name in self._names() if not self._lives(name)]
        new = [self._tally_of(name) for name in dead if name not in legacy.names]
        if dead:
            self._write("dead", msgspec.msgpack.encode(_Legacy(together([legacy.tally, *new]), dead)))
        for name in dead:
            for suffix in ("tally", "alive", "new"):
                (self._path / f"{name}.{suffix}").unlink(missing_ok=True)

    def _legacy(self) -> _Legacy:
        with suppress(FileNotFoundError):
            return msgspec.msgpack.decode((self._path / "dead").read_bytes(), type=_Legacy)
        return _Legacy(Tally(), [])

    def _names(self) -> Iterator[str]:
        return (path.stem for path in self._path.glob("web-*.tally"))

    def _tally_of(self, name: str) -> Tally:
        tally = msgspec.msgpack.decode((self._path / f"{name}.tally").read_bytes(), type=Tally)
        return tally if self._lives(name) else remains(tally)

    def _lives(self, name: str) -> bool:
        try:
            life = os.open(self._path / f"{name}.alive", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(life, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(life)
        return False

    @asynccontextmanager
    async def _turn(self, kind: int) -> AsyncIterator[None]:
        """With LOCK_SH nobody moves counts from file to file, with LOCK_EX nobody else reads: some milliseconds."""
        lock = os.open(self._path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            for _ in range(round(TURN_DEADLINE_S / TRY_EVERY_S)):
                with suppress(BlockingIOError):
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(TRY_EVERY_S)
            else:
                raise ServiceUnavailable("The processes' counts are being added up")
            yield
        finally:
            os.close(lock)

    def _write(self, name: str, content: bytes) -> None:
        """In one step: whoever reads sees the old or the new."""
        new = self._path / f"{self._name}.new"
        new.write_bytes(content)
        new.replace(self._path / name)

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder
