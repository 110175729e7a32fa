"""Every module with scenarios: importing one registers what it holds."""

from tests.soak import (
    crosstalk,
    enumeration,
    guessing,
    rollback,
)

__all__ = [
    "crosstalk",
    "enumeration",
    "guessing",
    "rollback",
]
