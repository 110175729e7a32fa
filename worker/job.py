"""What makes a job of a piece of work: its line in the log, and one run at a time."""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, NamedTuple

from models.connections import Stores
from models.errors import ServiceError

log = logging.getLogger("gatehouse.worker")

IDLE_LINE_S = 60.0
"""How often a job that finds nothing to do says so; its other runs are logged at DEBUG."""


class Did(NamedTuple):
    """What one run did.

    Args:
        facts: names and numbers, for its line.
        idle: there was nothing to do.
    """

    facts: dict[str, int]
    idle: bool


Job = Callable[[dict[str, Any]], Awaitable[None]]


def job(work: Callable[[Stores], Awaitable[Did]]) -> Job:
    """A job for arq from one that returns what it did: logged with its time, and once at a time in this process.

    A tick that comes while the last one's run still works is passed over: the queue would start the job again at each,
    and ten slow ones would leave no room for the others. A run that failed is not repeated: the next tick tries again.

    The worker's context has the `stores`, and where traces are sent a `span`, which makes one from a job's name.
    """
    name, running = work.__name__, False

    @wraps(work)
    async def run(ctx: dict[str, Any]) -> None:
        nonlocal running
        if running:
            return
        stores: Stores = ctx["stores"]
        running, started_at, failed = True, time.perf_counter(), True
        span: Callable[[str], AbstractContextManager[None]] = ctx.get("span", nullcontext)
        try:
            with span(name):
                did = await work(stores)
            failed = False
        except ServiceError as error:
            _tell(logging.WARNING, name, started_at, f"failed: {error}", outcome="failed", error=error.code)
        except Exception:
            await stores.operations.note_run(name, time.perf_counter() - started_at, failed=True)
            raise
        else:
            level = logging.DEBUG if did.idle and not _is_due(ctx, name, started_at) else logging.INFO
            text = " ".join(f"{fact}={value}" for fact, value in did.facts.items())
            _tell(level, name, started_at, text, outcome="done", **did.facts)
        finally:
            running = False
        await stores.operations.note_run(name, time.perf_counter() - started_at, failed=failed)

    return run


def _is_due(ctx: dict[str, Any], name: str, now_s: float) -> bool:
    """Whether an idle job has said nothing for a while; then it says so now."""
    said_at: dict[str, float] = ctx.setdefault("said_idle_at", {})
    if now_s - said_at.get(name, -IDLE_LINE_S) < IDLE_LINE_S:
        return False
    said_at[name] = now_s
    return True


def _tell(level: int, name: str, started_at: float, text: str, **facts: Any) -> None:
    took_ms = int((time.perf_counter() - started_at) * 1000)
    log.log(level, "%s %s in %d ms", name, text, took_ms, extra={"facts": {"job": name, "took_ms": took_ms} | facts})
