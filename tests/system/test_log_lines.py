"""The log of real processes: as JSON or for people, whole at the end, and traces only when they are asked for."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from models.devservers import free_port
from models.settings import Settings
from tests.conftest import Servers

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0
WEB, WORKER = ("-m", "api"), ("-m", "worker.main")


def environ_of(settings: Settings, **changes: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "SECRET_KEYS": ",".join(settings.secret_keys),
        **changes,
    }


@contextmanager
def process(arguments: Sequence[str], environ: dict[str, str], errors: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the service whose standard error is this file; it is gone at the end."""
    started = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environ, stderr=errors, stdout=errors, start_new_session=True
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def client_of(port: int) -> Iterator[httpx.Client]:
    """A client of a web process that is live by now."""
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=DEADLINE_S) as client:
        client.get("/health/live").raise_for_status()
        yield client


def read_until(descriptor: int, pattern: str) -> str:
    """What a process says until it has said this."""
    said, end_at = "", time.monotonic() + DEADLINE_S
    while not re.search(pattern, said):
        assert time.monotonic() < end_at, said
        if select.select([descriptor], [], [], 0.1)[0]:
            said += os.read(descriptor, 1 << 16).decode()
    return said


def test_every_line_of_a_web_process_is_json_and_none_is_lost_at_its_end(servers: Servers, settings: Settings) -> None:
    """The signal follows the last answer at once."""
    port, (reading, writing) = free_port(), os.pipe()
    with process(WEB, environ_of(settings, PORT=str(port)), writing) as web, client_of(port) as client:
        os.close(writing)
        ids = [client.get(f"/nowhere/{number}?q=hidden").headers["X-Request-Id"] for number in range(150)]
        web.send_signal(signal.SIGTERM)
        said = read_to_the_end(reading)
        assert web.wait(DEADLINE_S) == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert all({"ts", "level", "logger"} <= set(line) for line in lines)
    assert [line["request_id"] for line in lines if line.get("path", "").startswith("/nowhere")] == ids
    assert "hidden" not in said
    assert {"sanic.server", "gatehouse.access"} <= {line["logger"] for line in lines}


LAST_WORDS = """
import asyncio, logging, warnings
from models.logs import set_up
from models.settings import Settings
log = set_up(Settings("", "", "", ()))
async def main():
    for number in range(30):
        log.writer.add('{"number":%d}' % number)
asyncio.run(main())
warnings.warn("an old call")
raise ValueError("of no use")
"""


def test_what_is_said_last_is_read_too() -> None:
    """Lines that still wait for the timer, warnings, and what ends the process."""
    run = subprocess.run([sys.executable, "-c", LAST_WORDS], cwd=ROOT, capture_output=True, timeout=DEADLINE_S)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [line["number"] for line in lines[:30]] == list(range(30))
    warning, end = lines[30:]
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert (end["level"], end["message"]) == ("critical", "the process ends")
    assert end["traceback"].endswith("ValueError: of no use")


def test_lines_leave_at_the_end_by_themselves() -> None:
    script = LAST_WORDS.partition("warnings.warn")[0]
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=DEADLINE_S)
    assert [json.loads(line)["number"] for line in run.stderr.splitlines()] == list(range(30))


def read_to_the_end(reading: int) -> str:
    with os.fdopen(reading, "rb") as file:
        return file.read().decode()


def test_a_reader_that_hangs_holds_up_no_call(servers: Servers, settings: Settings) -> None:
    port, (reading, writing) = free_port(), os.pipe()
    with process(WEB, environ_of(settings, PORT=str(port)), writing) as web, client_of(port) as client:
        fill(writing)
        os.close(writing)
        ids = [client.get("/nowhere", timeout=5).headers["X-Request-Id"] for _ in range(200)]
        web.send_signal(signal.SIGTERM)
        said = read_to_the_end(reading)
        assert web.wait(DEADLINE_S) == 0
    lines = [json.loads(line) for line in said.splitlines() if line]
    assert [line["request_id"] for line in lines if line.get("path") == "/nowhere"] == ids


def fill(writing: int) -> None:
    """Leave no room in a pipe that nobody reads."""
    room, filled = select.poll(), 0
    room.register(writing, select.POLLOUT)
    while room.poll(0):
        filled += os.write(writing, b"{}\n\n" * 1_024)
    assert filled > 16_384


@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal_it_is_for_people(
    servers: Servers, settings: Settings, changes: dict[str, str], coloured: bool
) -> None:
    port, (terminal, errors) = free_port(), pty.openpty()
    with process(WEB, environ_of(settings, PORT=str(port), **changes), errors), client_of(port) as client:
        client.get("/ping")
        said = read_until(terminal, "GET /ping 401 in .*code=missing_token")
    assert ("\x1b[36minfo" in said) is coloured
    assert ("\x1b" in said) is coloured
    os.close(terminal)
    os.close(errors)


def test_the_format_can_be_chosen(servers: Servers, settings: Settings) -> None:
    port, (terminal, errors) = free_port(), pty.openpty()
    with process(WEB, environ_of(settings, PORT=str(port), LOG_FORMAT="json"), errors), client_of(port):
        line = read_until(terminal, r'"path":"/health/live".*\n').splitlines()[-1]
    assert json.loads(line)["status"] == 200
    os.close(terminal)
    os.close(errors)


def test_a_workers_jobs_are_lines_too(servers: Servers, settings: Settings) -> None:
    reading, writing = os.pipe()
    environ = environ_of(settings, SNAPSHOT_INTERVAL_S="1", OTEL_TRACES_EXPORTER="console")
    with process(WORKER, environ, writing) as worker:
        os.close(writing)
        said = read_until(reading, '"job":"sync_sessions".*\n')
        worker.send_signal(signal.SIGTERM)
        said += read_to_the_end(reading)
    lines = [json.loads(line) for line in said.splitlines()]
    (job, *_) = [line for line in lines if line.get("job") == "sync_sessions"]
    assert {"level": "info", "logger": "gatehouse.worker", "outcome": "done"}.items() <= job.items()
    assert {"rows", "published", "full", "took_ms"} <= job.keys()
    assert re.fullmatch(r"sync_sessions rows=\d+ published=\d+ full=(True|False) in \d+ ms", job["message"])
    spans = {line["name"] for line in lines if "parent_id" in line}
    assert {"sync_sessions", "INFO", "EVALSHA save_sync"} <= spans
    assert spans & {"changed_sessions", "sessions_of_bucket"}


def test_without_its_variables_nothing_of_opentelemetry_is_imported() -> None:
    modules = "sys, api.__main__, api.app, worker.main, models.tracing"
    code = f"import {modules}; print([m for m in sys.modules if 'telemetry' in m])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT).decode().strip() == "[]"


@pytest.mark.parametrize("arguments", [WEB, WORKER])
def test_traces_without_the_extra_stop_the_start_with_a_word_on_what_to_do(
    settings: Settings, arguments: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('as if it was not there')\n")
    environ = environ_of(settings, PYTHONPATH=str(tmp_path), OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environ, capture_output=True, timeout=DEADLINE_S)
    assert run.returncode == 2
    assert "pip install 'gatehouse[otel]'" in run.stderr.decode()
    assert "Traceback" not in run.stderr.decode()


def test_a_collector_that_is_away_delays_neither_calls_nor_the_end(servers: Servers, settings: Settings) -> None:
    port, (reading, writing) = free_port(), os.pipe()
    environ = environ_of(settings, PORT=str(port), OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    with process(WEB, environ, writing) as web, client_of(port) as client:
        os.close(writing)
        assert client.get("/count").status_code == 200
        web.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        read_to_the_end(reading)
        assert web.wait(DEADLINE_S) == 0
        assert time.monotonic() - began_s < 5
