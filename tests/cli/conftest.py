"""The command line on the real stores: in this process for speed, or as the process that an operator starts."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from api.cli import main
from models.connections import Stores
from models.settings import Settings

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that it printed."""
        return json.loads(self.out)


Command = Callable[..., Awaitable[Ran]]


def environment(settings: Settings) -> dict[str, str]:
    """What a process needs of these settings."""
    return {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "SECRET_KEYS": ",".join(settings.secret_keys),
        "PING_DELAY_MS": "0",
        "RATE_LIMITS": "10000/1s",
        "TERM": "dumb",
        "COLUMNS": "120",
    }


def run_here(environ: dict[str, str], *argv: str, stdin: str = "") -> Ran:
    """Run a command in this process; not where an event loop runs, as it has its own."""
    out, err = io.StringIO(), io.StringIO()
    typed = patch.object(sys, "stdin", io.StringIO(stdin))
    with patch.dict(os.environ, environ), typed, redirect_stdout(out), redirect_stderr(err):
        code = main(argv)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def cheaply(cheap_hashes: None) -> None:
    """Each command makes a hash at its start."""


async def number_from_one(stores: Stores) -> None:
    """Let the next users be the first."""
    await stores.database.fetch("ALTER SEQUENCE users_id_seq RESTART")


@pytest.fixture
def cli(stores: Stores) -> Command:
    """`await cli("user", "list")` on the empty stores of the test."""

    async def run(*argv: str, stdin: str = "") -> Ran:
        return await asyncio.to_thread(run_here, environment(stores.settings), *argv, stdin=stdin)

    return run


@pytest.fixture
def start(settings: Settings) -> Callable[..., subprocess.Popen[str]]:
    """Starts a command as a process of its own: `start("user", "list")`."""

    def begin(*argv: str, program: list[str] | None = None, **options: Any) -> subprocess.Popen[str]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"text": True}
        environ = os.environ | environment(settings) | options.pop("environ", {})
        command = program or [sys.executable, "-m", "api.cli"]
        return subprocess.Popen([*command, *argv], cwd=ROOT, env=environ, start_new_session=True, **(pipes | options))

    return begin
