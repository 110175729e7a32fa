"""Every module with scenarios: importing one registers what it holds."""

from tests.soak import (
    counters,
    crosstalk,
    enumeration,
    fuzzing,
    guessing,
    logins,
    recache,
    redis_faults,
    rollback,
    secrecy,
    slow_clients,
)

__all__ = [
    "counters",
    "crosstalk",
    "enumeration",
    "fuzzing",
    "guessing",
    "logins",
    "recache",
    "redis_faults",
    "rollback",
    "secrecy",
    "slow_clients",
]
