"""Is there room for a callback? Asked of the disk, and of the database once it has refused one."""

import asyncio
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from service.ledger.ledger import Ledger
from service.store.database import Database, UnavailableError
from service.store.queries import free_reserve, write_reserve

LOW_DISK_BYTES = 268_435_456
"""Below this a warning: some times what the write-ahead log and the bodies under way come to."""


@dataclass(slots=True)
class Room:
    """Tells whether callbacks can be written, and does not change its mind with their size.

    Once a write was refused, a small one that fits proves nothing: on a disk that is nearly full it
    would be ready for one moment and refuse the next large callback. So a reserve as large as the
    largest callback must fit first.
    """

    ledger: Ledger
    database: Database
    path: Path
    reserve_bytes: int
    _believed: int = 0
    _trying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def can_write(self) -> bool:
        """Take the ledger's word as long as nothing was refused; else try the reserve."""
        async with self._trying:
            refused = self.ledger.refused
            if refused != self._believed and await self._fits():
                self._believed = refused
                self.ledger.available = True
            return self._believed == refused

    async def _fits(self) -> bool:
        try:
            await self.database.write(partial(write_reserve, size=self.reserve_bytes))
            await self.database.write(partial(free_reserve, now=self.ledger.clock()))
        except UnavailableError:
            return False
        return True

    async def free_bytes(self) -> int:
        """Tell what the file system of the database has left for us."""
        return (await asyncio.to_thread(shutil.disk_usage, self.path.parent)).free
