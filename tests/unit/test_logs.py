"""The log: lines that nobody can forge or break, and a writer that never waits for its reader."""

import asyncio
import fcntl
import json
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import line_writer
from models.line_writer import LineWriter
from models.log_lines import MAX_TRACEBACK_CHARS, MAX_VALUE_CHARS, Said, as_json, as_text
from models.logs import Log, LogHandler

AT_S = 1_700_000_000.5
HOSTILE = [
    'x\n{"level":"info","event":"login","outcome":"done"}',
    "\r\x1b[2J\x1b[31mgone\x07",
    "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e",
    "\u202egnp.exe\u2066",
    "\ud800 half",
    '"},{"user_id":1,"x":"\\',
    "user_id=1 outcome=done",
]
SURROGATES_TOO = st.text(st.characters(exclude_categories=()), max_size=40)


def said(message: str = "it", facts: dict[str, object] | None = None, traceback: str = "") -> Said:
    return Said(AT_S, "warning", "gatehouse.test", message, facts or {}, traceback)


def is_one_plain_line(line: str) -> bool:
    return len(line.splitlines()) == 1 and line.isprintable()


@given(SURROGATES_TOO, SURROGATES_TOO)
def test_nothing_ends_a_line_or_moves_a_cursor(message: str, value: str) -> None:
    line = said(message, {"path": value})
    assert is_one_plain_line(as_json(line))
    assert as_json(line).isascii()
    assert is_one_plain_line(as_text(line))
    as_text(line).encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_value_stays_one_value(text: str) -> None:
    read = json.loads(as_json(said(text, {"path": text})))
    assert set(read) == {"ts", "level", "logger", "message", "path"}
    assert read["path"] == read["message"] == text.replace("\ud800", "\ufffd")
    shown = as_text(said("it", {"path": text}))
    assert is_one_plain_line(shown)
    assert shown.count(" path=") == 1
    assert " user_id=" not in shown.replace(json.dumps(text), "")


def test_a_line_has_its_time_in_utc_to_the_millisecond_and_its_facts_in_order() -> None:
    line = as_json(said("it broke", {"job": "sync", "took_ms": 3, "none": None, "odd": float("nan"), "big": 2**70}))
    assert line == (
        '{"ts":"2023-11-14T22:13:20.500Z","level":"warning","logger":"gatehouse.test","message":"it broke",'
        f'"job":"sync","took_ms":3,"odd":"nan","big":{2**70}}}'
    )


def test_an_event_needs_no_message() -> None:
    assert "message" not in json.loads(as_json(said("{…}", {"event": "login"})))


def test_a_huge_value_is_cut() -> None:
    line = said("m" * 10**6, {"path": "p" * 10**6}, "t" * 10**6 + "ValueError: why")
    read = json.loads(as_json(line))
    assert all(len(read[name]) < MAX_VALUE_CHARS + 40 for name in ("message", "path"))
    assert len(read["traceback"]) == MAX_TRACEBACK_CHARS
    assert read["traceback"].endswith("ValueError: why")
    assert len(as_text(line)) < 3 * MAX_VALUE_CHARS + MAX_TRACEBACK_CHARS


def test_a_traceback_on_a_terminal_is_indented_and_so_forges_no_line() -> None:
    shown = as_text(said("it", traceback="ValueError: x\n12:00:00.000 info    auth     login done"))
    first, *rows = shown.splitlines()
    assert first.endswith(" warning test     it")
    assert len(rows) == 2
    assert all(row.startswith("    ") for row in rows)


def test_colours_are_the_terminals_alone() -> None:
    assert "\x1b[33mwarning" in as_text(said(), coloured=True)
    assert "\x1b" not in as_text(said())


class Pipe:
    """A pipe that is full after a few kilobytes, and a writer for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_writer, "PIPE_BYTES", 4_096)
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4_096)
        self.writer = LineWriter(self.writing, lambda count: f"dropped {count}")
        self.read_bytes = b""

    def read(self) -> bool:
        """Read what is there; returns whether something was."""
        if not select.select([self.reading], [], [], 0)[0]:
            return False
        self.read_bytes += os.read(self.reading, 1 << 20)
        return True

    def read_all(self) -> list[str]:
        while self.read() or not self.writer.flush() or self.read():
            pass
        return self.read_bytes.decode().splitlines()

    def close(self) -> None:
        for descriptor in (self.reading, self.writing):
            os.close(descriptor)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    opened = Pipe(monkeypatch)
    yield opened
    opened.close()


async def test_a_full_pipe_holds_nobody_up_and_what_was_dropped_is_told(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_writer, "MAX_WAITING_LINES", 500)
    for number in range(2_000):  # a write that waits would end the test here
        pipe.writer.add(f"line {number:05} {'.' * 90}")
    assert pipe.writer.dropped > 1_000
    written = pipe.read_all()
    kept = [line for line in written if line.startswith("line ")]
    assert kept == [f"line {number:05} {'.' * 90}" for number in range(len(kept))]
    assert [line for line in written if line not in kept] == [f"dropped {pipe.writer.dropped}"]
    assert len(kept) + pipe.writer.dropped == 2_000
    pipe.writer.add("later")
    assert pipe.read_all()[-1] == "later"


async def test_a_slow_reader_gets_every_line_whole_and_in_order(pipe: Pipe) -> None:
    lines = [f"{number} {'x' * (number * 37 % 9_000)}" for number in range(400)]
    for line in lines:
        pipe.writer.add(line)
        pipe.read()
    assert pipe.read_all() == lines
    assert pipe.writer.dropped == 0


async def test_each_write_to_a_pipe_is_of_whole_lines_that_nobody_comes_between(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[bytes] = []
    write = os.write

    def note(descriptor: int, data: bytes) -> int:
        pieces.append(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", note)
    for number in range(300):
        pipe.writer.add(f"{number} {'x' * 200}")
        pipe.read()
    pipe.read_all()
    assert len(pieces) > 10
    assert all(piece.endswith(b"\n") and len(piece) <= select.PIPE_BUF for piece in pieces)


async def test_a_line_leaves_soon_by_itself(pipe: Pipe) -> None:
    pipe.writer.add("alone")
    assert not pipe.read()
    await until(pipe.read)
    assert pipe.read_bytes == b"alone\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    os.close(pipe.reading)
    for _ in range(200):
        pipe.writer.add("nobody reads this")
    pipe.writer.write("nor this")
    began_s = time.monotonic()
    pipe.writer.finish()
    assert time.monotonic() - began_s < 0.5
    assert pipe.writer.dropped == 201
    pipe.reading = os.dup(pipe.writing)


def test_the_end_waits_a_little_for_a_slow_reader(pipe: Pipe) -> None:
    for number in range(300):
        pipe.writer._waiting.append(f"{number} {'x' * 100}")

    def read_late() -> None:
        time.sleep(0.05)
        while len(pipe.read_bytes.splitlines()) < 300:
            pipe.read_bytes += os.read(pipe.reading, 1_000)

    reader = threading.Thread(target=read_late)
    reader.start()
    pipe.writer.finish()
    reader.join()
    assert [line.split()[0] for line in pipe.read_bytes.decode().splitlines()] == [str(n) for n in range(300)]


def test_records_of_threads_come_whole(pipe: Pipe) -> None:
    log = Log(pipe.writing)
    handler = LogHandler(log, lambda: None)

    def say(name: str) -> None:
        for number in range(200):
            handler.handle(logging.LogRecord(name, logging.INFO, "", 0, "number %d", (number,), None))

    threads = [threading.Thread(target=say, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pipe.read()
    while not log.writer.flush() or pipe.read():
        pipe.read()
    read = [json.loads(line) for line in pipe.read_bytes.splitlines()]
    for name in "abc":
        mine = [line["message"] for line in read if line["logger"] == name]
        assert mine == [f"number {number}" for number in range(200)]


def handled(pipe: Pipe, record: logging.LogRecord, *, text: bool = False) -> str:
    log = Log(pipe.writing, text=text)
    LogHandler(log, lambda: "abc-1").handle(record)
    pipe.read()
    return pipe.read_bytes.decode()


def test_a_record_has_the_requests_id_its_facts_and_its_exception(pipe: Pipe) -> None:
    try:
        raise ValueError("of no use")
    except ValueError as error:
        record = logging.LogRecord(
            "gatehouse.api", logging.ERROR, "", 0, "on %s", ("/x\n",), (type(error), error, None)
        )
    record.facts = {"job": "sync"}
    line = handled(pipe, record)
    assert line.count("\n") == 1
    read = json.loads(line)
    assert (read["message"], read["request_id"], read["job"]) == ("on /x\n", "abc-1", "sync")
    assert read["traceback"] == "ValueError: of no use"


def test_an_event_is_readable_on_a_terminal(pipe: Pipe) -> None:
    record = logging.LogRecord("gatehouse.auth", logging.WARNING, "", 0, "{…}", (), None)
    record.facts = {"event": "login", "outcome": "refused", "user_id": 7, "request_id": "abc-1"}
    line = handled(pipe, record, text=True)
    assert line.endswith(" warning auth     login refused  user_id=7 request_id=abc-1\n")
