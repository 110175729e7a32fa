"""The page for Prometheus from real processes, and what is shipped for it: alerts, scrape configuration, dashboard."""

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from models.connections import open_stores
from tests.soak.stage import ROOT, Process, Stage, stage

KEY = "a-key-of-the-metrics-0123456789"
DEADLINE_S = 20.0
ALERTS = ROOT / "docs" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "grafana" / "gatehouse.json"
SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
POLICIES = "default=3/1h; search=1/1h; shadow:strict=1/1h"
JOBS = "sync_sessions", "snapshot_usage", "restore_usage"
FROM_PROMETHEUS = {"up"}

Samples = dict[tuple[str, str], float]
"""Name and labels as they stand there, to the number."""


def promtool(*arguments: str, given: str = "", cwd: Path = ROOT) -> None:
    assert shutil.which("promtool"), "promtool is missing: apt-get install prometheus"
    done = subprocess.run(["promtool", *arguments], input=given, text=True, capture_output=True, cwd=cwd, timeout=30)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def samples(page: str) -> Samples:
    return {(name, labels): float(number) for name, labels, number in SAMPLE.findall(page)}


def page_of(web: Process) -> str:
    answer = httpx.get(f"{web.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=5)
    assert answer.status_code == 200, answer.text
    return answer.text


def until(web: Process, condition: Callable[[Samples], bool]) -> Samples:
    """Scrape until it is so."""
    end_at = time.monotonic() + DEADLINE_S
    while not condition(found := samples(page_of(web))):
        assert time.monotonic() < end_at, found
        time.sleep(0.05)
    return found


class Played(NamedTuple):
    """What two web processes and a worker showed.

    Args:
        page: when all was well.
        calls: the samples of the gate then.
        killed: of the same after one of the two was killed.
        restarted: after it was started again.
        away: without Redis.
        took_s: the scrape of that.
    """

    page: str
    calls: Samples
    killed: Samples
    restarted: Samples
    away: Samples
    took_s: float
    said: str
    files: list[str]


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    with stage() as there:
        folder = there.folder / "shared"
        folder.mkdir()
        environ: dict[str, Any] = {"METRICS_KEY": KEY, "PROMETHEUS_MULTIPROC_DIR": str(folder), "RATE_LIMITS": POLICIES}
        one, other = there.web(**environ), there.web(**environ)
        there.worker(SNAPSHOT_INTERVAL_S="1")
        _call(there, one, other)
        whole = until(one, lambda found: _whole(found) and _calls(found) == 14)
        page = page_of(one)
        other.kill()
        killed = until(one, lambda found: found["gatehouse_postgres_connections_max", ""] == 10)
        other.start()
        restarted = until(other, lambda found: found["gatehouse_postgres_connections_max", ""] == 20)
        there.valkey.stop()
        began_s = time.monotonic()
        away = samples(page_of(one))
        yield Played(
            page,
            whole,
            killed,
            restarted,
            away,
            time.monotonic() - began_s,
            one.said + other.said,
            sorted(path.suffix for path in folder.iterdir()),
        )


def _whole(found: Samples) -> bool:
    wanted = {("gatehouse_job_lag_seconds", f'name="{job}"') for job in JOBS}
    return found.keys() >= wanted | {("gatehouse_worker_heartbeat_age_seconds", "")}


def _calls(found: Samples) -> float:
    return sum(number for (name, _), number in found.items() if name == "gatehouse_gate_calls_total")


def _call(there: Stage, one: Process, other: Process) -> None:
    """14 calls at the gate from two users, spread over both processes, and some that match no route."""
    ada, eva, replaced = asyncio.run(_tokens(there))
    with httpx.Client(timeout=10) as client:

        def statuses(web: Process, path: str, *tokens: str | None) -> list[int]:
            given = [{"Authorization": f"Bearer {token}"} if token else {} for token in tokens]
            return [client.get(web.url + path, headers=headers).status_code for headers in given]

        assert statuses(one, "/ping", ada, ada) + statuses(other, "/ping", ada, ada) == [200, 200, 200, 429]
        assert statuses(other, "/verify?policy=search,strict", ada, ada) == [200, 429]
        assert statuses(one, "/verify?policy=strict", eva, eva, eva) == [200] * 3
        assert statuses(other, "/ping", replaced, "x", None) + statuses(one, "/ping", "x", None) == [401] * 5
        assert statuses(other, f"/{ada}", None) + statuses(one, "/nope", None) == [404, 404]
        assert client.request("BREW", one.url + "/ping").status_code == 405


async def _tokens(there: Stage) -> tuple[str, str, str]:
    async with open_stores(there.settings) as stores:
        ada, eva = [await stores.accounts.add(name, "correct horse") for name in ("ada", "eva")]
        replaced, token = [await stores.sessions.start(ada) for _ in range(2)]
        return token, await stores.sessions.start(eva), replaced


COUNTED: Samples = {
    ("gatehouse_gate_calls_total", 'outcome="admitted"'): 7,
    ("gatehouse_gate_calls_total", 'outcome="limited"'): 2,
    ("gatehouse_gate_calls_total", 'outcome="unauthorized"'): 5,
    ("gatehouse_gate_calls_total", 'outcome="unavailable"'): 0,
    ("gatehouse_gate_lookups_total", 'way="cached"'): 9,
    ("gatehouse_gate_lookups_total", 'way="fallback"'): 0,
    ("gatehouse_gate_lookups_total", 'way="tombstone"'): 1,
    ("gatehouse_gate_lookups_total", 'way="degraded"'): 0,
    ("gatehouse_limit_refusals_total", 'policy="default"'): 1,
    ("gatehouse_limit_refusals_total", 'policy="search"'): 1,
    ("gatehouse_shadow_refusals_total", 'policy="strict"'): 2,
    ("gatehouse_http_requests_total", 'method="GET",route="/ping",status="200"'): 3,
    ("gatehouse_http_requests_total", 'method="GET",route="/ping",status="429"'): 1,
    ("gatehouse_http_requests_total", 'method="GET",route="/ping",status="401"'): 5,
    ("gatehouse_http_requests_total", 'method="GET",route="/verify",status="200"'): 4,
    ("gatehouse_http_requests_total", 'method="GET",route="/verify",status="429"'): 1,
    ("gatehouse_http_requests_total", 'method="GET",route="unmatched",status="404"'): 2,
    ("gatehouse_http_requests_total", 'method="OTHER",route="unmatched",status="405"'): 1,
    ("gatehouse_http_request_duration_seconds_count", 'route="/ping"'): 9,
    ("gatehouse_http_request_duration_seconds_bucket", 'le="+Inf",route="/verify"'): 5,
}


def test_any_process_tells_what_all_were_called_exactly(played: Played) -> None:
    assert {sample: played.calls.get(sample) for sample in COUNTED} == COUNTED


def test_what_a_killed_process_counted_stays_counted_and_its_gauges_go(played: Played) -> None:
    for after in (played.killed, played.restarted):
        assert {sample: after.get(sample) for sample in COUNTED} == COUNTED
    assert played.killed["process_open_fds", ""] < played.calls["process_open_fds", ""]
    assert played.killed["process_cpu_seconds_total", ""] >= played.calls["process_cpu_seconds_total", ""]
    assert played.files == sorted(["", "", ".alive", ".alive", ".tally", ".tally"]), "a dead one's files are left"


def test_without_redis_the_page_tells_at_once_what_the_processes_know(played: Played) -> None:
    assert played.took_s < 1.0
    assert played.away["gatehouse_redis_up", ""] == 0
    assert played.away["gatehouse_postgres_up", ""] == 1
    assert {sample: played.away.get(sample) for sample in COUNTED} == COUNTED
    assert not [name for name, _ in played.away if name.startswith(("gatehouse_job", "gatehouse_worker"))]


def test_the_worker_is_seen(played: Played) -> None:
    for job in JOBS:
        assert played.calls["gatehouse_job_runs_total", f'name="{job}"'] >= 1
        assert played.calls["gatehouse_job_failures_total", f'name="{job}"'] == 0
        assert 0 <= played.calls["gatehouse_job_lag_seconds", f'name="{job}"'] < 5
    assert 0 <= played.calls["gatehouse_worker_heartbeat_age_seconds", ""] < 5
    assert 0 <= played.calls["gatehouse_snapshot_age_seconds", ""] < 5


def test_no_label_is_of_a_user_or_of_a_clients_choice(played: Played) -> None:
    labels = {name: value for _, given in played.calls for name, value in re.findall(r'(\w+)="([^"]*)"', given)}
    assert set(labels) == {"route", "method", "status", "le", "outcome", "way", "policy", "state", "name", "version"}
    values = {value for _, given in played.calls for value in re.findall(r'route="([^"]*)"', given)}
    assert values == {"/ping", "/verify", "/health/live", "/metrics", "unmatched"}
    assert KEY not in played.said
    assert KEY not in played.page


def test_promtool_takes_the_page(played: Played) -> None:
    promtool("check", "metrics", given=played.page)
    with pytest.raises(AssertionError):
        promtool("check", "metrics", given=played.page.replace("gatehouse_gate_calls_total", "gatehouse_gateCalls"))


def test_promtool_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(ROOT / "docs" / "prometheus" / name, tmp_path)
    (tmp_path / "metrics_key").write_text(KEY)
    promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    promtool("check", "rules", "alerts.yml", cwd=tmp_path)


def queries() -> dict[str, list[str]]:
    """What asks for metrics: alert or panel → expressions."""
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    asked = {rule["alert"]: [rule["expr"]] for rule in rules}
    for panel in dashboard()["panels"]:
        asked[f"{panel['id']} {panel['title']}"] = [target["expr"] for target in panel.get("targets", [])]
    return asked


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(DASHBOARD.read_bytes())
    return found


def unknown(expression: str, names: set[str]) -> set[str]:
    """The metrics in an expression that are on no page."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|(by|on|ignoring) \([^)]*\)", " ", expression)
    return {name for name in re.findall(r"\b(?:gatehouse_|process_)\w+|\bup\b", bare) if name not in names}


def test_alerts_and_dashboard_ask_for_what_there_is(played: Played) -> None:
    names = {name for name, _ in played.calls} | FROM_PROMETHEUS
    assert {where: found for where, asked in queries().items() for it in asked if (found := unknown(it, names))} == {}
    assert unknown("rate(gatehouse_gate_call_total[5m])", names) == {"gatehouse_gate_call_total"}


def test_every_label_that_is_asked_for_is_there(played: Played) -> None:
    labels = {label for _, given in played.calls for label in re.findall(r"(\w+)=", given)} | {"instance", "job"}
    for where, asked in queries().items():
        for expression in asked:
            found = re.findall(r"(\w+)(?:=~|=)\"", expression)
            found += [it.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for it in group.split(",")]
            assert set(found) <= labels, where


def test_the_dashboard_is_whole() -> None:
    found = dashboard()
    panels = found["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids) >= 20
    assert found["title"] == "Gatehouse"
    assert {variable["name"] for variable in found["templating"]["list"]} == {"datasource", "instance"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["type"] in ("stat", "timeseries")
            assert panel["targets"]
            assert {it["datasource"]["uid"] for it in (panel, *panel["targets"])} == {"${datasource}"}
            assert all(it["expr"] and "$instance" in it["expr"] for it in panel["targets"])
