"""`make scale` in small: filled, measured and held against the model, on the real stores."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import uvloop

from models.database import load_sql
from tests.bench.processes import BenchError
from tests.bench.redis_facts import RedisFacts
from tests.bench.stack import Stack
from tests.conftest import Servers
from tests.scale.check import check
from tests.scale.costs import Costs
from tests.scale.fill import demand_room, fill_postgres
from tests.scale.measures import Bench
from tests.scale.report import Report, show

SMALL, LARGE = 10_000, 20_000
SHARE = 0.02
TIMES = 5
"""The figures of time are only told from nonsense here: others use the machine."""


@pytest.fixture
def stack(servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, servers.postgres, servers.valkey, secrets.token_urlsafe(48))
    uvloop.run(_empty(stack))
    yield stack
    uvloop.run(_empty(stack))


async def _empty(stack: Stack) -> None:
    connection = await asyncpg.connect(stack.postgres.url)
    await connection.execute("TRUNCATE users, sessions, call_totals, call_windows, caller_sketches")
    await connection.close()
    RedisFacts(stack.valkey.url).client.flushall()


def test_what_ten_thousand_users_cost_foretells_twenty_thousand(stack: Stack) -> None:
    uvloop.run(fill_postgres(stack, 1, SMALL))
    small = Bench(stack, SMALL, seconds=0, share=SHARE, rounds=2).run()
    uvloop.run(fill_postgres(stack, SMALL + 1, LARGE))
    large = Bench(stack, LARGE, seconds=0, lost=8, share=SHARE, rounds=2).run()

    assert small.jobs["restore"].rows == SMALL * 1.2
    assert small.jobs["sync of all"].rows == SMALL
    assert large.jobs["sync of all"].rows == sum(1 for uid in range(1, LARGE + 1) if uid % 64 < 8)
    assert large.jobs["snapshot"].rows >= 2_000
    assert large.jobs["expire"].rows == 6_000

    compared = {it.figure: it for it in check(Costs.fit(small), [large])}
    for figure in ("Redis memory, MB", "PostgreSQL, MB", "callers counted", "bucket imbalance"):
        assert compared[figure].is_within(0.35), compared[figure]
    for figure in ("restore, CPU s", "snapshot, CPU s", "sync of all, CPU s", "gate, script µs"):
        assert 1 / TIMES < compared[figure].predicted / compared[figure].measured < TIMES, compared[figure]

    chart = show(Report({"cpu": "a", "cores": 2}, [small, large]))
    assert chart.count("<polyline") >= 6


@pytest.mark.parametrize(
    ("name", "condition"),
    [("delete_expired_sessions", "(expires_at <= "), ("delete_old_windows", "starts_at <= ")],
)
def test_what_is_over_is_found_by_an_index(stack: Stack, name: str, condition: str) -> None:
    """Else the last batch of each run looks at every row that is not."""
    conditions = uvloop.run(_index_conditions(stack, load_sql(name)))
    assert [line for line in conditions if condition in line], conditions
    broken = load_sql(name).replace("statement_timestamp", "clock_timestamp")
    assert not [line for line in uvloop.run(_index_conditions(stack, broken)) if condition in line]


async def _index_conditions(stack: Stack, statement: str) -> list[str]:
    connection = await asyncpg.connect(stack.postgres.url)
    await connection.execute("SET enable_seqscan = off")
    plan = await connection.fetch(f"EXPLAIN {statement.replace('$1', '1000')}")
    await connection.close()
    return [line for (line,) in plan if "Index Cond" in line]


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"users need about .* GiB of disk, and .* are free: make room"):
        demand_room(tmp_path, 10**12)
