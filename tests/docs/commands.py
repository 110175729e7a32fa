"""What a document's `sh` blocks say is to be typed, and what is to come of it.

Behind ```sh may stand, unseen by readers:

    (nothing)                 typed as a whole; nothing in it may fail
    keeps-running port=8000   started beside the rest; goes on when something listens there
    keeps-running until=word  the same, when it has printed that word; both may be given
    not-run: why              not typed; `NOT_RUN` in test_documents.py has each of them

A block that starts with `$ ` has commands with what they print. Of an HTTP head lines may be left out, nothing else
may; a line `…` stands for any number of lines, and `…` in a line for any text.
"""

import re
from typing import NamedTuple

VARYING = (
    (re.compile(r"(?<![\w-])[\w-]{96}(?![\w-])"), "<token>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r";t=\d+"), ";t=<seconds>"),
    (re.compile(r"(?i)(retry-after: )\d+"), r"\1<seconds>"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s)\b"), "<time>"),
)
"""What is different each time, and the word that stands for it on both sides."""


class Command(NamedTuple):
    """One command of a block, and the lines that the document shows for it; None when it shows none."""

    text: str
    shown: list[str] | None


def commands(text: str) -> list[Command]:
    """The commands of a block."""
    if not text.startswith("$ "):
        return [Command(text, None)]
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part)
        assert typed is not None
        found.append(Command(typed[0].strip(), part[typed.end() :].strip().splitlines()))
    return found


def unlike(shown: list[str], printed: str) -> str | None:
    """How what was printed is not what the document shows, or None."""
    expected = [_steady(line) for line in shown if line]
    head, got = printed.startswith("HTTP/"), [_steady(line) for line in printed.splitlines()]
    position, anything = 0, False
    for line in got:
        if position < len(expected) and expected[position] == "…":
            position, anything = position + 1, True
        if position < len(expected) and _like(expected[position], line):
            position, anything = position + 1, False
        elif line and not head and not anything:
            return f"not shown: {line!r}, where {''.join(expected[position : position + 1])!r} should be"
        head = head and line != ""
    left = [line for line in expected[position:] if line != "…"]
    return f"shown, and not printed: {left}" if left else None


def _like(shown: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), line) is not None


def _steady(line: str) -> str:
    line = line.rstrip()
    for pattern, word in VARYING:
        line = pattern.sub(word, line)
    return line
