"""Every module with scenarios: importing one registers what it holds."""

from tests.soak import (
    rollback,
)

__all__ = [
    "rollback",
]
