"""The model's predictions against the measurements, at the sizes it was not fitted to."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from tests.scale.costs import Costs, predict
from tests.scale.measured import Measured

WITHIN = 0.2


class Compared(msgspec.Struct, frozen=True):
    """One figure at one size.

    Args:
        fitted: a constant of the prediction is this measurement.
    """

    figure: str
    users: int
    predicted: float
    measured: float
    fitted: bool = False

    @property
    def off(self) -> float:
        """How far the prediction is off, as a part of what was measured: above zero when it is too high."""
        return self.predicted / self.measured - 1 if self.measured else float("inf")

    def is_within(self, share: float = WITHIN) -> bool:
        return abs(self.off) <= share


def compare(predicted: Mapping[str, float], one: Measured, fitted: Collection[str] = ()) -> list[Compared]:
    """Each predicted figure that was measured."""
    figures = one.figures()
    return [Compared(name, one.users, value, figures[name], name in fitted) for name, value in predicted.items()]


def check(costs: Costs, sizes: Sequence[Measured]) -> list[Compared]:
    """All figures of all sizes.

    Also of the first, which the costs were fitted to, and the second, which showed their growth: sums can be off there.
    """
    of_jobs, found = {f"{job}, {kind}" for job in costs.grows for kind in ("s", "CPU s")}, []
    for number, one in enumerate(sizes):
        predicted = predict(costs, one.users, one.lost)
        found += compare(predicted, one, [predicted, of_jobs, ()][min(number, 2)])
    return found
