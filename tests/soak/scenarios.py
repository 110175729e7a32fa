"""Every module with scenarios: importing one registers what it holds."""

from tests.soak import (
    companies,
    counters,
    crosstalk,
    enumeration,
    fuzzing,
    guessing,
    logins,
    postgres_faults,
    recache,
    redis_faults,
    restarts,
    rollback,
    schedules,
    secrecy,
    slow_clients,
    workers,
)

__all__ = [
    "companies",
    "counters",
    "crosstalk",
    "enumeration",
    "fuzzing",
    "guessing",
    "logins",
    "postgres_faults",
    "recache",
    "redis_faults",
    "restarts",
    "rollback",
    "schedules",
    "secrecy",
    "slow_clients",
    "workers",
]
