"""How long `/top` and `/count` take a client, with nothing else going on."""

import http.client
import time
from collections.abc import Callable

from models.devprocess import LOOPBACK
from models.readings import REST_S
from tests.bench.processes import BenchError


def read_times_ms(port: int, path: str, probes: int, before_each: Callable[[], None] = lambda: None) -> list[float]:
    """Of each read, on one connection, how many milliseconds it took.

    Raises:
        BenchError: an answer was no 200.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    times_ms = []
    for _ in range(probes):
        before_each()
        time.sleep(2 * REST_S)  # what the process rests after the reading before is no part of this one
        began_s = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        times_ms.append((time.perf_counter() - began_s) * 1000)
        if answer.status != 200:
            raise BenchError(f"{path} answers {answer.status}.")
    connection.close()
    return times_ms
