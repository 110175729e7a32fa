"""Each alert rule on made-up series: quiet while all is well, and firing after its time when it is not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from tests.system.test_prometheus import ALERTS, promtool

Series = dict[str, str]

_HERE = 'instance="a:8000",job="gatehouse"'
WELL: Series = {
    "up": "1x30",
    "gatehouse_redis_up": "1x30",
    "gatehouse_redis_trusted": "1x30",
    "gatehouse_postgres_up": "1x30",
    "gatehouse_worker_heartbeat_age_seconds": "1x30",
    "gatehouse_snapshot_age_seconds": "10x30",
    'gatehouse_job_failures_total{name="sync_sessions"}': "5x30",
    'gatehouse_http_requests_total{status="200"}': "0+6000x30",
    'gatehouse_http_requests_total{status="503"}': "0+6x30",
    'gatehouse_http_request_duration_seconds_bucket{route="/verify",le="0.1"}': "0+6000x30",
    'gatehouse_http_request_duration_seconds_bucket{route="/verify",le="1.0"}': "0+6000x30",
    'gatehouse_http_request_duration_seconds_bucket{route="/verify",le="+Inf"}': "0+6000x30",
    'gatehouse_gate_lookups_total{way="cached"}': "0+6000x30",
    'gatehouse_gate_lookups_total{way="fallback"}': "0+60x30",
    'gatehouse_gate_lookups_total{way="degraded"}': "0x30",
    'gatehouse_postgres_connections{state="used"}': "2x30",
    "gatehouse_postgres_connections_max": "10x30",
    "gatehouse_uncounted_calls": "0x30",
    'gatehouse_password_hashing{state="waiting"}': "0x30",
}
"""What a healthy service shows, minute by minute."""

NEVER = "_x30"
BAD: dict[str, tuple[Series, str]] = {
    "GatehouseDown": ({"up": "0x30"}, ""),
    "GatehouseRedisAway": ({"gatehouse_redis_up": "0x30"}, ""),
    "GatehouseRedisDistrusted": ({"gatehouse_redis_trusted": "0x30"}, ""),
    "GatehousePostgresAway": ({"gatehouse_postgres_up": "0x30"}, ""),
    "GatehouseWorkerSilent": ({"gatehouse_worker_heartbeat_age_seconds": "0+60x30"}, ""),
    "GatehouseJobFails": ({'gatehouse_job_failures_total{name="sync_sessions"}': "0+1x30"}, "name=sync_sessions"),
    "GatehouseSnapshotOld": ({"gatehouse_snapshot_age_seconds": "0+60x30"}, ""),
    "GatehouseErrors": ({'gatehouse_http_requests_total{status="503"}': "0+100x30"}, "-job"),
    "GatehouseSlow": (
        {'gatehouse_http_request_duration_seconds_bucket{route="/verify",le="0.1"}': "0+5900x30"},
        "-job",
    ),
    "GatehouseUncached": ({'gatehouse_gate_lookups_total{way="degraded"}': "0+2000x30"}, "-job"),
    "GatehouseConnectionsUsedUp": ({'gatehouse_postgres_connections{state="used"}': "10x30"}, ""),
    "GatehouseCallsUncounted": ({"gatehouse_uncounted_calls": "3x30"}, ""),
    "GatehouseHashingFull": ({'gatehouse_password_hashing{state="waiting"}': "40x30"}, "state=waiting"),
}
"""Alert → what is not well then, and the labels that it has besides those of the scrape."""

ALSO = {"GatehouseWorkerSilent": {"gatehouse_worker_heartbeat_age_seconds": NEVER}}
"""Alert → a second way to be unwell: here that no worker has ever been."""


def rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]}


def _series(changes: Series) -> list[dict[str, str]]:
    found = []
    for name, values in (WELL | changes).items():
        bare, _, labels = name.rstrip("}").partition("{")
        found.append({"series": f"{bare}{{{','.join(filter(None, (_HERE, labels)))}}}", "values": values})
    return found


def _fired(alert: str, more: str) -> dict[str, Any]:
    rule = rules()[alert]
    labels = {"instance": "a:8000", "job": "gatehouse"} | dict(rule["labels"])
    if more == "-job":
        del labels["job"]
    elif more:
        name, _, value = more.partition("=")
        labels[name] = value
    return {"exp_labels": labels, "exp_annotations": rule["annotations"]}


def _case(changes: Series, expected: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    checks = [{"eval_time": "25m", "alertname": name, "exp_alerts": expected.get(name, [])} for name in rules()]
    return {"interval": "1m", "input_series": _series(changes), "alert_rule_test": checks}


def _play(folder: Path, cases: list[dict[str, Any]]) -> None:
    (folder / "alerts.yml").write_text(ALERTS.read_text())
    told = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}
    (folder / "cases.yml").write_bytes(msgspec.json.encode(told))  # JSON is YAML
    promtool("test", "rules", "cases.yml", cwd=folder)


def test_no_alert_fires_while_all_is_well_and_each_when_it_should(tmp_path: Path) -> None:
    assert set(BAD) == set(rules())
    cases = [_case({}, {})]
    for alert, (changes, more) in BAD.items():
        cases.append(_case(changes, {alert: [_fired(alert, more)]}))
    cases += [_case(changes, {alert: [_fired(alert, BAD[alert][1])]}) for alert, changes in ALSO.items()]
    _play(tmp_path, cases)


@pytest.mark.parametrize("alert", ["GatehouseRedisAway", "GatehouseErrors"])
def test_an_alert_that_does_not_fire_is_noticed(tmp_path: Path, alert: str) -> None:
    """So that the test above can fail."""
    with pytest.raises(AssertionError, match="FAILED"):
        _play(tmp_path, [_case({}, {alert: [_fired(alert, "")]})])


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for alert, rule in rules().items():
        assert set(rule["annotations"]) == {"summary", "action"}, alert
        assert all(text.endswith(".") and len(text) > 40 for text in rule["annotations"].values()), alert
        assert rule["labels"]["severity"] in ("warning", "critical")
