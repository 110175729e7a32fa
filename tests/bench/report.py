"""Progress, tables and result files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.processes import OUTPUT


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under a head: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "  ".join([first.strip().ljust(widths[0]), *others]).rstrip()

    return "\n".join([line(head), line(["─" * width for width in widths]), *map(line, rows)])


def conditions(machine: Mapping[str, object]) -> str:
    """The machine in one paragraph."""
    return " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items())


def write_json(name: str, content: Any) -> Path:
    """Write a result under `.bench/`."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / name
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    return path


def judge(what: str, value: float, goal: float, *, at_most: bool = False) -> str:
    """One line: is a goal reached?"""
    reached = value <= goal if at_most else value >= goal
    return f"  {'reached' if reached else 'MISSED ':7}  {what}: {value:.4g} (goal: {'≤' if at_most else '≥'} {goal:g})"
