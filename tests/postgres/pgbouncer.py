"""A real PgBouncer before a PostgreSQL, in transaction mode, with fewer server connections than clients."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from models.devprocess import LOOPBACK, DevServer
from models.devservers import PostgresServer

SERVER_CONNECTIONS = 3

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class PgBouncer(DevServer):
    """PgBouncer 1.18 or later; as root it runs as nobody, since it refuses root."""

    name: ClassVar[str] = "PgBouncer"
    # SIGINT waits for transactions, SIGTERM does not.
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM,)
    orphan_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        super().__init__(folder, durable=False)
        self._postgres = postgres

    def _url(self, port: int) -> str:
        return f"postgres://app@{LOOPBACK}:{port}/gatehouse?pgbouncer=transaction"

    def _prepare(self, give_up: Callable[[], bool]) -> None:
        self._own_data_folder()

    def _command(self, port: int) -> list[str]:
        users, configuration = self.data / "users.txt", self.data / "pgbouncer.ini"
        users.write_text('"app" ""\n')
        configuration.write_text(
            f"[databases]\ngatehouse = host={LOOPBACK} port={self._postgres.port} dbname=gatehouse\n"
            f"[pgbouncer]\nlisten_addr = {LOOPBACK}\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\nadmin_users = app\n"
            f"pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 500\n"
        )
        for path in (users, configuration):
            if self._account:
                os.chown(path, *self._account)
        assert _PROGRAM is not None
        return [_PROGRAM, str(configuration)]

    def _answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port or 0), 1).close()
        except OSError:
            return False
        return self.alive


def skip_without_pgbouncer() -> None:
    """Never in CI, where it has to be there."""
    if _PROGRAM is None and "CI" not in os.environ:
        pytest.skip("pgbouncer is not installed (Debian: apt install pgbouncer)")
