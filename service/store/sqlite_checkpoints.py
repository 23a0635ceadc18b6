"""Copying the write-ahead log back into the database, beside the writer rather than in a commit.

A commit that copies ten thousand pages holds up everybody in it and behind it: that was the slowest
hundredth of all callbacks. A connection of its own copies while the writer goes on; only what was
written meanwhile is copied with the writer waiting, so that the log begins anew and stays small.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from service.store.database import FaultError, UnavailableError

LOG_BYTES = 67_108_864
"""The log is copied once it has grown to this.

A page that was written several times meanwhile is copied once: the more users there are, the more
this saves.
"""
FEW_PAGES = 2_000
"""What may be copied while the writer waits."""
MAX_PASSES = 8
PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)"
"""Copies what can be copied without waiting for anybody."""

log = structlog.get_logger(__name__)

Checkpoint = Callable[[], Awaitable[tuple[int, int]]]
"""Copies what it can; returns how many pages the log has, and how many of them are copied."""


class Checkpoints:
    """Begins a checkpoint each time that the log of a database has grown large.

    `beside` runs one while the writer goes on, `within` one while it waits. The log's file does not
    shrink when the log begins anew, but for `journal_size_limit`, which is half of LOG_BYTES.
    """

    def __init__(self, path: Path, beside: Checkpoint, within: Checkpoint) -> None:
        self._log = path.with_name(path.name + "-wal")
        self._beside = beside
        self._within = within
        self._task: asyncio.Task[None] | None = None

    def note(self) -> None:
        """Look at the log after a commit."""
        if self._task is None and self._log_bytes() >= LOG_BYTES:
            self._task = asyncio.create_task(self._run())

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    async def _run(self) -> None:
        try:
            pages, _ = await self._beside()
            for _ in range(MAX_PASSES):
                before, (pages, _) = pages, await self._beside()
                if pages - before <= FEW_PAGES:
                    break
            await self._within()
        except FaultError:
            pass  # the log says so already
        except UnavailableError as error:
            log.warning("the write-ahead log could not be copied back", error=str(error))
        finally:
            self._task = None

    async def close(self) -> None:
        """Let one that is under way come to its end."""
        if self._task is not None:
            await asyncio.wait([self._task])
