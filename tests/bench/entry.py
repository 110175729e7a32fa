"""How each benchmark begins and ends on the command line."""

import signal
from collections.abc import Callable

from models.devservers import DevServerError
from models.errors import ServiceError
from tests.bench.load import require_wrk
from tests.bench.machine import busy_warning
from tests.bench.processes import BenchError
from tests.bench.report import say


def exit_code_of(run: Callable[[], None]) -> int:
    """Run a benchmark: what stops it is told in one sentence, and nothing that it started is left behind."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # by way of every `with`, as Ctrl-C
    try:
        require_wrk()
        if warning := busy_warning():
            say(warning)
        run()
    except (BenchError, DevServerError, ServiceError) as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("\nbench: interrupted; nothing was written")
        return 130
    return 0
