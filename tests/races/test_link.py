"""The shared connection: nobody gets another's reply, and every trouble of the connection ends in one kind of error."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from models import link as link_module
from models.connections import Stores
from models.devservers import ValkeyServer
from models.errors import RedisAway, StoreUnavailable
from models.link import Link, fixed, pack
from models.redis_target import parse_redis
from tests.conftest import RawRedis, Servers
from tests.valkeys import let_in

CALLS = int(os.environ.get("LINK_CALLS", "20000"))
CALLERS = 64


def link_to(url: str, deadline_s: float, greeting: Sequence[bytes] = ()) -> Link:
    target = parse_redis(url)
    return Link(fixed(target.hosts[0]), target, deadline_s, greeting)


@pytest.fixture
async def link(servers: Servers) -> AsyncIterator[Link]:
    opened = link_to(servers.valkey.url, 1.0)
    yield opened
    opened.close()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that a test may stop."""
    with ValkeyServer(let_in(tmp_path) / "valkey", durable=False) as server:
        yield server


async def foreign_replies(link: Link, calls: int) -> int:
    """Many callers, a third of whom give up at random points; how many of the others got a reply that is not theirs."""
    foreign = 0

    async def caller(number: int) -> None:
        nonlocal foreign
        for turn in range(calls // CALLERS):
            mine = b"%d-%d" % (number, turn)
            call = asyncio.ensure_future(link.call(pack("ECHO", mine)))
            if random.random() < 1 / 3:
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(0)
                call.cancel()
            answer = (await asyncio.gather(call, return_exceptions=True))[0]
            foreign += isinstance(answer, bytes) and answer != mine

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return foreign


async def test_callers_that_give_up_shift_nobodys_reply(link: Link) -> None:
    assert await foreign_replies(link, CALLS) == 0


async def test_forgetting_a_cancelled_call_would_shift_replies(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted variant: a cancelled call leaves its place in the queue."""
    keep = link_module._Connection.send

    def send(self: Any, command: bytes) -> asyncio.Future[Any]:
        reply = keep(self, command)
        reply.add_done_callback(lambda it: self._waiting.remove(it) if it.cancelled() and it in self._waiting else None)
        return reply

    monkeypatch.setattr(link_module._Connection, "send", send)
    try:
        foreign = await asyncio.wait_for(foreign_replies(link, 3_000), 5)
    except (StoreUnavailable, TimeoutError):
        return  # the shift ended in a reply too many, which breaks the connection
    assert foreign > 0


async def test_forgotten_scripts_are_loaded_again(stores: Stores, redis: RawRedis) -> None:
    token = await stores.sessions.start(await stores.accounts.add("flushed", "password"))
    assert (await stores.usage.admit(token)).admitted
    await redis.script_flush()
    admissions = await asyncio.gather(*(stores.usage.admit(token) for _ in range(20)))
    assert all(admission.admitted for admission in admissions)
    assert (await stores.usage.top())[0][1] == 21


async def test_a_lost_connection_is_opened_again(link: Link, redis: RawRedis) -> None:
    assert await link.call(pack("PING")) == b"PONG"
    await redis.client_kill_filter(_type="normal", skipme=True)
    async with asyncio.timeout(5):
        while True:
            try:
                assert await link.call(pack("PING")) == b"PONG"
                return
            except StoreUnavailable:
                continue


async def test_a_restarted_server_is_found_again(own_valkey: ValkeyServer) -> None:
    link = link_to(own_valkey.url, 1.0, greeting=[pack("SET", "greeted", "1")])
    await link.call(pack("PING"))
    own_valkey.stop()
    with pytest.raises(StoreUnavailable):
        await link.call(pack("PING"))
    own_valkey.start()
    assert await link.call(pack("GET", "greeted")) == b"1"
    link.close()


async def test_a_server_that_hangs_is_given_up_in_time(own_valkey: ValkeyServer) -> None:
    link = link_to(own_valkey.url, 0.2)
    await link.call(pack("PING"))
    assert own_valkey.pid is not None
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(2):
            answers = await asyncio.gather(*(link.call(pack("PING")) for _ in range(9)), return_exceptions=True)
            assert all(isinstance(answer, StoreUnavailable) for answer in answers)
            with pytest.raises(StoreUnavailable):  # the kernel still accepts connections for it
                await link.call(pack("PING"))
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert await link.call(pack("PING")) == b"PONG"
    link.close()


async def test_calls_that_wait_are_bounded(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_WAITING", 10)
    await link.call(pack("PING"))
    answers = await asyncio.gather(*(link.call(pack("PING")) for _ in range(30)), return_exceptions=True)
    assert answers.count(b"PONG") == 10
    assert sum(isinstance(answer, StoreUnavailable) for answer in answers) == 20


async def test_an_address_that_refuses_is_an_outage(own_valkey: ValkeyServer) -> None:
    for url in (own_valkey.url.replace("redis://", "redis://:wrong@"), "redis://127.0.0.1:1/0"):
        with pytest.raises(StoreUnavailable):
            await link_to(url, 1.0).call(pack("PING"))


async def test_who_waits_for_a_connection_that_is_given_up_is_told_that_redis_is_away() -> None:
    """And is not cancelled: that would end whatever loop it is in. Only who is cancelled is."""

    async def find() -> tuple[str, int]:
        await asyncio.sleep(60)
        raise AssertionError

    link = Link(find, parse_redis("redis://127.0.0.1:1/0"), 60.0)
    waiting, cancelled = (asyncio.ensure_future(link.call(pack("PING"))) for _ in range(2))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    link.close()
    with pytest.raises(RedisAway):
        await waiting
    with pytest.raises(RedisAway):  # for good
        await link.call(pack("PING"))


async def test_a_call_that_begins_late_opens_no_second_connection(link: Link) -> None:
    early = link.call(pack("PING"))
    assert await link.call(pack("PING")) == b"PONG"
    generation = link.generation
    assert await early == b"PONG"
    assert link.generation == generation
