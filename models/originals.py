"""The users of the service that Gatehouse replaces, read as it kept them: from its database, a dump or a CSV file.

Its table `users` is what gorm makes of a model with `Username` and `Password`: `id`, `created_at`, `updated_at`,
`deleted_at`, `username`, `password`, and whatever else it was given. `id`, `username` and `password` are needed,
`created_at` and `deleted_at` are taken where they are, and nothing else is looked at.
"""

import csv
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

import msgspec

from models.database import load_sql, read_only
from models.errors import InvalidInput

PAGE = 1_000
PAGE_DEADLINE_S = 60.0
MAX_LINE_CHARS = 1_000_000
MAX_LINES_A_ROW = 1_000
MAX_CELL_CHARS = 1_000
"""What is kept of a cell, so that a page of them stays small: a name, hash or password that long is refused anyway."""

NEEDED = ("id", "username", "password")

_READ_USERS = load_sql("read_original_users")
_URL = re.compile(r"postgres(ql)?://")
_COPY = re.compile(r"COPY (?P<table>\S+) \((?P<columns>.*)\) FROM stdin;\n?")
_OURS = ("users", '"users"', "public.users", '"public"."users"')
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_OTHER_FORMATS = {
    b"PGDMP": "It is a dump in PostgreSQL's custom format: turn it into text with pg_restore --file=users.sql",
    b"\x1f\x8b": "It is compressed: unpack it with gunzip",
    b"PK\x03\x04": "It is compressed: unpack it with unzip",
}


class Original(msgspec.Struct, frozen=True):
    """A row as it was found: nothing of it is checked.

    Args:
        line: of the file, or the number of the row; from 1.
        id, username, password, created_at, deleted_at: as text; None for what is null or not there.
    """

    line: int
    id: str | None
    username: str | None
    password: str | None
    created_at: str | None = None
    deleted_at: str | None = None


async def read_originals(source: str) -> AsyncIterator[Sequence[Original]]:
    """The users of a source, a page at a time.

    Args:
        source: `postgres://…`, or the path of a `.csv` file with a line of names, or of a plain dump.

    Raises:
        InvalidInput: it is none of these, or has not the columns.
        StoreUnavailable: the database does not answer.
    """
    if _URL.match(source):
        async for page in _from_database(source):
            yield page
    else:
        rows = _from_file(Path(source))
        while page := list(islice(rows, PAGE)):
            yield page


async def _from_database(url: str) -> AsyncIterator[Sequence[Original]]:
    line, last = 0, -(2**63)
    async with read_only(url) as connection:
        while rows := await connection.fetch(_READ_USERS, last, PAGE, MAX_CELL_CHARS, timeout=PAGE_DEADLINE_S):
            yield [
                Original(at, str(row["id"]), row["username"], row["password"], row["created_at"], row["deleted_at"])
                for at, row in enumerate(rows, line + 1)
            ]
            line, last = line + len(rows), rows[-1]["id"]


def _from_file(path: Path) -> Iterator[Original]:
    try:
        with path.open("rb") as file:
            beginning = file.read(8)
        _check_format(beginning)
        # What is not UTF-8 becomes half surrogates, which no username may have: such a row is refused, not the file.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield from _from_csv(text) if path.suffix.lower() == ".csv" else _from_dump(text)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def _check_format(beginning: bytes) -> None:
    for magic, advice in _OTHER_FORMATS.items():
        if beginning.startswith(magic):
            raise InvalidInput(advice)


def _lines(text: IO[str]) -> Iterator[str]:
    while line := text.readline(MAX_LINE_CHARS):
        if len(line) == MAX_LINE_CHARS:
            raise InvalidInput(f"A line of more than {MAX_LINE_CHARS} characters is no user")
        yield line


def _from_csv(text: IO[str]) -> Iterator[Original]:
    began = 0

    def lines() -> Iterator[str]:
        for number, line in enumerate(_lines(text)):
            if number - began >= MAX_LINES_A_ROW:
                raise InvalidInput(f"Line {began + 1} begins a row that does not end: is a quote missing?")
            yield line

    reader = csv.reader(lines(), strict=True)
    try:
        where = _columns_of([name.strip().lower() for name in next(reader, [])])
        for cells in reader:
            began = reader.line_num
            if cells:
                # A CSV has no null: what is empty is not there.
                yield _original(reader.line_num, where, [cell or None for cell in cells])
    except csv.Error as error:
        raise InvalidInput(f"Line {reader.line_num} is no CSV: {error}") from error


def _from_dump(text: IO[str]) -> Iterator[Original]:
    """The rows of `COPY public.users (…) FROM stdin;`, up to its `\\.`. Other tables' rows are passed over as rows."""
    where: dict[str, int] | None = None
    inside = found = False
    for number, line in enumerate(_lines(text), 1):
        if inside:
            if line.rstrip("\r\n") == "\\.":
                inside, where = False, None
            elif where is not None:
                yield _original(number, where, [_unescaped(cell) for cell in line.rstrip("\r\n").split("\t")])
        elif begun := _COPY.fullmatch(line.replace("\r\n", "\n")):
            inside = True
            if begun["table"] in _OURS:
                found, where = True, _columns_of([name.strip().strip('"') for name in begun["columns"].split(",")])
    if inside:
        raise InvalidInput("The dump ends in the middle of a table: it is not whole")
    if not found:
        raise InvalidInput(
            "The file has no COPY block of public.users: make it with pg_dump --data-only --table=public.users"
            " (without --inserts); or name a CSV file .csv"
        )


def _columns_of(names: Sequence[str]) -> dict[str, int]:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise InvalidInput(f"The users have no column {', '.join(missing)}: there are {', '.join(names)[:200]}")
    return {name: names.index(name) for name in (*NEEDED, "created_at", "deleted_at") if name in names}


def _original(line: int, where: dict[str, int], cells: Sequence[str | None]) -> Original:
    """A row; one with fewer cells lacks the last ones."""
    kept = {name: cells[at] if at < len(cells) else None for name, at in where.items()}
    return Original(line, **{name: cell and cell[:MAX_CELL_CHARS] for name, cell in kept.items()})


def _unescaped(cell: str) -> str | None:
    """A cell of COPY's text format (PostgreSQL, COPY, File Formats)."""
    if cell == r"\N":
        return None
    return _ESCAPE.sub(_letter, cell) if "\\" in cell else cell


def _letter(escape: re.Match[str]) -> str:
    octal, hexadecimal, letter = escape.groups()
    if octal or hexadecimal:
        byte = int(octal, 8) & 0xFF if octal else int(hexadecimal, 16)
        return bytes([byte]).decode(errors="surrogateescape")
    return _LETTERS.get(letter, letter)
