"""A Redis Cluster: which master has which slots, learnt from its nodes and from their redirections."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from hiredis import ReplyError

from models.errors import RedisAway, RedisRefused, StoreUnavailable
from models.keys import BUCKETS
from models.link import Link, fixed, pack
from models.redis_target import Address, RedisTarget
from models.replies import checked, gather_all, reply_of
from models.servers import BUCKET_SLOTS, Found, Server, server_at
from models.tasks import end

log = logging.getLogger("gatehouse.redis")

SLOTS = 16_384
REDIRECTIONS = 5
LOOK_EVERY_S = 10.0
SHORTEST_PAUSE_S = 0.1
LOOK_DEADLINE_S = 0.5
AT_ONCE_S = 1.0
"""Servers that are learnt later than this were not there when the process began to answer."""

MAX_LOOKERS = 16
"""Nodes that are asked at once what the cluster looks like."""

_LOOK = [pack("CLUSTER", "SLOTS"), pack("CLUSTER", "INFO")]


class _View(msgspec.Struct, frozen=True, order=True):
    """What one node thinks of the cluster; the greater one is believed.

    Args:
        covered: how many slots have a master.
        epoch: of the cluster, as far as the node has heard.
        ranges: first slot, last slot, master.
    """

    whole: bool
    epoch: int
    covered: int
    ranges: list[tuple[int, int, Address]]


class Cluster:
    """The masters of a cluster.

    Args:
        target: some of its nodes; the others are learnt from them.
        greeting: packed commands for each new connection of the gate.
    """

    def __init__(self, target: RedisTarget, greeting: Sequence[bytes]) -> None:
        self._target = target
        self._greeting = greeting
        self._seeds = {host: Link(fixed(host), target, LOOK_DEADLINE_S) for host in target.hosts}
        self._nowhere = server_at(_unknown, target, ())
        self._nowhere.away = True
        self._masters: dict[Address, Server] = {}
        self._viewed: set[Address] = set()
        self._owners: list[Server] = [self._nowhere] * SLOTS
        self._told: list[Found] = []
        self._stale, self._seen = asyncio.Event(), asyncio.Event()
        self._stale.set()
        self._began_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def tell(self, found: Found) -> None:
        """As `models.servers.Servers`; from now on the cluster is looked at."""
        self._told.append(found)
        for server in self._masters.values():
            found(server, not self._seen.is_set())
        if self._task is None:
            self._began_s = time.monotonic()
            self._task = asyncio.create_task(self._follow())

    @property
    def away(self) -> bool:
        return not self._masters or any(server.away for server in self._masters.values())

    def of(self, slot: int) -> Server:
        return self._owners[slot]

    def buckets_of(self, server: Server) -> list[int]:
        return [bucket for bucket in range(BUCKETS) if self._owners[BUCKET_SLOTS[bucket]] is server]

    async def masters(self) -> list[Server]:
        if not self._viewed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._seen.wait(), 2 * LOOK_DEADLINE_S)
        # Of one that only a redirection has named, not all slots are known.
        found = [server for address, server in self._masters.items() if address in self._viewed]
        if not found:
            raise RedisAway()
        return found

    async def call(self, command: bytes, slot: int) -> Any:
        for _ in range(REDIRECTIONS):
            server = self.of(slot)
            try:
                reply = await server.jobs.call(command)
            except RedisAway:
                self._stale.set()
                raise
            if isinstance(reply, ReplyError):
                if self.redirect(reply, slot):
                    continue
                if str(reply).startswith("ASK "):
                    reply = await self._named_by(reply, slot).jobs.call_asking(command)
                    if str(reply).startswith(("ASK ", "MOVED ")):  # the move ended, or turned, in between
                        continue
            return checked(reply)
        raise RedisRefused("Redis sends from server to server; try again shortly")

    def lose(self, server: Server) -> None:
        server.away = True
        self._stale.set()

    async def call_asking(self, command: bytes, refusal: ReplyError) -> Any:
        server = self._named_by(refusal, int(str(refusal).split(" ")[1]))
        if server.away or server.trusted != server.generation:
            raise RedisRefused("The slot moves to a server that nobody has judged; try again shortly")
        return checked(await server.gate.call_asking(command))

    def redirect(self, refusal: ReplyError, slot: int) -> bool:
        if not str(refusal).startswith("MOVED "):
            return False
        self._owners[slot] = self._named_by(refusal, slot)
        self._stale.set()
        return True

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
        for server in (*self._masters.values(), self._nowhere):
            server.close()
        for seed in self._seeds.values():
            seed.close()

    def _named_by(self, redirection: ReplyError, slot: int) -> Server:
        """The server in `MOVED <slot> <host>:<port>` or `ASK …`; with an empty host it is the sender's."""
        host, _, port = str(redirection).split(" ")[2].rpartition(":")
        sender = next((host for (host, _), server in self._masters.items() if server is self.of(slot)), "")
        return self._at((host.strip("[]") or sender, int(port)))

    def _at(self, address: Address) -> Server:
        server = self._masters.get(address)
        if server is None:
            server = self._masters[address] = server_at(fixed(address), self._target, self._greeting)
            at_once = not self._seen.is_set() and time.monotonic() < self._began_s + AT_ONCE_S
            for found in self._told:
                found(server, at_once)
        return server

    async def _follow(self) -> None:
        """Look whenever something was not where it should be, and now and then."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), LOOK_EVERY_S)
            self._stale.clear()
            try:
                view = await self._look()
                if view is None or not view.whole:
                    self._stale.set()
                if view is not None:
                    self._take(view)
            except Exception:
                log.exception("the cluster's slots cannot be read")
            await asyncio.sleep(SHORTEST_PAUSE_S)

    async def _look(self) -> _View | None:
        """What the best informed node says; None when nobody answers."""
        links = {address: server.jobs for address, server in self._masters.items()}
        links = dict(list((self._seeds | links).items())[-MAX_LOOKERS:])
        asked = [asyncio.create_task(_view_of(address[0], link)) for address, link in links.items()]
        await asyncio.wait(asked, timeout=LOOK_DEADLINE_S)
        views = []
        for task in asked:
            if task.done():
                views.append(task.result())
            else:
                task.cancel()
        return max((view for view in views if view), default=None)

    def _take(self, view: _View) -> None:
        owners: list[Server] = [self._nowhere] * SLOTS
        for first, last, address in view.ranges:
            owners[first : last + 1] = [self._at(address)] * (last + 1 - first)
        self._owners = owners
        self._viewed = {address for _, _, address in view.ranges}
        for address in self._masters.keys() - self._viewed:
            # Should it come back as a master, it is another server: nothing of what it holds is believed before a sync.
            self._masters.pop(address).close()
        self._seen.set()


async def _unknown() -> Address:
    raise OSError("no node of the cluster has told yet who has the slot")


async def _view_of(host: str, link: Link) -> _View | None:
    with suppress(StoreUnavailable, asyncio.CancelledError):
        slots, info = await gather_all(reply_of(link, command) for command in _LOOK)
        facts = dict(line.partition(":")[::2] for line in info.decode().split())
        ranges = [(first, last, (_host(master[0]) or host, master[1])) for first, last, master, *_ in slots]
        covered = sum(last + 1 - first for first, last, _ in ranges)
        return _View(facts.get("cluster_state") == "ok", int(facts["cluster_current_epoch"]), covered, ranges)
    return None


def _host(name: bytes | None) -> str:
    """Empty for a node that does not know its own address."""
    return "" if not name or name == b"?" else name.decode()
