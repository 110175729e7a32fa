"""Whether Redis is there, and whether what it holds may be believed.

A Redis that comes back may be an older copy of itself: a file from before a logout, a replica that lagged. So after
each new connection its sessions are checked against PostgreSQL first, until the worker has published everything that
changed to that very server, in a sync whose last round began after the connection was made: its heartbeat. The limits
and counts are used all the while.
"""

import asyncio
import logging
import time
from contextlib import suppress

from models.errors import RedisAway, RedisRefused, ReplyLost, StoreUnavailable
from models.outage import LocalGate
from models.servers import Server
from models.store import Store
from models.tasks import end

log = logging.getLogger("gatehouse.redis")

PROBE_S = 0.1
FIRST_LOOK_S = 1.0
WARN_EVERY_S = 10.0


class Watch:
    """Follows one process's connections to all servers of Redis, each on its own.

    `Server.trusted` is the generation of its connection whose sessions may be believed.
    """

    def __init__(self, store: Store, local: LocalGate) -> None:
        self._store = store
        self._local = local
        self._began_s = time.monotonic()
        self._warned_s = -WARN_EVERY_S
        self._followers: dict[Server, _Follower] = {}
        store.servers.tell(self._found)

    async def close(self) -> None:
        """Stop following."""
        for follower in self._followers.values():
            await end(follower.task)

    async def look(self) -> None:
        """Wait for the first look at each server, whatever it shows, so that the first call finds them judged."""
        with suppress(TimeoutError, RedisAway):
            async with asyncio.timeout(FIRST_LOOK_S):
                for server in await self._store.servers.masters():
                    await self._followers[server].looked.wait()

    @property
    def trusts_all(self) -> bool:
        """Whether the cached sessions of every server are believed."""
        servers = [server for server in self._followers if not server.closed]
        return bool(servers) and all(is_trusted(server) for server in servers)

    def poke(self, server: Server) -> None:
        """Something is not as it was: find out what. Cheap to call again."""
        if server in self._followers:
            self._followers[server].poked.set()

    def lose(self, server: Server) -> None:
        """It did not answer: nobody waits for it again before it has answered here."""
        if not server.away:
            log.warning("Redis is away: sessions are checked in PostgreSQL, limits are kept by each process")
        self._store.servers.lose(server)
        self.poke(server)

    def _found(self, server: Server, at_once: bool) -> None:
        for gone in [it for it in self._followers if it.closed]:
            del self._followers[gone]
        self._followers[server] = follower = _Follower(at_once)
        follower.task = asyncio.create_task(self._follow(server, follower))

    async def _follow(self, server: Server, follower: "_Follower") -> None:
        while not server.closed:
            with suppress(TimeoutError):  # also to see that it was given up
                await asyncio.wait_for(follower.poked.wait(), WARN_EVERY_S)
            follower.poked.clear()
            while not server.closed and (not is_trusted(server) or self._has_late(server)):
                try:
                    await self._settle(server, follower)
                except StoreUnavailable as error:
                    follower.looked.set()
                    if time.monotonic() >= self._began_s + FIRST_LOOK_S:
                        follower.at_once = False  # this process answers by now: Redis may have missed a logout here
                    if isinstance(error, RedisAway) and not isinstance(error, RedisRefused):
                        self.lose(server)
                    await asyncio.sleep(PROBE_S)
                except Exception:
                    log.exception("Redis cannot be judged; sessions are checked in PostgreSQL")
                    await asyncio.sleep(WARN_EVERY_S)

    async def _settle(self, server: Server, follower: "_Follower") -> None:
        """See Redis back, bring it the counts of the outage, and wait for a heartbeat from after the connection."""
        generation, first = server.generation, server.trusted < 0 and follower.at_once
        run = await self._store.identity(server.gate)
        if run.generation != generation:  # it opened a connection, or lost one: whose identity is this?
            return
        if server.away and not server.closed:
            server.away = False
            log.warning("Redis is back")
        await self._count_late(server)
        while server.generation == generation != server.trusted and not server.closed:
            try:
                states = await self._store.sync_states()
            except StoreUnavailable:  # of a cluster it may be another server that has them
                follower.looked.set()
                await asyncio.sleep(PROBE_S)
                continue
            follower.looked.set()
            state = states.get(run.id)
            if state is None or not state.beat_us:
                # An empty Redis at the start of a process is no older copy.
                believable = first and not states and await self._store.is_empty(server)
            else:
                believable = first or state.beat_us > run.now_us
            if believable:
                server.trusted = generation
                return
            if time.monotonic() >= self._warned_s + WARN_EVERY_S:
                self._warned_s = time.monotonic()
                log.warning("sessions are checked in PostgreSQL until a worker has published them to this Redis")
            await asyncio.sleep(PROBE_S)
            await self._count_late(server)

    def _has_late(self, server: Server) -> bool:
        return self._local.has_uncounted and self._local.has_uncounted_of(self._store.servers.buckets_of(server))

    async def _count_late(self, server: Server) -> None:
        if not self._local.has_uncounted:
            return
        waiting = self._local.take_uncounted(self._store.servers.buckets_of(server))
        while waiting:
            bucket, rows = waiting.popitem()
            try:
                await self._store.add_calls(bucket, rows)
            except BaseException as error:
                if not isinstance(error, ReplyLost):  # else they may have been added: twice is worse than never
                    self._local.put_back(rows)
                for others in waiting.values():
                    self._local.put_back(others)
                raise


class _Follower:
    """What follows one server.

    Args:
        at_once: the server was known when this process began.
    """

    task: asyncio.Task[None]

    def __init__(self, at_once: bool) -> None:
        self.at_once = at_once
        self.poked = asyncio.Event()
        self.poked.set()
        self.looked = asyncio.Event()


def is_trusted(server: Server) -> bool:
    """Whether its cached sessions are believed without a look into PostgreSQL."""
    return server.trusted == server.generation and not server.away
