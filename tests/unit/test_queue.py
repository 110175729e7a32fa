"""The worker's queue while its Redis is away: whoever waits says so."""

import asyncio
import logging

import pytest

from tests.cli.faults import own_valkey
from worker.queue import open_queue


async def test_an_operator_is_told_that_the_queue_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "gatehouse.worker")
    with own_valkey() as server:
        queue = open_queue(server.url, tries=90)
        assert await queue.ping()
        server.stop()
        waiting = [asyncio.ensure_future(queue.ping()) for _ in range(3)]
        async with asyncio.timeout(10):
            while not caplog.messages:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            assert all(await asyncio.gather(*waiting))
        await queue.aclose()
    (said,) = caplog.messages
    assert said.startswith("the queue's Redis is away, no job begins: ")
