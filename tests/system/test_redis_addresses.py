"""Every form of REDIS_URL, with passwords and with TLS, on real servers."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis

from models.connections import open_stores
from models.devprocess import LOOPBACK
from models.devservers import ValkeyServer, free_port
from models.errors import RedisAway
from models.settings import Settings
from tests.valkeys import ValkeyCluster, Watched, let_in, until
from worker.queue import open_queue

PASSWORD = "p@ss/w:ord?#"
QUOTED = quote(PASSWORD, safe="")
SENTINELS = "of sentinels"


class TlsServer(ValkeyServer):
    """Debian's Redis, which can encrypt; the embedded Valkey cannot.

    Args:
        files: where its certificate and its key are, as `server.crt` and `server.key`.
        options: more of its configuration.
    """

    def __init__(self, folder: Path, files: Path, *options: str) -> None:
        super().__init__(folder, durable=False)
        self.files = files
        self._options = options

    def _command(self, port: int) -> list[str]:
        program = shutil.which("redis-server")
        assert program
        options = ["--bind", LOOPBACK, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        options += ["--tls-cert-file", f"{self.files}/server.crt", "--tls-key-file", f"{self.files}/server.key"]
        options += ["--tls-ca-cert-file", f"{self.files}/server.crt", "--tls-replication", "yes"]
        options += ["--requirepass", PASSWORD, "--dir", str(self.data)]
        return [program, *self._arguments(port), *options, *self._options]

    def _arguments(self, port: int) -> list[str]:
        return ["--save", "", "--appendonly", "no"]

    def _prepare(self, give_up: Any) -> None:
        self._own_data_folder()

    def ask(self, *words: str) -> Any:
        """The reply to one command."""
        client: Any = Redis(port=self.port or 0, ssl=True, ssl_cert_reqs="none", password=PASSWORD, socket_timeout=5)
        with contextlib.closing(client):
            return client.execute_command(*words)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.ask("PING"))
        return False


class TlsSentinel(TlsServer):
    """One sentinel that encrypts, and reaches its master so."""

    def _arguments(self, port: int) -> list[str]:
        configuration = self.data / "sentinel.conf"
        if not configuration.exists():
            configuration.write_text("")
            if self._account:
                os.chown(configuration, *self._account)
        return [str(configuration), "--sentinel"]


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TlsServer]:
    if shutil.which("redis-server") is None and "CI" not in os.environ:
        pytest.skip("Debian's redis-server is not installed: apt install redis-server")
    folder = tmp_path / "redis"
    folder.mkdir()
    let_in(folder)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("server.key", "server.crt"):
        (folder / name).chmod(0o644)
    with TlsServer(folder, folder) as server:
        yield server


async def works_at(settings: Settings, url: str) -> None:
    """A whole short life: log in, call, log out, and what the worker does."""
    async with open_stores(replace(settings, redis_url=url)) as stores:
        await stores.database.fetch("TRUNCATE users, sessions, call_totals, call_windows, caller_sketches")
        user_id = await stores.accounts.add("ada", "a long password")
        token = await stores.accounts.log_in("ada", "a long password")
        assert (await stores.usage.admit(token)).admitted
        assert stores.usage.meters.counts["cached"] == 1, "Redis was asked, not PostgreSQL"
        await stores.snapshots.restore()
        assert (await stores.snapshots.take()).users == 1
        assert (await stores.sessions.sync()).rows == 1
        assert dict(await stores.usage.top())[user_id] == 1


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
async def test_tls_checks_the_certificate(settings: Settings, tls: TlsServer, host: str) -> None:
    address = f"rediss://:{QUOTED}@{host}:{tls.port}/0"
    await works_at(settings, f"{address}?ssl_ca_certs={tls.folder}/server.crt")
    await works_at(settings, f"{address}?ssl_cert_reqs=none")
    async with open_stores(replace(settings, redis_url=address)) as stores:
        with pytest.raises(RedisAway):  # nobody vouches for it
            await stores.store.ping()


async def test_the_queue_takes_the_same_addresses(tls: TlsServer) -> None:
    for options in (f"ssl_ca_certs={tls.folder}/server.crt", "ssl_cert_reqs=none"):
        queue = open_queue(f"rediss://:{QUOTED}@{LOOPBACK}:{tls.port}/0?{options}", 1)
        assert await queue.ping()
        await queue.aclose()


async def test_sentinels_and_their_master_with_tls(settings: Settings, tls: TlsServer) -> None:
    with TlsSentinel(tls.folder.with_name("sentinel"), tls.folder) as sentinel:
        sentinel.ask("SENTINEL", "MONITOR", "gate", LOOPBACK, str(tls.port), "1")
        sentinel.ask("SENTINEL", "SET", "gate", "auth-pass", PASSWORD)
        options = f"ssl_ca_certs={tls.folder}/server.crt&sentinel_password={QUOTED}"
        url = f"rediss+sentinel://:{QUOTED}@{LOOPBACK}:{sentinel.port}/gate?{options}"
        await works_at(settings, url)
        queue = open_queue(url, 1)
        assert await queue.ping()
        await queue.aclose()


async def test_a_cluster_with_tls(settings: Settings, tls: TlsServer) -> None:
    options = ("--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(free_port()))
    with TlsServer(tls.folder.with_name("cluster"), tls.folder, *options) as node:
        node.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")))
        url = f"rediss+cluster://:{QUOTED}@{LOOPBACK}:{node.port}?ssl_ca_certs={tls.folder}/server.crt"
        await works_at(settings, url)


async def test_a_wrong_password_is_an_outage_that_says_so(
    settings: Settings, tls: TlsServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rediss://:wrong@{LOOPBACK}:{tls.port}/0?ssl_cert_reqs=none"
    async with open_stores(replace(settings, redis_url=url)) as stores:
        with pytest.raises(RedisAway):
            await stores.store.ping()
    assert "WRONGPASS" in caplog.text
    assert "wrong@" not in caplog.text


async def test_a_cluster_behind_a_password(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    with ValkeyCluster(let_in(tmp_path_factory.mktemp("valkeys")), replicas=False) as cluster:
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "requirepass", PASSWORD)
        await works_at(settings, cluster.url.replace("://", f"://:{QUOTED}@"))


async def test_sentinels_and_their_master_behind_passwords(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Watched(let_in(tmp_path_factory.mktemp("valkeys")), PASSWORD, SENTINELS) as watched:
        assert f":{QUOTED}@" in watched.url
        await works_at(settings, watched.url)
        queue = open_queue(watched.url, 1)
        assert await queue.ping()
        await queue.aclose()
        for wrong in (watched.url.replace(f":{QUOTED}@", ""), watched.url.partition("?")[0]):
            async with open_stores(replace(settings, redis_url=wrong)) as stores:
                with pytest.raises(RedisAway):
                    await stores.store.ping()
