"""Several web processes on one port: what their supervisor does when they die, and when it is told to do something."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from api.listeners import AddressError, Listeners
from models.connections import open_stores
from models.devservers import free_port
from tests.soak.load import Call, Connections, request
from tests.soak.stage import ROOT, Process, Stage, stage

KEY = "a-key-of-the-metrics-0123456789"
DEADLINE_S = 30.0
PROCESSES = 2
LIVE = request("GET", "/health/live")


def until(condition: Callable[[], bool], what: str) -> None:
    end_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_at, what
        time.sleep(0.01)


def children(web: Process) -> set[int]:
    """The process ids of those that are alive, or dead and not noticed yet."""
    return {int(pid) for pid in Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text().split()}


def serving(web: Process) -> set[int]:
    """Those that have said that they serve."""
    return {int(pid) for pid in re.findall(r"Worker ready \[(\d+)\]", web.said)} & children(web)


def folder_of_counts(web: Process) -> str:
    environ = Path(f"/proc/{children(web).pop()}/environ").read_bytes()
    return environ.partition(b"PROMETHEUS_MULTIPROC_DIR=")[2].partition(b"\0")[0].decode()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def supervised(there: Stage, **environ: str) -> Process:
    web = there.web(None, WEB_PROCESSES=str(PROCESSES), **environ)
    until(lambda: len(serving(web)) == PROCESSES, web.said)
    return web


@pytest.fixture(scope="module")
def there() -> Iterator[Stage]:
    with stage() as there:
        yield there


@pytest.fixture(scope="module")
def web(there: Stage) -> Process:
    (there.folder / "site").mkdir()
    return supervised(there, METRICS_KEY=KEY, PYTHONPATH=str(there.folder / "site"))


def statuses(web: Process, calls: int, path: str = "/health/live", **fields: str) -> Counter[int]:
    """Of calls on a new connection each."""
    return Counter(httpx.get(web.url + path, headers=fields, timeout=10).status_code for _ in range(calls))


def test_a_process_that_ends_is_started_again_and_nobody_is_refused(web: Process) -> None:
    victim, *others = serving(web)
    os.kill(victim, signal.SIGKILL)
    assert statuses(web, 30) == {200: 30}
    until(lambda: len(serving(web)) == PROCESSES, web.said)
    assert victim not in serving(web)
    assert set(others) < serving(web)
    (line,) = [line for line in web.said.splitlines() if f"web process {victim} ended (SIGKILL)" in line]
    assert '"logger":"gatehouse.supervisor"' in line
    assert '"level":"error"' in line


def test_one_that_keeps_ending_is_started_after_ever_longer_pauses(there: Stage) -> None:
    web = supervised(there)
    (stays, *_) = serving(web)
    for number in range(1, 4):
        (victim,) = children(web) - {stays}
        os.kill(victim, signal.SIGKILL)
        until(lambda number=number: len(re.findall("another starts", web.said)) == number, web.said)  # type: ignore[misc]
        until(lambda: len(children(web)) == 2, web.said)
    assert re.findall(r"another starts in (\S+) s", web.said) == ["0.1", "0.2", "0.4"]
    assert web.stop() == 0


async def _call_on(port: int, found: Counter[int], over: asyncio.Event, *, anew: bool) -> None:
    """One call after the other until it is over, on a new connection each or on one for all."""
    connections = Connections()
    while not over.is_set():
        call = await connections.ask(Call(0, port, time.monotonic()), LIVE)
        found[call.status] += 1
        if anew:
            connections.close()
            connections = Connections()
        await asyncio.sleep(0)
    connections.close()


class Replaced(NamedTuple):
    """What a rolling restart under load was like.

    Args:
        before, after: the process ids.
        found: statuses of calls meanwhile; 0: the connection ended instead.
        told, told_after: by several processes: calls without a token that all have counted, and their connections.
    """

    before: set[int]
    after: set[int]
    found: Counter[int]
    told: set[tuple[str | None, ...]]
    told_after: set[tuple[str | None, ...]]


@pytest.fixture(scope="module")
async def replaced(web: Process) -> Replaced:
    assert web.port
    await asyncio.to_thread(statuses, web, 40, "/ping")
    told = await asyncio.to_thread(_told, web)
    before, found, over = serving(web), Counter[int](), asyncio.Event()
    callers = [asyncio.create_task(_call_on(web.port, found, over, anew=bool(n % 4))) for n in range(8)]
    web.signal(signal.SIGHUP)
    await asyncio.to_thread(until, lambda: "all web processes have been replaced" in web.said, "not replaced")
    over.set()
    await asyncio.gather(*callers)
    return Replaced(before, children(web), found, told, await asyncio.to_thread(_told, web))


COUNTED = ("40.0", f"{PROCESSES * 10}.0")


def _told(web: Process) -> set[tuple[str | None, ...]]:
    """What any process tells, each within two seconds after what happened."""
    wanted = 'gate_calls_total{outcome="unauthorized"}', "postgres_connections_max"
    headers, told = {"Authorization": f"Bearer {KEY}"}, set[tuple[str | None, ...]]()
    end_at = time.monotonic() + DEADLINE_S
    while told != {COUNTED} and time.monotonic() < end_at:
        pages = [httpx.get(f"{web.url}/metrics", headers=headers, timeout=10).text for _ in range(8)]
        told = {tuple(_figure(page, name) for name in wanted) for page in pages}
    return told


def test_a_rolling_restart_fails_no_call(replaced: Replaced) -> None:
    assert not replaced.before & replaced.after
    assert len(replaced.after) == PROCESSES
    assert set(replaced.found) == {200}, replaced.found
    assert replaced.found[200] > 200


def test_any_process_tells_the_metrics_of_all_also_of_those_that_were_replaced(replaced: Replaced) -> None:
    assert replaced.told == {COUNTED}
    assert replaced.told_after == {COUNTED}


def _figure(page: str, name: str) -> str | None:
    found = re.search(rf"^gatehouse_{re.escape(name)} (\S+)$", page, re.MULTILINE)
    return found and found[1]


async def test_it_stops_once_the_calls_under_way_are_answered(there: Stage) -> None:
    web = await asyncio.to_thread(supervised, there, PING_DELAY_MS="500", METRICS_KEY=KEY)
    folder = folder_of_counts(web)
    assert os.listdir(folder)
    async with open_stores(there.settings) as stores:
        user_id = await stores.accounts.add("ada", "correct horse")
        token = await stores.sessions.start(user_id)
    pids, connections = children(web), Connections()
    wire = request("GET", "/ping", token)
    flying = [asyncio.create_task(connections.ask(Call(0, web.port or 0, time.monotonic()), wire)) for _ in range(10)]
    await asyncio.sleep(0.2)
    web.signal(signal.SIGTERM)
    web.signal(signal.SIGINT)
    assert [call.status for call in await asyncio.gather(*flying)] == [200] * 10
    connections.close()
    assert await asyncio.to_thread(web.wait) == 0
    assert not any(map(is_alive, pids))
    assert not os.path.exists(folder), "the folder of the counts is left"  # noqa: ASYNC240
    assert "Traceback" not in web.said


def test_one_that_does_not_stop_is_killed(there: Stage) -> None:
    code = "import sys; from api import __main__, child; child.STOP_DEADLINE_S = 0.3; sys.exit(__main__.main())"
    port = free_port()
    command = [sys.executable, "-c", code, "--processes", "2"]
    web = Process(command, there.folder / "stuck.log", port, there.environ(PORT=str(port)))
    there.processes.append(web)
    web.start()
    until(lambda: len(serving(web)) == 2, web.said)
    stuck, other = serving(web)
    os.kill(stuck, signal.SIGSTOP)
    assert web.stop() == 0
    assert f"web process {stuck} did not stop" in web.said
    assert not is_alive(stuck)
    assert not is_alive(other)


def test_none_outlives_a_supervisor_that_was_killed(there: Stage) -> None:
    web = supervised(there)
    pids = children(web)
    assert len(pids) == 2
    os.kill(web.pid, signal.SIGKILL)
    web.wait()
    until(lambda: not any(map(is_alive, pids)), "an orphan is left")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", web.port))


def test_a_successor_that_cannot_start_replaces_nobody(there: Stage, web: Process) -> None:
    before, broken = serving(web), there.folder / "site" / "sitecustomize.py"
    broken.write_text("import os; os._exit(2)")
    web.signal(signal.SIGHUP)
    until(lambda: "did not start (exit code 2); the old ones stay" in web.said, web.said)
    broken.unlink()
    assert serving(web) == before
    assert statuses(web, 10) == {200: 10}


def _ends(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "api", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=DEADLINE_S)
    return done.returncode, done.stderr


def test_what_is_wrong_with_the_settings_is_told_once(there: Stage, tmp_path: Path) -> None:
    code, said = _ends(there.environ(WEB_PROCESSES="4", PORT=str(free_port()), SIGNUP="perhaps"))
    assert (code, said.count("SIGNUP: got 'perhaps'")) == (2, 1)
    code, said = _ends(there.environ(), "--processes", "0")
    assert (code, said.count("WEB_PROCESSES: got '0' (out of range); it takes")) == (2, 1)
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('as if it was not there')\n")
    tracing = {"PYTHONPATH": str(tmp_path), "OTEL_TRACES_EXPORTER": "console"}  # only a child can notice this
    code, said = _ends(there.environ(WEB_PROCESSES="4", PORT=str(free_port()), **tracing))
    assert (code, said.count("pip install 'gatehouse[otel]'")) == (2, 1)
    assert "Traceback" not in said


def test_a_taken_port_is_told_in_one_sentence(there: Stage, web: Process) -> None:
    said = f"Cannot listen on 127.0.0.1:{web.port} (HOST, PORT): Address already in use\n"
    for processes in "1", "2":
        assert _ends(there.environ(WEB_PROCESSES=processes, PORT=str(web.port))) == (1, said)


def test_new_connections_go_evenly_to_those_who_serve() -> None:
    port = free_port()
    listeners = Listeners("127.0.0.1", port, 3)
    for serve, least in ((0, 1, 2), 30), ((0, 2), 60), ((1,), 200):
        listeners.steer(serve)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        got = [_accepted(listeners[number]) for number in range(3)]
        assert sum(got) == 200
        assert all(number >= least if at in serve else number == 0 for at, number in enumerate(got)), got
        for client in clients:
            client.close()
    with pytest.raises(AddressError, match="Address already in use"):
        Listeners("127.0.0.1", port, 3)
    listeners.close()


def _accepted(listener: socket.socket) -> int:
    listener.setblocking(False)
    for number in range(1_000):
        try:
            with closing(listener.accept()[0]):
                pass
        except BlockingIOError:
            return number
    raise AssertionError("there is no end of them")
