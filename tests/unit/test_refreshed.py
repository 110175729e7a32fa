"""A figure in the background: whoever looks waits a little, and never sees one that no longer holds."""

import asyncio
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest

from models import refreshed
from models.errors import StoreUnavailable
from models.refreshed import Refreshed


class Source:
    """Answers with the number of the question, or raises, as soon as it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.may = asyncio.Event()
        self.may.set()

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may.wait()
        if self.error:
            raise self.error
        return number


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def eager(source: Source) -> AsyncIterator[Refreshed[int]]:
    """Asks at each look."""
    figure = Refreshed(source.ask, every_s=0.0, deadline_s=10.0)
    yield figure
    await figure.close()


async def test_it_is_asked_no_more_often_than_it_should(source: Source) -> None:
    rare = Refreshed(source.ask, every_s=3_600.0, deadline_s=10.0)
    assert [await rare.get() for _ in range(3)] == [1, 1, 1]
    rare.forget()
    assert await rare.get() == 2


async def test_while_an_answer_takes_its_time_the_last_one_is_shown(source: Source, eager: Refreshed[int]) -> None:
    assert await eager.get() == 1
    source.may.clear()
    with patch.object(refreshed, "PATIENCE_S", 0.001):
        assert [await eager.get() for _ in range(3)] == [1, 1, 1]
    assert source.asked == 2, "one question at a time"
    source.may.set()
    assert await eager.get() == 2


@pytest.mark.parametrize("error", [StoreUnavailable(), TimeoutError(), ValueError("a fault")], ids=repr)
async def test_an_answer_that_could_not_be_had_shows_none(
    source: Source, eager: Refreshed[int], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert await eager.get() == 1
    source.error = error
    assert await eager.get() is None
    assert ("a fault" in caplog.text) is isinstance(error, ValueError)
    source.error = None
    assert await eager.get() == 3


async def test_an_answer_that_is_too_late_is_given_up(source: Source) -> None:
    source.may.clear()
    hasty = Refreshed(source.ask, every_s=0.0, deadline_s=0.001)
    assert await hasty.get() is None


async def test_it_asks_no_more_once_it_is_closed(source: Source, eager: Refreshed[int]) -> None:
    source.may.clear()
    with patch.object(refreshed, "PATIENCE_S", 0.001):
        assert await eager.get() is None
    await eager.close()
    assert eager._task is not None
    assert eager._task.cancelled()
