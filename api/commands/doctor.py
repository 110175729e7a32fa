"""`gatehouse doctor`: is this deployment well, and if not, what is to be done."""

import os
from typing import TYPE_CHECKING

import typer

from api.commands import printing
from api.commands.printing import AsJson
from api.commands.running import DONE, FAILED, MISUSED, run, telling
from models.errors import SettingsError

if TYPE_CHECKING:
    from models.findings import Finding

EXAMPLES = "Examples:\n\ngatehouse doctor\n\ngatehouse doctor --json | jq '.[] | select(.state != \"ok\")'"


def doctor(as_json: AsJson = False) -> None:
    """Check settings, both stores, versions, migrations, clocks, counters and the worker; say what to do.

    Exit code 0 when nothing failed (warnings may be there), 1 when something did, 2 when the settings are wrong.
    """
    findings, code = _settings(), MISUSED
    if not findings:
        findings = run(lambda stores: stores.diagnosis.examine())
        code = FAILED if any(finding.state in ("failed", "unknown") for finding in findings) else DONE
    if as_json:
        printing.document(findings)
    else:
        _print(findings)
    raise typer.Exit(code)


def _settings() -> "list[Finding]":
    """A finding for each setting that is wrong."""
    from models.findings import Finding
    from models.settings import Settings

    with telling():
        try:
            Settings.from_environ(os.environ)
        except SettingsError as error:
            advice = "Set it in the environment of every process; docs/reference.md has the table of settings"
            return [Finding("settings", "failed", problem, advice) for problem in error.problems]
        return []


def _print(findings: "list[Finding]") -> None:
    from models.findings import Finding

    printing.table(Finding, findings, leave_out=("advice",))
    for advice in dict.fromkeys(f"{finding.check}: {finding.advice}." for finding in findings if finding.advice):
        printing.say(advice)
