"""One server process on a developer's machine: its folder, the account it runs as, its start and its end.

What PostgreSQL and Valkey add to it is in devservers.py. The folder of a server:

    lock          held by flock for as long as any process of the server lives
    server.log    everything that the server printed
    data/         what the server keeps
"""

import contextlib
import fcntl
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Self

from models.orphans import die_with_parent

LOOPBACK = "127.0.0.1"
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 3.0
LOCK_WAIT_S = 2.0
POLL_S = 0.02
LOG_LINES_QUOTED = 4


class DevServerError(Exception):
    """A development server cannot do what was asked; the message is one sentence for the terminal."""


class PortTakenError(DevServerError):
    """The port that a server was to listen on belongs to another program."""


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """What the servers and their tools see: none of the caller's PG* variables, and messages in English."""
    kept = ("PATH", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def never() -> bool:
    """Nobody asks for the start to be given up."""
    return False


class DevServer:
    """What PostgreSQL and Valkey share: one folder, one foreground child, one port of the loopback."""

    name: ClassVar[str]
    # Tried in this order within the deadline of a stop; SIGKILL follows.
    stop_signals: ClassVar[tuple[signal.Signals, ...]]
    orphan_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, *, durable: bool, port: int | None = None) -> None:
        """`folder` is made when missing; `durable` data survives a power loss; no `port`: any free one."""
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.durable = durable
        self.port = port
        self._account = _server_account(self.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None
        self._log_start_bytes = 0

    def start(self, give_up: Callable[[], bool] = never) -> None:
        """Return when the server answers. `give_up` is asked while waiting; once true, the start is undone.

        Raises DevServerError, with one sentence, for everything that can be in the way.
        """
        if self.alive:
            return
        self.stop()
        try:
            self._take_folder()
            self._prepare(give_up)
            self._launch_on_a_port(give_up)
        except OSError as error:
            self.stop()
            raise DevServerError(f"{self.name} cannot use the folder {self.folder}: {error}.") from error
        except BaseException:
            self.stop()
            raise

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """End the server, politely at first, and let go of the folder; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            for number in self.stop_signals:
                if process.poll() is None:
                    process.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(deadline_s / len(self.stop_signals))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def restart(self) -> None:
        """Stop and start again on the same port and folder; also after the process was killed."""
        self.stop()
        self.start()

    @property
    def alive(self) -> bool:
        """Whether the process runs, be it well or badly."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise DevServerError(f"{self.name} was not started.")
        return self._process.pid

    @property
    def url(self) -> str:
        """The address that a client connects to."""
        if self.port is None:
            raise DevServerError(f"{self.name} has no port before its first start.")
        return self._url(self.port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _url(self, port: int) -> str:
        raise NotImplementedError

    def _command(self, port: int) -> list[str]:
        raise NotImplementedError

    def _prepare(self, give_up: Callable[[], bool]) -> None:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _take_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._account and not any(self.folder.iterdir()):
            os.chown(self.folder, *self._account)
        self._lock_fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        # The last processes of a server that was killed need a moment to notice.
        deadline_at = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline_at:
                    message = f"Another {self.name} is running on the folder {self.folder}."
                    raise DevServerError(message) from None
                time.sleep(POLL_S)

    def _launch_on_a_port(self, give_up: Callable[[], bool]) -> None:
        attempts = 1 if self.port is not None else 3
        for attempt in range(1, attempts + 1):
            port, self.port = self.port, self.port or free_port()
            try:
                self._launch(self.port, give_up)
                return
            except PortTakenError:
                # Free a moment ago, taken now: parallel test runs draw from the same range.
                self.port = port
                if attempt == attempts:
                    raise

    def _launch(self, port: int, give_up: Callable[[], bool]) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                raise PortTakenError(f"{self.name} cannot listen on port {port}: {error.strerror}.") from None
        self._process = self._spawn(self._command(port))
        for _ in self._waiting(give_up):
            if self._answers():
                return
            if not self.alive:
                raise self._failure(f"stopped while starting on {self.folder}")

    def _waiting(self, give_up: Callable[[], bool]) -> Iterator[None]:
        deadline_at = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline_at:
            yield
            if give_up():
                raise DevServerError(f"{self.name} was told to stop while it was starting.")
            time.sleep(POLL_S)
        raise self._failure(f"was not ready within {START_DEADLINE_S:.0f} s on {self.folder}")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        uid, gid = self._account or (None, None)
        assert self._lock_fd is not None
        with self.log.open("ab") as log:
            self._log_start_bytes = log.tell()
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                # A Ctrl-C in the terminal goes to everything in its session; these end when they are told to.
                start_new_session=True,
                # The child holds the lock too, so the folder stays taken when only the parent was killed.
                pass_fds=[self._lock_fd],
                preexec_fn=die_with_parent(self.orphan_signal),
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
            )

    def _failure(self, what: str) -> DevServerError:
        with self.log.open("rb") as log:
            log.seek(self._log_start_bytes)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        last = " / ".join([line for line in lines if line][-LOG_LINES_QUOTED:])
        kind = PortTakenError if "Address already in use" in last else DevServerError
        return kind(f"{self.name} {what}; its log {self.log} ends with: {last or '(nothing)'}")

    def _check_reach(self, binary: Path) -> None:
        """Refuse, naming the folder, when the account that the server runs as cannot get at what it needs."""
        for path in (binary, self.folder) if self._account else ():
            for step in (*reversed(path.resolve().parents), path.resolve()):
                if self._account and not _may_enter(step, *self._account):
                    raise DevServerError(
                        f"Started by root, {self.name} runs as the user nobody, who may not enter {step}"
                        f" on the way to {path}: move that, open it to all, or start as a normal user."
                    )

    def _own_data_folder(self) -> None:
        """Make the data folder when it is missing; refuse one that belongs to somebody else."""
        if not self.data.exists():
            self._make_own(self.data)
        owner, ours = self.data.stat().st_uid, self._account[0] if self._account else os.geteuid()
        if owner != ours:
            raise DevServerError(
                f"The data folder {self.data} belongs to user id {owner}, and {self.name} would run as"
                f" {ours}: start as the user who made it, or delete {self.folder}."
            )

    def _make_own(self, path: Path) -> None:
        path.mkdir(mode=0o700)
        if self._account:
            os.chown(path, *self._account)


def _server_account(name: str) -> tuple[int, int] | None:
    """User and group id of nobody when root starts the server, as PostgreSQL refuses root; else None."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        message = f"Root cannot start {name}: there is no user nobody here that it could run as."
        raise DevServerError(message) from None
    return nobody.pw_uid, nobody.pw_gid


def _may_enter(path: Path, uid: int, gid: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    return bool(status.st_mode >> shift & 1)
