"""Rates and shares from totals: what is compared with what, and what is no comparison."""

import msgspec

from models.meters import Metered
from models.pace import MAX_GAP_MS, Pace, Rates, Shares


def pace(*looks: tuple[float, Metered]) -> Pace:
    """After these looks: seconds and totals."""
    made = Pace()
    for at_s, totals in looks:
        made.note(round(at_s * 1000), totals)
    return made


def admitted(calls: int, **ways: int) -> Metered:
    return msgspec.structs.replace(Metered(admitted=calls), **ways)


def test_one_look_is_no_rate() -> None:
    assert pace((1, admitted(5))).rates() is None
    assert pace((1, admitted(5))).shares() is None


def test_rates_are_of_the_last_five_seconds() -> None:
    looks = [(second, admitted(100 * min(second, 3) + 10 * max(second - 3, 0))) for second in range(9)]
    assert pace(*looks).rates() == Rates(admitted=10, limited=0, unauthorized=0, unavailable=0)
    last = 4.5, Metered(admitted=200, limited=20, unauthorized=7, unavailable=1)
    assert pace((2.5, admitted(100)), last).rates() == Rates(50, 10, 3.5, 0.5)


def test_shares_are_of_the_last_minute_and_of_judged_calls() -> None:
    looks = [(0, admitted(0)), (10, admitted(0, cached=500)), (70, admitted(9, cached=590, fallback=8, degraded=2))]
    assert pace(looks[0]).shares() is None
    shares = pace(
        (0, admitted(0)), *((s, admitted(0, cached=500)) for s in (10, 20, 30, 40, 50, 60)), looks[2]
    ).shares()
    assert shares == Shares(100, cached=0.9, fallback=0.08, tombstone=0, degraded=0.02)
    assert pace((0, admitted(5)), (1, admitted(6))).shares() is None


def test_totals_that_fell_begin_anew() -> None:
    emptied = pace((0, admitted(1000)), (1, admitted(1010)), (2, admitted(3)))
    assert emptied.rates() is None
    emptied.note(3_000, admitted(9))
    assert emptied.rates() == Rates(6, 0, 0, 0)


def test_nothing_is_compared_across_a_gap_or_a_clock_that_went_back() -> None:
    for later_ms in (1_000 + MAX_GAP_MS + 1, 500, 1_000):
        interrupted = pace((0, admitted(0)), (1, admitted(10)))
        interrupted.note(later_ms, admitted(20))
        assert interrupted.rates() is None
