"""What the tests need to know of a Markdown file: its code blocks, headings, links and tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^( *)```(\w*) ?(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


class Block(NamedTuple):
    """A fenced block.

    Args:
        line: where it starts.
        how: what stands behind the language, which readers do not see: see `tests.docs.commands`.
    """

    line: int
    language: str
    how: str
    text: str


def documents() -> list[Path]:
    """All of them, for readers and for tests."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The fenced blocks, in their order."""
    return [
        Block(text.count("\n", 0, match.start()) + 1, match[2], match[3].strip(), dedent(match[4]))
        for match in _FENCE.finditer(text)
    ]


def anchors(text: str) -> set[str]:
    """What `#…` may name: each heading as GitHub writes it."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCE.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in kept}


def links(text: str) -> list[str]:
    """The targets of all links and pictures."""
    return _LINK.findall(_FENCE.sub("", text))


def section(text: str, heading: str) -> str:
    """From a heading to the next of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found[2]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables, without their heads."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names(cell: str) -> list[str]:
    """What a cell has as code."""
    return _CODE.findall(cell)
