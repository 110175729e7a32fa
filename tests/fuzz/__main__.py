"""Give targets inputs that coverage suggests: `python -m tests.fuzz token --seconds 60`; without a name, all targets.

Prints as JSON what each of them tried and what did not hold. With atheris, where it has a wheel; elsewhere hypothesis
makes the inputs, which knows nothing of coverage. The inputs that were of use are kept, and those that did not hold.
"""

import argparse
import os
import re
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

import msgspec

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["api", "models"]) if atheris else nullcontext():
    from tests.fuzz.targets import TARGETS, Found, Target

from tests.fuzz.making import SEED, try_out

KEPT = Path(__file__).resolve().parents[2] / ".soak" / "fuzz"
_LONGEST = 8192
_DONE = re.compile(r"^Done (\d+) runs", re.MULTILINE)
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*", re.MULTILINE)


def main() -> int:
    """Try targets, each in a process of its own, as libFuzzer ends it; returns 1 if something did not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *TARGETS], metavar="name", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=1_000_000_000, help="inputs to try for each")
    parser.add_argument("--seconds", type=int, default=60, help="time to try them for each, 60 by default")
    parser.add_argument("--planted", action="store_true", help="with parsers made lax on purpose")
    parser.add_argument("--keep", type=Path, default=KEPT, help="folder for inputs, .soak/fuzz by default")
    arguments = parser.parse_args()
    found = {name: _try(name, arguments) for name in arguments.names or TARGETS}
    print(msgspec.json.encode(found).decode())  # noqa: T201
    return int(any(it.failed for it in found.values()))


def _try(name: str, arguments: argparse.Namespace) -> Found:
    folder: Path = arguments.keep / name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    child = os.fork()
    if child == 0:
        with log.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        _run(TARGETS[name], folder, arguments)
    _, status = os.waitpid(child, 0)
    said = log.read_text(errors="replace")
    if status == 0 and (done := _DONE.search(said)):
        return Found(int(done[1]), "")
    raised = _RAISED.findall(said)
    return Found(0, f"{raised[0] if raised else f'ended with {status}'}: see {log}")


def _run(target: Target, folder: Path, arguments: argparse.Namespace) -> None:
    with ExitStack() as stack:
        if arguments.planted:
            stack.enter_context(target.planted())
        if atheris:
            atheris.Setup(_command(target, folder, arguments), target.check)
            atheris.Fuzz()
        tried = try_out(target, arguments.runs, arguments.seconds)
        print(f"Done {tried} runs", flush=True)  # noqa: T201
    os._exit(0)


def _command(target: Target, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """The command line of libFuzzer."""
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or [b"\0"]))
    return [
        sys.argv[0],
        f"-seed={SEED}",
        f"-runs={arguments.runs}",
        f"-max_total_time={arguments.seconds}",
        f"-max_len={_LONGEST}",
        f"-dict={words}",
        f"-artifact_prefix={folder}/",
        str(corpus),
    ]


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
