"""Processes that log users in when they are told to, pause at the worst moment, and can be killed at any.

They are forked from a process that has imported everything, so that a new one works within hundredths of a second.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from models.connections import Stores, open_stores
from models.errors import StoreUnavailable
from models.settings import Settings
from tests.soak.between import UNFENCED, OneProcess, Unfenced
from tests.soak.stage import ROOT, STOP_DEADLINE_S, Stage

START_DEADLINE_S = 30.0
LONGEST_PAUSE_S = 0.01
LONGEST_LINE = 1 << 20


class Order(msgspec.Struct, frozen=True):
    """What an actor is told: log each of these users in so often, all at once."""

    user_ids: list[int]
    each: int


class Answer(msgspec.Struct, frozen=True):
    """What an actor says.

    Args:
        user_id: who logged in; 0: the order is done.
        token: empty when the login was refused because a store was away.
        published: whether Redis took the session.
    """

    user_id: int = 0
    token: str = ""
    published: bool = False


class Actor:
    """One process, as its director sees it."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._reader, self._writer = reader, writer

    def kill(self) -> None:
        """SIGKILL; it may be gone already."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """SIGKILL, and forget what it had to say."""
        self.kill()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def log_in(self, order: Order, hear: Callable[[Answer], None], kill_after: int | None) -> bool:
        """Have it log users in, and tell of each answer; returns whether it lived to the end.

        Args:
            kill_after: answers after which it is killed; what it has answered by then counts, and is heard.
        """
        self._writer.write(msgspec.json.encode(order) + b"\n")
        heard = 0
        if kill_after == 0:
            self.kill()
        with suppress(ConnectionResetError):
            while line := await self._reader.readline():
                answer = msgspec.json.decode(line, type=Answer)
                if answer.user_id:
                    hear(answer)
                    heard += 1
                    if heard == kill_after:
                        self.kill()
                elif kill_after is None:
                    return True
        await self.close()
        return False


class Troupe:
    """Actors, and the process that they are forked from.

    Args:
        nursery: forks an actor for each line that it reads.
        log: what they print.
    """

    def __init__(self, nursery: "subprocess.Popen[bytes]", log: Path) -> None:
        self.actors: list[Actor] = []
        self._nursery, self._log = nursery, log
        self._arrived: asyncio.Queue[Actor] = asyncio.Queue()

    async def fill(self, number: int) -> None:
        """Fork as many as are missing, and wait until they are ready."""
        missing = number - len(self.actors)
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(b"fork\n" * missing)
        self._nursery.stdin.flush()
        async with asyncio.timeout(START_DEADLINE_S):
            self.actors += [await self._arrived.get() for _ in range(missing)]

    @property
    def said(self) -> str:
        """What they printed last."""
        return self._log.read_text(errors="replace")[-2_000:]

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An actor reports that it is ready."""
        self._arrived.put_nowait(Actor(int(await reader.readline()), reader, writer))

    async def close(self) -> None:
        """End all of them, also those that nobody has waited for."""
        while not self._arrived.empty():
            self.actors.append(self._arrived.get_nowait())
        for actor in self.actors:
            await actor.close()


@asynccontextmanager
async def troupe(stage: Stage, planted: str) -> AsyncIterator[Troupe]:
    """A nursery without actors yet; at the end all of them are gone."""
    address = stage.folder / "actors"
    said = stage.folder / "actors.log"
    command = [sys.executable, "-m", "tests.soak.login_actors", str(address), planted]
    with said.open("ab") as log:
        nursery = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
            command, cwd=ROOT, env=stage.environ(), stdin=subprocess.PIPE, stderr=log, start_new_session=True
        )
    all_of_them = Troupe(nursery, said)
    server = await asyncio.start_unix_server(all_of_them.greet, address, limit=LONGEST_LINE)
    try:
        yield all_of_them
    finally:
        await all_of_them.close()
        nursery.communicate(timeout=STOP_DEADLINE_S)
        server.close()
        await server.wait_closed()


def main() -> int:
    """Fork an actor for each line of standard input; its end is the end of all."""
    address, planted = sys.argv[1:]
    settings = Settings.from_environ(os.environ)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how an actor ended
    for _ in sys.stdin:
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(_act(settings, Path(address), planted))
            os._exit(0)
    return 0


async def _act(settings: Settings, address: Path, planted: str) -> None:
    reader, writer = await asyncio.open_unix_connection(address, limit=LONGEST_LINE)
    async with open_stores(settings) as stores, Redis.from_url(settings.redis_url) as redis:
        await stores.database.ping()
        writer.write(b"%d\n" % os.getpid())
        while line := await reader.readline():  # its end: there is nobody left to act for
            order = msgspec.json.decode(line, type=Order)
            store = Unfenced(stores.store, redis) if planted == UNFENCED else None
            await asyncio.gather(
                *(_log_in(stores, store, user_id, writer) for user_id in order.user_ids for _ in range(order.each))
            )
            writer.write(msgspec.json.encode(Answer()) + b"\n")


async def _log_in(stores: Stores, store: object, user_id: int, writer: asyncio.StreamWriter) -> None:
    """One login that pauses a random while between PostgreSQL and Redis, as a busy process does."""
    published = False

    async def pausing(step: Callable[..., Awaitable[Any]], *args: Any, **given: Any) -> Any:
        nonlocal published
        await asyncio.sleep(random.random() * LONGEST_PAUSE_S)
        result = await step(*args, **given)
        published = step.__name__ == "publish_session"
        return result

    token = ""
    with suppress(StoreUnavailable):
        token = await OneProcess(stores, pausing, store).sessions.start(user_id)
    writer.write(msgspec.json.encode(Answer(user_id, token, published)) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
