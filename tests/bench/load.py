"""wrk, the load generator: closed loops of connections that replay raw requests."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from models.devprocess import LOOPBACK
from tests.bench.processes import OUTPUT, BenchError, end, spawn

SCRIPT = Path(__file__).parent / "replay.lua"
FOREVER_S = 3600


class Load(msgspec.Struct, frozen=True):
    """What wrk saw.

    Args:
        errors: answers with a status above 399.
        broken: connections, reads and writes that failed.
        statuses: answers by status, if it was told to count them.
    """

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    max_us: int
    errors: int
    broken: int
    timeouts: int
    statuses: dict[str, int]

    @property
    def rps(self) -> float:
        return self.requests / self.duration_us * 1e6

    def demand_clean(self, what: str) -> None:
        """Raise BenchError unless every call was answered with a 200."""
        if self.errors or self.broken or self.timeouts or not self.requests:
            raise BenchError(
                f"{what}: of {self.requests} calls {self.errors} were refused, {self.broken} broke"
                f" and {self.timeouts} timed out, so the figures say nothing."
            )


@dataclass(frozen=True)
class Shape:
    """How the load comes.

    Args:
        pause_ms: how long each connection rests before a request on average; 0: the next call follows the answer.
        threads: of wrk; with several ports one for each.
    """

    connections: int = 64
    pause_ms: int = 0
    threads: int = 1
    count_statuses: bool = False


@dataclass
class Wrk:
    """One run of wrk, from `with` to its end."""

    requests: Path
    ports: Sequence[int]
    shape: Shape = Shape()
    seconds: int = FOREVER_S
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        url = f"http://{LOOPBACK}:{self.ports[0]}/"
        command = [require_wrk(), "-t", str(self.shape.threads), "-c", str(self.shape.connections), "-s", str(SCRIPT)]
        environ = {
            "BENCH_REQUESTS": str(self.requests),
            "BENCH_PORTS": ",".join(map(str, self.ports)),
            "BENCH_PAUSE_MS": str(self.shape.pause_ms),
            "BENCH_STATUSES": str(int(self.shape.count_statuses)),
        }
        command += ["-d", f"{self.seconds}s", "--timeout", "5s", url]
        self._process = spawn(command, environ, OUTPUT / "logs" / "wrk.log", stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process)

    def stop(self) -> Load:
        """End the run now and return what it saw."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)  # wrk takes it as the end of its time
        return self.result()

    def result(self) -> Load:
        """Wait for the end of the run and return what it saw."""
        assert self._process is not None
        output, _ = self._process.communicate()
        lines = [line for line in output.splitlines() if line.startswith(b"{")]
        if not lines:
            raise BenchError(f"wrk failed: {(OUTPUT / 'logs' / 'wrk.log').read_text().strip() or 'no result'}")
        return msgspec.json.decode(lines[-1], type=Load)


def measure(requests: Path, ports: Sequence[int], seconds: int, shape: Shape | None = None) -> Load:
    """Run wrk for a while."""
    with Wrk(requests, ports, shape or Shape(threads=len(ports)), seconds) as wrk:
        return wrk.result()


def require_wrk() -> str:
    """The path of wrk.

    Raises:
        BenchError: it is not installed.
    """
    path = shutil.which("wrk", path=os.environ.get("PATH"))
    if path is None:
        raise BenchError(
            "The load generator wrk is missing: install it with `apt-get install wrk` (Debian, Ubuntu)"
            " or `brew install wrk` (macOS), then start again."
        )
    return path


def write_pings(path: Path, tokens: Iterable[str]) -> Path:
    """Write a file of requests: one `GET /ping` for each token."""
    return write_gets(path, "/ping", tokens)


def write_gets(path: Path, target: str, tokens: Iterable[str]) -> Path:
    """Write a file of requests: one GET of that address for each token."""
    head = f"GET {target} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer "
    return write_requests(path, (f"{head}{token}\r\n\r\n" for token in tokens))


def write_requests(path: Path, requests: Iterable[str]) -> Path:
    """Write raw requests where wrk can read them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\0".join(requests), newline="")
    return path
