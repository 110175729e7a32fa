"""What was measured at one size, and the figures of it that the model predicts."""

import msgspec


class Gate(msgspec.Struct, frozen=True):
    """Admitted calls.

    Args:
        script_us: of Redis's time a call.
        redis_cpu_us, web_cpu_us: of the processors a call, in Redis and in the web process.
        imbalance: calls of the bucket with most, to the mean bucket's.
    """

    callers: int
    calls: int
    rps: float
    p99_ms: float
    script_us: float
    redis_cpu_us: float
    web_cpu_us: float
    imbalance: float


class Job(msgspec.Struct, frozen=True):
    """One run of a job of the worker's.

    Args:
        redis_cpu_s, worker_cpu_s, postgres_cpu_s: what each worked for it.
        longest_ms: the longest command of Redis; 0 when none took a millisecond.
    """

    rows: int
    seconds: float
    redis_cpu_s: float
    worker_cpu_s: float
    postgres_cpu_s: float
    longest_ms: float
    longest: str

    @property
    def cpu_s(self) -> float:
        """Of all three: about the time that it takes where nobody else is, as each step waits for the one before."""
        return self.redis_cpu_s + self.worker_cpu_s + self.postgres_cpu_s


class Measured(msgspec.Struct, frozen=True):
    """One size.

    Args:
        lost: how many of the 64 buckets were lost and rebuilt.
        fallbacks_per_s: sessions read in PostgreSQL and cached by one process.
        reads_ms: address → median, HTTP included.
        counted: what `/count` estimated.
        redis_bytes: kind of key → bytes of one: a session, a total and so on; of `callers` those of a bucket.
        redis_used: Redis's memory with everything in it.
        redis_resident: what the operating system gave it.
        postgres_bytes: table → bytes with its indexes.
        load_average: [before, after].
    """

    users: int
    lost: int
    dirty: int
    gate: Gate
    fallbacks_per_s: float
    jobs: dict[str, Job]
    reads_ms: dict[str, float]
    counted: int
    redis_bytes: dict[str, float]
    redis_used: int
    redis_resident: int
    postgres_bytes: dict[str, int]
    load_average: list[float]
    measured_at: str
    took_s: float

    def figures(self) -> dict[str, float]:
        """By name, what `tests.scale.model.predict` predicts."""
        seconds = {f"{name}, s": job.seconds for name, job in self.jobs.items()}
        worked = {f"{name}, CPU s": job.cpu_s for name, job in self.jobs.items()}
        return (
            seconds
            | worked
            | {
                "gate, script µs": self.gate.script_us,
                "gate, Redis CPU µs": self.gate.redis_cpu_us,
                "gate, web CPU µs": self.gate.web_cpu_us,
                "bucket imbalance": self.gate.imbalance,
                "fallbacks/s": self.fallbacks_per_s,
                "Redis memory, MB": self.redis_used / 1e6,
                "PostgreSQL, MB": sum(self.postgres_bytes.values()) / 1e6,
                "callers counted": float(self.counted),
            }
        )
