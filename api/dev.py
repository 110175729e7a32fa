"""`python -m api.cli dev`: all of Gatehouse on this machine, until Ctrl-C.

Starts PostgreSQL and Valkey (or takes those of DATABASE_URL and REDIS_URL), migrates, adds the demo user to
an empty database, runs the Procfile's web and worker, and waits. Whatever ends it, everything that it started
ends with it. What it keeps is in DEV_DIR: the data, the signing key, the logs.
"""

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from api.devprocfile import Processes
from models.devprocess import DevServer
from models.devservers import DevServerError, PostgresServer, ValkeyServer
from models.orphans import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
DEMO_USER, DEMO_PASSWORD = "user1", "pass123"
READY_DEADLINE_S = 30.0
# All of a stop takes at most 5 s: these add up to less, so that the last signals have time to work.
PROCESSES_STOP_S = 3.0
VALKEY_STOP_S = 0.8
ALL_STOPPED_S = 4.7
POLL_S = 0.05
# honcho gives the worker a PORT 100 above that of the web, which has to be a port as well.
LAST_PORT = 65_535 - 100


class DevError(Exception):
    """`dev` cannot go on; the message is one sentence for the person at the terminal."""


class StopRequest:
    """Remembers that a signal asked for the stop; raises nothing, so that each step can end cleanly."""

    def __init__(self) -> None:
        self.asked_at: float | None = None

    def listen(self) -> None:
        """Take SIGINT, SIGTERM and, unless nohup made us deaf to it, SIGHUP."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked_at = self.asked_at or time.monotonic()

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.asked_at is not None

    def check(self) -> None:
        """Raise when a signal came."""
        if self.asked():
            raise DevError("stopped by a signal.")


class Development:
    """One run of `dev`: what it has started, in the order in which it stops again, backwards."""

    def __init__(self, environ: Mapping[str, str], stop: StopRequest) -> None:
        """Read DEV_DIR, HOST and PORT; every other variable goes on to the web and the worker."""
        self.folder = Path(environ.get("DEV_DIR") or ".dev").absolute()
        self.host = environ.get("HOST") or "127.0.0.1"
        self.port = _port(environ.get("PORT") or "8000")
        self.environ = dict(environ)
        # What the processes print reaches our standard output, by way of a file.
        self.environ.setdefault("LOG_FORMAT", "text" if sys.stdout.isatty() else "json")
        self.servers: list[DevServer] = []
        self._made: dict[str, str] = {}
        self.processes: Processes | None = None
        self._stop = stop

    def run(self) -> None:
        """Start all of it, tell how to use it, and return when a signal asked for the stop."""
        with _only_one(self.folder):
            try:
                self._start()
                self._say_how_to_use_it()
                while True:
                    self._look()
            finally:
                self._stop_all()

    def _start(self) -> None:
        _check_port(self.host, self.port)
        self._serve("DATABASE_URL", PostgresServer(self.folder / "postgres", durable=True))
        self._serve("REDIS_URL", ValkeyServer(self.folder / "valkey", durable=True))
        if not self.environ.get("SECRET_KEYS"):
            key = self.folder / "secret_key"
            self.environ["SECRET_KEYS"] = _secret_key(key)
            self._made["SECRET_KEYS"] = f"$(cat {_quoted(key)})"
        self.environ.update(
            HOST=self.host,
            PORT=str(self.port),
            PATH=os.pathsep.join([str(Path(sys.executable).parent), self.environ.get("PATH", os.defpath)]),
            PYTHONUNBUFFERED="1",
            PYTHONUTF8="1",  # whatever the terminal takes, what honcho writes for us to read is UTF-8
        )
        say("migrating the database …")
        self._cli("migrate")
        say(f"adding the demo user {DEMO_USER}, unless there are users already …")
        self._cli("user", "add", DEMO_USER, "--password-stdin", "--if-no-users", stdin=f"{DEMO_PASSWORD}\n")
        say("starting web and worker …")
        self.processes = Processes(ROOT, self.folder / "processes.log", self.environ, self.port)
        self._wait_until_ready()

    def _serve(self, variable: str, server: DevServer) -> None:
        if self.environ.get(variable):
            say(f"using the {server.name} of {variable}")
            return
        say(f"starting {server.name} in {server.folder} …")
        self.servers.append(server)
        server.start(give_up=self._stop.asked)
        self.environ[variable] = self._made[variable] = server.url
        say(f"{server.name} answers at {server.url}")

    def _cli(self, *arguments: str, stdin: str = "") -> None:
        self._stop.check()
        command = subprocess.Popen(
            [sys.executable, "-m", "api.cli", *arguments],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        try:
            assert command.stdin
            with contextlib.suppress(BrokenPipeError), command.stdin as pipe:
                pipe.write(stdin)
            while command.poll() is None:
                self._stop.check()
                time.sleep(POLL_S)
        finally:
            if command.poll() is None:
                command.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    command.wait(1)
                command.kill()
                command.wait()
        if command.returncode != 0:
            name = " ".join(arguments[:2])
            raise DevError(f"`python -m api.cli {name}` failed with exit code {command.returncode}; see above.")

    def _wait_until_ready(self) -> None:
        deadline_at, answer = time.monotonic() + READY_DEADLINE_S, ""
        # A proxy of the environment is not for our own loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline_at:
            self._look()
            try:
                with opener.open(f"{self._address()}/health/ready", timeout=0.5):
                    return
            except urllib.error.HTTPError as error:
                answer = f"{error.code} {error.read(500).decode(errors='replace')}"
            except OSError as error:
                answer = str(error)
        raise DevError(f"web was not ready within {READY_DEADLINE_S:.0f} s; its last answer was: {answer}")

    def _look(self) -> None:
        """Wait a moment, pass on what was printed; raise when somebody asked for the stop or a child died."""
        time.sleep(POLL_S)
        self._stop.check()
        if self.processes:
            say(self.processes.new_output(), end="")
            if died := self.processes.died():
                raise DevError(f"{died}; its last words are above.")
        for server in self.servers:
            if not server.alive:
                raise DevError(f"{server.name} died by itself; its last words are in {server.log}.")

    def _stop_all(self) -> None:
        asked_at = self._stop.asked_at or time.monotonic()
        if self.processes:
            say("stopping …")
            self.processes.stop(asked_at + PROCESSES_STOP_S, say)
        for server in reversed(self.servers):
            left_s = asked_at + ALL_STOPPED_S - time.monotonic()
            server.stop(VALKEY_STOP_S if server.name == ValkeyServer.name else max(left_s, VALKEY_STOP_S))

    def _address(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # read, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _say_how_to_use_it(self) -> None:
        address = self._address()
        login = f'{{"username":"{DEMO_USER}","password":"{DEMO_PASSWORD}"}}'
        extract = r"""sed 's/.*"sessionToken":"\([^"]*\)".*/\1/'"""
        say(
            f"\nGatehouse listens on {address}; Ctrl-C stops it. In another terminal:\n\n"
            f"TOKEN=$(curl -s {address}/login -H 'Content-Type: application/json' -d '{login}' | {extract})\n"
            f'curl -i {address}/ping -H "Authorization: Bearer $TOKEN"\n'
            f"curl {address}/top\n"
        )
        # What came from outside is known there, and may be secret.
        settings = "".join(f" {name}={value}" for name, value in self._made.items())
        programs = _quoted(Path(sys.executable).parent)
        say(f"For the command line, `gatehouse`:\n\nexport PATH={programs}:$PATH{settings}\n")


def main() -> int:
    """Run until a signal comes, then return 0; or tell in one sentence what failed, and return 1."""
    stop = StopRequest()
    stop.listen()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        Development(os.environ, stop).run()
    except (DevError, DevServerError, OSError) as error:
        if stop.asked():
            say("stopped")
            return 0
        print(f"error: {error}", file=sys.stderr)
    return 1


def say(text: str, end: str = "\n") -> None:
    """Print at once, or not at all when nobody reads any more (as in `make run | head`)."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= LAST_PORT:
        raise DevError(f"PORT is {text!r}, but takes a number from 1 to {LAST_PORT}.")
    return int(text)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise DevError(f"DEV_DIR {folder} cannot be used: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            message = f"{folder} is in use by process {holder}: stop that, or set DEV_DIR to another folder."
            raise DevError(message) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DevError(f"Port {port} of {host} is in use: set PORT to a free one.") from None
        raise DevError(f"Cannot listen on HOST {host} with PORT {port}: {error.strerror}.") from None


def _secret_key(path: Path) -> str:
    """The signing key of this folder, made at the first run: there is no key that two machines share."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
        unfinished.rename(path)
    return path.read_text().strip()
