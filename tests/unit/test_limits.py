"""The parser of RATE_LIMITS."""

import pytest

from models.limits import MAX_CALLS, MAX_LIMITS, MAX_WINDOW_S, RateLimit, parse_limits


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("1/5s", (1, 5)),
        ("100/1m", (100, 60)),
        ("7/2h", (7, 7_200)),
        ("9/31d", (9, MAX_WINDOW_S)),
        ("10000/1s", (MAX_CALLS, 1)),
        (" 3/4s ", (3, 4)),
        ("007/05s", (7, 5)),
    ],
)
def test_one_limit_is_named_default(text: str, limit: tuple[int, int]) -> None:
    assert parse_limits(text) == (RateLimit("default", *limit),)


def test_several_limits_are_numbered_from_two() -> None:
    assert parse_limits("1/5s, 2/60s,3/1h") == (
        RateLimit("default", 1, 5),
        RateLimit("default-2", 2, 60),
        RateLimit("default-3", 3, 3_600),
    )


def test_as_many_limits_as_are_allowed() -> None:
    assert len(parse_limits(",".join(["1/5s"] * MAX_LIMITS))) == MAX_LIMITS
    with pytest.raises(ValueError, match=f"at most {MAX_LIMITS} limits"):
        parse_limits(",".join(["1/5s"] * (MAX_LIMITS + 1)))


NO_LIMITS = [
    *("", ",", "1/5s,", "1", "1/5", "/5s", "1/s", "1/5w", "1/5S", "-1/5s", "1/-5s", "1.5/5s", "1/5 s", "1/5s/2"),
    *("1e3/5s", "1/5s 2/60s", "1/5s; 2/60s", "\u0661/5s", "1/5s\n2/60s", "1/0x5s", "1234567890/5s"),
]


@pytest.mark.parametrize("text", NO_LIMITS)
def test_anything_else_is_named_as_it_was_written(text: str) -> None:
    with pytest.raises(ValueError, match="is not like 1/5s"):
        parse_limits(text)


@pytest.mark.parametrize("text", ["0/5s", "100001/5s", "1/5s, 0/60s"])
def test_a_quota_has_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="must allow 1 to 10000 calls"):
        parse_limits(text)


@pytest.mark.parametrize("text", ["1/0s", "1/32d", "1/2678401s", "1/999999999d"])
def test_a_window_has_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="must have a window of 1 second to 31 days"):
        parse_limits(text)
