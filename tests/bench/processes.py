"""The servers under test as child processes: each in a process group of its own, none left behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from models.devprocess import LOOPBACK, clean_environment, free_port
from models.orphans import die_with_parent

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / ".bench"

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0


class BenchError(Exception):
    """The benchmark cannot go on; the message is one sentence for the terminal."""


def spawn(
    command: Sequence[str], environ: Mapping[str, str], log: Path, stdin: int | None = None, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a child that leads its own process group and does not outlive this process (on Linux)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=clean_environment() | dict(environ),
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or file,
            stderr=file,
            # A Ctrl-C in the terminal is for the benchmark alone, which then ends its children in order.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )


def end(process: subprocess.Popen[bytes], deadline_s: float = STOP_DEADLINE_S) -> None:
    """End a child and its group, politely at first."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(deadline_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def resident_kib(pid: int, field: str = "VmRSS") -> int:
    """Memory of a process in KiB: `VmRSS` now, `VmHWM` at its highest. Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise BenchError(f"The process {pid} has ended.")


class Service:
    """One web process, listening on a port of the loopback.

    Args:
        command: its arguments with `{port}` where the port goes.
    """

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self._command = [part.format(port=self.port) for part in command]
        self._environ = environ
        self._log = OUTPUT / "logs" / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._process = spawn(self._command, self._environ, self._log)
        try:
            self._await_port(self._process)
        except BaseException:
            end(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process)

    def _await_port(self, process: subprocess.Popen[bytes]) -> None:
        deadline_at = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline_at:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1):
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        lines = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        raise BenchError(f"{self.name} did not start; {self._log} ends with: {' / '.join(lines) or '(nothing)'}")


def sanic_command(app: str) -> list[str]:
    """Gatehouse's command line of the Procfile, on the loopback, for any Sanic application."""
    command = [sys.executable, "-m", "sanic", app, "--factory", f"--host={LOOPBACK}", "--port={port}"]
    return [*command, "--single-process", "--no-access-logs", "--no-motd"]
