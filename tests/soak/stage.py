"""What a scenario plays on: its own PostgreSQL and Valkey, and real web and worker processes on them."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from models.database import migrate
from models.devservers import PostgresServer, ValkeyServer, free_port
from models.limits import parse_limits
from models.policies import parse_policies
from models.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
LOGIN_LIMITS = ("login_limits_user", "login_limits_user_address", "login_limits_address", "login_limits_all")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0


def _silent(_done: int) -> None:
    """Nobody watches."""


@dataclass
class Stage:
    """The stores, the settings that reach them, and what was started.

    Args:
        folder: for logs and whatever else a scenario keeps; gone afterwards.
        progress: takes the rounds done so far.
    """

    folder: Path
    postgres: PostgresServer
    valkey: ValkeyServer
    settings: Settings
    progress: Callable[[int], None] = _silent
    processes: "list[Process]" = field(default_factory=list)

    def environ(self, **changes: str) -> dict[str, str]:
        """The environment of a process of the service on this stage."""
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            "SECRET_KEYS": ",".join(self.settings.secret_keys),
            "RATE_LIMITS": "10000/1s",
            "PING_DELAY_MS": "0",
            **{name.upper(): "10000/1s" for name in LOGIN_LIMITS},
            **changes,
        }

    def web(self, port: int | None = None, *, module: str = "api", **environ: str) -> "Process":
        """Start a web process and wait until it serves; `module` is what runs it, with its arguments."""
        port = port or free_port()
        return self._start(["-m", *module.split()], f"web-{port}", port, self.environ(PORT=str(port), **environ))

    def worker(self, **environ: str) -> "Process":
        """Start a worker; its jobs begin at the next full second."""
        return self._start(["-m", "worker.main"], f"worker-{len(self.processes)}", None, self.environ(**environ))

    def _start(self, arguments: list[str], name: str, port: int | None, environ: dict[str, str]) -> "Process":
        process = Process([sys.executable, *arguments], self.folder / f"{name}.log", port, environ)
        self.processes.append(process)
        process.start()
        return process


class Process:
    """A web or worker process in its own process group, with its log in a file."""

    def __init__(self, command: list[str], log: Path, port: int | None, environ: dict[str, str]) -> None:
        self._command, self.log, self.port, self.environ = command, log, port, environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def start(self) -> None:
        """Start it, again if it has ended; returns when it is live."""
        self.launch()
        self.wait_live()

    def launch(self) -> None:
        """Start it without waiting."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_live(self) -> None:
        """Wait until a web process answers; a worker is not waited for."""
        if self.port is None:
            return
        transport = httpx.HTTPTransport(retries=int(START_DEADLINE_S / 0.5))
        with httpx.Client(transport=transport, timeout=START_DEADLINE_S) as client:
            client.get(f"{self.url}/health/live").raise_for_status()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        return self._process.wait(deadline_s)

    def kill(self) -> None:
        """SIGKILL to its whole group, and wait for its end: faketime stays beside what it starts."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for its end; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()


@contextmanager
def stage(*, durable: bool = False, **changes: Any) -> Iterator[Stage]:
    """Servers on free ports, migrated; everything that a scenario started on them ends with it.

    Args:
        durable: Valkey keeps an append-only file.
        changes: to the settings.
    """
    with tempfile.TemporaryDirectory(prefix="gatehouse-soak-") as folder:
        Path(folder).chmod(0o755)
        postgres = PostgresServer(Path(folder) / "postgres", durable=False)
        valkey = ValkeyServer(Path(folder) / "valkey", durable=durable)
        with postgres, valkey:
            _migrate(postgres.url)
            settings = Settings(
                database_url=postgres.url,
                redis_url=valkey.url,
                queue_redis_url=valkey.url,
                secret_keys=(secrets.token_urlsafe(48),),
                rate_limits=parse_policies("10000/1s"),
                ping_delay_ms=0,
                **{name: parse_limits("10000/1s") for name in LOGIN_LIMITS},  # type: ignore[arg-type]
            )
            there = Stage(Path(folder), postgres, valkey, replace(settings, **changes))
            try:
                yield there
            finally:
                for process in there.processes:
                    process.kill()


def _migrate(url: str) -> None:
    """In a thread: a loop may run in this one already."""
    import threading

    thread = threading.Thread(target=lambda: asyncio.run(migrate(url)))
    thread.start()
    thread.join()
