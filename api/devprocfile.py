"""The web and the worker of the Procfile, run by honcho for `dev`.

honcho puts each process into a session of its own, so a signal to honcho's group does not reach them, and
they outlive it when it is killed. Therefore its output is read: it tells their ids and exit codes. The output
goes through a file, as a broken pipe would end honcho before its children when `dev` is killed.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from models.orphans import die_with_parent

TYPES = ("web", "worker")
POLL_S = 0.02
# Until it knows the ids of its children, honcho dies of a SIGTERM and leaves them behind.
KNOWS_CHILDREN_S = 1.5
HONCHO_SAYS = re.compile(
    rf"^[\d:]+ system +\| ({'|'.join(TYPES)})\.1 (?:started \(pid=(\d+)\)|stopped \(rc=(-?\d+)\))$",
    re.MULTILINE,
)


class Processes:
    """The running web and worker."""

    def __init__(self, root: Path, log: Path, environ: Mapping[str, str], port: int) -> None:
        """Start both in the folder `root`; `port` is for the web."""
        self._groups: dict[str, int] = {}
        self._started: set[str] = set()
        self._first_stop: str | None = None
        self._unfinished_line = b""
        with log.open("wb"), log.open("ab") as output:
            self._output = log.open("rb")
            self._honcho = subprocess.Popen(
                # honcho's .env would beat the environment.
                [
                    sys.executable,
                    "-m",
                    "honcho",
                    "start",
                    "-f",
                    "Procfile",
                    "-e",
                    os.devnull,
                    "-p",
                    str(port),
                    *TYPES,
                ],
                cwd=root,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def new_output(self) -> str:
        """The whole lines that were printed since the last call."""
        printed = self._unfinished_line + self._output.read()
        whole = printed.rfind(b"\n") + 1
        self._unfinished_line = printed[whole:]
        text = printed[:whole].decode(errors="replace")
        for name, pid, exit_code in HONCHO_SAYS.findall(text):
            if pid:
                self._groups[name] = int(pid)
                self._started.add(name)
            else:
                self._groups.pop(name, None)
                self._first_stop = self._first_stop or f"{name} stopped by itself with exit code {exit_code}"
        return text

    def died(self) -> str | None:
        """Which process ended first and how, if any did."""
        if self._first_stop is None and self._honcho.poll() is not None:
            return f"The runner of the Procfile, honcho, ended with exit code {self._honcho.returncode}"
        return self._first_stop

    def stop(self, deadline_at: float, show: Callable[..., None]) -> None:
        """End both, politely until `deadline_at` (time.monotonic), and `show` what they print meanwhile."""

        def wait_while(condition: Callable[[], bool], until: float) -> None:
            while condition() and time.monotonic() < until:
                time.sleep(POLL_S)
                show(self.new_output(), end="")

        def runs() -> bool:
            return self._honcho.poll() is None

        def is_starting() -> bool:
            return runs() and len(self._started) < len(TYPES)

        wait_while(is_starting, min(deadline_at, time.monotonic() + KNOWS_CHILDREN_S))
        if runs():
            self._honcho.terminate()
            wait_while(runs, deadline_at)
        elif self._groups:
            # Somebody killed honcho: its children are ours to end.
            self._signal_all(signal.SIGTERM)
            wait_while(lambda: self._signal_all(0), deadline_at)
        show(self.new_output(), end="")
        self._signal_all(signal.SIGKILL)
        # honcho's helpers, one for each child, are in its group and may outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._honcho.pid, signal.SIGKILL)
        self._honcho.wait()
        self._output.close()

    def _signal_all(self, number: int) -> bool:
        """Signal the process groups of web and worker; whether there was one left to get it."""
        reached = False
        for group in self._groups.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                reached = True
        return reached
