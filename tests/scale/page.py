"""The tables of docs/scale.md, from docs/scale.json: `python -m tests.scale.page` writes them anew."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.publishing import SYNC_OVERLAP_S
from models.snapshots import SNAPSHOTS_AT_ONCE
from tests.bench.processes import ROOT
from tests.scale.check import WITHIN, Compared, check
from tests.scale.costs import Costs
from tests.scale.measured import Measured
from tests.scale.model import ROWS_A_DIRTY_USER, SNAPSHOT_S, shortest_interval_s, simulate
from tests.scale.population import Plan
from tests.scale.report import FIGURES, Report

PAGE = ROOT / "docs" / "scale.md"
CALLS_A_USER_S = 500
"""Each user calls once in so many seconds, on average."""

SPARE = 2
"""How many times the processes that the calls just need."""

PASSWORDS_A_CORE_S = 35
"""docs/performance.md, `bench-storms`: two cores verify 70 a second."""

DAY_S = 86_400
PLANS = ((1_000_000, 1), (10_000_000, 8), (100_000_000, 64))
SLOW_SNAPSHOT_S = 300.0
PASSED = (", s", "script µs", "fallbacks/s")
"""How the figures end that are of the time that passed, which other work on the machine moves."""


def tables(report: Report) -> dict[str, str]:
    """By the name that its markers in the page have."""
    costs = Costs.fit(*report.sizes[:2])
    return {
        "measured": _measured(report.sizes),
        "bytes": _bytes(report.sizes),
        "checked": _checked(check(costs, report.sizes)),
        "plans": _plans(costs),
    }


def read(path: Path = FIGURES) -> Report:
    """What was measured."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def filled(page: str, report: Report) -> str:
    """The page with its tables as they follow from what was measured."""
    for name, table in tables(report).items():
        begin, end = f"<!-- {name} -->\n", "\n<!-- end -->"
        before, found, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{PAGE.name} has no place for the table {name!r}: put it between {begin!r} and {end!r}")
        page = before + begin + table + end + after
    return page


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _measured(sizes: Sequence[Measured]) -> str:
    rows = [
        ["gate: calls/s of one process, wrk beside it", *(f"{it.gate.rps:,.0f}" for it in sizes)],
        ["gate: µs a call: script / Redis CPU / web CPU", *(_three(it) for it in sizes)],
    ]
    for name, unit in (
        ("restore", "totals"),
        ("sync of all", "sessions"),
        ("sync of a bucket", "sessions"),
        ("snapshot", "dirty users"),
    ):
        rows.append([f"{name}: {unit} (µs of work each)", *(_job(it, name) for it in sizes)])
    rows += [
        ["sync of 30,000 changed / of the same again, ms", *(_syncs(it) for it in sizes)],
        ["expire: sessions (µs of work each)", *(_job(it, "expire") for it in sizes)],
        ["longest Redis command of a job, ms", *(_longest(it) for it in sizes)],
        ["fallbacks/s of one process", *(f"{it.fallbacks_per_s:,.0f}" for it in sizes)],
    ]
    if sizes[0].reads_ms:
        rows.append([f"{', '.join(f'`{path}`' for path in sizes[0].reads_ms)}: p50 ms", *map(_reads, sizes)])
    rows.append(["`/count` says", *(f"{it.counted:,} ({it.counted / it.users - 1:+.2%})" for it in sizes)])
    rows.append(["load average before, after", *(", ".join(f"{load:.1f}" for load in it.load_average) for it in sizes)])
    return _table(["", *(f"{it.users / 1e6:g} million" for it in sizes)], rows)


def _reads(it: Measured) -> str:
    return ", ".join(f"{ms:.1f}" for ms in it.reads_ms.values())


def _three(it: Measured) -> str:
    return f"{it.gate.script_us:.0f} / {it.gate.redis_cpu_us:.0f} / {it.gate.web_cpu_us:.0f}"


def _job(it: Measured, name: str) -> str:
    job = it.jobs[name]
    return f"{job.rows:,} in {job.seconds:.1f} s ({job.cpu_s / job.rows * 1e6:.1f})"


def _syncs(it: Measured) -> str:
    return f"{it.jobs['sync of some'].seconds * 1e3:.0f} / {it.jobs['sync of nothing'].seconds * 1e3:.0f}"


def _longest(it: Measured) -> str:
    job = max(it.jobs.values(), key=lambda job: job.longest_ms)
    return f"{job.longest_ms:.0f} (`{job.longest}`)"


def _bytes(sizes: Sequence[Measured]) -> str:
    kinds = [kind for kind in sizes[0].redis_bytes if kind != "empty"]
    rows = [[f"Redis: {kind}", *(f"{it.redis_bytes[kind]:,.0f}" for it in sizes)] for kind in kinds]
    all_of = (f"{it.redis_used / it.users:,.0f} / {it.redis_resident / it.users:,.0f}" for it in sizes)
    rows.append(["Redis: all, a user / resident", *all_of])
    names = ", ".join(f"`{name}`" for name in sizes[0].postgres_bytes)
    rows.append([f"PostgreSQL, a user: {names}", *map(_tables_of, sizes)])
    return _table(["bytes", *(f"{it.users / 1e6:g} million" for it in sizes)], rows)


def _tables_of(it: Measured) -> str:
    return ", ".join(f"{size / it.users:,.0f}" for size in it.postgres_bytes.values())


def _checked(compared: Sequence[Compared]) -> str:
    figures = [name for name in dict.fromkeys(it.figure for it in compared) if not name.endswith(PASSED)]
    users = list(dict.fromkeys(it.users for it in compared))
    by = {(it.figure, it.users): it for it in compared}
    rows = [[figure, *(_off(by[figure, size]) for size in users)] for figure in figures]
    foretold = [it for it in compared if not it.fitted]
    said = f"\n\nWithin {WITHIN:.0%}, the others bold: {_within(foretold, passed=False)} that were foretold; "
    said += f"of the figures of time that passed {_within(foretold, passed=True)}."
    return _table(["predicted / measured", *(f"{size / 1e6:g} million" for size in users)], rows) + said


def _within(compared: Sequence[Compared], *, passed: bool) -> str:
    some = [it for it in compared if it.figure.endswith(PASSED) == passed]
    return f"{sum(1 for it in some if it.is_within())} of {len(some)}"


def _off(it: Compared) -> str:
    text = f"{it.predicted:,.4g} / {it.measured:,.4g} ({it.off:+.0%})"
    return text if it.fitted or it.is_within() else f"**{text}**"


def _plans(costs: Costs) -> str:
    columns = [_plan(costs, users, shards) for users, shards in PLANS]
    head = ["", *(f"{users / 1e6:g} million" for users, _ in PLANS)]
    return _table(head, [[name, *(column[name] for column in columns)] for name in columns[0]])


def _plan(costs: Costs, users: int, shards: int) -> dict[str, str]:
    calls = users / CALLS_A_USER_S
    processes = math.ceil(SPARE * calls * costs.web_cpu_us / 1e6)
    plan = Plan(users=users, shards=shards, calls_per_s=calls, processes=processes)
    outcome, snapshot_us = simulate(plan, costs), costs.of("snapshot", users).cpu_us
    queue, loss, slow = outcome.queue, outcome.loss, plan.distinct(SLOW_SNAPSHOT_S)
    quick_s, slow_s = outcome.snapshot_busy * SNAPSHOT_S, slow * snapshot_us / 1e6
    shortest = [shortest_interval_s(plan, snapshot_us, at_once) for at_once in (1, SNAPSHOTS_AT_ONCE)]
    slow_writes_per_s = ROWS_A_DIRTY_USER * slow / SLOW_SNAPSHOT_S
    logins = users / DAY_S
    return {
        "calls/s / web processes": f"{calls:,.0f} / {processes}",
        "logins/s / cores that verify them": f"{logins:,.0f} / {math.ceil(logins / PASSWORDS_A_CORE_S)}",
        "sessions that each sync reads again": f"{logins * (SYNC_OVERLAP_S + 1):,.0f}",
        "Redis: shards / GB in all / GB a shard": f"{shards} / {outcome.redis_gb:.1f} / {outcome.redis_gb_a_shard:.2f}",
        "busiest shard: calls to the mean shard's": f"{outcome.shard_imbalance:.2f}",
        "busiest shard: busy / p99 wait": f"{queue.busy:.0%} / {queue.p99_ms:.2f} ms",
        "PostgreSQL, GB": f"{outcome.postgres_gb:.1f}",
        "dirty users/s at 10 s / 300 s": f"{outcome.dirty_per_s:,.0f} / {slow / SLOW_SNAPSHOT_S:,.0f}",
        "PostgreSQL rows written/s at 10 s / 300 s": f"{outcome.postgres_writes_per_s:,.0f} / {slow_writes_per_s:,.0f}",
        "work of a snapshot at 10 s / 300 s": f"{quick_s:,.1f} s / {slow_s:,.0f} s",
        "shortest interval, PostgreSQL with 1 / 4 cores": " / ".join(
            f"{it:,.0f} s" if it >= 1 else "any" for it in shortest
        ),
        "busiest shard lost: part of the calls": f"{loss.calls_share:.1%}",
        "… reads of PostgreSQL until it is settled": f"{loss.fallbacks:,} in {loss.settled_s:,.0f} s",
        "… longest wait for one / calls refused": f"{loss.worst_wait_s:.2f} s / {loss.refused:,}",
        "… sync / restore by one worker": f"{loss.sync_s:,.0f} s / {loss.restore_s:,.0f} s",
    }


def main() -> int:
    """Write the tables of the page anew."""
    PAGE.write_text(filled(PAGE.read_text(), read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
