"""The worker process: what runs, and when. `python -m worker.main [--check]`."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from arq.cron import CronJob, cron
from arq.worker import Worker
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from models.connections import open_stores
from models.errors import SettingsError
from models.logs import set_up
from models.settings import Settings
from models.tracing import open_tracing
from worker.jobs import expire_sessions, expire_windows, restore_usage, snapshot_usage, sync_sessions
from worker.queue import NAME, open_queue

if TYPE_CHECKING:
    from models.spans import Spans

JOB_TIMEOUT_S = 3_600
"""Enough for a first sync of tens of millions of sessions; one that is cut off goes on where it was."""

STOP_GRACE_S = 2
HEALTH_INTERVAL_S = 10
QUEUE_RETRY_S = 1
QUEUE_TRIES = 90

log = logging.getLogger("gatehouse.worker")

Hook = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


class StoppableWorker(Worker):
    """A worker that outlives its queue, and stops in time also while that is away."""

    async def _poll_iteration(self) -> None:
        # Whatever the queue's client does not retry would end the process: a connection that breaks while it greets, a
        # server that is loading, read-only or full. A job that could not be signed off is run again, which is harmless.
        try:
            await super()._poll_iteration()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("the queue cannot be used, trying again: %s", error)
            await asyncio.sleep(QUEUE_RETRY_S)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await super().close()
        except (TimeoutError, RedisConnectionError):
            log.warning("stopped without signing off: the queue is away")
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)


JOBS = {job.__name__: job for job in (sync_sessions, expire_sessions, expire_windows, snapshot_usage, restore_usage)}


def build_worker(settings: Settings, only: Collection[str] = JOBS) -> Worker:
    """An arq worker with the jobs on its clock; several workers share each tick.

    Args:
        only: names of jobs, if not all of them are wanted: for a move to another Redis.

    Raises:
        SettingsError: traces are asked for, and what sends them is not installed.
    """
    start, stop = _opening(settings, open_tracing(settings, "gatehouse-worker"))
    return StoppableWorker(
        cron_jobs=[
            _every(getattr(settings, f"{name.partition('_')[0]}_interval_s"), job)
            for name, job in JOBS.items()
            if name in only
        ],
        queue_name=NAME,
        redis_pool=open_queue(settings.queue_redis_url, QUEUE_TRIES),
        on_startup=start,  # type: ignore[arg-type]  # annotated as a function with a name, which they are
        on_shutdown=stop,  # type: ignore[arg-type]
        timezone=UTC,
        job_timeout=JOB_TIMEOUT_S,
        job_completion_wait=STOP_GRACE_S,
        health_check_interval=HEALTH_INTERVAL_S,
        health_check_key=_health_key(),
        # Never pickle: whoever can write to the queue would run code here.
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=msgspec.msgpack.decode,
        log_results=False,
    )


def _opening(settings: Settings, spans: "Spans | None") -> tuple[Hook, Hook]:
    """What opens the stores at a worker's start, and what closes them at its end."""
    opened = AsyncExitStack()

    async def start(ctx: dict[str, Any]) -> None:
        if spans:
            opened.push_async_callback(spans.close)
        ctx["stores"] = await opened.enter_async_context(open_stores(settings))
        ctx["said_idle_at"] = {}  # here, as each run gets a copy of the context
        if spans:
            spans.attach(ctx["stores"])
            ctx["span"] = spans.job

    async def stop(_ctx: dict[str, Any]) -> None:
        await opened.aclose()

    return start, stop


def _every(interval_s: int, job: Any) -> CronJob:
    """A job at each multiple of an interval that divides the minute or the hour."""
    if interval_s < 60:
        return cron(job, second=set(range(0, 60, interval_s)))
    return cron(job, minute=set(range(0, 60, interval_s // 60)), second=0)


def _health_key() -> str:
    """One key a host: arq deletes it when a worker stops, which must not speak for the others."""
    return f"{NAME}:health:{socket.gethostname()}"


async def _check(settings: Settings) -> int:
    pool = open_queue(settings.queue_redis_url, 1)
    try:
        health = await pool.get(_health_key())
        said = f"a worker of this host is alive: {health.decode()}" if health else "no worker of this host is alive"
    except (RedisConnectionError, RedisTimeoutError):
        health, said = None, "the queue's Redis is away"
    finally:
        await pool.aclose()
    print(said)  # noqa: T201
    return 0 if health else 1


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker.main", description=__doc__)
    parser.add_argument("--check", action="store_true", help="tell whether a worker of this host is alive, and exit")
    only = "do this job alone; may be repeated (docs/redis.md, moving to another Redis)"
    parser.add_argument("--only", action="append", choices=JOBS, metavar="JOB", help=only)
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environ(os.environ)
        if arguments.check:
            return asyncio.run(_check(settings))
        set_up(settings)
        asyncio.set_event_loop(uvloop.new_event_loop())
        worker = build_worker(settings, arguments.only or JOBS)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
