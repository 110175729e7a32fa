"""The schedules are all of them, each once, and whoever hides a step from them is found out."""

import asyncio
from collections.abc import Coroutine
from math import comb
from typing import Any

import pytest

from tests.soak.turns import Turns, every_schedule


async def io() -> None:
    """Something that takes its time outside of the process."""
    await asyncio.sleep(0.0001)


async def played(*steps: int) -> list[str]:
    """Every schedule of actors with so many steps each, as the order in which they took them."""
    orders = []

    async def run(turns: Turns) -> bool:
        taken: list[str] = []

        async def act(name: int) -> None:
            for _ in range(steps[name]):
                await turns.step(io)
                taken.append(str(name))

        await turns.run(act(name) for name in range(len(steps)))
        orders.append("".join(taken))
        return True

    async for _ in every_schedule(run):
        pass
    return orders


@pytest.mark.parametrize("steps", [(2, 3), (1, 4), (0, 2), (3, 3)])
async def test_every_order_of_two_actors_is_played_once(steps: tuple[int, int]) -> None:
    orders = await played(*steps)
    assert len(orders) == len(set(orders)) == comb(sum(steps), steps[0])


async def test_a_third_actor_comes_in_at_every_point() -> None:
    assert len(set(await played(2, 2, 1))) == 30


async def test_a_schedule_that_could_not_be_kept_is_played_again() -> None:
    kept = iter([False, True, False, True])
    runs = []

    async def run(turns: Turns) -> bool:
        await turns.run([turns.step(io), turns.step(io)])
        runs.append([choice.taken for choice in turns.choices])
        return next(kept)

    assert len([turns async for turns in every_schedule(run)]) == 2
    assert runs == [[0, 0], [0, 0], [1, 0], [1, 0]]


async def test_an_actor_that_waits_for_another_has_no_turn_meanwhile() -> None:
    async def waiting(turns: Turns, done: asyncio.Event) -> None:
        await done.wait()
        await turns.step(io)

    async def awaited(turns: Turns, done: asyncio.Event) -> None:
        await turns.step(io)
        done.set()

    turns, done = Turns([]), asyncio.Event()
    await turns.run([waiting(turns, done), awaited(turns, done)])
    assert [choice.options for choice in turns.choices] == [1, 1]


async def straying(turns: Turns) -> None:
    await turns.step(io)
    await asyncio.sleep(0.2)  # a step that is hidden from the schedule
    await turns.step(io)


async def stuck(_turns: Turns) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("actor", [straying, stuck], ids=["planted: a hidden step", "planted: nobody can go on"])
async def test_an_actor_that_cannot_be_followed_is_no_schedule(actor: Any) -> None:
    turns = Turns([])
    actors: list[Coroutine[Any, Any, None]] = [actor(turns), turns.step(io)]
    with pytest.raises(AssertionError):
        await turns.run(actors)
