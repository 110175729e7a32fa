"""Callers over HTTP: connections that are kept alive, one call after the other, and what they were answered."""

import asyncio
import math
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from urllib.parse import SplitResult

CALL_DEADLINE_S = 10.0
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 1024 * 1024
REST_S = 0.1
"""Between two tries to connect: a server that is away is not stormed."""

_STEPS = 100
"""Of a doubling: latencies are known to within a hundredth of one, 0.7 %, in a table of bounded size."""


class Tally:
    """What all callers were answered: numbers, however many calls."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.calls = 0
        self._latencies: Counter[int] = Counter()

    def note(self, status: str, took_s: float) -> None:
        """An answer."""
        self.calls += 1
        self.statuses[status] += 1
        self._latencies[round(math.log2(max(took_s, 1e-6)) * _STEPS)] += 1

    def fail(self, why: str) -> None:
        """A call without an answer."""
        self.statuses[why] += 1

    def percentile_ms(self, share: float) -> float | None:
        """What this share of the answers took at most, in milliseconds; None without answers."""
        wanted, seen = share * self.calls, 0
        for step, count in sorted(self._latencies.items()):
            seen += count
            if seen >= wanted:
                return round(2 ** (step / _STEPS) * 1_000, 3)
        return None


async def call_all(url: SplitResult, tokens: Sequence[str], connections: int, until_s: float, tally: Tally) -> None:
    """Call `/ping` with each token in turn over so many connections until a time of the monotonic clock."""
    requests = cycle([_request(url, token) for token in tokens])
    await asyncio.gather(*(_keep_calling(url, requests, until_s, tally) for _ in range(connections)))


def _request(url: SplitResult, token: str) -> bytes:
    lines = f"GET /ping HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
    return lines.encode()


async def _keep_calling(url: SplitResult, requests: Iterator[bytes], until_s: float, tally: Tally) -> None:
    while time.monotonic() < until_s:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                reader, writer = await _connect(url)
        except (OSError, TimeoutError):
            tally.fail("not connected")
            await asyncio.sleep(REST_S)
            continue
        try:
            while time.monotonic() < until_s:
                began_s = time.monotonic()
                async with asyncio.timeout(CALL_DEADLINE_S):
                    writer.write(next(requests))
                    status, kept = await _read_answer(reader)
                tally.note(status, time.monotonic() - began_s)
                if not kept:
                    break
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            tally.fail("broken off")
        finally:
            writer.close()


async def _connect(url: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    tls = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if tls else 80)
    return await asyncio.open_connection(url.hostname, port, ssl=tls, limit=MAX_HEAD_BYTES)


async def _read_answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """The status, and whether the connection goes on; an answer of `/ping` has a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status_line, *lines = head.split("\r\n")
    status = status_line[9:12]
    if not (status_line.startswith("http/1.1 ") and status.isdecimal()):
        raise ValueError("not an answer")
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(fields.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ValueError("an answer of another length")
    await reader.readexactly(length)
    return status, fields.get("connection") != "close"
