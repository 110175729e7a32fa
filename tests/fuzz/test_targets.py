"""The parsers on what anybody may send or set, in short; `python -m tests.fuzz` and `make soak` have more patience."""

import pytest

from tests.fuzz.making import try_out
from tests.fuzz.targets import TARGETS, WrongError

INPUTS = 200


@pytest.mark.parametrize("name", TARGETS)
def test_what_must_hold_holds_for_any_input(name: str) -> None:
    assert try_out(TARGETS[name], INPUTS) >= INPUTS


@pytest.mark.parametrize("name", TARGETS)
def test_a_lax_parser_is_caught(name: str) -> None:
    target = TARGETS[name]
    with target.planted(), pytest.raises((WrongError, LookupError, ValueError)):
        try_out(target, INPUTS)


def test_no_token_with_one_byte_changed_is_verified() -> None:
    """Every byte in every place; fuzzing goes on to more than one."""
    change = TARGETS["changed-token"].check
    for place in range(96):
        for byte in range(256):
            change(bytes([0, place, byte]))
