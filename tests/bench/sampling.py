"""Figures that are looked at again and again while something else runs."""

import asyncio
import threading
from collections.abc import Callable
from typing import Self

import asyncpg

from tests.bench.stack import Stack

_READING = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name = 'gatehouse' AND state = 'active' AND query LIKE '%FROM sessions%'"""


class Sampler:
    """Calls a function again and again in a thread while a `with` block runs, and keeps what it returned."""

    def __init__(self, read: Callable[[], float], every_s: float) -> None:
        self.samples: list[float] = []
        self._read, self._every_s = read, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.samples.append(self._read())


class Readers:
    """How many connections of Gatehouse read a session at this moment, asked over one connection of its own."""

    def __init__(self, stack: Stack) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(stack.postgres.url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def count(self) -> int:
        return int(self._loop.run_until_complete(self._connection.fetchval(_READING)))
