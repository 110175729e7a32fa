"""Row 13: requests made from the service's own description, and parsers on anything at all."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.fuzz import flawed_web
from tests.fuzz.targets import TARGETS, Found
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import ROOT, Process, Stage

FLAWED = "a flaw for each check"
LAX = "lax parsers"
SEED = 1
OPERATIONS = 18
MOST_S = 120
"""For each target of the parsers."""

# Three of them can see nothing here, since no address has the id of a thing that is made or deleted: use_after_free,
# ensure_resource_availability and object_level_authorization. And missing_required_header has only the token to leave
# out, as ignored_auth does.
CHECKS = "all"

_USER = {"username": "schemathesis", "password": "correct horse battery"}
_CONFIGURATION = f"""
[auth.dynamic.openapi.session]
path = "/login"
extract_selector = "/sessionToken"
payload = {{ username = "{_USER["username"]}", password = "{_USER["password"]}" }}
"""


class _Failure(msgspec.Struct):
    type: str
    title: str
    operations: list[str]


class _Cases(msgspec.Struct):
    generated: int
    errored: int


class _Report(msgspec.Struct):
    """What schemathesis writes of a run, as far as it is looked at."""

    complete: bool
    failures: list[_Failure]
    errors: list[Any]
    test_cases: _Cases
    operations: dict[str, Any]
    auth: dict[str, Any]


async def _printed(folder: Path, command: str, **environ: str) -> str:
    """Run a Python module to its end, in a process group of its own; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command.split(), cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        return (await process.communicate())[0].decode(errors="replace")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _conform(stage: Stage, web: Process, more: str) -> tuple[_Report, str]:
    """Run schemathesis against a web process, with `more` options; returns its report, and what it printed."""
    folder = stage.folder / "schemathesis"
    folder.mkdir()
    async with httpx.AsyncClient(base_url=web.url) as client:
        (await client.post("/signup", json=_USER)).raise_for_status()
        (folder / "openapi.json").write_bytes((await client.get("/openapi.json")).raise_for_status().content)
    (folder / "schemathesis.toml").write_text(_CONFIGURATION)
    printed = await _printed(
        folder,
        f"schemathesis.cli --config-file schemathesis.toml run openapi.json --url {web.url} --checks {CHECKS}"
        f" --no-color --continue-on-failure --report json --report-json-path report.json --seed {SEED} {more}",
        SCHEMATHESIS_HOOKS="tests.fuzz.openapi_hooks",
    )
    return msgspec.json.decode((folder / "report.json").read_bytes(), type=_Report), printed


@scenario(
    13,
    "schemathesis",
    "requests made from the OpenAPI document, valid and invalid: every answer is one that the document describes",
    full=20_000,
    short=10,
    planted=(FLAWED,),
)
async def schemathesis(stage: Stage, rounds: int, planted: str) -> Outcome:
    """A round is a random request, about; the fixed ones that each operation gets first, some 180, come on top."""
    outcome = Outcome()
    web = stage.web(module="tests.fuzz.flawed_web" if planted else "api")
    quickly = "--phases coverage --no-shrink --exclude-path /login --exclude-path-regex ^/docs"
    most = f"--max-examples {max(1, rounds // OPERATIONS)}"
    report, printed = await _conform(stage, web, quickly if planted else most)
    found = [f"{it.title} ({it.type}): {', '.join(it.operations)}" for it in report.failures]
    outcome.violations = found + [f"schemathesis could not do its work: {error}" for error in report.errors]
    whole = report.complete and (planted or report.operations["tested"] == OPERATIONS)
    outcome.check(bool(whole), f"not all was tried: {report}")
    unseen = flawed_web.SEEN_AS - {it.type for it in report.failures}
    if planted and unseen:
        outcome.violations.clear()  # a flaw that is not seen must not hide behind the others
        outcome.figures["not seen"] = sorted(unseen)
    elif found and not planted:
        outcome.violations.append(printed[printed.find("= FAILURES =") :][:3_000])
    outcome.check(planted != "" or "Traceback" not in web.said, f"the web process failed: {web.said[-2_000:]}")
    outcome.tried = report.test_cases.generated
    outcome.figures |= {"log-ins again": report.auth["reauth_count"]}
    return outcome


@scenario(
    13,
    "fuzz",
    "parsers of tokens, heads, bodies, limits and settings on anything that coverage suggests: none is surprised",
    full=6_000_000,
    short=12_000,
    planted=(LAX,),
)
async def fuzz(stage: Stage, rounds: int, planted: str) -> Outcome:
    """A round is an input; each target gets its share, in a process of its own."""
    runs, more = -(-rounds // len(TARGETS)), "--planted" if planted else ""
    printed = await _printed(ROOT, f"tests.fuzz --runs {runs} --seconds {MOST_S} --keep {stage.folder / 'fuzz'} {more}")
    found = msgspec.json.decode(printed, type=dict[str, Found])
    outcome = Outcome(tried=sum(it.tried for it in found.values()))
    outcome.violations = [f"{name}: {it.failed}" for name, it in found.items() if it.failed]
    if planted and (unseen := [name for name, it in found.items() if not it.failed]):
        outcome.violations.clear()
        outcome.figures["not seen"] = unseen
    outcome.figures |= {name: it.tried for name, it in found.items()}
    return outcome
