"""Each scenario of `make soak` in its short form; and each fault that was planted on purpose is seen."""

import pytest

from tests.soak import scenarios
from tests.soak.scenario import ALL
from tests.soak.stage import stage

assert scenarios

SHORT = [name for name, what in ALL.items() if what.short]
PLANTED = [(name, fault) for name, what in ALL.items() if what.short for fault in what.planted]


@pytest.mark.parametrize("name", SHORT)
async def test_nothing_is_violated(name: str) -> None:
    what = ALL[name]
    with stage(durable=what.durable) as there:
        outcome = await what.run(there, what.short, "")
    assert outcome.violations == []
    assert outcome.tried >= what.short


@pytest.mark.parametrize(("name", "fault"), PLANTED, ids=[f"{name}: {fault}" for name, fault in PLANTED])
async def test_a_planted_fault_is_seen(name: str, fault: str) -> None:
    what = ALL[name]
    with stage(durable=what.durable) as there:
        outcome = await what.run(there, what.planted_rounds or what.short, fault)
    assert outcome.violations, f"{name} does not see the planted fault {fault!r}"
