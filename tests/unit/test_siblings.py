"""What processes of one machine keep for each other: nothing that a dead one counted is lost or counted twice."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from sanic.exceptions import ServiceUnavailable

from api import siblings
from api.siblings import Siblings
from api.tally import CPU, Tally, together
from models.meters import Gauges

GAUGES = Gauges(True, True, 0, 1, 1, 10, 0, 0)


def tally(calls: int) -> Tally:
    cell = [0.0] * 15 + [calls * 0.5]
    cell[3] = calls
    return Tally(
        [(("/ping", "GET", 200), cell)], {"admitted": calls}, {CPU: calls * 2.0, "process_open_fds": 7}, [GAUGES]
    )


def crash(one: Siblings) -> None:
    """End as SIGKILL would: no last word, and the kernel lets go of the lock."""
    assert one._task is not None
    one._task.cancel()
    os.close(one._life)


async def opened(folder: Path, calls: int) -> Siblings:
    one = Siblings(folder, lambda: tally(calls))
    await one.open()
    return one


async def test_one_alone_tells_its_own(tmp_path: Path) -> None:
    alone = Siblings(None, lambda: tally(3))
    await alone.open()
    assert await alone.tally() == tally(3)
    await alone.close()


async def test_the_living_are_added_and_of_the_dead_what_they_counted(tmp_path: Path) -> None:
    one, other = await opened(tmp_path, 3), await opened(tmp_path, 40)
    assert await one.tally() == await other.tally() == together([tally(3), tally(40)])
    crash(other)
    found = await one.tally()
    assert (found.counts, found.process) == ({"admitted": 43}, {CPU: 86.0, "process_open_fds": 7})
    assert found.gauges == [GAUGES]
    await one.close()


async def test_generations_leave_one_file_behind(tmp_path: Path) -> None:
    for _ in range(4):
        crash(await opened(tmp_path, 10))
    last = await opened(tmp_path, 1)
    assert (await last.tally()).counts == {"admitted": 41}
    assert len(os.listdir(tmp_path)) == 4  # the lock, the dead's, and two of the living
    await last.close()
    heir = await opened(tmp_path, 0)
    assert (await heir.tally()).counts == {"admitted": 41}
    crash(heir)


async def test_a_crash_while_the_dead_are_added_up_counts_nothing_twice(tmp_path: Path) -> None:
    crash(await opened(tmp_path, 10))
    halfway = Siblings(tmp_path, lambda: tally(5))
    with patch.object(Path, "unlink", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        await halfway.open()
    os.close(halfway._life)
    for before in (15, 16):
        heir = await opened(tmp_path, 1)
        assert (await heir.tally()).counts == {"admitted": before + 1}
        await heir.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[None]:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


@pytest.mark.usefixtures("held")
async def test_nobody_waits_for_ever_for_a_turn(tmp_path: Path) -> None:
    with patch.object(siblings, "TURN_DEADLINE_S", 0.05), pytest.raises(ServiceUnavailable):
        await opened(tmp_path, 1)
