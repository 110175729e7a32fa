"""The worker: what runs and when, what its queue may hold, and the one line that each run leaves."""

import asyncio
import itertools
import logging
import pickle
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from arq.worker import Worker

from models.connections import Stores, open_stores
from models.devservers import free_port
from models.keys import BUCKETS
from models.settings import Settings
from tests.conftest import RawRedis
from worker import jobs
from worker.main import build_worker

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, of redis

NAMES = ("sync_sessions", "expire_sessions", "expire_windows", "snapshot_usage", "restore_usage")
QUEUE = "gatehouse:queue"
DEADLINE_S = 10
EVERY_SECOND = {f"{name.partition('_')[0]}_interval_s": 1 for name in NAMES}


@contextmanager
def own_signals() -> Iterator[None]:
    """Give back SIGINT and SIGTERM, which a worker takes for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, handler)


@pytest.fixture
async def build(stores: Stores, settings: Settings) -> AsyncIterator[Callable[..., Worker]]:
    """Builds a worker on the empty stores: `build(sync_interval_s=2)`; closes it."""
    built: list[Worker] = []

    def build_one(**changes: Any) -> Worker:
        built.append(build_worker(replace(settings, **changes)))
        return built[-1]

    with own_signals():
        yield build_one
        for worker in built:
            if worker.main_task is not None:
                worker.main_task.cancel()
                with suppress(asyncio.CancelledError):
                    await worker.main_task
            await worker.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.01)


async def done(worker: Worker, jobs: int) -> None:
    """Wait until a worker has come to the end of so many jobs, well or badly."""

    async def counted() -> bool:
        return worker.jobs_failed + worker.jobs_complete >= jobs

    await until(counted)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "gatehouse.worker"]


async def test_the_jobs_run_at_their_default_intervals(build: Callable[..., Worker]) -> None:
    crons = {cron.name: cron for cron in build().cron_jobs}
    assert set(crons) == {f"cron:{name}" for name in NAMES}
    assert {name: (cron.minute, cron.second) for name, cron in crons.items()} == {
        "cron:sync_sessions": (None, set(range(60))),
        "cron:expire_sessions": (set(range(60)), 0),
        "cron:expire_windows": (set(range(60)), 0),
        "cron:snapshot_usage": (None, {0, 10, 20, 30, 40, 50}),
        "cron:restore_usage": (None, set(range(60))),
    }
    assert all(cron.unique and not cron.run_at_startup for cron in crons.values())


@pytest.mark.parametrize("interval_s", [1, 2, 5, 12, 20, 30, 60, 120, 300, 1_800, 3_600])
async def test_any_interval_that_can_be_set_is_kept(build: Callable[..., Worker], interval_s: int) -> None:
    """The runs are evenly spaced, across minutes and hours too."""
    changes = dict.fromkeys(EVERY_SECOND, interval_s)
    start = datetime(2030, 1, 1, 9, 59, 59, 900_000, tzinfo=UTC)
    for cron in build(**changes).cron_jobs:
        runs, at = [], start
        while at < start + timedelta(seconds=max(3 * interval_s, 150)):
            cron.calculate_next(at)
            assert cron.next_run is not None
            at = cron.next_run
            runs.append(at)
        gaps = {later - earlier for earlier, later in itertools.pairwise(runs)}
        assert gaps == {timedelta(seconds=interval_s)}


async def test_a_running_worker_tells_of_an_idle_job_once(
    build: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gatehouse.worker")
    worker = build(**EVERY_SECOND)
    running = asyncio.create_task(worker.async_run())
    await done(worker, 4 * len(NAMES))
    assert sum(line.startswith("expire_sessions ") for line in lines(caplog)) == 1
    running.cancel()


async def test_a_running_worker_runs_all_of_them_and_stops(
    build: Callable[..., Worker], caplog: pytest.LogCaptureFixture, redis: RawRedis
) -> None:
    caplog.set_level(logging.INFO, "gatehouse.worker")
    worker = build(**EVERY_SECOND)
    running = asyncio.create_task(worker.async_run())

    async def all_ran() -> bool:
        # A bucket that the snapshot holds at that moment is left to the next restore.
        ready = await redis.exists(*(f"gate:{{{bucket}}}:ready" for bucket in range(BUCKETS)))
        return ready == BUCKETS and {line.split(" ")[0] for line in lines(caplog)} == set(NAMES)

    await until(all_ran)
    assert worker.jobs_failed == 0
    assert len(await redis.hgetall("gate:sync")) == 1
    running.cancel()


async def test_the_queue_holds_no_pickle_and_runs_none(
    build: Callable[..., Worker], redis: RawRedis, tmp_path: Path
) -> None:
    """Whoever can write to the queue must not run code here; pickle, arq's default, would."""
    worker = build()
    await worker.pool.enqueue_job("cron:sync_sessions", _job_id="ours")
    raw = await worker.pool.get("arq:job:ours")
    assert msgspec.msgpack.decode(raw)["f"] == "cron:sync_sessions"
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(raw)  # noqa: S301
    await worker.pool.set("arq:job:planted", pickle.dumps(_Planted(tmp_path / "ran")))
    await worker.pool.zadd(QUEUE, {"planted": 1})
    running = asyncio.create_task(worker.async_run())
    await done(worker, 2)
    assert (worker.jobs_failed, worker.jobs_complete) == (1, 1)
    assert not (tmp_path / "ran").exists()
    running.cancel()


class _Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


async def test_the_planted_pickle_would_run(tmp_path: Path) -> None:
    """So that the test above can fail."""
    pickle.loads(pickle.dumps(_Planted(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "did"),
    [
        ("sync_sessions", r"rows=1 published=0 full=True"),
        ("expire_sessions", r"deleted=0"),
        ("expire_windows", r"deleted=0"),
        ("restore_usage", r"buckets=64 users=0"),
        ("snapshot_usage", r"buckets=0 users=0"),
    ],
)
async def test_each_run_leaves_one_line_with_what_it_did_and_how_long_it_took(
    stores: Stores, caplog: pytest.LogCaptureFixture, name: str, did: str
) -> None:
    caplog.set_level(logging.INFO)
    await stores.accounts.add("ada", "pass123")
    await stores.accounts.log_in("ada", "pass123")
    await getattr(jobs, name)({"stores": stores})
    (line,) = lines(caplog)
    assert re.fullmatch(rf"{name} {did} in \d+ ms", line)


async def test_the_jobs_do_their_work_and_twice_is_harmless(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    """A whole life: restored, called, snapshotted, synced and expired; every second run finds nothing to do."""
    caplog.set_level(logging.INFO)
    context = {"stores": stores}
    await stores.accounts.add("ada", "pass123")
    token = await stores.accounts.log_in("ada", "pass123")
    await jobs.restore_usage(context)
    assert (await stores.usage.admit(token)).admitted
    for job in (jobs.restore_usage, jobs.snapshot_usage, jobs.snapshot_usage, jobs.sync_sessions, jobs.sync_sessions):
        await job(context)
    await stores.database.fetch("UPDATE sessions SET expires_at = now() - interval '1 second'")
    for _ in range(2):
        await jobs.expire_sessions(context)
    assert [re.sub(r" in \d+ ms$", "", line) for line in lines(caplog)] == [
        "restore_usage buckets=64 users=0",
        "restore_usage buckets=0 users=0",
        "snapshot_usage buckets=1 users=1",
        "snapshot_usage buckets=0 users=0",
        "sync_sessions rows=1 published=0 full=True",
        "sync_sessions rows=1 published=0 full=False",
        "expire_sessions deleted=1",
        "expire_sessions deleted=0",
    ]
    assert await stores.database.fetch("SELECT calls FROM call_totals") == [(1,)]
    assert await stores.database.fetch("SELECT * FROM sessions") == []


@pytest.mark.parametrize("away", ["database_url", "redis_url"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_store_that_is_away_is_logged_and_not_raised(
    settings: Settings, stores: Stores, caplog: pytest.LogCaptureFixture, name: str, away: str
) -> None:
    """The next run tries again; the worker goes on."""
    nowhere = {"database_url": "postgres://app@127.0.0.1:{}/d", "redis_url": "redis://127.0.0.1:{}/0"}
    lame = replace(settings, **{away: nowhere[away].format(free_port())})  # type: ignore[arg-type]
    async with open_stores(lame) as opened:
        await getattr(jobs, name)({"stores": opened})
    if away == "redis_url" and name.startswith("expire"):
        return  # these need no Redis
    (record,) = (record for record in caplog.records if record.name == "gatehouse.worker")
    store = "PostgreSQL" if away == "database_url" else "Redis"
    assert re.fullmatch(rf"{name} failed: {store} is away; try again shortly in \d+ ms", record.getMessage())
    assert (record.levelname, record.exc_info) == ("WARNING", None)


async def test_a_fault_of_ours_fails_the_job_and_not_the_worker(
    build: Callable[..., Worker], stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    await stores.database.fetch("ALTER TABLE sessions RENAME TO sessions_elsewhere")
    try:
        worker = build(**dict.fromkeys(EVERY_SECOND, 3_600))  # no job of the clock comes between
        await worker.pool.enqueue_job("cron:expire_sessions")
        await worker.pool.enqueue_job("cron:snapshot_usage")
        running = asyncio.create_task(worker.async_run())
        await done(worker, 2)
        assert (worker.jobs_failed, worker.jobs_complete) == (1, 1)
        assert 'relation "sessions" does not exist' in caplog.text
        running.cancel()
    finally:
        await stores.database.fetch("ALTER TABLE sessions_elsewhere RENAME TO sessions")
