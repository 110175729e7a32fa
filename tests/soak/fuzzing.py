"""Row 13: what clients send by the thousand, made from the service's own description, and parsers on anything at all."""

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
from tests.fuzz.targets import TARGETS
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import ROOT, Process, Stage

FLAWED = "a flaw for each check"
LAX = "lax parsers"
SEED = 1
PASSWORD = "correct horse battery"
OPERATIONS = 10

# All checks. Three can see nothing here, since no address has the id of anything in it that is made or deleted:
# use_after_free, ensure_resource_availability and object_level_authorization. missing_required_header has only the
# token to leave out, which ignored_auth does as well.
CHECKS = "all"
_AUTH = """
[auth.dynamic.openapi.session]
path = "/login"
extract_selector = "/sessionToken"
payload = {{ username = "{username}", password = "{password}" }}
"""


class _Failure(msgspec.Struct):
    title: str = ""
    message: str = ""
    check_name: str = ""
    operation: str = ""


async def _ended(folder: Path, arguments: list[str], **environ: str) -> tuple[int, str]:
    """Run a Python module in a process group of its own; returns its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        stderr=asyncio.subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)} | environ,
    )  # fmt: skip
    try:
        printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode(errors="replace")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
