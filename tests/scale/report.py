"""The tables and the chart of what was measured and foreseen."""

from collections.abc import Callable, Sequence

import msgspec

from tests.bench.processes import ROOT
from tests.bench.report import say, table
from tests.scale.chart import lines
from tests.scale.check import WITHIN, Compared, check
from tests.scale.costs import Costs
from tests.scale.measured import Measured

FIGURES = ROOT / "docs" / "scale.json"


class Report(msgspec.Struct, frozen=True):
    """What `docs/scale.json` and `.scale/latest.json` hold; the smallest size first."""

    machine: dict[str, object]
    sizes: list[Measured]


_EACH: dict[str, Callable[[Measured], float]] = {
    "a call, Redis": lambda it: it.gate.redis_cpu_us,
    "a call, web": lambda it: it.gate.web_cpu_us,
    "restore, a total": lambda it: _each(it, "restore"),
    "sync, a session": lambda it: _each(it, "sync of all"),
    "snapshot, a dirty user": lambda it: _each(it, "snapshot"),
    "expire, a session": lambda it: _each(it, "expire"),
    "Redis bytes, a user": lambda it: it.redis_used / it.users,
}
"""What is drawn: the cost of one, which would be the same at every size if size did not matter."""


def show(report: Report) -> str:
    """Print the tables; returns the chart."""
    sizes = report.sizes
    say("\n" + _figures(sizes))
    say("\n" + _kinds(sizes))
    costs = Costs.fit(*sizes[:2])
    say(f"\npredictions, fitted to {sizes[0].users:,} users")
    say(_checked(check(costs, sizes)))
    drawn = {label: [cost(it) for it in sizes] for label, cost in _EACH.items()}
    drawn |= {path: [it.reads_ms[path] for it in sizes] for path in sizes[0].reads_ms if "?" not in path}
    series = [(label, [value / values[0] for value in values]) for label, values in drawn.items()]
    note = f"Measured on {report.machine.get('cpu')}, {report.machine.get('cores')} cores shared with others."
    title = f"The cost of one, to that at {sizes[0].users / 1e6:g} million users"
    return lines(title, [it.users for it in sizes], series, note)


def _each(it: Measured, job: str) -> float:
    return it.jobs[job].cpu_s / it.jobs[job].rows


def _figures(sizes: Sequence[Measured]) -> str:
    rows = [
        ["gate, calls/s", *(f"{it.gate.rps:,.0f}" for it in sizes)],
        ["gate, p99 ms", *(f"{it.gate.p99_ms:.2f}" for it in sizes)],
        ["gate, script µs", *(f"{it.gate.script_us:.2f}" for it in sizes)],
        ["gate, Redis CPU µs", *(f"{it.gate.redis_cpu_us:.1f}" for it in sizes)],
        ["gate, web CPU µs", *(f"{it.gate.web_cpu_us:.1f}" for it in sizes)],
        ["bucket imbalance", *(f"{it.gate.imbalance:.2f}" for it in sizes)],
        ["fallbacks/s", *(f"{it.fallbacks_per_s:,.0f}" for it in sizes)],
    ]
    for name in sizes[0].jobs:
        rows.append([f"{name}, rows", *(f"{it.jobs[name].rows:,}" for it in sizes)])
        rows.append([f"{name}, s", *(f"{it.jobs[name].seconds:,.2f}" for it in sizes)])
        rows.append([f"{name}, CPU s", *(f"{it.jobs[name].cpu_s:,.2f}" for it in sizes)])
        rows.append([f"{name}, longest ms", *(f"{it.jobs[name].longest_ms:.1f}" for it in sizes)])
    for path in sizes[0].reads_ms:
        rows.append([f"{path}, p50 ms", *(f"{it.reads_ms[path]:.2f}" for it in sizes)])
    rows.append(["/count says", *(f"{it.counted:,}" for it in sizes)])
    rows.append(
        ["load average before and after", *(" ".join(f"{load:.1f}" for load in it.load_average) for it in sizes)]
    )
    return table(["", *(f"{it.users:,}" for it in sizes)], rows)


def _kinds(sizes: Sequence[Measured]) -> str:
    rows = [[f"Redis, {kind}", *(f"{it.redis_bytes[kind]:,.1f}" for it in sizes)] for kind in sizes[0].redis_bytes]
    rows.append(["Redis, all, a user", *(f"{it.redis_used / it.users:,.0f}" for it in sizes)])
    rows.append(["Redis, resident, a user", *(f"{it.redis_resident / it.users:,.0f}" for it in sizes)])
    for name in sizes[0].postgres_bytes:
        rows.append([f"PostgreSQL, {name}, a user", *(f"{it.postgres_bytes[name] / it.users:,.0f}" for it in sizes)])
    return table(["bytes", *(f"{it.users:,}" for it in sizes)], rows)


def _checked(compared: Sequence[Compared]) -> str:
    rows = [
        [
            it.figure,
            f"{it.users:,}",
            f"{it.predicted:,.2f}",
            f"{it.measured:,.2f}",
            f"{it.off:+.0%}",
            "within" if it.is_within() else "OFF",
        ]
        for it in sorted(compared, key=lambda it: it.figure)
    ]
    missed = sum(1 for it in compared if not it.is_within())
    said = f"{len(compared) - missed} of {len(compared)} within {WITHIN:.0%}"
    return table(["figure", "users", "predicted", "measured", "off", ""], rows) + f"\n{said}"
