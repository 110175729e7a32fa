"""`make soak`: every scenario at its full count; prints what was tried and what was violated, keeps it as JSON.

python -m tests.soak                     all of them
python -m tests.soak logins rollback     some, by name
python -m tests.soak --scale 0.01        a hundredth of each count
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.soak import scenarios
from tests.soak.scenario import ALL, Outcome, Scenario
from tests.soak.stage import ROOT, stage

REPORT = ROOT / ".soak" / "latest.json"


def main() -> int:
    """Run what was asked for; returns 1 when something was violated, 130 after Ctrl-C."""
    arguments = _parser().parse_args()
    names = arguments.names or sorted(ALL, key=lambda name: ALL[name].row)
    logging.getLogger("gatehouse").setLevel(logging.CRITICAL)  # refusals and outages are what is played here
    rows: dict[str, Any] = {}
    violated = False
    try:
        for name in names:
            rows[name] = _play(ALL[name], max(1, round(ALL[name].full * arguments.scale)))
            violated = violated or bool(rows[name]["violations"])
            _keep(name, rows[name])
    except KeyboardInterrupt:
        return 130
    finally:
        _print_table(rows)
    return int(violated)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *ALL], metavar="name", help=", ".join(ALL))
    parser.add_argument("--scale", type=float, default=1.0, help="part of each full count, 1 by default")
    return parser


def _play(what: Scenario, rounds: int) -> dict[str, Any]:
    print(f"{what.row:>3}  {what.name}: {what.what}", file=sys.stderr)  # noqa: T201
    started_at = time.monotonic()

    def progress(done: int) -> None:
        print(f"\r     {done:,} of {rounds:,}, {time.monotonic() - started_at:.0f} s ", end="", file=sys.stderr)  # noqa: T201

    with stage(durable=what.durable) as there:
        there.progress = progress
        outcome: Outcome = asyncio.run(what.run(there, rounds, ""))  # type: ignore[arg-type]
    print(file=sys.stderr)  # noqa: T201
    for violation in outcome.violations[:10]:
        print(f"     VIOLATED: {violation}", file=sys.stderr)  # noqa: T201
    return {
        "row": what.row,
        "what": what.what,
        "rounds": rounds,
        "full": what.full,
        "tried": outcome.tried,
        "violations": len(outcome.violations),
        "first_violations": outcome.violations[:10],
        "figures": outcome.figures,
        "took_s": round(time.monotonic() - started_at, 1),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _keep(name: str, row: dict[str, Any]) -> None:
    """Replace one row of the report; those of other runs stay."""
    REPORT.parent.mkdir(exist_ok=True)
    rows = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    rows[name] = row
    unfinished = REPORT.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(rows, indent=2))
    unfinished.replace(Path(REPORT))


def _print_table(rows: dict[str, Any]) -> None:
    print(f"{'row':>3}  {'what':<24} {'tried':>10} {'violations':>10}  figures")  # noqa: T201
    for name, row in sorted(rows.items(), key=lambda item: item[1]["row"]):
        figures = ", ".join(f"{what} {value}" for what, value in row["figures"].items())
        print(f"{row['row']:>3}  {name:<24} {row['tried']:>10,} {row['violations']:>10}  {figures}")  # noqa: T201


if __name__ == "__main__":
    assert scenarios
    sys.exit(main())
