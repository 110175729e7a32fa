"""What a scenario is: one row of the fault table, run for a number of rounds on servers of its own."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.soak.stage import Stage


class Outcome(msgspec.Struct):
    """What a scenario saw.

    Args:
        tried: rounds, cycles, requests: what the full count counts.
        violations: a sentence for each thing that must never happen; empty when all went well.
        figures: what was measured beside, by name with its unit.
    """

    tried: int = 0
    violations: list[str] = []
    figures: dict[str, Any] = {}

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violations.append(otherwise)


Run = Callable[[Stage, int, str], Awaitable[Outcome]]


class Scenario(msgspec.Struct, frozen=True):
    """One fault, race or attack.

    Args:
        row: of the list in docs/failure-table.md, "Faults and attacks".
        name: for the command line.
        what: a sentence.
        full: rounds of the long form.
        short: rounds of the short form, which is part of `make test`; 0 for what only time can show.
        run: gets a stage, the rounds and the name of a planted fault of ours, or an empty text.
        planted: the faults of ours that it can be run with; each must give violations in `planted_rounds`.
        durable: Valkey keeps an append-only file.
    """

    row: int
    name: str
    what: str
    full: int
    short: int
    run: Run
    planted: tuple[str, ...] = ()
    planted_rounds: int = 0
    durable: bool = False


ALL: dict[str, Scenario] = {}


def scenario(row: int, name: str, what: str, *, full: int, short: int, **more: Any) -> Callable[[Run], Run]:
    """Register an async function as a scenario; the arguments are those of Scenario."""

    def register(run: Run) -> Run:
        ALL[name] = Scenario(row, name, what, full, short, run, **more)
        return run

    return register
