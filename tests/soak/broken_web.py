"""A web process with a fault of ours, named by its argument: `python -m tests.soak.broken_web FAULT`."""

import sys
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from api import __main__, app, child
from models import database, heartbeat, pool
from models.local_limits import LocalLimiter
from models.outage import LocalGate
from models.records import Verdict
from models.store import Store
from models.usage import Admission, Usage
from models.watch import Watch

NO_BREAKER = "no-breaker"
ERRORS_ARE_ANSWERS = "errors-are-answers"
NO_LIMIT_ALONE = "no-limit-alone"
NO_DEADLINE = "no-deadline"
SECOND_SIGNAL_CUTS = "second-signal-cuts"
UNPUBLISHED = "unpublished"
LOOKING_OFTEN = "looking-often"
"""No fault: only quick enough for a short test."""


def main() -> int:
    """Serve with the fault."""
    own = (sys.executable, "-m", "tests.soak.broken_web", sys.argv[1])
    with ExitStack() as stack:
        stack.enter_context(patch.object(child, "COMMAND", own))  # of those that a supervisor starts
        for target, name, value in _changes(sys.argv.pop(1)):
            stack.enter_context(patch.object(target, name, value))
        return __main__.main()


def _changes(fault: str) -> list[tuple[Any, str, Any]]:
    async def refuse(self: Usage, call: Any, *, count: bool) -> Admission:
        return Admission("session_unknown")

    def unlimited(self: LocalGate, *call: Any, count: bool) -> Verdict:
        self._limiter = LocalLimiter()
        return admit(self, *call, count=count)

    admit = LocalGate.admit

    async def publish_nothing(*_: Any) -> bool:
        return True

    async def as_the_framework_does(_: Any) -> None:
        """Leave the signals to it."""

    changes: dict[str, list[tuple[Any, str, Any]]] = {
        NO_BREAKER: [(Watch, "lose", Watch.poke)],
        ERRORS_ARE_ANSWERS: [(Usage, "_admit_alone", refuse)],
        NO_LIMIT_ALONE: [(LocalGate, "admit", unlimited)],
        NO_DEADLINE: [
            (database.Database.deadline, "__defaults__", (600.0,)),
            (database.Database.deadline.__wrapped__, "__defaults__", (600.0,)),  # type: ignore[attr-defined]
            (database.Database.fetch, "__kwdefaults__", {"deadline_s": 600.0, "repeatable": False}),
            (database, "QUERY_DEADLINE_S", 600.0),
            (pool, "CONNECT_DEADLINE_S", 600.0),
        ],
        SECOND_SIGNAL_CUTS: [(app, "_stop_once", as_the_framework_does)],
        UNPUBLISHED: [(Store, "publish_session", publish_nothing)],
        LOOKING_OFTEN: [(heartbeat, "LOOK_EVERY_S", 0.2)],
    }
    return changes[fault]


if __name__ == "__main__":
    sys.exit(main())
