"""Redis away, hung, full, or back as an older copy: valid tokens go on, revoked ones stay out, counts arrive."""

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import replace
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from models import outage, watch
from models.connections import Stores, open_stores
from models.database import QUERY_DEADLINE_S
from models.devservers import ValkeyServer
from models.errors import RedisAway, RedisBusy, RedisFault, ReplyLost, StoreUnavailable
from models.keys import BUCKETS, user_key
from models.local_limits import LocalLimiter
from models.outage import LocalGate
from models.policies import parse_policies
from models.servers import Server
from models.settings import Settings
from models.tokens import Claims
from tests.conftest import empty
from tests.races.conftest import until


async def reconnected(stores: Stores) -> None:
    async with asyncio.timeout(10):
        while True:
            with suppress(RedisAway):
                await stores.store.ping()
                return
            await asyncio.sleep(0.01)


async def signed_in(stores: Stores, name: str = "ada") -> tuple[int, str]:
    user_id = await stores.accounts.add(name, "password")
    return user_id, await stores.sessions.start(user_id)


async def test_redis_killed_calls_go_on_and_are_counted_when_it_is_back(service: Stores, valkey: ValkeyServer) -> None:
    user_id, token = await signed_in(service)
    assert (await service.usage.admit(token)).admitted
    valkey.stop()
    answers = [await service.usage.admit(token) for _ in range(20)]
    assert all(answer.admitted for answer in answers)
    assert (await service.usage.admit(token[:-4] + "AAAA")).reason == "malformed_token"
    valkey.start()
    await until(lambda: not service.store.away)
    async with asyncio.timeout(10):
        while (calls := dict(await service.usage.top()).get(user_id, 0)) < 20:
            await asyncio.sleep(0.05)
    assert 20 <= calls <= 21  # the first call of the outage may have lost its reply, and is then never counted twice


async def test_redis_hung_answers_come_in_time_and_the_breaker_opens(service: Stores, valkey: ValkeyServer) -> None:
    _, token = await signed_in(service)
    assert (await service.usage.admit(token)).admitted
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(3):
            assert all(a.admitted for a in await asyncio.gather(*(service.usage.admit(token) for _ in range(20))))
        assert service.store.away
        started_at = time.monotonic()
        for _ in range(20):
            assert (await service.usage.admit(token)).admitted
        assert time.monotonic() - started_at < 20 * 0.5, "nobody waits for a server that is known to hang"
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until(lambda: not service.store.away)


async def test_the_limit_holds_in_each_process_meanwhile(service: Stores, valkey: ValkeyServer) -> None:
    _, token = await signed_in(service)
    await service.sessions.sync()
    async with open_stores(replace(service.settings, rate_limits=parse_policies("3/60s"))) as limited:
        await until(lambda: limited.usage.trusts_redis)
        valkey.stop()
        answers = [await limited.usage.admit(token) for _ in range(10)]
    assert sum(answer.admitted for answer in answers) == 3
    assert answers[-1].remaining == [0]
    assert 59_000_000 < answers[-1].wait_us <= 60_000_000


async def test_a_full_redis_refuses_no_valid_token(service: Stores) -> None:
    user_id, token = await signed_in(service)
    assert (await service.usage.admit(token)).admitted
    async with Redis.from_url(service.settings.redis_url) as redis:
        await redis.config_set("maxmemory", 1)
        assert all([(await service.usage.admit(token)).admitted for _ in range(5)])
        await redis.config_set("maxmemory", 0)
    async with asyncio.timeout(10):
        while dict(await service.usage.top())[user_id] < 6:
            await asyncio.sleep(0.05)
    assert dict(await service.usage.top())[user_id] == 6


@pytest.mark.parametrize("trusting", [False, True], ids=["distrusted until a heartbeat", "planted: believed at once"])
async def test_an_older_copy_of_redis_revives_nobody(
    service: Stores, valkey: ValkeyServer, trusting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis restarts from a file that was written before a logout."""
    _, token = await signed_in(service)
    assert (await service.usage.admit(token)).admitted
    await service.sessions.sync()
    async with Redis.from_url(service.settings.redis_url) as redis:
        await redis.wait_aof(1, 0, 2_000) if hasattr(redis, "wait_aof") else await redis.execute_command(
            "WAITAOF", 1, 0, 2_000
        )
    older = valkey.folder.parent / "older"
    shutil.copytree(valkey.folder, older, ignore=shutil.ignore_patterns("*.sock", "*.lock", "lock"))
    claims = service.sessions.read_token(token)
    assert isinstance(claims, Claims)
    assert await service.accounts.log_out(claims) is None
    assert (await service.usage.admit(token)).reason == "session_revoked"
    valkey.stop()
    for kept in older.rglob("*"):
        if kept.is_file():
            shutil.copyfile(kept, valkey.folder / kept.relative_to(older))
    valkey.start()
    if trusting:
        always = property(lambda server: server.generation, lambda _server, _generation: None)
        monkeypatch.setattr(Server, "trusted", always, raising=False)
        # A call before Redis answers again would ask PostgreSQL, and leave a tombstone for those after it.
        await reconnected(service)
    answers = [await service.usage.admit(token) for _ in range(20)]
    if trusting:
        assert any(answer.admitted for answer in answers), "the older copy must hold the session, or this shows nothing"
        return
    assert {answer.reason for answer in answers} == {"session_revoked"}
    await until(lambda: not service.store.away)
    assert not service.usage.trusts_redis
    await service.sessions.sync()
    await until(lambda: service.usage.trusts_redis)
    assert (await service.usage.admit(token)).reason == "session_revoked"


async def test_the_call_that_meets_an_older_copy_does_not_believe_it(service: Stores, valkey: ValkeyServer) -> None:
    """A process without calls does not ask why its connection ended: its next call connects, and is judged there."""
    user_id, token = await signed_in(service)
    assert (await service.usage.admit(token)).admitted
    key, link = user_key(user_id, "session"), service.store.servers.of(0).gate
    async with Redis.from_url(service.settings.redis_url) as redis:
        older = await redis.get(key)
    claims = service.sessions.read_token(token)
    assert isinstance(claims, Claims)
    assert await service.accounts.log_out(claims) is None
    await service.operations.tell()  # else that would connect before the calls
    valkey.stop()
    await until(lambda: link._connection is not None and link._connection.lost)
    valkey.start()
    async with Redis.from_url(service.settings.redis_url) as redis:
        await redis.set(key, older or b"")
    answers = await asyncio.gather(*(service.usage.admit(token) for _ in range(20)))
    assert {answer.reason for answer in answers} == {"session_revoked"}


async def test_a_full_redis_and_a_replica_let_users_log_in_and_out_of_postgresql(service: Stores) -> None:
    """Writes are refused while reads work: an outage, not a fault."""
    user_id = await service.accounts.add("ada", "password")
    async with Redis.from_url(service.settings.redis_url) as redis:
        for refuse, allow in ((("maxmemory", 1), ("maxmemory", 0)), (None, None)):
            await (redis.config_set(*refuse) if refuse else redis.execute_command("REPLICAOF", "127.0.0.1", "1"))
            token = await service.accounts.log_in("ada", "password")
            assert (await service.usage.admit(token)).admitted
            await (redis.config_set(*allow) if allow else redis.execute_command("REPLICAOF", "NO", "ONE"))
    async with asyncio.timeout(10):
        while dict(await service.usage.top()).get(user_id, 0) < 2:
            await asyncio.sleep(0.05)


async def test_a_hung_postgresql_is_given_up_in_time(settings: Settings) -> None:
    """Also by a query on a connection that was open: its release waits for the server too."""
    async with open_stores(settings) as stores:
        backend = (await stores.database.fetch("SELECT pg_backend_pid() AS pid"))[0]["pid"]
        os.kill(backend, signal.SIGSTOP)
        try:
            async with asyncio.timeout(3 * QUERY_DEADLINE_S):
                with pytest.raises(StoreUnavailable):
                    await stores.database.fetch("SELECT 1")
        finally:
            os.kill(backend, signal.SIGCONT)
        await stores.database.ping()


async def test_redis_and_postgresql_away_is_neither_a_yes_nor_a_no(settings: Settings) -> None:
    nowhere = replace(settings, redis_url="redis://127.0.0.1:1/0", database_url="postgres://x@127.0.0.1:1/x")
    async with open_stores(settings) as there:
        await empty(there)
        _, token = await signed_in(there)
    async with open_stores(nowhere) as stores:
        with pytest.raises(StoreUnavailable):
            await stores.usage.admit(token)


async def test_postgresql_away_leaves_cached_sessions_alone(settings: Settings) -> None:
    async with open_stores(settings) as there:
        await empty(there)
        _, token = await signed_in(there)
        await there.sessions.sync()
    async with open_stores(replace(settings, database_url="postgres://x@127.0.0.1:1/x")) as stores:
        await until(lambda: stores.usage.trusts_redis)
        assert (await stores.usage.admit(token)).admitted
        with pytest.raises(StoreUnavailable):
            await stores.accounts.log_in("ada", "password")


@pytest.mark.parametrize(("error", "counted"), [(RedisBusy(), 3), (RedisFault("odd"), 3), (ReplyLost(), 0)])
async def test_calls_of_an_outage_wait_on_whatever_keeps_them_from_being_counted(
    service: Stores, error: Exception, counted: int
) -> None:
    """Unless they may have been counted: twice is worse than never."""
    user_id, token = await signed_in(service)
    tried = asyncio.Event()

    async def failing(bucket: int, rows: object) -> None:
        tried.set()
        raise error

    with patch.object(service.store, "add_calls", failing), patch.object(watch, "WARN_EVERY_S", 0.05):
        for _ in range(3):
            service.store.servers.of(0).away = True
            assert (await service.usage.admit(token)).admitted
        async with asyncio.timeout(10):
            await tried.wait()
        await until(lambda: service.usage.uncounted == counted)
    await until(lambda: not service.usage.uncounted)
    assert dict(await service.usage.top()).get(user_id, 0) == counted


def test_the_memory_of_an_outage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "MAX_USERS", 3)
    gate, policies = LocalGate(), parse_policies("1/60s")
    monkeypatch.setattr(gate, "_limiter", LocalLimiter(3))
    for user_id in range(10):
        gate.admit(user_id, policies, 1, count=True)
    taken = gate.take_uncounted(range(BUCKETS))
    assert sum(len(rows) for rows in taken.values()) == 3
    assert gate.admit(0, policies, 2, count=True).outcome == 1, "the longest silent were forgotten"
    assert gate.admit(9, policies, 2, count=True).outcome == 0
    for rows in taken.values():
        gate.put_back(rows)
    assert sum(len(rows) for rows in gate.take_uncounted(range(BUCKETS)).values()) == 3


async def test_a_redis_that_was_away_when_the_process_began_is_not_believed_at_once(
    service: Stores, valkey: ValkeyServer
) -> None:
    """What ended here meanwhile it has not been told."""
    _, token = await signed_in(service)
    await service.sessions.sync()
    claims = service.sessions.read_token(token)
    assert isinstance(claims, Claims)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        async with open_stores(service.settings) as later:
            await asyncio.sleep(watch.FIRST_LOOK_S + 0.2)  # it answers by now
            with suppress(StoreUnavailable):
                await later.accounts.log_out(claims)
            os.kill(valkey.pid, signal.SIGCONT)
            await until(lambda: not later.store.away)
            await asyncio.sleep(0.3)
            assert not later.usage.trusts_redis
            assert (await later.usage.admit(token)).reason == "session_revoked"
            await service.sessions.sync()
            await until(lambda: later.usage.trusts_redis)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


async def test_a_server_that_is_no_master_any_more_is_left(service: Stores, valkey: ValkeyServer) -> None:
    """It closes no connection when it is told to follow another; who only asks it would stay for good."""
    (server,) = await service.store.servers.masters()
    for link in (server.gate, server.jobs):
        assert (await service.store.identity(link)).now_us
    async with Redis.from_url(service.settings.redis_url) as redis:
        await redis.replicaof("127.0.0.1", "1")
        for link in (server.gate, server.jobs):
            generation = link.generation
            with pytest.raises(RedisAway):
                await service.store.identity(link)
            assert link.generation > generation
