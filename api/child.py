"""A web process as its supervisor knows it."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from models.orphans import die_with_parent

log = logging.getLogger("gatehouse.supervisor")

COMMAND = (sys.executable, "-m", "api")

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 6.0
"""More than a process takes to end its calls, see `api.app.SHUTDOWN_GRACE_S`, and to close its stores."""


class Child:
    """A web process, which holds the other end of a pipe: a byte says that it serves, the pipe's end that it ended."""

    def __init__(self, listener: socket.socket, environ: Mapping[str, str]) -> None:
        self.serves, self.ended = asyncio.Event(), asyncio.Event()
        self._pipe, theirs = os.pipe()
        handed = listener.fileno(), theirs
        self._process = subprocess.Popen(
            [*COMMAND, "--listener", str(handed[0]), "--parent", str(handed[1])],
            env=environ,
            pass_fds=handed,
            # The terminal's Ctrl-C and hang-up are for the supervisor, who tells the children.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._pipe, self._hear)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int:
        """Its exit code, or the signal that ended it as a negative number."""
        return self._process.wait()

    @property
    def outcome(self) -> str:
        """The same in words."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"

    def _hear(self) -> None:
        if os.read(self._pipe, 1):
            self.serves.set()
            return
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)
        self._process.wait()
        self.ended.set()

    async def starts(self) -> bool:
        """Whether it serves, in time."""
        outcomes = [asyncio.create_task(event.wait()) for event in (self.serves, self.ended)]
        await asyncio.wait(outcomes, timeout=START_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        for outcome in outcomes:
            outcome.cancel()
        return self.serves.is_set() and not self.ended.is_set()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it takes too long; returns when it has ended."""
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await self.ended.wait()
        except TimeoutError:
            log.error("web process %d did not stop within %.0f s and is killed", self.pid, STOP_DEADLINE_S)
            self._process.kill()
            await self.ended.wait()
