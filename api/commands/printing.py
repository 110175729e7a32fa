"""How results are printed: tables on a terminal, aligned text into a pipe, one JSON document with `--json`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

_STYLES = {
    ("state", "ok"): "green",
    ("state", "warning"): "yellow",
    ("state", "failed"): "bold red",
    ("state", "unknown"): "dim",
}

Advance = Callable[[int], None]
"""Tells a progress bar how much more is done."""


def document(value: Any) -> None:
    """Print one JSON document, in several lines for a person."""
    encoded = msgspec.json.encode(value)
    text = msgspec.json.format(encoded, indent=2) if sys.stdout.isatty() else encoded
    sys.stdout.write(text.decode() + "\n")


def shown(text: str) -> str:
    """A text that may be anybody's: what would move a terminal's cursor, colour it or end its line is spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(sentence: str) -> None:
    """Print a result's sentence."""
    sys.stdout.write(f"{_shown_lines(sentence)}\n")


def note(sentence: str) -> None:
    """Tell what is no result: on standard error."""
    sys.stderr.write(f"{_shown_lines(sentence)}\n")


def _shown_lines(text: str) -> str:
    return "\n".join(shown(line) for line in text.split("\n"))


def result(facts: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    """Print what a command did."""
    if as_json:
        document(facts)
    else:
        say(sentence)


def table(kind: type[msgspec.Struct], rows: Sequence[msgspec.Struct], *, leave_out: Sequence[str] = ()) -> None:
    """Print rows of one kind, a column each field."""
    names = [name for name in kind.__struct_fields__ if name not in leave_out]
    titles = [name.replace("_", " ") for name in names]
    cells = [[_cell(getattr(row, name)) for name in names] for row in rows]
    numeric = [all(isinstance(getattr(row, name), int | float) for row in rows) for name in names]
    if sys.stdout.isatty():
        _rich_table(titles, cells, numeric)
    else:
        _plain_table(titles, cells, numeric)


def page(name: str, kind: type[msgspec.Struct], found: Sequence[Any], limit: int, key: str, *, as_json: bool) -> None:
    """Print a page of rows, and where the next one begins if there is one.

    Args:
        name: of the rows, in JSON.
        found: the rows, one more than `limit` of them if there are more.
        key: the field by whose last value the next page is asked for.
    """
    rows = found[:limit]
    after = getattr(rows[-1], key) if len(found) > limit else None
    if as_json:
        document({name: rows, "after": after})
        return
    table(kind, rows)
    if after is not None:
        note(f"There are more: --after {after}")


def fields(row: msgspec.Struct) -> None:
    """Print one thing, a line each field."""
    lines = [(name.replace("_", " "), _cell(getattr(row, name))) for name in row.__struct_fields__]
    width = max(len(title) for title, _ in lines)
    for title, cell in lines:
        say(f"{title:{width}}  {cell}")


def _plain_table(titles: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    lines = [titles, *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    for line in lines:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        say("  ".join(padded).rstrip())


def _rich_table(titles: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title, right in zip(titles, numeric, strict=True):
        drawn.add_column(title, justify="right" if right else "left", overflow="fold")
    for line in cells:
        # As text: a name is no markup.
        drawn.add_row(*(Text(cell, _STYLES.get((title, cell), "")) for title, cell in zip(titles, line, strict=True)))
    Console().print(drawn)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number}" for key, number in value.items()) or "-"
    return f"{value:.3f}" if isinstance(value, float) else shown(str(value))


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A bar on standard error while something long is done; nothing where there is no terminal.

    Args:
        total: what the steps add up to; None when nobody knows.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)
