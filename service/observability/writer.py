"""Writes log lines by a thread of its own: nobody who logs waits for who reads the log."""

import atexit
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

MAX_WAITING = 8192
"""Lines that may wait to be written; beyond it they are dropped."""
MAX_BYTES_AT_ONCE = 65_536
FLUSH_SECONDS = 1.0
"""How long the end of the process waits for a reader."""

log = structlog.get_logger(__name__)


class LineWriter:
    """Writes lines to a file descriptor, or drops them where too many wait already.

    The pipe behind standard error is full as soon as its reader stalls. A write then blocks, and on
    the event loop everything with it. `on_drop` is called for each line that is dropped.
    """

    def __init__(self, descriptor: int) -> None:
        self.on_drop: Callable[[], None] = _nothing
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | threading.Event] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._untold = 0
        self._is_stalled = False
        # A daemon, for a write that blocks must not keep the process from its end.
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)

    def write(self, line: str) -> None:
        """Hand a line to the thread."""
        try:
            self._lines.put_nowait(line.encode(errors="backslashreplace") + b"\n")
        except queue.Full:
            self._drop()

    def _drop(self, lines: int = 1) -> None:
        with self._lock:
            self._untold += lines
            for _ in range(lines):
                self.on_drop()

    def _tell(self) -> None:
        """Write how many lines were dropped, once there is room again."""
        with self._lock:
            untold, self._untold = self._untold, 0
        log.warning("log lines were dropped: nobody read them in time", lines=untold)

    def flush(self) -> None:
        """Wait until all lines so far are written, if that is done within a second."""
        if self._is_stalled:
            return
        written = threading.Event()
        ends_at = time.monotonic() + FLUSH_SECONDS
        with suppress(queue.Full):
            self._lines.put(written, timeout=FLUSH_SECONDS)
            written.wait(max(0.0, ends_at - time.monotonic()))
        self._is_stalled = not written.is_set()

    def _run(self) -> None:
        while True:
            lines, flushed = self._take()
            if not _write(self._descriptor, b"".join(lines)):
                self._drop(len(lines))
            elif self._untold and self._lines.empty():
                self._tell()
            self._is_stalled = False
            if flushed is not None:
                flushed.set()

    def _take(self) -> tuple[list[bytes], threading.Event | None]:
        """Return the lines that wait, up to some bytes, and who waits for them to be written."""
        lines: list[bytes] = []
        size = 0
        taken = self._lines.get()
        while not isinstance(taken, threading.Event):
            lines.append(taken)
            size += len(taken)
            if size > MAX_BYTES_AT_ONCE:
                return lines, None
            try:
                taken = self._lines.get_nowait()
            except queue.Empty:
                return lines, None
        return lines, taken


def _write(descriptor: int, data: bytes) -> bool:
    """Write everything, however long it takes; return whether somebody took it."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:
            return False
    return True


def _nothing() -> None:
    """Stand for a counter until there is one."""
