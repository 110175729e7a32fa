"""Ending a background task."""

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, and wait until it is over."""
    # Again and again: a cancellation that meets a time-out in a client's code can end as a mere time-out.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
