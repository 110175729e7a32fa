"""`gatehouse load`: real calls on a real web process, an honest table, and nothing left behind."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from api.commands.callers import Tally, call_all
from models.connections import Stores
from models.devservers import free_port
from models.settings import Settings
from tests.cli.conftest import ROOT, Command, environment

START_DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def web(settings: Settings) -> Iterator[str]:
    """The address of a web process, with the limit of one call in five seconds."""
    port = free_port()
    environ = os.environ | environment(settings) | {"HOST": "127.0.0.1", "PORT": str(port), "RATE_LIMITS": "1/1h"}
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], cwd=ROOT, env=environ, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        asyncio.run(reachable(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_DEADLINE_S)


async def reachable(port: int) -> None:
    async with asyncio.timeout(START_DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)


async def test_users_call_for_real_and_are_removed(cli: Command, stores: Stores, web: str) -> None:
    ran = await cli("load", "--users", "30", "--seconds", "1", "-c", "4", "--url", web, "--json", "--clean")
    assert (ran.code, ran.err) == (0, "")
    report = ran.document
    assert report["users"] == 30
    assert report["statuses"]["200"] == 30, "each user's one call"
    assert set(report["statuses"]) == {"200", "429"}
    assert report["calls"] == sum(report["statuses"].values())
    assert 0 < report["p50Ms"] <= report["p99Ms"]
    assert report["usersLeft"] == 0
    assert (await stores.usage.top(), await stores.roster.page()) == ([], [])
    async with Redis.from_url(stores.settings.redis_url) as redis:
        sessions = [await redis.get(key) async for key in redis.scan_iter("*:session:*")]
    assert len(sessions) == 30
    assert all(value.endswith(b":revoked") for value in sessions), "no token of theirs is live"


async def test_what_is_left_is_told_and_removed_later(cli: Command, stores: Stores, web: str) -> None:
    bystander = await stores.accounts.add("load-00000000", "password")
    ran = await cli("load", "--users", "5", "--seconds", "1", "-c", "2", "--url", web)
    assert ran.code == 0
    assert "5 users are left" in ran.err
    rehearsal = ran.err.split()[-1]
    assert (await cli("load", "--remove", rehearsal)).out == "removed 5 users\n"
    assert [user.id for user in await stores.roster.page()] == [bystander]
    assert (await cli("load", "--remove", "%")).code == 1


@pytest.mark.parametrize("url", ["http://10.1.2.3", "http://127.0.0.1.example:8000", "https://example.org"])
async def test_another_machine_is_not_put_under_load(cli: Command, stores: Stores, url: str) -> None:
    ran = await cli("load", "--url", url)
    assert ran.code == 2
    assert "--yes-really" in ran.err
    assert await stores.roster.page() == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8000", "http://[", "http://127.0.0.1:99999"])
async def test_what_is_no_address_is_refused(cli: Command, url: str) -> None:
    assert (await cli("load", "--url", url)).code == 2


async def test_a_server_that_is_away_is_counted_and_not_stormed(cli: Command, stores: Stores) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    report = (await cli("load", "--users", "1", "--seconds", "1", "-c", "2", "--url", url, "--json")).document
    assert report["calls"] == 0
    assert report["p50Ms"] is None
    assert set(report["statuses"]) == {"not connected"}
    assert report["statuses"]["not connected"] <= 2 * (1 + 1 / 0.1)


@pytest.mark.parametrize(
    ("answer", "statuses"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", {"200"}),
        (b"HTTP/1.1 503 No\r\ncontent-length:2\r\nConnection: close\r\n\r\n{}", {"503"}),
        (b"HTTP/1.1 204 No\r\n\r\n", {"204"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", {"broken off"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", {"broken off"}),
        (b"nonsense\r\n\r\n", {"broken off"}),
        (b"x" * 20_000, {"broken off"}),
        (b"", {"broken off"}),
    ],
)
async def test_every_answer_is_counted_as_what_it_was(answer: bytes, statuses: set[str]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
                if not answer or b"close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        tally: Any = Tally()
        await call_all(urlsplit(f"http://127.0.0.1:{port}"), ["t"], 2, asyncio.get_running_loop().time() + 0.1, tally)
    assert set(tally.statuses) == statuses
    assert tally.calls == sum(count for status, count in tally.statuses.items() if status.isdigit())


def test_percentiles_are_those_of_the_answers() -> None:
    tally = Tally()
    for milliseconds in range(1, 1_001):
        tally.note("200", milliseconds / 1_000)
    for share in (0.5, 0.9, 0.99):
        assert tally.percentile_ms(share) == pytest.approx(share * 1_000, rel=0.01)
    assert json.dumps(tally.percentile_ms(0.5))
