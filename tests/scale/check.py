"""The model's predictions against the measurements, at the sizes it was not fitted to."""

from collections.abc import Mapping, Sequence

import msgspec

from tests.scale.costs import Costs, predict
from tests.scale.measured import Measured

WITHIN = 0.2


class Compared(msgspec.Struct, frozen=True):
    """One figure at one size."""

    figure: str
    users: int
    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """How far the prediction is off, as a part of what was measured: above zero when it is too high."""
        return self.predicted / self.measured - 1 if self.measured else float("inf")

    def is_within(self, share: float = WITHIN) -> bool:
        return abs(self.off) <= share


def compare(predicted: Mapping[str, float], one: Measured) -> list[Compared]:
    """Each predicted figure that was measured."""
    figures = one.figures()
    return [Compared(name, one.users, value, figures[name]) for name, value in predicted.items()]


def check(costs: Costs, sizes: Sequence[Measured]) -> list[Compared]:
    """All figures of all sizes, the one they were fitted to as well: there sums and simulated figures can be off."""
    return [compared for one in sizes for compared in compare(predict(costs, one.users, one.lost), one)]
