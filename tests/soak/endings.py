"""Users some of whose sessions end just before Redis is lost: none of these may come back with an older copy of it."""

import asyncio
from collections.abc import Awaitable, Callable

from models.connections import Stores
from models.tokens import Claims
from tests.soak.scenario import Outcome

DEADLINE_S = 30.0
STAYING, REVOKED, REPLACED = 3, 2, 2
USERS = STAYING + REVOKED + REPLACED
BELIEVED = "believed at once"
ALWAYS = property(lambda server: server.generation, lambda _server, _generation: None)
"""In place of `Server.trusted`: every connection is believed."""

Step = Callable[[], Awaitable[None]]


class Callers:
    """Calls with every token without a pause, and what each answer has to be."""

    def __init__(self, stores: Stores, outcome: Outcome) -> None:
        self._stores, self._outcome = stores, outcome
        self.valid: list[str] = []
        self.ended: list[str] = []
        self.hold_ended = False
        """Nobody calls with an ended token: its first call without Redis would have PostgreSQL leave a tombstone."""
        self.calls = 0

    async def call_on(self) -> None:
        """Until cancelled."""
        while True:
            await self.call_once()
            await asyncio.sleep(0.002)

    async def call_once(self) -> None:
        """Every token once; those that had ended before its call must be refused."""
        ended, valid = [] if self.hold_ended else list(self.ended), list(self.valid)
        for token in (*ended, *valid):
            admission = await self._stores.usage.admit(token)
            self.calls += 1
            if token in ended and admission.admitted:
                self._outcome.violations.append("a token is admitted that had been ended")
            if token in self.valid and admission.reason is not None:
                self._outcome.violations.append(f"a valid token is refused: {admission.reason}")


async def end_some(stores: Stores, callers: Callers, users: list[int]) -> None:
    """Log some users out and others in again: two ways for a token to end."""
    for number, user_id in enumerate(users[STAYING:]):
        token = callers.valid.pop()
        claims = stores.sessions.read_token(token)
        assert isinstance(claims, Claims)
        if number < REPLACED:
            await stores.sessions.start(claims.user_id)
        else:
            assert await stores.accounts.log_out(claims) is None
        assert user_id in users
        callers.ended.append(token)


async def cycle(
    stores: Stores, users: list[int], outcome: Outcome, keep_older: Step, lose: Step, *, planted: bool = False
) -> int:
    """One loss of a server of Redis while users call whose sessions have ended, or not; returns the number of calls.

    Args:
        keep_older: from here on the copy that will take over learns nothing more.
        lose: the server dies, and the copy takes its place.
        planted: the copy is believed at once, which has to be seen.
    """
    callers = Callers(stores, outcome)
    callers.valid = [await stores.sessions.start(user_id) for user_id in users]
    await callers.call_once()
    await until_trusted(stores)
    await keep_older()
    await end_some(stores, callers, users)
    calling = [asyncio.create_task(callers.call_on()) for _ in range(2)]
    try:
        callers.hold_ended = planted
        await lose()
        while planted and stores.store.away:
            await asyncio.sleep(0.01)
        callers.hold_ended = False
        await until_trusted(stores)
        await asyncio.sleep(0.05)
    finally:
        for task in calling:
            task.cancel()
        ended = await asyncio.gather(*calling, return_exceptions=True)
    outcome.violations += [f"a call failed: {error!r}" for error in ended if isinstance(error, Exception)]
    return callers.calls


async def until_trusted(stores: Stores) -> None:
    """Wait for a worker's heartbeat at whatever answers now."""
    async with asyncio.timeout(DEADLINE_S):
        while not stores.usage.trusts_redis or not await stores.store.sync_states():
            await asyncio.sleep(0.01)
