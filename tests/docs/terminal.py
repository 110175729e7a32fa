"""A terminal in which a document's commands are typed: one shell, so that variables stay, and what runs beside it."""

import asyncio
import contextlib
import os
import shlex
import signal
from pathlib import Path

DEADLINE_S = 60.0
STOP_DEADLINE_S = 10.0


class Terminal:
    """A bash of its own process group.

    Args:
        folder: where it is, and what it writes.
        environ: all that it knows.
    """

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self._shell: asyncio.subprocess.Process | None = None
        self._jobs = 0

    async def __aenter__(self) -> "Terminal":
        self._shell = await asyncio.create_subprocess_exec(
            *("bash", "--norc", "--noprofile"),
            cwd=self._folder,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        # Every command that fails is seen, not only a block's last one.
        await self.type("set -o pipefail; trap 'failed=$?' ERR")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._shell is not None
        with contextlib.suppress(TimeoutError):
            await self.type("kill $(jobs -p) 2>&-; wait", STOP_DEADLINE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        await self._shell.wait()

    async def type(self, command: str, deadline_s: float = DEADLINE_S) -> tuple[int, str]:
        """Run a command to its end.

        Returns:
            the exit code of the last part of it that failed, or 0, and all that it printed.
        """
        assert self._shell is not None
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        printed = self._folder / ".printed"
        line = f"failed=0\n{{\n{command}\n}} </dev/null >{shlex.quote(str(printed))} 2>&1\necho $failed\n"
        self._shell.stdin.write(line.encode())
        async with asyncio.timeout(deadline_s):
            told = await self._shell.stdout.readline()
        return int(told or b"-1"), printed.read_text(errors="replace")

    async def keep_running(self, command: str, port: int | None, word: str | None) -> None:
        """Start what stays, and wait until it listens on a port and has said a word."""
        self._jobs += 1
        log = self._folder / f".job-{self._jobs}"
        log.touch()
        await self.type(f"bash -c {shlex.quote(command)} >{shlex.quote(str(log))} 2>&1 & job=$!")
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not ((port is None or await _listens(port)) and (word or "") in log.read_text(errors="replace")):
                    gone, _ = await self.type("kill -0 $job")
                    assert not gone, f"{command} has ended: {log.read_text()}"
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{command} is not there yet: {log.read_text()}") from None


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
