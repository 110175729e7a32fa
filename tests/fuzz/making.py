"""Inputs without knowledge of coverage: what a target begins with and what its parser looks for, mixed and damaged."""

import time
from contextlib import suppress

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.targets import Target

SEED = 1


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Pieces of what the target knows and of anything else, in a row."""
    known = st.sampled_from((*target.seeds, *target.words))
    cut = st.builds(lambda piece, start, end: piece[start:end], known, st.integers(0, 99), st.integers(0, 999))
    return st.lists(known | cut | st.binary(max_size=40), max_size=6).map(b"".join)


def try_out(target: Target, runs: int, seconds: float = float("inf")) -> int:
    """Give a target its seeds, then inputs made up, the same ones each time; returns how many it took.

    Raises:
        Exception: what did not hold for one of them.
    """
    for known in target.seeds:
        target.check(known)
    tried, ends_at = len(target.seeds), time.monotonic() + seconds

    @seed(SEED)
    @settings(max_examples=runs, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs(target))
    def check(data: bytes) -> None:
        nonlocal tried
        if time.monotonic() > ends_at:
            raise _TimeIsUpError
        tried += 1
        target.check(data)

    with suppress(_TimeIsUpError):
        check()
    return tried


class _TimeIsUpError(BaseException):
    """Not a failure of the target: hypothesis lets it through."""
