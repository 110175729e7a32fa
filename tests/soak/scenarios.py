"""Every module with scenarios: importing one registers what it holds."""

from tests.soak import (
    counters,
    crosstalk,
    enumeration,
    guessing,
    logins,
    redis_faults,
    rollback,
    secrecy,
    slow_clients,
)

__all__ = [
    "counters",
    "crosstalk",
    "enumeration",
    "guessing",
    "logins",
    "redis_faults",
    "rollback",
    "secrecy",
    "slow_clients",
]
