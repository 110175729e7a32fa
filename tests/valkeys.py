"""Valkey in company: a cluster of masters and replicas, and a master with a replica that sentinels watch."""

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

from redis import Redis, RedisError

from models.devprocess import LOOPBACK
from models.devservers import ValkeyServer

NODE_TIMEOUT_MS = 1_000
DEADLINE_S = 20.0
SLOTS = 16_384
MASTER_NAME = "gate"
_BUS = 10_000
"""The bus of a node is that much above its port."""


class ClusterNode(ValkeyServer):
    """One node; it becomes part of a cluster by `ValkeyCluster`."""

    def _command(self, port: int) -> list[str]:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        options += ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]
        return [*super()._command(port), *options]

    @property
    def client(self) -> Any:
        """The plain client of this node alone; close it."""
        return Redis(port=self.port or 0, decode_responses=True, socket_timeout=5)

    def ask(self, *words: str | int) -> Any:
        """The reply to one command."""
        with contextlib.closing(self.client) as client:
            return client.execute_command(*words)

    def facts(self, *words: str) -> dict[str, str]:
        """`name:value` lines as a dictionary."""
        reply = self.ask(*words)
        if isinstance(reply, dict):
            return {str(name): str(value) for name, value in reply.items()}
        return dict(line.partition(":")[::2] for line in str(reply).split())


class ValkeyCluster:
    """Three masters with a replica each, the slots shared out evenly."""

    masters_count: ClassVar[int] = 3

    def __init__(self, folder: Path, *, replicas: bool = True) -> None:
        count = self.masters_count * (2 if replicas else 1)
        self.nodes = [ClusterNode(folder / f"node{n}", durable=False, port=_port_with_bus()) for n in range(count)]
        self.masters, self.replicas = self.nodes[: self.masters_count], self.nodes[self.masters_count :]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{node.port}" for node in self.masters)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()

    def _join(self) -> None:
        for number, master in enumerate(self.masters):
            first, end = (SLOTS * n // len(self.masters) for n in (number, number + 1))
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", LOOPBACK, node.port or 0)
        everybody = str(len(self.nodes))
        until(lambda: all(node.facts("CLUSTER", "INFO")["cluster_known_nodes"] == everybody for node in self.nodes))
        for master, replica in zip(self.masters, self.replicas, strict=False):
            replica.ask("CLUSTER", "REPLICATE", self.id_of(master))
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """All slots served, every living replica up to date."""
        until(lambda: all(n.facts("CLUSTER", "INFO")["cluster_state"] == "ok" for n in self.nodes if n.alive))
        until(lambda: all(_is_settled(node) for node in self.nodes if node.alive))

    @staticmethod
    def id_of(node: ClusterNode) -> str:
        return str(node.ask("CLUSTER", "MYID"))

    def master_of(self, slot: int) -> ClusterNode:
        """Who has a slot now, as a living node says."""
        (teller, *_) = (node for node in self.nodes if node.alive)
        for first, last, (_, port, *_), *_ in teller.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def replicas_of(self, master: ClusterNode) -> list[ClusterNode]:
        """The living replicas of a master."""
        told = master.ask("CLUSTER", "REPLICAS", self.id_of(master))
        ports = {int(line.split()[1].partition("@")[0].rpartition(":")[2]) for line in _lines(told)}
        return [node for node in self.nodes if node.port in ports and node.alive]

    def migrate(self, slot: int, source: ClusterNode, target: ClusterNode, keys_at_once: int = 10) -> None:
        """Move a slot key by key, as every version of Redis can, while others use it."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, keys_at_once):
            source.ask("MIGRATE", LOOPBACK, target.port or 0, "", 0, 5_000, "KEYS", *keys)
        for node in (target, source, *self.masters):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))


class GuardedServer(ValkeyServer):
    """A server that may ask for a password, also of its replicas."""

    def __init__(self, folder: Path, password: str) -> None:
        super().__init__(folder, durable=False)
        self._password = password

    def _command(self, port: int) -> list[str]:
        guards = ["--requirepass", self._password, "--masterauth", self._password] if self._password else []
        return [*super()._command(port), *guards]

    def _answers(self) -> bool:
        with contextlib.closing(self.client) as client, contextlib.suppress(RedisError):
            return bool(client.info("server")["process_id"] == self.pid)
        return False

    @property
    def client(self) -> Any:
        """The plain client of this server; close it."""
        return Redis(port=self.port or 0, decode_responses=True, socket_timeout=5, password=self._password or None)


class Sentinel(GuardedServer):
    """One sentinel, from the same program."""

    name: ClassVar[str] = "Valkey Sentinel"

    def __init__(self, folder: Path, master_port: int, passwords: tuple[str, str]) -> None:
        self._of_servers, of_sentinels = passwords
        super().__init__(folder, of_sentinels)
        self._monitor = f"sentinel monitor {MASTER_NAME} {LOOPBACK} {master_port} 2"

    def _url(self, port: int) -> str:
        return f"{LOOPBACK}:{port}"

    def _command(self, port: int) -> list[str]:
        name = MASTER_NAME
        lines = [f"port {port}", f"bind {LOOPBACK}", f"dir {self.data}", self._monitor]
        lines += [f"sentinel down-after-milliseconds {name} 500", f"sentinel failover-timeout {name} 3000"]
        if self._of_servers:
            lines.append(f'sentinel auth-pass {name} "{self._of_servers}"')
        if self._password:
            lines += [f'requirepass "{self._password}"', f'sentinel sentinel-pass "{self._password}"']
        configuration = self.data / "sentinel.conf"
        if not configuration.exists():
            configuration.write_text("\n".join(lines) + "\n")
            if self._account:
                os.chown(configuration, *self._account)
        return [super()._command(port)[0], str(configuration), "--sentinel"]


class Watched:
    """A master, a replica, and three sentinels.

    Args:
        password, of_sentinels: what the servers ask for, and what the sentinels do; nothing when empty.
    """

    def __init__(self, folder: Path, password: str = "", of_sentinels: str = "") -> None:
        self._folder = folder
        self._passwords = password, of_sentinels
        self.servers = [GuardedServer(folder / name, password) for name in ("master", "replica")]
        self.sentinels: list[Sentinel] = []

    @property
    def url(self) -> str:
        password, of_sentinels = (quote(it, safe="") for it in self._passwords)
        login, query = f":{password}@" if password else "", f"?sentinel_password={of_sentinels}" if of_sentinels else ""
        return f"redis+sentinel://{login}{','.join(one.url for one in self.sentinels)}/{MASTER_NAME}{query}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            master, replica = (stack.enter_context(server) for server in self.servers)
            with contextlib.closing(replica.client) as client:
                client.replicaof(LOOPBACK, master.port or 0)
            port = master.port or 0
            self.sentinels = [Sentinel(self._folder / f"sentinel{n}", port, self._passwords) for n in range(3)]
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
            until(lambda: all(self._sees_all(sentinel) for sentinel in self.sentinels))
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self.sentinels, *self.servers):
            server.stop()

    def master(self) -> GuardedServer:
        """Which the sentinels call the master now."""
        with contextlib.closing(self.sentinels[0].client) as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        return next(server for server in self.servers if server.port == int(port))

    def leaders(self) -> tuple[GuardedServer, GuardedServer]:
        """The master, and its replica once it follows."""
        master = self.master()
        replica = next(server for server in self.servers if server is not master)
        until(lambda: _is_replica_in_step(replica))
        return master, replica

    def wait_for_failover(self, dead: ValkeyServer) -> None:
        """Wait until another server is the master."""
        until(lambda: self.master() is not dead)

    def heal(self, dead: ValkeyServer) -> None:
        """Bring the dead server back, and tell it whom to follow, as its sentinels would within twenty seconds."""
        dead.start()
        returned = next(server for server in self.servers if server is dead)
        with contextlib.closing(returned.client) as client:
            client.replicaof(LOOPBACK, self.master().port or 0)

    @staticmethod
    def _sees_all(sentinel: Sentinel) -> bool:
        with contextlib.closing(sentinel.client) as client:
            facts = client.sentinel_master(MASTER_NAME)
        return bool(facts["num-slaves"] == 1 and facts["num-other-sentinels"] == 2)


def let_in(folder: Path) -> Path:
    """Let the account that the servers run as go through a test's folder; returns it."""
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def until(condition: Callable[[], bool]) -> None:
    """Wait for something outside this process."""
    for _ in _ticks():
        if condition():
            return


def _ticks() -> Iterator[None]:
    end_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_at:
        yield
        time.sleep(0.02)
    raise AssertionError(f"it did not come about within {DEADLINE_S} s")


def _is_settled(node: ClusterNode) -> bool:
    facts = node.facts("INFO", "replication")
    return facts["role"] == "master" or facts["master_link_status"] == "up"


def _is_replica_in_step(server: "GuardedServer") -> bool:
    # A server that is told to follow another ends its connections.
    with contextlib.closing(server.client) as client, contextlib.suppress(RedisError):
        facts = client.info("replication")
        return bool(facts["role"] == "slave" and facts.get("master_link_status") == "up")
    return False


def _lines(reply: Any) -> list[str]:
    return reply.splitlines() if isinstance(reply, str) else [str(line) for line in reply]


def _port_with_bus() -> int:
    """A free port whose bus's port is free as well, both below those that the system gives to connections."""
    while True:
        number = random.randrange(10_000, 22_000)
        with socket.socket() as port, socket.socket() as bus, contextlib.suppress(OSError):
            port.bind((LOOPBACK, number))
            bus.bind((LOOPBACK, number + _BUS))
            return number
