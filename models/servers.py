"""The Redis servers that take writes: one, the master that sentinels name, or the masters of a cluster.

Every key has a slot, and each slot one server. With a single server they are all its own.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from hiredis import ReplyError
from redis.crc import key_slot

from models.keys import BUCKETS, bucket_key
from models.link import Find, Link, fixed, pack
from models.redis_target import RedisTarget
from models.replies import checked, gather_all
from models.sentinels import Sentinels

GATE_DEADLINE_S = 0.2
JOB_DEADLINE_S = 2.0


@lru_cache(maxsize=1024)
def slot_of(key: str) -> int:
    """The slot of a key (Redis cluster specification, "Key distribution model"): of its hash tag, where it has one."""
    begin = key.find("{")
    end = key.find("}", begin)
    return int(key_slot((key[begin + 1 : end] if end > begin + 1 else key).encode()))


BUCKET_SLOTS = [slot_of(bucket_key(bucket, "")) for bucket in range(BUCKETS)]
"""The slot that all keys of a bucket have."""


class Server:
    """One server, and what this process thinks of it.

    Two connections lead to it, so that no call of the gate waits behind a job.

    Args:
        gate: with a short deadline.
        jobs: with a longer one.
    """

    def __init__(self, gate: Link, jobs: Link) -> None:
        self.gate, self.jobs = gate, jobs
        self.away = False
        """It did not answer lately: what can do without it does not ask."""
        self.trusted = -1
        """The generation whose sessions may be believed; none at first."""
        self.closed = False

    @property
    def generation(self) -> int:
        """Which connection the gate uses: each new one has the next number."""
        return self.gate.generation

    def close(self) -> None:
        """End the connections, for good."""
        self.closed = self.away = True
        self.gate.close()
        self.jobs.close()


Found = Callable[[Server, bool], None]
"""Told of a server, and whether it was known from the start."""


class Servers(Protocol):
    """How `models.store` reaches Redis."""

    def tell(self, found: Found) -> None:
        """Have `found` told of each server, now and when it comes to be known; one that is given up is closed."""
        ...

    @property
    def away(self) -> bool:
        """Whether one of them did not answer lately."""
        ...

    def of(self, slot: int) -> Server:
        """The server of a slot; one that is `away` while nobody knows."""
        ...

    def buckets_of(self, server: Server) -> list[int]:
        """The buckets whose keys it has."""
        ...

    async def masters(self) -> list[Server]:
        """All of them, at least one.

        Raises:
            RedisAway: it is not known which there are.
        """
        ...

    async def call(self, command: bytes, slot: int) -> Any:
        """The checked reply to a packed command, from the server of a slot, through the patient connection.

        Raises:
            RedisAway, RedisBusy, ReplyLost: as of `Link.call`.
            RedisRefused, RedisFault: as of `models.replies.checked`.
        """
        ...

    def lose(self, server: Server) -> None:
        """It did not answer."""
        ...

    async def call_asking(self, command: bytes, refusal: ReplyError) -> Any:
        """The checked reply of the server that `ASK …` names, to a call of the gate."""
        ...

    def redirect(self, refusal: ReplyError, slot: int) -> bool:
        """Whether it says that the slot is another server's: `of` knows it now."""
        ...

    async def close(self) -> None: ...


Words = tuple[str | bytes | int, ...]
"""A command whose second word is its key."""


async def ask(servers: Servers, commands: Iterable[Words]) -> list[Any]:
    """The checked replies to commands that are sent together, each to the server of its key."""
    return await gather_all(servers.call(pack(*words), slot_of(str(words[1]))) for words in commands)


class OneServer:
    """A server that has all slots: at a fixed address, or wherever sentinels say that the master is."""

    def __init__(self, target: RedisTarget, greeting: Sequence[bytes]) -> None:
        self._sentinels = Sentinels(target) if target.kind == "sentinel" else None
        find = self._sentinels.master if self._sentinels else fixed(target.hosts[0])
        self._server = server_at(find, target, greeting)

    def tell(self, found: Found) -> None:
        found(self._server, True)

    @property
    def away(self) -> bool:
        return self._server.away

    def of(self, slot: int) -> Server:
        return self._server

    def buckets_of(self, server: Server) -> list[int]:
        return list(range(BUCKETS))

    async def masters(self) -> list[Server]:
        return [self._server]

    async def call(self, command: bytes, slot: int) -> Any:
        return checked(await self._server.jobs.call(command))

    def lose(self, server: Server) -> None:
        server.away = True

    async def call_asking(self, command: bytes, refusal: ReplyError) -> Any:
        return checked(refusal)

    def redirect(self, refusal: ReplyError, slot: int) -> bool:
        return False

    async def close(self) -> None:
        self._server.close()
        if self._sentinels:
            self._sentinels.close()


def server_at(find: Find, target: RedisTarget, greeting: Sequence[bytes]) -> Server:
    """A server with its two connections, which open when they are needed."""
    # Whoever is not let in is told so by the first command, not by each of them.
    jobs = Link(find, target, JOB_DEADLINE_S, [pack("PING")])
    return Server(Link(find, target, GATE_DEADLINE_S, greeting), jobs)
