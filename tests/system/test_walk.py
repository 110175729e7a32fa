"""The real thing: `make run`'s processes from the Procfile, walked through over HTTP, stopped, and started again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from models.devservers import free_port

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60
STOP_DEADLINE_S = 5


class Run:
    """One `dev` process and what it says."""

    def __init__(self, dev_dir: Path, port: int, **environ: str) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.log = dev_dir.parent / f"run-{time.monotonic_ns()}.log"
        clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "api.cli", "dev"],
                cwd=ROOT,
                env=clean | {"DEV_DIR": str(dev_dir), "PORT": str(port), **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> None:
        end_at = time.monotonic() + START_DEADLINE_S
        while "curl" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end_at, self.said
            time.sleep(0.05)

    def wait_until_it_says(self, pattern: str) -> None:
        end_at = time.monotonic() + START_DEADLINE_S
        while not re.search(pattern, self.said):
            assert time.monotonic() < end_at, self.said
            time.sleep(0.05)

    def stop(self, signal_number: int) -> float:
        started_at = time.monotonic()
        self.process.send_signal(signal_number)
        assert self.process.wait(START_DEADLINE_S) == 0, self.said
        return time.monotonic() - started_at


@contextmanager
def running(dev_dir: Path, port: int, **environ: str) -> Iterator[Run]:
    run = Run(dev_dir, port, **environ)
    try:
        run.wait_ready()
        yield run
    finally:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)
            run.process.wait(START_DEADLINE_S)


def processes_of(dev_dir: Path) -> list[str]:
    """The command lines of all processes that were started for this folder, by their environment or arguments."""
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc").exists() else []:
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if str(dev_dir).encode() in text:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@pytest.fixture
def dev_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dev")
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):  # noqa: S108  # the server's own user must get in
            parent.chmod(parent.stat().st_mode | 0o011)
        if parent == Path("/tmp"):  # noqa: S108
            break
    return folder / "data"


def log_in(client: httpx.Client) -> dict[str, str]:
    answer = client.post("/login", json={"username": "user1", "password": "pass123"})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['sessionToken']}"}


async def snapshot_row(database_url: str) -> int:
    """The user's stored total, once the worker has written it."""
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(30):
            while (calls := await connection.fetchval("SELECT calls FROM call_totals WHERE user_id = 1")) is None:
                await asyncio.sleep(0.1)
        return int(calls)
    finally:
        await connection.close()


def test_from_login_to_the_snapshot_and_back_after_a_restart(dev_dir: Path) -> None:
    port = free_port()
    fast = {"SNAPSHOT_INTERVAL_S": "1", "PING_DELAY_MS": "0", "RATE_LIMITS": "1/5s"}
    with running(dev_dir, port, **fast) as run, httpx.Client(base_url=run.address) as client:
        token = log_in(client)
        assert client.get("/ping", headers=token).json() == {}
        refused = client.get("/ping", headers=token)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 5
        assert client.get("/top").json() == {"topUsersCallingAPIAllTime": ["CallingPingAPI userID:1 called 1 times"]}
        assert client.get("/count").json() == {"estimatedCount": 1}
        assert asyncio.run(snapshot_row(database_of(run))) == 1
        for job in ("sync_sessions", "snapshot_usage", "restore_usage"):
            run.wait_until_it_says(rf"{job} .* in \d+ ms")  # after the work, so after the row was seen
        assert run.stop(signal.SIGTERM) < STOP_DEADLINE_S
    assert processes_of(dev_dir) == []
    with running(dev_dir, port, **fast) as again, httpx.Client(base_url=again.address) as client:
        assert client.get("/session", headers=token).json()["username"] == "user1"
        assert client.get("/count").json() == {"estimatedCount": 1}
        assert again.stop(signal.SIGINT) < STOP_DEADLINE_S
    assert processes_of(dev_dir) == []


def database_of(run: Run) -> str:
    match = re.search(r"postgres://\S+", run.said)
    assert match, run.said
    return match[0]


def test_the_printed_curl_lines_work_as_pasted(dev_dir: Path) -> None:
    with running(dev_dir, free_port(), PING_DELAY_MS="0") as run:
        lines = [line.strip() for line in run.said.splitlines() if "curl" in line]
        assert len(lines) == 3, run.said
        pasted = subprocess.run(
            ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30, check=True
        )
        assert "{}" in pasted.stdout
        assert "CallingPingAPI userID:1 called 1 times" in pasted.stdout
        assert json.loads(pasted.stdout[pasted.stdout.rindex("{") :])["topUsersCallingAPIAllTime"]


def test_two_signals_at_once_still_stop_everything(dev_dir: Path) -> None:
    with running(dev_dir, free_port()) as run:
        os.killpg(run.process.pid, signal.SIGTERM)
        assert run.stop(signal.SIGTERM) < STOP_DEADLINE_S
    assert processes_of(dev_dir) == []


def test_a_busy_port_gets_one_sentence(dev_dir: Path) -> None:
    with running(dev_dir, port := free_port()):
        other = Run(dev_dir.parent / "other", port)
        assert other.process.wait(START_DEADLINE_S) == 1
        assert str(port) in other.said
        assert len(other.said.strip().splitlines()) == 1, other.said


def test_a_start_without_settings_names_each_of_them() -> None:
    bare = {"PATH": os.environ["PATH"]}
    for command in (
        ["-m", "worker.main"],
        ["-m", "api.cli", "migrate"],
        ["-m", "api"],
    ):
        ended = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=bare, capture_output=True, text=True, timeout=30
        )
        assert ended.returncode == 2, ended
        for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEYS"):
            assert f"{name}: missing; it takes" in ended.stderr
        assert "Traceback" not in ended.stderr
