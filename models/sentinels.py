"""Sentinels, asked where the master is: whoever knows the newest failover is believed."""

import asyncio
from contextlib import suppress

from hiredis import ReplyError

from models.errors import RedisAway, StoreUnavailable
from models.link import Link, fixed, pack
from models.redis_target import Address, RedisTarget

DEADLINE_S = 0.1
"""For all of them together: it is part of the deadline for a new connection to the master."""


class Sentinels:
    """The sentinels of one master.

    Args:
        target: their addresses, their own credentials, and the master's name.
    """

    def __init__(self, target: RedisTarget) -> None:
        own = RedisTarget("server", target.hosts, credentials=target.sentinel, tls=target.tls)
        self._links = [Link(fixed(host), own, DEADLINE_S) for host in target.hosts]
        self._command = pack("SENTINEL", "MASTER", target.name)

    async def master(self) -> Address:
        """Where the master is.

        Raises:
            RedisAway: none of them knows.
        """
        asked = [asyncio.create_task(self._ask(link)) for link in self._links]
        await asyncio.wait(asked, timeout=DEADLINE_S)
        for task in asked:
            task.cancel()
        answers = [task.result() for task in asked if task.done() and not task.cancelled()]
        found = [answer for answer in answers if answer is not None]
        if not found:
            raise RedisAway()
        return max(found)[1]

    async def _ask(self, link: Link) -> tuple[int, Address] | None:
        """How many failovers this one knows of, and the master's address."""
        with suppress(StoreUnavailable, asyncio.CancelledError):
            reply = await link.call(self._command)
            if not isinstance(reply, ReplyError):
                facts = dict(zip(reply[::2], reply[1::2], strict=True))
                return int(facts[b"config-epoch"]), (facts[b"ip"].decode(), int(facts[b"port"]))
        return None

    def close(self) -> None:
        """End the connections."""
        for link in self._links:
            link.close()
