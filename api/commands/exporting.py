"""Writing an export: CSV or JSON Lines, to standard output or to a file that appears whole or not at all."""

import csv
import io
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

if TYPE_CHECKING:
    from models.exports import Calls

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a spreadsheet's formula begins (OWASP, CSV injection)."""


@contextmanager
def written(path: Path | None, as_csv: bool) -> "Iterator[Callable[[Sequence[Calls]], None]]":
    """Somewhere to write pages to: standard output without a path."""
    with placed(path) if path else _standard_output() as file:
        if as_csv:
            file.write("userId,username,calls\r\n")
        encode = _csv if as_csv else _json_lines

        def write(page: "Sequence[Calls]") -> None:
            file.write(encode(page))

        yield write


@contextmanager
def placed(path: Path, mode: int = 0o666) -> Iterator[TextIO]:
    """A file that takes its place when it is complete; until then, and after an error, what was there stays.

    Args:
        mode: who may use it, before the process's mask.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise


@contextmanager
def _standard_output() -> Iterator[TextIO]:
    yield sys.stdout
    sys.stdout.flush()


def _json_lines(page: "Sequence[Calls]") -> str:
    return msgspec.json.Encoder().encode_lines(page).decode()


def _csv(page: "Sequence[Calls]") -> str:
    text = io.StringIO()
    rows = csv.writer(text)  # as RFC 4180 has it, lines end in CRLF
    rows.writerows((row.user_id, _harmless(row.username or ""), row.calls) for row in page)
    return text.getvalue()


def _harmless(name: str) -> str:
    return f"'{name}" if name.startswith(_FORMULA) else name
