"""`make scale`: what 1, 5 and 10 million users and sessions cost, and whether the model foresees it.

PostgreSQL and Valkey are thrown-away ones on the loopback. At each size PostgreSQL is filled and
Redis is emptied and rebuilt by the worker's own jobs: all of it up to a million users, above that one shard of eight
(--whole: all), while the rest is filled. Then the gate and every job are measured. The model's constants are fitted
to the first size; what it predicts for the others is held against what was measured.

Results: tables and .scale/latest.json, kept after each size: --resume goes on with the missing ones. With 1 and 5, or
all three, docs/scale.json, docs/scale.svg and the tables of docs/scale.md are written anew.
"""

import argparse
import asyncio
import logging
import sys
import time
from pathlib import Path

import msgspec

from models.keys import BUCKETS
from tests.bench.entry import exit_code_of
from tests.bench.machine import describe
from tests.bench.processes import ROOT
from tests.bench.redis_facts import RedisFacts
from tests.bench.report import conditions, say
from tests.bench.stack import LargePostgres, Stack, open_stack
from tests.scale.fill import demand_room, fill_postgres
from tests.scale.measured import Measured
from tests.scale.measures import Bench
from tests.scale.page import PAGE, filled
from tests.scale.report import FIGURES, Report, show

LATEST = ROOT / ".scale" / "latest.json"
CHART = ROOT / "docs" / "scale.svg"
MILLION = 1_000_000
FULL = [1 * MILLION, 5 * MILLION, 10 * MILLION]
QUICK = 0.02
ROUNDS = 3
SHARD = BUCKETS // 8


def main() -> int:
    """Run what was asked for; returns the exit code."""
    arguments = _parser().parse_args()
    logging.getLogger("gatehouse").setLevel(logging.CRITICAL)  # that no worker runs is meant
    factor = QUICK if arguments.quick else 1.0
    sizes = sorted({round(float(size) * MILLION * factor) for size in arguments.sizes.split(",")})
    return exit_code_of(lambda: run(sizes, arguments.seconds, arguments.resume, arguments.whole, factor))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.scale", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--sizes", default="1,5,10", help="millions of users, between commas (default 1,5,10)")
    parser.add_argument("--seconds", type=int, default=5, help="how long the gate is called at each size (default 5)")
    parser.add_argument("--whole", action="store_true", help="rebuild all of Redis at every size, in half an hour more")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of each size; docs stay as they are")
    parser.add_argument("--resume", action="store_true", help="keep the sizes that were measured before")
    return parser


def run(sizes: list[int], seconds: int, resume: bool, whole: bool, share: float) -> None:
    """Measure each size, print it, write it."""
    report = _kept(sizes) if resume else Report({}, [])
    missing = [size for size in sizes if size not in {it.users for it in report.sizes}]
    if missing:
        with open_stack(LargePostgres) as stack:
            demand_room(stack.folder, missing[-1])
            machine = describe(RedisFacts(stack.valkey.url).version())
            for there, users in zip([0, *missing], missing, strict=False):
                lost = BUCKETS if whole or users <= MILLION * share else SHARD
                measured = _measure(stack, there, users, seconds, lost, share)
                report = Report(machine, sorted([*report.sizes, measured], key=lambda it: it.users))
                _keep(LATEST, report)
    chart = show(report)
    say(f"\n{conditions(report.machine)}")
    written = [LATEST]
    if len(report.sizes) > 1 and [it.users for it in report.sizes] == FULL[: len(report.sizes)]:
        CHART.write_text(chart)
        _keep(FIGURES, report)
        PAGE.write_text(filled(PAGE.read_text(), report))
        written += [CHART, FIGURES, PAGE]
    say(f"written: {', '.join(str(path.relative_to(ROOT)) for path in written)}")


def _measure(stack: Stack, there: int, users: int, seconds: int, lost: int, share: float) -> Measured:
    say(f"{users:,} users")
    began_s = time.monotonic()
    asyncio.run(fill_postgres(stack, there + 1, users))
    say(f"  filled in {time.monotonic() - began_s:.0f} s")
    return Bench(stack, users, seconds, lost, share, ROUNDS if share == 1 else 1).run()


def _kept(sizes: list[int]) -> Report:
    if not LATEST.exists():
        return Report({}, [])
    report = msgspec.json.decode(LATEST.read_bytes(), type=Report)
    return Report(report.machine, [it for it in report.sizes if it.users in sizes])


def _keep(path: Path, report: Report) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
