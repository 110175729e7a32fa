"""The log of a process, set up once: every logger's records in one shape, on standard error.

On a terminal a line is text for people, elsewhere a JSON object. `LOG_FORMAT` and `LOG_LEVEL` choose otherwise.
"""

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from models.line_writer import LineWriter
from models.log_lines import Said, as_json, as_text
from models.settings import Settings

_QUIET = ("arq.worker",)
"""Loggers that tell of each job what `gatehouse.worker` tells already."""


class Log:
    """Where lines go, and how they look.

    Args:
        descriptor: an open file, usually standard error.
        text: for people instead of programs.
    """

    def __init__(self, descriptor: int, *, text: bool = False, coloured: bool = False) -> None:
        self.is_text = text
        self.format: Callable[[Said], str] = partial(as_text, coloured=coloured) if text else as_json
        self.writer = LineWriter(descriptor, self._about_dropped)

    def _about_dropped(self, count: int) -> str:
        message = f"{count} lines of the log found no room and were dropped"
        return self.format(Said(time.time(), "warning", "gatehouse.log", message, {"dropped": count}))


class LogHandler(logging.Handler):
    """Turns records into lines. The facts that a record was given as `extra={"facts": …}` become fields.

    Args:
        request_id: tells the id of the request that is being handled, if one is.
    """

    def __init__(self, log: Log, request_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._log = log
        self._request_id = request_id

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.writer.write(self._log.format(self._said(record)))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self._log.writer.flush()

    def _said(self, record: logging.LogRecord) -> Said:
        facts = {"request_id": self._request_id()} | getattr(record, "facts", {})
        facts["request_id"] = facts.pop("request_id")  # last, as in the access log
        message, traceback = record.getMessage(), ""
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
        if self._log.is_text and "event" in facts:
            message = " ".join(str(facts.pop(name)) for name in ("event", "outcome") if name in facts)
        return Said(record.created, record.levelname.lower(), record.name, message, facts, traceback)


def set_up(settings: Settings, request_id: Callable[[], str | None] = lambda: None) -> Log:
    """Send the records of all loggers, warnings and uncaught exceptions to standard error, in one shape.

    Args:
        request_id: see `LogHandler`.
    """
    text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    log = Log(sys.stderr.fileno(), text=text, coloured=text and _takes_colours(os.environ))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Other people's loggers never tell more than INFO: at DEBUG the ORM writes each query with its values.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[LogHandler(log, request_id)], force=True)
    logging.getLogger("gatehouse").setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    atexit.register(log.writer.finish)
    return log


def _takes_colours(environ: Mapping[str, str]) -> bool:
    """Whether standard error shows colours, and nobody wants none (no-color.org)."""
    return sys.stderr.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> Any:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("gatehouse").critical("the process ends", exc_info=(kind, error, traceback))
