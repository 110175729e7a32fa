"""Who takes part in the gate's benchmark, each with its users, its counter and a check that it does its work."""

import asyncio
import hashlib
import http.client
import secrets
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from redis import Redis

from models.devprocess import LOOPBACK
from tests.bench.load import write_gets, write_pings
from tests.bench.processes import OUTPUT, BenchError, Service, sanic_command
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import say
from tests.bench.stack import Stack

GATEHOUSES = ("gatehouse", "gatehouse_access_log", "gatehouse_verify", "gatehouse_two_processes")
NAMES = ("bare_sanic", *GATEHOUSES[:3], "sanic_six_commands", "fastapi_slowapi", GATEHOUSES[3])
USERS = 2_000

_HERE = Path(__file__).parent
_VENV = OUTPUT / "venv"


@dataclass(frozen=True)
class Contestant:
    """One service as the load sees it.

    Args:
        token: a valid one of its own.
        counted: reads how many calls it has counted; None when it does not count.
    """

    name: str
    ports: Sequence[int]
    requests: Path
    token: str
    counted: Callable[[], int] | None = None

    def check(self) -> None:
        """Raise BenchError unless a valid token is admitted and counted and, by a gate, a forged one is not."""
        for port in self.ports:
            before = self.counted() if self.counted else 0
            status, body = _get_ping(port, self.token)
            if (status, body.replace(b" ", b"")) != (200, b"{}"):
                raise BenchError(f"{self.name} answers a valid token with {status} {body[:80]!r}, not with 200 {{}}.")
            if self.counted is None:
                continue
            if self.counted() != before + 1:
                raise BenchError(f"{self.name} admits a call without counting it.")
            if _get_ping(port, self.token[::-1])[0] != 401:
                raise BenchError(f"{self.name} admits a forged token.")


def open_contestants(names: Sequence[str], stack: Stack, services: ExitStack) -> list[Contestant]:
    """Start the services that are asked for; they end with `services`."""
    if "fastapi_slowapi" in names:
        ensure_venv()
    say(f"creating {USERS:,} users and their sessions")
    user_ids = range(1, USERS + 1)
    contestants = []
    if set(GATEHOUSES) & set(names):
        contestants += _gatehouses(stack, list(user_ids), services)
    opaque = [secrets.token_urlsafe(72) for _ in user_ids]  # as long as Gatehouse's own
    requests = write_pings(stack.folder / "opaque.http", opaque)
    if "bare_sanic" in names:
        service = services.enter_context(Service("bare_sanic", _sanic_peer("bare_sanic"), {}))
        contestants.append(Contestant("bare_sanic", [service.port], requests, opaque[0]))
    peers = {"sanic_six_commands": (1, _sanic_peer("sanic_six_commands")), "fastapi_slowapi": (2, _fastapi_peer())}
    for name, (redis_database, command) in peers.items():
        if name in names:
            redis_url = stack.valkey.url.removesuffix("/0") + f"/{redis_database}"
            client = _cache_peer_sessions(redis_url, opaque)
            service = services.enter_context(Service(name, command, {"REDIS_URL": redis_url}))
            contestants.append(Contestant(name, [service.port], requests, opaque[0], _peer_counter(client)))
    return sorted((one for one in contestants if one.name in names), key=lambda one: NAMES.index(one.name))


def _gatehouses(stack: Stack, user_ids: list[int], services: ExitStack) -> list[Contestant]:
    asyncio.run(stack.add_users(user_ids))
    tokens = asyncio.run(stack.start_sessions(user_ids))
    asyncio.run(stack.cache_sessions())
    pings = write_pings(stack.folder / "gatehouse.http", tokens)
    verifications = write_gets(stack.folder / "verify.http", "/verify", tokens)
    ports = [services.enter_context(stack.gatehouse(f"gatehouse-{number}")).port for number in (1, 2)]
    counted = RedisFacts(stack.valkey.url).calls_counted
    logging = services.enter_context(stack.gatehouse("gatehouse-access-log", ACCESS_LOG="on")).port
    work = (ports[:1], pings), ([logging], pings), (ports[:1], verifications), (ports, pings)
    return [Contestant(name, *one, tokens[0], counted) for name, one in zip(GATEHOUSES, work, strict=True)]


def _sanic_peer(name: str) -> list[str]:
    return sanic_command(f"tests.bench.peers.{name}:create_app")


def _fastapi_peer() -> list[str]:
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--workers", "1"]
    where = ["--app-dir", str(_HERE / "peers"), "--host", LOOPBACK, "--port", "{port}"]
    return [str(_VENV / "bin" / "python"), "-m", "uvicorn", "fastapi_slowapi:app", *where, *options]


def _cache_peer_sessions(redis_url: str, tokens: Sequence[str]) -> Redis:
    client: Redis = Redis.from_url(redis_url)
    with client.pipeline(transaction=False) as pipe:
        for user_id, token in enumerate(tokens, start=1):
            pipe.set(f"session:{token}", user_id, ex=86_400)
            pipe.set(f"user:{user_id}:token", token, ex=86_400)
        pipe.execute()
    return client


def _peer_counter(client: Redis) -> Callable[[], int]:
    def counted() -> int:
        rows = cast(list[tuple[bytes, float]], client.zrange("calls", 0, -1, withscores=True))
        return sum(int(score) for _, score in rows)

    return counted


def _get_ping(port: int, token: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/ping", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ensure_venv() -> None:
    """Install the packages of the FastAPI peer into a folder of their own, unless they are there.

    Raises:
        BenchError: they could not be installed.
    """
    requirements = _HERE / "requirements.txt"
    stamp, wanted = _VENV / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest() + sys.version
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("installing the packages of the FastAPI peer into .bench/venv (once)")
    venv.create(_VENV, clear=True, with_pip=True)
    pip = [str(_VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
    run = subprocess.run([*pip, "-r", str(requirements)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        raise BenchError(
            "The packages of the FastAPI peer could not be installed"
            f" ({errors[-1] if errors else 'pip failed'}); `--only bare_sanic gatehouse` does without."
        )
    stamp.write_text(wanted)
