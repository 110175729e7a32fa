"""What makes a job of a piece of work: its line in the log, and one run at a time."""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from models.connections import Stores
from models.errors import ServiceError

log = logging.getLogger("gatehouse.worker")

Job = Callable[[dict[str, Any]], Awaitable[None]]


def job(work: Callable[[Stores], Awaitable[str]]) -> Job:
    """A job for arq from one that returns what it did: logged with its time, and once at a time in this process.

    A tick that comes while the last one's run still works is passed over: the queue would start the job again at each,
    and ten slow ones would leave no room for the others. A run that failed is not repeated: the next tick tries again.
    """
    name, running = work.__name__, False

    @wraps(work)
    async def run(ctx: dict[str, Any]) -> None:
        nonlocal running
        if running:
            return
        stores: Stores = ctx["stores"]
        running, started_at, failed = True, time.perf_counter(), True
        try:
            did, level = await work(stores), logging.INFO
            failed = False
        except ServiceError as error:
            did, level = f"failed: {error}", logging.WARNING
        except Exception:
            await stores.operations.note_run(name, time.perf_counter() - started_at, failed=True)
            raise
        finally:
            running = False
        took_s = time.perf_counter() - started_at
        log.log(level, "%s %s in %d ms", name, did, took_s * 1000)
        await stores.operations.note_run(name, took_s, failed=failed)

    return run
