"""What is written for others: files that are put in place, cells of a spreadsheet, lines on a terminal."""

import os
from pathlib import Path

import pytest

from api.commands import printing
from api.commands.exporting import harmless, placed
from api.commands.running import MISUSED, stop
from models.errors import InvalidInput


@pytest.mark.parametrize("kind", ["pipe", "link", "link to a pipe"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, kind: str) -> None:
    """As root `-o /dev/null` would be the end of /dev/null, and `-o /dev/stdout` of that."""
    there = pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if kind != "pipe":
        there = tmp_path / "link"
        there.symlink_to(pipe if kind == "link to a pipe" else tmp_path / "file")
    (tmp_path / "file").write_text("was here")
    before = os.lstat(there)
    with pytest.raises(InvalidInput, match="name another one"), placed(there) as file:
        file.write("new")
    assert os.lstat(there) == before
    assert (tmp_path / "file").read_text() == "was here"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("ada", "ada"),
        ("a-b=c+d@e", "a-b=c+d@e"),
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("x;=1+1;y", "x;'=1+1;y"),
        (";;-1", ";;'-1"),
        ("\uff1d1\uff0b1", "'\uff1d1\uff0b1"),
    ],
)
def test_no_cell_of_a_spreadsheet_begins_as_a_formula(name: str, written: str) -> None:
    """Where the comma is in numbers, spreadsheets part cells at semicolons."""
    assert harmless(name) == written


def test_nothing_that_is_printed_reaches_the_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Column names of a dump, errors of another server and old names are texts of anybody."""
    hostile = "a\x1b]0;title\x07\x9b31m\u202e"
    printing.say(hostile)
    printing.note(hostile)
    with pytest.raises(BaseException, match=str(MISUSED)):
        stop(f"two\n{hostile}", MISUSED)
    said = capsys.readouterr()
    assert said.out == "a\\x1b]0;title\\x07\\x9b31m\\u202e\n"
    assert said.err == said.out + "two\n" + said.out
    assert printing._cell(hostile + "\n") + "\n" == said.out.replace("\n", "\\n\n")
