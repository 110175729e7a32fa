"""The page for Prometheus: what the processes counted as plain integers, in its words, made when it is asked for.

Labels are routes, statuses, policies and jobs: never a user, an address or another text of a client.
"""

from collections.abc import Callable, Iterable, Iterator
from hmac import compare_digest
from itertools import accumulate
from pathlib import Path
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from sanic import HTTPResponse, Request

from api.errors import problem
from api.gate import bearer_token
from api.siblings import Siblings
from api.tally import CPU, Tally
from api.traffic import BOUNDS_S, Traffic
from models.connections import Stores
from models.meters import LIMITED_BY, OUTCOMES, SHADOWED_BY, WAYS, Facts, Gauges
from models.operations import Operations

KEY_REQUIRED = "The key of the metrics (METRICS_KEY) is required as a Bearer token"

_PROCESS = ProcessCollector(registry=None)


class Metrics:
    """What `/metrics` shows.

    Args:
        version: of the service.
        folder: `PROMETHEUS_MULTIPROC_DIR`; None: this process alone.
    """

    def __init__(self, operations: Operations, traffic: Traffic, version: str, folder: str | None) -> None:
        self._operations = operations
        self._traffic = traffic
        self._version = version
        self.siblings = Siblings(Path(folder) if folder else None, self._mine)

    def _mine(self) -> Tally:
        process = {sample.name: sample.value for family in _PROCESS.collect() for sample in family.samples}
        counts, gauges = dict(self._operations.meters.counts), [self._operations.gauges()]
        return Tally(list(self._traffic.cells().items()), counts, process, gauges)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type.

        Args:
            accept: what the client reads; OpenMetrics for who asks for it.
        """
        facts, database_up = await self._operations.look()
        tally = await self.siblings.tally()
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # of a version that is no number
            encode, media_type = choose_encoder("")
        return encode(_Families([*self._families(tally), *_of_stores(tally.gauges, facts, database_up)])), media_type

    def _families(self, tally: Tally) -> Iterator[Metric]:
        yield _gauge("gatehouse_build_info", "Which version this is; always 1.", 1, version=self._version)
        yield from _of_answers(tally)
        yield from _of_gate(tally.counts)
        for name, number in sorted(tally.process.items()):
            kind = CounterMetricFamily if name == CPU else GaugeMetricFamily
            yield kind(name, f"{_ABOUT_PROCESS.get(name, name)}, of all web processes.", number)


class _Families:
    """What the client library encodes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


_ABOUT_PROCESS = {
    CPU: "Seconds of CPU",
    "process_resident_memory_bytes": "Resident memory",
    "process_virtual_memory_bytes": "Virtual memory",
    "process_open_fds": "Open file descriptors",
    "process_max_fds": "File descriptors that may be open",
    "process_start_time_seconds": "When the last one started, in seconds since 1970",
}


def _gauge(name: str, about: str, value: float, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _rows(
    kind: Callable[..., Any], name: str, about: str, labels: list[str], rows: Iterable[tuple[list[str], float]]
) -> Any:
    family = kind(name, about, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _of_answers(tally: Tally) -> Iterator[Metric]:
    rows = [([route, method, str(status)], sum(cell[:-1])) for (route, method, status), cell in sorted(tally.answers)]
    labels = ["route", "method", "status"]
    yield _rows(CounterMetricFamily, "gatehouse_http_requests", "Answers that left.", labels, rows)
    by_route: dict[str, list[float]] = {}
    for (route, _, _), cell in tally.answers:
        kept = by_route.get(route, [0.0] * len(cell))
        by_route[route] = [a + b for a, b in zip(kept, cell, strict=True)]
    about = "Seconds from a request's arrival to its answer."
    family = HistogramMetricFamily("gatehouse_http_request_duration_seconds", about, labels=["route"])
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    for route, cell in sorted(by_route.items()):
        buckets = list(zip(bounds, accumulate(cell[:-1]), strict=True))
        family.add_metric([route], buckets=buckets, sum_value=cell[-1])
    yield family


def _of_gate(counts: dict[str, int]) -> Iterator[Metric]:
    def of(names: Iterable[str]) -> list[tuple[list[str], float]]:
        return [([name], counts.get(name, 0)) for name in names]

    def by_policy(kind: str) -> list[tuple[list[str], float]]:
        return [([name.removeprefix(kind)], count) for name, count in sorted(counts.items()) if name.startswith(kind)]

    count = CounterMetricFamily
    yield _rows(count, "gatehouse_gate_calls", "Calls at the gate by how they ended.", ["outcome"], of(OUTCOMES))
    yield _rows(count, "gatehouse_gate_lookups", "Sessions judged, by how.", ["way"], of(WAYS))
    about = "Calls that a policy refused; of two that refuse one call, both count."
    yield _rows(count, "gatehouse_limit_refusals", about, ["policy"], by_policy(LIMITED_BY))
    about = "Admitted calls that a shadow policy would have refused."
    yield _rows(count, "gatehouse_shadow_refusals", about, ["policy"], by_policy(SHADOWED_BY))


def _of_stores(gauges: list[Gauges], facts: Facts | None, database_up: bool) -> Iterator[Metric]:
    redis_up = facts is not None and all(it.redis_up for it in gauges)
    yield _gauge("gatehouse_redis_up", "Whether Redis answers every web process.", redis_up)
    trusted = all(it.redis_trusted for it in gauges)
    about = "Whether every web process believes the sessions that Redis has; 0 while PostgreSQL is asked for each call."
    yield _gauge("gatehouse_redis_trusted", about, trusted)
    about = "Admitted calls that wait for Redis to be counted there."
    yield _gauge("gatehouse_uncounted_calls", about, sum(it.uncounted for it in gauges))
    yield _gauge("gatehouse_postgres_up", "Whether PostgreSQL answers.", database_up)
    states: list[tuple[list[str], float]] = [
        (["used"], sum(it.connections_used for it in gauges)),
        (["idle"], sum(it.connections_idle for it in gauges)),
    ]
    about = "Connections to PostgreSQL of all web processes."
    yield _rows(GaugeMetricFamily, "gatehouse_postgres_connections", about, ["state"], states)
    most = sum(it.connections_most for it in gauges)
    yield _gauge("gatehouse_postgres_connections_max", "How many there may be.", most)
    states = [(["busy"], sum(it.hashing for it in gauges)), (["waiting"], sum(it.hashing_waiting for it in gauges))]
    yield _rows(GaugeMetricFamily, "gatehouse_password_hashing", "Passwords being hashed.", ["state"], states)
    if facts is not None:
        yield from _of_worker(facts)


def _of_worker(facts: Facts) -> Iterator[Metric]:
    jobs = sorted(facts.jobs.items())

    def rows(number: Callable[[Any], float]) -> list[tuple[list[str], float]]:
        return [([name], number(job)) for name, job in jobs]

    count, gauge, label = CounterMetricFamily, GaugeMetricFamily, ["name"]  # `job` is the scrape's own label
    yield _rows(count, "gatehouse_job_runs", "Runs that ended.", label, rows(lambda job: job.runs))
    yield _rows(count, "gatehouse_job_failures", "Runs that failed.", label, rows(lambda job: job.failed))
    about = "Seconds that all runs took."
    yield _rows(count, "gatehouse_job_duration_seconds", about, label, rows(lambda job: job.took_total_ms / 1000))
    about = "Seconds that the last run took."
    yield _rows(gauge, "gatehouse_job_last_duration_seconds", about, label, rows(lambda job: job.took_ms / 1000))
    lags = [([name], age_s) for name, job in jobs if (age_s := facts.age_s(job.succeeded_ms)) is not None]
    yield _rows(gauge, "gatehouse_job_lag_seconds", "Seconds since the last good run ended.", label, lags)
    if (age_s := facts.snapshot_age_s) is not None:
        yield _gauge("gatehouse_snapshot_age_seconds", "Older calls are surely in PostgreSQL's counters.", age_s)
    if (age_s := facts.heartbeat_age_s) is not None:
        yield _gauge("gatehouse_worker_heartbeat_age_seconds", "Seconds since a worker synced sessions.", age_s)


async def shown(request: Request) -> HTTPResponse:
    """The page, for who has the key."""
    stores: Stores = request.app.ctx.stores
    given = bearer_token(request)
    if not given or not compare_digest(given.encode(), stores.settings.metrics_key.encode()):
        return problem(401, KEY_REQUIRED, "metrics_key_required", {"WWW-Authenticate": "Bearer"})
    metrics: Metrics = request.app.ctx.metrics
    page, media_type = await metrics.page(", ".join(request.headers.getall("accept", [])))
    return HTTPResponse(page, content_type=media_type)
