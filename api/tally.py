"""All that one web process counted and is at the moment, and how those of several processes become one."""

from collections.abc import Iterable

import msgspec

from api.traffic import Cell, Kind
from models.meters import Gauges


class Tally(msgspec.Struct):
    """Of one process, or of several together.

    Args:
        answers: how many and how long, by kind.
        counts: of the gate, by the names of `models.meters`.
        process: what the operating system counts, by the names of Prometheus.
        gauges: of each process that is alive.
    """

    answers: list[tuple[Kind, Cell]] = []
    counts: dict[str, int] = {}
    process: dict[str, float] = {}
    gauges: list[Gauges] = []


CPU = "process_cpu_seconds_total"
_LATEST = "process_start_time_seconds"


def together(tallies: Iterable[Tally]) -> Tally:
    """The sum of several; they are left as they are."""
    answers: dict[Kind, Cell] = {}
    whole = Tally(counts={}, process={}, gauges=[])
    for tally in tallies:
        for kind, cell in tally.answers:
            kept = answers.get(kind)
            answers[kind] = list(cell) if kept is None else [a + b for a, b in zip(kept, cell, strict=True)]
        for name, count in tally.counts.items():
            whole.counts[name] = whole.counts.get(name, 0) + count
        for name, number in tally.process.items():
            known = whole.process.get(name, 0.0)
            whole.process[name] = max(known, number) if name == _LATEST else known + number
        whole.gauges += tally.gauges
    whole.answers = list(answers.items())
    return whole


def remains(tally: Tally) -> Tally:
    """What stays of a process that has ended: what was counted, and nothing that is at the moment."""
    return Tally(tally.answers, tally.counts, {name: it for name, it in tally.process.items() if name == CPU}, [])
