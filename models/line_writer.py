"""Where the lines of a process leave: in order, whole, in few writes, and never waiting for whoever reads them.

A log that is a pipe fills up when its reader hangs, and a plain write would then stop the whole service. Here a write
is made only when there is room for it, in pieces of at most 4 KiB that end with a line: POSIX lets nobody's bytes come
between those of such a piece, also when several processes share the pipe. What finds no room waits, a bounded number of
lines; further ones are dropped, and counted in a line of their own as soon as there is room.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

MAX_WAITING_LINES = 8_192
"""Lines that wait for room, at a few hundred bytes each."""

BATCH_LINES = 64
Line = Any
"""A string without its line end; or a tuple, whose first element is called with the tuple to make one."""

FLUSH_S = 0.05
"""A line leaves at the latest so long after it was added."""

RETRY_S = 0.005
FINISH_S = 1.0
"""For a slow reader at the end of the process."""

PIPE_PIECE_BYTES = 4_096
FILE_PIECE_BYTES = 1 << 20
PIPE_BYTES = 1 << 20
"""What a pipe should hold, where that can be asked for: a tenth of a second of the busiest process's lines."""


class LineWriter:
    """Writes lines to a file descriptor.

    Args:
        descriptor: of a file, a pipe, a socket or a terminal; it stays as it is, since others may share it.
        about_dropped: the line that tells how many were dropped.
    """

    def __init__(self, descriptor: int, about_dropped: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._about_dropped = about_dropped
        self._waiting: list[Line] = []
        self._batch_at = BATCH_LINES
        self._unwritten, self._written = b"", 0
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.RLock()
        self._untold = self._lost = 0
        self.dropped = 0
        """Lines that found no room, since the start."""
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        with contextlib.suppress(OSError, AttributeError):
            if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def add(self, line: Line) -> None:
        """Have a line written soon: together with others, or after `FLUSH_S`. From the event loop's thread alone."""
        waiting = self._waiting
        waiting.append(line)
        if len(waiting) >= self._batch_at:
            self._crowded()
        elif self._timer is None:
            self._look_in(FLUSH_S)

    def write(self, line: str) -> None:
        """Write a line now, behind those that wait. From any thread."""
        with self._lock:
            self._waiting.append(line)
            self._crowded()

    def flush(self) -> bool:
        """Write as much as there is room for; returns whether that was all."""
        with self._lock:
            while self._drain():
                lines = self._waiting
                count = len(lines)
                if self._untold:
                    lines.append(self._about_dropped(self._untold))
                    self._untold, count = 0, count + 1
                if not count:
                    self._batch_at = BATCH_LINES
                    return True
                made = [line if isinstance(line, str) else line[0](line) for line in lines[:count]]
                del lines[:count]  # in place: another thread may add one meanwhile
                self._unwritten, self._written = ("\n".join(made) + "\n").encode(errors="replace"), 0
            self._batch_at = MAX_WAITING_LINES  # until there is room again, the timer alone tries
            return False

    def finish(self) -> None:
        """Write what waits, with some patience for the reader: at the end of the process."""
        end_at = time.monotonic() + FINISH_S
        while not self.flush() and (left_s := end_at - time.monotonic()) > 0:
            self._room.poll(left_s * 1000)

    def _crowded(self) -> None:
        with self._lock:  # else another thread's flush may take the line that is about to be dropped
            if self._batch_at < MAX_WAITING_LINES and self.flush():
                return
            if len(self._waiting) > MAX_WAITING_LINES:
                self._waiting.pop()
                self.dropped, self._untold = self.dropped + 1, self._untold + 1
            if self._timer is None:
                self._look_in(RETRY_S)

    def _look_in(self, seconds: float) -> None:
        try:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)
        except RuntimeError:  # no event loop: at the start, at the end, in another thread
            self.flush()

    def _look(self) -> None:
        self._timer = None
        if not self.flush():
            self._look_in(RETRY_S)

    def _drain(self) -> bool:
        """Write the pieces of what was taken; returns whether all of it is gone."""
        data, size = self._unwritten, FILE_PIECE_BYTES if self._is_file else PIPE_PIECE_BYTES
        try:
            while self._written < len(data):
                if not self._is_file and not self._room.poll(0):
                    return False
                # A line that is longer than a piece leaves in several.
                end = data.rfind(b"\n", self._written, self._written + size) + 1 or self._written + size
                self._written += os.write(self._descriptor, data[self._written : end])
                self._untold, self._lost = self._untold + self._lost, 0
        except BlockingIOError:  # somebody who shares it made it so
            return False
        except OSError:  # the reader is gone, or the disk is full: told once it is not
            lost = data.count(b"\n", self._written)
            self.dropped, self._lost = self.dropped + lost, self._lost + lost
        self._unwritten, self._written = b"", 0
        return True
