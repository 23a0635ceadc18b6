"""Copying the write-ahead log back into the database, beside the writer rather than in a commit.

A commit that copies ten thousand pages holds up everybody in it and behind it: that was the slowest
hundredth of all callbacks. A connection of its own copies while the writer goes on; only what came
meanwhile is copied with the writer waiting, so that the log begins anew and stays small.
"""

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable

import structlog

PAGES = 16_000
"""Pages in the log, about, until it is copied: 65 MB.

A page that was written several times meanwhile is copied once: the more users there are, the more
this saves.
"""
LEAST_GUESSED = PAGES // 4
"""At least so many guessed pages are waited for where guesses turned out too low: large bodies."""
MOST_GUESSED = 3 * PAGES
"""Up to so many guessed pages are waited for where guesses turned out too high.

Where the load then ends they are half as many again, of commits of a callback each with a long
body: still fewer than a commit would copy itself, or the log would begin anew unseen, be found
small each time, and the guess would never be mended.
"""
_COUNTED_TO = 2**32
"""The driver's number of changed rows begins anew there, below zero halfway."""
SHARED_FROM = 60
FEW_PAGES = 2_000
"""What may be copied while the writer waits."""
MAX_PASSES = 8
_PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)"

log = structlog.get_logger(__name__)

YIELDING = 10
"""The niceness of the thread that copies: on a single core the callbacks go first."""

Checkpoint = Callable[[], Awaitable[tuple[int, int]]]
"""Copies what it can: tells how many pages the log has, and how many of them are copied."""


def checkpoint(raw: sqlite3.Connection) -> tuple[int, int]:
    """Copy what can be copied without waiting for anybody."""
    _, pages, copied = raw.execute(_PASSIVE).fetchone()
    return pages, copied


def yield_to_others() -> None:
    """Let the calling thread have the processor only where nobody else in the process wants it."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), YIELDING)


def pages_of(rows: int) -> int:
    """Tell how many pages a commit of so many rows writes, about.

    Of a few rows each has one in its table and one in an index; many share theirs. SQLite does not
    tell: by the rows alone the log of a quiet service, a commit for every callback, would be taken
    for a quarter of what it is, and its commits would come to copy it themselves. Under load the
    guess is too high, up to four times: `Checkpoints` learns how much.
    """
    return min(2 * rows, rows // 2 + SHARED_FROM)


class Checkpoints:
    """Begins a checkpoint each time that enough pages were written.

    `beside` runs one while the writer goes on, `within` one while it waits. What the log then turns
    out to hold corrects the guess until the next.
    """

    def __init__(self, beside: Checkpoint, within: Checkpoint) -> None:
        self._beside = beside
        self._within = within
        self._changes = 0
        self._guessed = 0
        self._enough = PAGES
        self._task: asyncio.Task[None] | None = None

    def note(self, changes: int) -> None:
        """Hear after a commit how many rows the writer has changed since it was opened."""
        self._guessed += pages_of((changes - self._changes) % _COUNTED_TO)
        self._changes = changes
        if self._guessed >= self._enough and self._task is None:
            guessed, self._guessed = self._guessed, 0
            self._task = asyncio.create_task(self._run(guessed))

    async def _run(self, guessed: int) -> None:
        try:
            pages, _ = await self._beside()
            if pages > 0:  # else somebody else copies just now, or has copied all
                self._enough = min(max(LEAST_GUESSED, PAGES * guessed // pages), MOST_GUESSED)
            for _ in range(MAX_PASSES):
                before, (pages, _) = pages, await self._beside()
                if pages - before <= FEW_PAGES:
                    break
            await self._within()
        except sqlite3.Error as error:
            log.warning("the write-ahead log could not be copied back", error=str(error))
        finally:
            self._task = None

    async def close(self) -> None:
        """Let one that is under way come to its end."""
        if self._task is not None:
            await asyncio.wait([self._task])
