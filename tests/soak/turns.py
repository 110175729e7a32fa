"""Takes steps of several actors one at a time, in every order there is.

An actor's steps are its calls that leave the process; between two of them nobody else can see what it does. So a
schedule, the order in which the steps were taken, says all, and running an actor again gives the same steps.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import msgspec

SPINS = 12
"""Turns of the event loop after a step in which everybody comes to their next one: a few tasks wake one another."""

STEP_DEADLINE_S = 10.0


class Choice(msgspec.Struct, frozen=True):
    """Which of the steps that could be taken was: `taken` of `options`."""

    taken: int
    options: int


class Turns:
    """One run: actors stop before each step until it is their turn.

    Args:
        prefix: which of the waiting steps to take, in the order in which they came; after its end always the first.
    """

    def __init__(self, prefix: Iterable[int]) -> None:
        self.choices: list[Choice] = []
        self._prefix = list(prefix)
        self._waiting: list[asyncio.Future[None]] = []
        self._taking: asyncio.Event | None = None

    async def step(self, call: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
        """Wait for a turn, and call."""
        assert self._taking is None, "somebody came to a step while another was taken: SPINS is too low"
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn
        try:
            return await call(*args, **more)
        finally:
            assert self._taking is not None
            self._taking.set()
            self._taking = None

    async def run(self, actors: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run all of them to their end; returns what they return."""
        tasks = [asyncio.create_task(actor) for actor in actors]
        try:
            await self._settle()
            while self._waiting:
                await self._take()
                await self._settle()
            assert all(task.done() for task in tasks), "everybody waits for another"
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> None:
        position, options = len(self.choices), len(self._waiting)
        taken = self._prefix[position] if position < len(self._prefix) else 0
        self.choices.append(Choice(taken, options))
        taking = self._taking = asyncio.Event()
        self._waiting.pop(taken).set_result(None)
        async with asyncio.timeout(STEP_DEADLINE_S):
            await taking.wait()

    async def _settle(self) -> None:
        for _ in range(SPINS):
            await asyncio.sleep(0)


async def every_schedule(run: Callable[[Turns], Awaitable[bool]]) -> AsyncGenerator[Turns, None]:
    """Run again and again, each time in another order, until there is no other.

    Depth first: the last choice that had another option takes it, and what follows is found anew.

    Args:
        run: plays one schedule; False when it has to be played again, as the actors could not keep to it.
    """
    prefix: list[int] | None = []
    while prefix is not None:
        turns = Turns(prefix)
        if await run(turns):
            yield turns
            prefix = _next(turns.choices)


def _next(choices: list[Choice]) -> list[int] | None:
    while choices and choices[-1].taken == choices[-1].options - 1:
        choices.pop()
    if not choices:
        return None
    return [choice.taken for choice in choices[:-1]] + [choices[-1].taken + 1]
