"""What left this process: answers by route, method and status, and how long they took."""

from bisect import bisect_left
from time import perf_counter

from sanic import Request

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the histogram, each the longest time that is still in its bucket; one bucket more has the rest."""

UNMATCHED = "unmatched"
"""The route of what fits none: a path is a client's text, and would be a label of the client's choice."""

OTHER_METHOD = "OTHER"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}

Kind = tuple[str, str, int]
"""Route, method, status."""

Cell = list[float]
"""The answers in each bucket, and after them the seconds that all of them took together."""


class Traffic:
    """The answers of one process since its start.

    There are as many kinds as routes have methods and statuses: no client can make one.
    """

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[tuple[str | None, str, int], Cell] = {}

    def note(self, request: Request, status: int, began_s: float) -> None:
        """Count an answer; once for each request, so plain integers are all that it touches.

        Args:
            began_s: when its request had arrived, by `time.perf_counter`.
        """
        took_s = perf_counter() - began_s
        route = request.route
        try:
            cell = self._cells[route.path, request.method, status]  # type: ignore[union-attr]  # the rare ones are below
        except (AttributeError, KeyError):
            cell = self._new_cell(route.path if route else None, request.method, status)
        cell[bisect_left(BOUNDS_S, took_s)] += 1
        cell[-1] += took_s

    def _new_cell(self, path: str | None, method: str, status: int) -> Cell:
        if path is None and method not in _METHODS:
            method = OTHER_METHOD
        return self._cells.setdefault((path, method, status), [0] * (len(BOUNDS_S) + 2))

    def cells(self) -> dict[Kind, Cell]:
        """A copy of what was counted."""
        return {
            (UNMATCHED if path is None else f"/{path}", method, status): list(cell)
            for (path, method, status), cell in self._cells.items()
        }
