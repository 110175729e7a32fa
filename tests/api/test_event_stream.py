"""The stream behind the dashboard: no time-out cuts it, all share one reading, and it ends when it should."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from unittest.mock import patch

import httpx
import msgspec
import pytest

from api import broadcast, connection
from models.overview import Overview, Overviews
from tests.api.conftest import KEY, Api, decoded

DEADLINE_S = 10.0


def ticket(site: Api) -> dict[str, str]:
    return {"Cookie": f"gatehouse_dashboard={site.stores.admin.issue(time.time())}"}


@asynccontextmanager
async def looking(site: Api, **headers: str) -> AsyncIterator[httpx.Response]:
    asked = "GET", "/dashboard/events"
    async with (
        httpx.AsyncClient(base_url=site.url, timeout=DEADLINE_S) as client,
        client.stream(*asked, headers=ticket(site) | headers) as answer,
    ):
        yield answer


async def events(answer: httpx.Response, count: int) -> list[Overview]:
    """The next overviews."""
    found: list[Overview] = []
    async with asyncio.timeout(DEADLINE_S):
        async for line in answer.aiter_lines():
            if line.startswith('data: {"atMs"'):
                found.append(msgspec.json.decode(line[6:], type=Overview))
                if len(found) == count:
                    break
    return found


def test_it_tells_the_overview_once_a_second(site: Api) -> None:
    async def look() -> list[str]:
        async with looking(site) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["cache-control"] == "no-store"
            text = ""
            async for piece in answer.aiter_text():
                text += piece
                if text.count("event: overview") == 3:
                    return text.split("\n\n")
        raise AssertionError(text)

    began_s = time.monotonic()
    retry, history, *overviews = [event for event in site.run(look()) if event]
    assert 0.9 < time.monotonic() - began_s < 5  # the first of them may be there already
    assert retry == "retry: 2000"
    assert re.fullmatch(r"event: history\ndata: \[.*\]", history)
    told = [re.fullmatch(r"id: (\d+)\nevent: overview\ndata: (\{.*\})", event) for event in overviews]
    numbers = [int(match[1]) for match in told if match]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert all(msgspec.json.decode(match[2], type=Overview).redis for match in told if match)


def test_it_outlives_every_time_out_of_answers(site: Api) -> None:
    config = {"RESPONSE_TIMEOUT": 0.3, "KEEP_ALIVE_TIMEOUT": 0.3}
    with patch.object(connection, "HEAD_DEADLINE_S", 0.3), Api(site.settings, **config).running() as impatient:

        async def look() -> list[Overview]:
            async with looking(impatient) as answer:
                return await events(answer, 2)

        assert len(impatient.run(look())) == 2


def test_all_share_one_reading_and_none_is_made_for_nobody(site: Api) -> None:
    reads = 0
    read = Overviews.read

    async def counted(self: Overviews) -> Overview:
        nonlocal reads
        reads += 1
        return await read(self)

    async def look() -> int:
        async with AsyncExitStack() as stack:
            answers = [await stack.enter_async_context(looking(site)) for _ in range(8)]
            numbers = [{found.at_ms for found in await asyncio.wait_for(events(it, 1), DEADLINE_S)} for it in answers]
            assert len(set.union(*numbers)) <= 3
            shared = reads
        stage: broadcast.Broadcast = site._app.ctx.broadcast
        async with asyncio.timeout(DEADLINE_S):
            while stage._viewers or (stage._task and not stage._task.done()):
                await asyncio.sleep(0.01)
        return shared

    with patch.object(Overviews, "read", counted):
        assert 1 <= site.run(look()) <= 3


def test_too_many_are_told_so_and_one_may_come_when_one_has_gone(site: Api) -> None:
    async def look() -> None:
        async with looking(site) as first:
            await events(first, 1)
            async with looking(site) as second:
                assert second.status_code == 503
                await second.aread()
                assert decoded(second)["code"] == "too_many_viewers"
                assert second.headers["retry-after"] == "5"
        async with asyncio.timeout(DEADLINE_S):
            while True:
                async with looking(site) as again:
                    if again.status_code == 200:
                        return
                await asyncio.sleep(0.02)

    with patch.object(broadcast, "MAX_VIEWERS", 1):
        site.run(look())


def test_it_ends_with_the_ticket(site: Api) -> None:
    async def look() -> float:
        began_s = time.monotonic()
        async with looking(site) as answer:
            assert b"event: overview" in await answer.aread()
        return time.monotonic() - began_s

    with patch("api.routes.dashboard.seconds_left", return_value=1.5):
        assert 1.4 < site.run(look()) < DEADLINE_S


def test_it_ends_promptly_with_the_server(site: Api) -> None:
    with socket.socket() as client:
        client.setblocking(False)
        with Api(site.settings, GRACEFUL_SHUTDOWN_TIMEOUT=2 * DEADLINE_S).running() as stopping:

            async def begin() -> None:
                loop, seen = asyncio.get_running_loop(), b""
                await loop.sock_connect(client, ("127.0.0.1", stopping.port))
                head = f"GET /dashboard/events HTTP/1.1\r\nHost: x\r\nCookie: {ticket(stopping)['Cookie']}\r\n\r\n"
                await loop.sock_sendall(client, head.encode())
                async with asyncio.timeout(DEADLINE_S):
                    while b"event: overview" not in seen:
                        seen += await loop.sock_recv(client, 65_536)

            stopping.run(begin())
            began_s = time.monotonic()
        assert time.monotonic() - began_s < DEADLINE_S / 2  # far from what a request in flight is given here
        client.settimeout(DEADLINE_S)
        assert client.recv(65_536) == b""


def test_head_asks_whether_one_may(site: Api) -> None:
    answer = site.request("HEAD", "/dashboard/events", headers=ticket(site))
    assert (answer.status_code, answer.content) == (200, b"")
    assert site.request("HEAD", "/dashboard/events").status_code == 401
    assert site._app.ctx.broadcast._viewers == 0


def test_a_failing_reading_ends_no_stream(site: Api, caplog: pytest.LogCaptureFixture) -> None:
    read, fails = Overviews.read, [True]

    async def sometimes(self: Overviews) -> Overview:
        if fails and fails.pop():
            raise RuntimeError("planted")
        return replace_at(await read(self))

    def replace_at(found: Overview) -> Overview:
        return msgspec.structs.replace(found, at_ms=7)

    async def look() -> list[Overview]:
        async with looking(site) as answer:
            return await events(answer, 2)  # the first of them may have been there already

    with patch.object(Overviews, "read", sometimes):
        assert site.run(look())[-1].at_ms == 7
    assert "there is no event for the dashboard" in caplog.text


def test_the_document_leaves_the_pages_out(site: Api) -> None:
    described = decoded(site.get("/openapi.json"))
    assert not [path for path in described["paths"] if path.startswith("/dashboard")]
    assert "/dashboard" in described["info"]["description"]


def test_another_key_ends_the_tickets(site: Api) -> None:
    headers = ticket(site)
    with Api(replace(site.settings, admin_key=KEY[::-1])).running() as other:
        assert other.request("HEAD", "/dashboard/events", headers=headers).status_code == 401
