"""The gate's benchmark: Gatehouse between a bare Sanic handler and what one would write or pick instead.

Starts everything itself on free ports of the loopback, checks that each service admits and counts, then measures all of
them in turn, several rounds long, with wrk: 64 connections, each with the next call after the answer. One thread of wrk
is enough for one process (and two threads on two cores would take the service's); for two processes there are two
threads, each with 32 connections to a port of its own. Every run must end with nothing but 200s, and with exactly as
many calls counted in Redis as wrk saw answered, give or take those in flight when it stopped.

Results: a table, .bench/latest.json and .bench/latest.svg.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

import msgspec

from tests.bench.chart import bars
from tests.bench.contestants import NAMES, Contestant, open_contestants
from tests.bench.entry import exit_code_of
from tests.bench.load import Load, Shape, measure
from tests.bench.machine import Stolen, describe
from tests.bench.processes import OUTPUT, BenchError
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import conditions, judge, say, table, write_json
from tests.bench.stack import open_stack

CONNECTIONS = 64
WARM_UP_S = 2
LABELS = {
    "bare_sanic": "bare Sanic handler",
    "gatehouse": "Gatehouse",
    "gatehouse_access_log": "Gatehouse, a log line a call",
    "gatehouse_verify": "Gatehouse, /verify",
    "sanic_six_commands": "Sanic, six commands",
    "fastapi_slowapi": "FastAPI + slowapi",
    "gatehouse_two_processes": "Gatehouse, two processes",
}


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One service's medians; the lowest and highest rate beside them."""

    name: str
    rps: float
    p50_ms: float
    p99_ms: float
    ratio_to_bare: float | None
    rps_min: float
    rps_max: float


def main() -> int:
    """Run the benchmark; returns the exit code."""
    arguments = _parser().parse_args()

    def bench() -> None:
        _show(*run(arguments.only, arguments.rounds, arguments.seconds))

    return exit_code_of(bench)


def _parser() -> argparse.ArgumentParser:
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser("python -m tests.bench", description=description, epilog=epilog)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    of = f"of {', '.join(NAMES)}"
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=of)
    parser.add_argument("--rounds", type=int, default=5, help="each round measures every service once (default 5)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (default 5)")
    return parser


def run(names: Sequence[str], rounds: int, seconds: int) -> tuple[list[Row], dict[str, object]]:
    """Measure the services in turn; returns a row for each, and the conditions."""
    say("starting PostgreSQL, Valkey and the services")
    with open_stack() as stack, ExitStack() as services:
        machine = describe(RedisFacts(stack.valkey.url).version())
        contestants = open_contestants(names, stack, services)
        for one in contestants:
            one.check()
            measure(one.requests, one.ports, WARM_UP_S, _shape(one))
        loads: dict[str, list[Load]] = {one.name: [] for one in contestants}
        with Stolen() as stolen:
            for number in range(1, rounds + 1):
                for one in contestants:
                    load = _measure(one, seconds)
                    loads[one.name].append(load)
                    say(f"round {number}/{rounds}  {one.name:24}{load.rps:9,.0f}/s  p99 {load.p99_us / 1000:6.2f} ms")
        machine |= {"stolen_share": round(stolen.share, 3), "rounds": rounds, "seconds_each": seconds}
    return _rows(loads), machine


def _shape(contestant: Contestant) -> Shape:
    return Shape(CONNECTIONS, threads=len(contestant.ports))


def _measure(contestant: Contestant, seconds: int) -> Load:
    """One run, whose every call was admitted and counted."""
    before = contestant.counted() if contestant.counted else 0
    load = measure(contestant.requests, contestant.ports, seconds, _shape(contestant))
    load.demand_clean(contestant.name)
    if contestant.counted:
        time.sleep(0.2)  # calls in flight when wrk stopped are counted, too
        excess = contestant.counted() - before - load.requests
        if not 0 <= excess <= CONNECTIONS:
            raise BenchError(f"{contestant.name} admitted {load.requests:,} calls and counted {excess:+,} more.")
    return load


def _rows(loads: dict[str, list[Load]]) -> list[Row]:
    rates = {name: median(load.rps for load in some) for name, some in loads.items()}
    bare = rates.get("bare_sanic")
    return [
        Row(
            name=name,
            rps=round(rates[name], 1),
            p50_ms=round(median(load.p50_us for load in some) / 1000, 3),
            p99_ms=round(median(load.p99_us for load in some) / 1000, 3),
            ratio_to_bare=round(rates[name] / bare, 3) if bare else None,
            rps_min=round(min(load.rps for load in some), 1),
            rps_max=round(max(load.rps for load in some), 1),
        )
        for name, some in loads.items()
    ]


def _show(rows: list[Row], machine: dict[str, object]) -> None:
    cells = [
        [
            LABELS[row.name],
            f"{row.rps:,.0f}",
            f"{row.rps_min:,.0f}-{row.rps_max:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.ratio_to_bare:.2f}" if row.ratio_to_bare else "",
        ]
        for row in rows
    ]
    say("\n" + table(["what", "requests/s", "min-max", "p50 ms", "p99 ms", "ratio to bare"], cells))
    say("\n" + conditions(machine))
    say("\n".join(["", *_goals({row.name: row for row in rows})]))
    write_json("latest.json", {"rows": rows, "machine": machine})
    drawn = [
        (LABELS[row.name], row.rps, f"{row.rps:,.0f}/s" + (f" · {row.ratio_to_bare:.2f}×" if row.ratio_to_bare else ""))
        for row in rows
    ]
    note = f"64 connections, medians of {machine['rounds']} runs; {machine['cpu']}, {machine['cores']} cores"
    note += f", Python {machine['python']}; × = ratio to the bare handler"
    (OUTPUT / "latest.svg").write_text(bars("Admitted calls per second", drawn, note, own="Gatehouse"))
    say(f"\nwritten: {os.path.relpath(OUTPUT)}/latest.json and latest.svg")


def _goals(rows: dict[str, Row]) -> list[str]:
    own, found = rows.get("gatehouse"), []
    if own is None:
        return []
    if bare := rows.get("bare_sanic"):
        found.append(judge("Gatehouse / bare Sanic, requests/s", own.rps / bare.rps, 0.80))
        found.append(judge("Gatehouse / bare Sanic, p99", own.p99_ms / bare.p99_ms, 2, at_most=True))
    for name, goal in (("fastapi_slowapi", 8), ("sanic_six_commands", 5)):
        if name in rows:
            found.append(judge(f"Gatehouse / {LABELS[name]}, requests/s", own.rps / rows[name].rps, goal))
    if two := rows.get("gatehouse_two_processes"):
        found.append(judge("two processes / one, requests/s", two.rps / own.rps, 1.6))
    return found


if __name__ == "__main__":
    sys.exit(main())
