"""A primary and a standby that follows it, synchronously: real streaming replication."""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Self

import asyncpg

from models.devprocess import LOOPBACK
from models.devservers import USER, PostgresServer, _postgres
from tests.valkeys import until


class Primary(PostgresServer):
    """A commit is one when the standby has it, once there is one."""

    def _command(self, port: int) -> list[str]:
        return [*super()._command(port), "--synchronous_commit=on"]

    def die(self) -> None:
        """End at once, connections and all, and stay away."""
        self._process.send_signal(signal.SIGQUIT)  # type: ignore[union-attr]
        self.stop()

    def become_standby(self) -> None:
        """Come back in recovery, at the same address."""
        self.die()
        (self.data / "standby.signal").touch()
        self.start()

    async def promote(self) -> None:
        """Make it the primary."""
        connection = await asyncpg.connect(self.url)
        try:
            assert await connection.fetchval("SELECT pg_promote(true, 20)")
        finally:
            await connection.close()


class Standby(Primary):
    """What pg_basebackup makes of a primary."""

    def __init__(self, folder: Path, primary: Primary) -> None:
        super().__init__(folder, durable=False)
        self._primary = primary

    def _make_cluster(self, give_up: Callable[[], bool]) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self._make_own(self.data)
        where = ["-h", LOOPBACK, "-p", str(self._primary.port), "-U", USER]
        copy = [str(_postgres("pg_basebackup")), "-D", str(self.data), *where, "-R", "-c", "fast", "--no-sync"]
        made = self._spawn(copy)
        try:
            assert made.wait(20) == 0, self.log.read_text()
        except subprocess.TimeoutExpired:
            made.kill()
            raise


class Pair:
    """Both of them."""

    def __init__(self, folder: Path) -> None:
        self.primary = Primary(folder / "primary", durable=False)
        self.standby = Standby(folder / "standby", self.primary)

    @property
    def url(self) -> str:
        """Both hosts, in one address."""
        return f"postgres://{USER}@{LOOPBACK}:{self.primary.port},{LOOPBACK}:{self.standby.port}/gatehouse"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.primary)
            stack.enter_context(self.standby)
            for statement in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
                assert self.primary._ask("gatehouse", statement).returncode == 0
            until(self._is_synchronous)
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.standby.stop()
        self.primary.stop()

    def _is_synchronous(self) -> bool:
        return self.primary._ask("gatehouse", "SELECT sync_state FROM pg_stat_replication").stdout.strip() == "sync"
