"""The gate's speed against that of another revision: `python -m tests.bench.against REVISION`.

Both run side by side, each with stores and users of its own, and are measured in turn with wrk, so that what else the
machine does falls on both. The figure is the median of the rounds' ratios.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import msgspec

from tests.bench.entry import exit_code_of
from tests.bench.load import measure
from tests.bench.processes import OUTPUT, ROOT, BenchError, end
from tests.bench.report import say

WARM_UP_S = 2

_HOLDER = """
import sys
from contextlib import ExitStack
import msgspec
from tests.bench.contestants import open_contestants
from tests.bench.stack import open_stack
with open_stack() as stack, ExitStack() as services:
    (one,) = open_contestants(["gatehouse"], stack, services)
    one.check()
    sys.stdout.buffer.write(b"ready " + msgspec.json.encode([list(one.ports), str(one.requests)]) + b"\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


class Side(msgspec.Struct, frozen=True):
    """One revision at work."""

    name: str
    ports: Sequence[int]
    requests: Path

    def rps(self, seconds: int) -> float:
        load = measure(self.requests, self.ports, seconds)
        load.demand_clean(self.name)
        return load.rps


@contextmanager
def running(name: str, checkout: Path) -> Iterator[Side]:
    """Start a revision's gate with everything that it needs; it all ends with this."""
    log = OUTPUT / "logs" / f"against-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER],
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        assert holder.stdout is not None
        ready = next((line for line in holder.stdout if line.startswith(b"ready ")), None)
        if ready is None:
            raise BenchError(f"{name} did not start: see {log.relative_to(ROOT)}")
        ports, requests = msgspec.json.decode(ready.removeprefix(b"ready "))
        yield Side(name, ports, Path(requests))
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        try:
            holder.wait(20)
        except subprocess.TimeoutExpired:
            end(holder)


@contextmanager
def checkout_of(revision: str) -> Iterator[Path]:
    """The files of a revision, in a temporary folder."""
    git = shutil.which("git") or "git"
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-against-"))
    try:
        archive = subprocess.run([git, "archive", revision], cwd=ROOT, capture_output=True, check=False)
        if archive.returncode != 0:
            raise BenchError(f"There is no revision {revision}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compare(revision: str, rounds: int, seconds: int) -> None:
    """Measure both in turn and say how they compare."""
    with ExitStack() as stack:
        other = stack.enter_context(running("before", stack.enter_context(checkout_of(revision))))
        own = stack.enter_context(running("now", ROOT))
        for side in (other, own):
            side.rps(WARM_UP_S)
        ratios = []
        for number in range(1, rounds + 1):
            # Whoever comes first changes from round to round.
            sides = (other, own) if number % 2 else (own, other)
            rates = {side.name: side.rps(seconds) for side in sides}
            ratios.append(rates["now"] / rates["before"])
            both = "  ".join(f"{name} {rates[name]:9,.0f}/s" for name in ("before", "now"))
            say(f"round {number}/{rounds}  {both}  {ratios[-1]:.3f}")
    say(f"now / before: {median(ratios):.3f} (median of {rounds}, {min(ratios):.3f} to {max(ratios):.3f})")


def main() -> int:
    """Run the comparison; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.bench.against", description=__doc__)
    parser.add_argument("revision", help="what git calls the other one: a commit, a tag, HEAD~3")
    parser.add_argument("--rounds", type=int, default=15, help="(default 15)")
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement (default 2)")
    arguments = parser.parse_args()
    return exit_code_of(lambda: compare(arguments.revision, arguments.rounds, arguments.seconds))


if __name__ == "__main__":
    sys.exit(main())
