"""The conditions that a figure was measured under."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Self


def describe(valkey_version: str) -> dict[str, object]:
    """Processor, cores, versions and load before the run."""
    packages = {name: version(name) for name in ("sanic", "redis", "hiredis", "uvloop")}
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "valkey": valkey_version,
        **packages,
        "load_average_before": round(os.getloadavg()[0], 2),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def busy_warning() -> str | None:
    """A sentence when other work would disturb the figures."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < 0.5 * cores:
        return None
    return f"note: the load average is {load:.1f} on {cores} cores; other work disturbs the figures"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


class Stolen:
    """The share of processor time that the hypervisor gave to others while a `with` block ran; 0 where unknown."""

    share = 0.0

    def __enter__(self) -> Self:
        self._before = _cpu_ticks()
        return self

    def __exit__(self, *_: object) -> None:
        spent = [after - before for before, after in zip(self._before, _cpu_ticks(), strict=True)]
        self.share = spent[7] / sum(spent) if sum(spent) else 0.0


def _cpu_ticks() -> list[int]:
    try:
        return [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return [0] * 8
