"""Users who call the gate without a pause, and keep a ledger of what they were told."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from models.connections import Stores
from models.errors import StoreUnavailable
from models.keys import BUCKETS
from models.store import Store
from tests.soak.ledger import Ledger
from tests.soak.scenario import Outcome

USED_BUCKETS = range(8)
"""Of the 64: few, so that a bucket has many users."""

ACTIVE = 40
NEWCOMERS = 1
VISITORS = 2
"""Of the new users: they call once, so that nothing but the counters themselves brings them back into the sketch."""

VISIT_SHARE = 0.05
LANES = 16
CALLS_A_SECOND = 1_000


class Callers:
    """Users who call without a pause, through the gates of two processes' worth of stores.

    Args:
        gates: each with its own connections.
    """

    def __init__(self, gates: list[Stores], ledger: Ledger, outcome: Outcome) -> None:
        self._gates, self._ledger, self._outcome = gates, ledger, outcome
        self._tokens: dict[int, str] = {}
        self._visitors: dict[int, str] = {}
        self._going = asyncio.Event()
        self._calling = 0
        self._enrolled = len(USED_BUCKETS)  # no user has the id 0
        self._counting_late = 0

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Let them call, once `resume` is said."""
        await self.enrol(ACTIVE)
        lanes = [asyncio.create_task(self._call_on()) for _ in range(LANES)]
        try:
            with patch.object(Store, "add_calls", self._noting(Store.add_calls)):
                yield
        finally:
            for lane in lanes:
                lane.cancel()
            ended = await asyncio.gather(*lanes, return_exceptions=True)
            self._outcome.violations += [f"a caller failed: {end!r}" for end in ended if isinstance(end, Exception)]

    def _noting(self, add_calls: Any) -> Any:
        async def noting(store: Store, *args: Any) -> None:
            self._counting_late += 1
            try:
                await add_calls(store, *args)
            finally:
                self._counting_late -= 1

        return noting

    async def enrol(self, staying: int = NEWCOMERS, visiting: int = VISITORS) -> None:
        """New users; some take the place of those who have called longest, the others call once."""
        numbers = range(self._enrolled, self._enrolled + staying + visiting)
        self._enrolled += staying + visiting
        ids = [n // len(USED_BUCKETS) * BUCKETS + n % len(USED_BUCKETS) for n in numbers]
        await self._gates[0].database.fetch(
            "INSERT INTO users (id, username, username_key, password_hash, created_at)"
            " SELECT id, id, id, '', now() FROM unnest($1::bigint[]) AS id",
            ids,
        )
        random.shuffle(ids)
        tokens = list(zip(ids, await asyncio.gather(*map(self._gates[0].sessions.start, ids)), strict=True))
        self._visitors.update(tokens[:visiting])
        self._tokens.update(tokens[visiting:])
        for user_id in list(self._tokens)[:-ACTIVE]:
            del self._tokens[user_id]

    async def _call_on(self) -> None:
        """Until cancelled, while it is not paused."""
        while True:
            await self._going.wait()
            next_at_s = time.monotonic() + random.random() * 2 * LANES / CALLS_A_SECOND
            self._calling += 1
            try:
                await self._call()
            finally:
                self._calling -= 1
            await asyncio.sleep(next_at_s - time.monotonic())

    async def _call(self) -> None:
        if self._visitors and random.random() < VISIT_SHARE:
            user_id, token = self._visitors.popitem()
        else:
            user_id, token = random.choice(list(self._tokens.items()))
        call = self._ledger.begin(user_id)
        try:
            admission = await random.choice(self._gates).usage.admit(token)
        except StoreUnavailable as error:
            self._outcome.violations.append(f"a call is not answered: {error!r}")
            return
        self._outcome.check(admission.reason is None, f"a valid token is refused: {admission.reason}")
        if admission.admitted:
            call.ended_s = time.monotonic()

    def resume(self) -> None:
        self._going.set()

    async def pause(self) -> None:
        """Returns when no call is on its way; the sessions of those who call no more are gone then."""
        self._going.clear()
        while self._calling:
            await asyncio.sleep(0.0005)
        calling = [*self._tokens, *self._visitors]
        await self._gates[0].database.fetch("DELETE FROM sessions WHERE user_id <> ALL($1::bigint[])", calling)

    @property
    def all_counted(self) -> bool:
        """Whether each gate is back at Redis, and has brought it what it had admitted meanwhile."""
        waiting = any(gate.usage._local.has_uncounted or not gate.usage.trusts_redis for gate in self._gates)
        return not waiting and not self._counting_late

    @property
    def all_away(self) -> bool:
        """Whether each gate has noticed that Redis is away."""
        return all(gate.store.away for gate in self._gates)
