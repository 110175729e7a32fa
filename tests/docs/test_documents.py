"""Every command in the documents is run for real, in the document's order, and prints what the document shows."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.docs.commands import commands, unlike
from tests.docs.machine import PATH, Machine, machine
from tests.docs.markdown import ROOT, Block, anchors, blocks, documents, links
from tests.docs.terminal import Terminal

NOT_RUN = {
    "README.md": {"make test"},
    "operate.md": {
        "SECRET_KEYS=… POSTGRES_PASSWORD=… docker compose up --build",
        "python3 -m venv .venv && .venv/bin/pip install --require-hashes -r requirements.txt",
    },
}
"""Document → the first lines of the blocks that are not run here."""

DOCUMENTS = {path.name: path.read_text() for path in documents()}
TYPED = {name: text for name, text in DOCUMENTS.items() if any(block.language == "sh" for block in blocks(text))}


@pytest.mark.parametrize("name", TYPED)
async def test_the_commands_do_what_the_document_shows(name: str) -> None:
    if shutil.which("nginx", path=PATH) is None and "CI" not in os.environ and "nginx -" in TYPED[name]:
        pytest.skip("nginx is not installed (Debian: apt install nginx)")
    with machine(with_servers=name == "operate.md") as here:
        async with Terminal(here.folder, here.environ) as terminal:
            for block in blocks(TYPED[name]):
                if block.language == "sh" and not block.how.startswith("not-run:"):
                    await _type(block, f"{name}:{block.line}", here, terminal)


async def _type(block: Block, place: str, here: Machine, terminal: Terminal) -> None:
    if block.how:
        kept = re.fullmatch(r"keeps-running(?: port=(\d+))?(?: until=(\w+))?", block.how)
        assert kept is not None, place
        port = int(here.ports[kept[1]]) if kept[1] else None
        await terminal.keep_running(here.here(block.text.strip()), port, kept[2])
        return
    for command in commands(block.text):
        failed, printed = await terminal.type(here.here(command.text))
        assert failed == 0, f"{place}: {command.text}\n{printed}"
        if command.shown is not None:
            problem = unlike([here.here(line) for line in command.shown], printed)
            assert problem is None, f"{place}: {command.text}\n{problem}\n{printed}"


def test_what_is_not_run_is_told_with_its_reason() -> None:
    not_run: dict[str, set[str]] = {}
    for path in documents():
        for block in blocks(path.read_text()):
            if block.language == "sh" and block.how.startswith("not-run:"):
                assert len(block.how) > len("not-run: why"), f"{path.name}:{block.line}"
                not_run.setdefault(path.name, set()).add(block.text.splitlines()[0])
    assert not_run == NOT_RUN


def test_commands_stand_only_in_blocks_that_are_run() -> None:
    """Another language's block is not typed: it is an excerpt of a file that is tested, or an example that is."""
    tested = {
        "": set(),
        "sh": set(),
        "python": {"README.md"},  # tests/system/test_own_routes.py
        "nginx": {path.name for path in documents()},  # below
    }
    for path in documents():
        for block in blocks(path.read_text()):
            assert block.language in tested, f"{path.name}:{block.line}"
            assert block.language in ("", "sh") or path.name in tested[block.language]
            if block.language == "":
                assert not re.search(r"^(\$|curl|make|python) ", block.text, re.MULTILINE), f"{path.name}:{block.line}"
            if block.language == "nginx":
                assert _squeezed(block.text) in _squeezed((ROOT / "docs/nginx.conf").read_text())


def _squeezed(text: str) -> str:
    return re.sub(r"(?m)^\s*#?\s*", "", text)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in links(path.read_text()):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        there = path.parent / target if target else path
        assert there.exists(), link
        if anchor:
            assert anchor in anchors(there.read_text()), link


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["{}"], "{}\n{}\n"),
        (["{}"], "HTTP/1.1 200 OK\nA: b\n\n[]\n"),
        (["HTTP/1.1 200 OK", "A: c", "{}"], "HTTP/1.1 200 OK\nA: b\n\n{}\n"),
        (["a", "…"], "b\na\n"),
        ([], "a\n"),
    ],
)
def test_what_is_not_shown_is_noticed(shown: list[str], printed: str) -> None:
    assert unlike(shown, printed) is not None
