"""Writing an export: CSV or JSON Lines, to standard output or to a file that appears whole or not at all."""

import csv
import io
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from models.errors import InvalidInput

if TYPE_CHECKING:
    from models.exports import Calls

_FORMULA = re.compile(r"(^|[;\t])(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a spreadsheet's formula may begin (OWASP, CSV injection): in many countries cells end with `;`, and some
programs take the wide forms of the signs for the signs."""


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

    Raises:
        InvalidInput: what is there is no file, but a device, a pipe or a link: it would be gone.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InvalidInput(f"{path} is no file that could be replaced: name another one")
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
    rows.writerows((row.user_id, harmless(row.username or ""), row.calls) for row in page)
    return text.getvalue()


def harmless(name: str) -> str:
    """A name with ' before whatever a spreadsheet would take for a formula."""
    return _FORMULA.sub(r"\1'", name)
