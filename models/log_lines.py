"""One line of the log, made from what there is to say: JSON for programs, aligned text for people.

Whoever chooses a path, a name or a header must not be able to end a line, colour a terminal or write another line's
fields (OWASP ASVS 5.0, 16.4.1). So JSON leaves as ASCII alone, text with every control character spelled out, and
each value with a bounded length.
"""

import json
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

MAX_VALUE_CHARS = 2_000
MAX_TRACEBACK_CHARS = 16_000
"""Of a traceback its end: there stands what went wrong."""

_HALF = re.compile("[\x7f\ud800-\udfff]")
_PLAIN_WORD = re.compile(r"[^\s\"=]+")

_DIM, _END = "\x1b[2m", "\x1b[0m"
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[36m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}


class Said(NamedTuple):
    """What one line says.

    Args:
        at_s: seconds since 1970.
        level: in lower case.
        message: a sentence; in JSON left out when the facts have an `event`, which then names the line.
        facts: names, ours, and plain values, anybody's.
        traceback: of an exception, with its line ends.
    """

    at_s: float
    level: str
    logger: str
    message: str
    facts: Mapping[str, Any]
    traceback: str = ""


def as_json(said: Said) -> str:
    """One JSON object, without a line end."""
    at = datetime.fromtimestamp(said.at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any] = {"ts": at, "level": said.level, "logger": said.logger}
    if "event" not in said.facts:
        fields["message"] = said.message
    fields |= {name: value for name, value in said.facts.items() if value is not None}
    if said.traceback:
        fields["traceback"] = said.traceback[-MAX_TRACEBACK_CHARS:]
    return json.dumps({name: _plain(name, value) for name, value in fields.items()}, separators=(",", ":"))


def as_text(said: Said, *, coloured: bool = False) -> str:
    """Time, level, logger, message and facts in one line, without its end; a traceback below it, indented."""
    dim, end = (_DIM, _END) if coloured else ("", "")
    colour = _COLOURS.get(said.level, "") if coloured else ""
    at = f"{time.strftime('%H:%M:%S', time.localtime(said.at_s))}.{int(said.at_s % 1 * 1000):03d}"
    name = _printable(said.logger.removeprefix("gatehouse."))
    line = f"{dim}{at}{end} {colour}{said.level:<7}{end} {name:<8} {_printable(said.message)}"
    facts = " ".join(f"{name}={_word(value)}" for name, value in said.facts.items() if value is not None)
    if facts:
        line += f"  {dim}{facts}{end}"
    for row in said.traceback[-MAX_TRACEBACK_CHARS:].splitlines():
        line += f"\n    {dim}{_printable(row)}{end}"
    return line


def _plain(name: str, value: Any) -> Any:
    """A value as JSON can have it."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = str(value)
    return _HALF.sub("\ufffd", text if name == "traceback" else _bounded(text))


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}… ({len(text)} characters)"


def _printable(text: str) -> str:
    text = _bounded(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _word(value: Any) -> str:
    """A value as one word, in quotes if it would not be one."""
    text = _printable(str(value))
    return text if _PLAIN_WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)
