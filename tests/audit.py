"""`make audit`: are there known vulnerabilities in what runs in production? Asks OSV, a database of advisories.

Ends with 0 if none is known, with 1 if one is or if something could not be checked. Without a network nothing can be
asked: then it says so, and ends with 0.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import msgspec

LOCK = Path(__file__).resolve().parents[1] / "requirements.txt"
UNREACHABLE = "the advisory service cannot be reached: nothing was checked"
_AWAY = re.compile(
    r"^(?:requests\.exceptions\.(?:ConnectionError|ProxyError|SSLError|ConnectTimeout|ReadTimeout|Timeout)"
    r"|pip_audit\._service\.interface\.ConnectionError)\b",
    re.MULTILINE,
)


class _Advisory(msgspec.Struct):
    id: str
    description: str = ""
    fix_versions: list[str] = []


class _Dependency(msgspec.Struct):
    name: str
    version: str = ""
    vulns: list[_Advisory] = []
    skip_reason: str = ""


class _Report(msgspec.Struct):
    dependencies: list[_Dependency]


def main(argv: list[str] | None = None) -> int:
    """Audit the lock file of the runtime; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lock", type=Path, default=LOCK, help="requirements.txt by default")
    parser.add_argument("--service", help="address of a service that speaks OSV's protocol, OSV by default")
    arguments = parser.parse_args(argv)
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", str(arguments.lock)]
    command += ["--vulnerability-service", "osv", "--progress-spinner", "off", "--format", "json"]
    command += ["--osv-url", arguments.service] if arguments.service else []
    ended = subprocess.run(command, capture_output=True, text=True)
    said, exit_code = judge(ended.stdout, ended.stderr)
    print(said)  # noqa: T201
    return exit_code


def judge(report: str, errors: str) -> tuple[str, int]:
    """What pip-audit's output means, and the exit code for it."""
    if not report.strip():
        return (UNREACHABLE, 0) if _AWAY.search(errors) else (f"pip-audit failed:\n{errors.rstrip()}", 1)
    dependencies = msgspec.json.decode(report, type=_Report).dependencies
    found = [f"{it.name}: not checked: {it.skip_reason}" for it in dependencies if it.skip_reason]
    for it in dependencies:
        for advisory in it.vulns:
            fixed = ", ".join(advisory.fix_versions) or "nowhere yet"
            found.append(f"{it.name} {it.version}: {advisory.id}, fixed in {fixed}: {advisory.description[:200]}")
    if found or not dependencies:
        return "\n".join(found or ["the lock file is empty"]), 1
    return f"no known vulnerabilities in {len(dependencies)} packages", 0


if __name__ == "__main__":
    sys.exit(main())
