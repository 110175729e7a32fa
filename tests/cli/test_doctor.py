"""`gatehouse doctor`: a healthy deployment is all ok, and of each planted fault exactly the right check fails."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from models.connections import open_stores
from models.devservers import ValkeyServer
from models.settings import Settings
from tests.cli.conftest import Ran, environment, number_from_one, run_here
from tests.cli.faults import CHECKS, FAULTS, Deployment, configured, own_valkey
from tests.conftest import Servers, empty


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with own_valkey() as server:
        yield server


@pytest.fixture
async def deployment(
    settings: Settings, servers: Servers, valkey: ValkeyServer, few_buckets: None
) -> AsyncIterator[Deployment]:
    ours = replace(settings, redis_url=valkey.url, queue_redis_url=valkey.url)
    async with open_stores(ours) as stores, Redis.from_url(valkey.url, decode_responses=True) as redis:
        await empty(stores)
        await number_from_one(stores)
        # What a worker does in its first seconds.
        await stores.snapshots.restore()
        user_id = await stores.accounts.add("ada", "password")
        token = await stores.sessions.start(user_id)
        token = await stores.sessions.start(user_id)
        assert (await stores.usage.admit(token)).admitted
        await stores.sessions.sync()
        await stores.snapshots.take()
        yield Deployment(ours, stores, servers, redis)


def states(ran: Ran) -> dict[str, set[str]]:
    """State → checks."""
    found: dict[str, set[str]] = {}
    for finding in ran.document:
        found.setdefault(finding["state"], set()).add(finding["check"])
    return found


@pytest.mark.parametrize("few_buckets", [64], indirect=True)
async def test_a_healthy_deployment_is_all_ok(deployment: Deployment) -> None:
    ran = await deployment.examine()
    assert (ran.code, states(ran), ran.err) == (0, {"ok": CHECKS}, "")
    assert len(ran.document) == len(CHECKS)
    assert not any(finding["advice"] for finding in ran.document)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_planted_fault_is_the_one_that_is_named(deployment: Deployment, name: str) -> None:
    plant, check, unknown, advice = FAULTS[name]
    async with plant(deployment) as changes:
        ran = await deployment.examine(**changes)
    found = states(ran)
    assert found.get("failed") == {check}, ran.out
    assert found.get("unknown", set()) - {"queue"} == unknown
    assert not found.get("warning")
    assert ran.code == 1
    (failed,) = (finding for finding in ran.document if finding["state"] == "failed")
    assert re.search(advice, failed["advice"])


async def test_wrong_settings_are_named_one_by_one(deployment: Deployment) -> None:
    environ = environment(deployment.settings) | {"REDIS_URL": "http://x", "PORT": "none", "SECRET_KEYS": "hush"}
    ran = await asyncio.to_thread(run_here, environ, "doctor", "--json")
    assert (ran.code, ran.err) == (2, "")
    assert {finding["state"] for finding in ran.document} == {"failed"}
    assert [finding["sentence"].partition(":")[0] for finding in ran.document] == ["REDIS_URL", "SECRET_KEYS", "PORT"]
    assert "hush" not in ran.out


@pytest.mark.parametrize("key", ["0123456789" * 5, "swordfish password swordfish pass"])
async def test_a_weak_key_is_a_warning(deployment: Deployment, key: str) -> None:
    ran = await deployment.examine(secret_keys=(key,))
    assert (ran.code, states(ran)["warning"]) == (0, {"secret_keys"})
    assert "does not look random" in ran.out
    assert key not in ran.out


async def test_an_append_only_file_that_is_off_is_a_warning(deployment: Deployment) -> None:
    async with configured("appendonly", "no", "yes")(deployment):
        ran = await deployment.examine()
    assert (ran.code, states(ran)["warning"]) == (0, {"append_only_file"})


@pytest.mark.parametrize(("ahead_s", "state"), [(0.2, "ok"), (3, "warning"), (-3, "warning"), (120, "failed")])
async def test_a_clock_that_is_off_is_told_by_how_much(deployment: Deployment, ahead_s: float, state: str) -> None:
    findings = await deployment.stores.diagnosis.examine(lambda: time.time() + ahead_s)
    assert {finding.check for finding in findings if finding.state == state} >= {"postgres_clock", "redis_clock"}
    assert {finding.check for finding in findings if finding.state != "ok"} == (
        set() if state == "ok" else {"postgres_clock", "redis_clock"}
    )
    if state == "failed":
        assert any("120.0 s behind" in finding.sentence and "NTP" in finding.advice for finding in findings)


@pytest.mark.parametrize("few_buckets", [64], indirect=True)
async def test_a_process_with_a_wrong_clock_tells_so(deployment: Deployment) -> None:
    environ = os.environ | environment(deployment.settings) | {"DONT_FAKE_MONOTONIC": "1"}
    command = ["faketime", "-f", "+10m", sys.executable, "-m", "api.cli", "doctor"]
    ran = await asyncio.to_thread(
        subprocess.run, command, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1, ran.stderr
    failed = {line.split()[0] for line in ran.stdout.splitlines() if re.match(r"\w+ +failed ", line)}
    assert failed == {"postgres_clock", "redis_clock"}


async def test_for_a_reader_the_advice_stands_below_the_table(deployment: Deployment) -> None:
    await deployment.redis.delete("gate:sync")
    ran = await asyncio.to_thread(run_here, environment(deployment.settings), "doctor")
    *table, advice = ran.out.splitlines()
    assert len(table) == 1 + len(CHECKS)
    assert advice == "worker: start one (python -m worker.main)."
