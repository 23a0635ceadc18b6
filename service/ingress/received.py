"""A callback as it was received: read together with the batch that it is written in.

Reading, like the rules, happens in the ledger's batch. It saves little time as such (137 against
142 µs a callback), but a body that the rules fail on is then kept by the same way as any other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.ledger.book import Book, Entry, Wanted
from service.ledger.callbacks import (
    MAX_SLICE,
    QUARANTINED,
    CallbackEntry,
    first_slice,
    other_slices,
    state_of,
)
from service.model.events import Reading
from service.observability.logs import request_id
from service.store.database import JournalRow, Transaction

MAX_HEADER_BYTES = 8192
MAX_LABEL_CHARACTERS = 200

BYTES_AN_EVENT = 200
"""About how short an event can be written."""
NOTHING_READ = Reading()

Dialect = Callable[[str, str, bytes], Reading]


@dataclass(slots=True)
class Received:
    """One callback, to be read and written. `arrived` is Unix milliseconds.

    `reading` and `state` tell, once it is written, what it was found to hold; `rest` are the slices
    of a large one, to be written after it.
    """

    account: str
    arrived: int
    dialect: Dialect
    headers: Mapping[str, str]
    body: bytes
    reading: Reading = NOTHING_READ
    state: str = ""
    rest: Sequence[CallbackEntry] = ()
    first: CallbackEntry | None = None

    @property
    def weight(self) -> int:
        """Until it has been read, as much as it may hold going by its length."""
        return 2 + len(self.body) // BYTES_AN_EVENT if self.first is None else self.first.weight

    def read(self) -> CallbackEntry:
        """Let the dialect read the body; give the first slice."""
        content_type, encoding = self._labels()
        self.reading = reading = self.dialect(content_type, encoding, self.body)
        self.state, reason = state_of(reading)
        return self._cut(content_type, encoding, reason)

    def _cut(self, content_type: str, encoding: str, reason: str | None) -> CallbackEntry:
        row = JournalRow(
            self.account,
            self.arrived,
            self.state,
            content_type,
            encoding,
            kept_headers(self.headers),
            self.body,
            reason,
        )
        known_as = request_id(self.headers.get("X-Request-ID")) if self.reading.events else None
        self.first = first = first_slice(row, self.reading, known_as)
        if len(self.reading.events) > MAX_SLICE:
            self.rest = other_slices(first, self.reading)
        return first

    def _labels(self) -> tuple[str, str]:
        headers = self.headers
        encoding = headers.get("Content-Encoding")
        return (
            label(headers.get("Content-Type", "")),
            label(encoding).strip().lower() if encoding else "",
        )

    def wants(self, transaction: Transaction) -> Wanted:
        """Want what its events speak of."""
        return (self.first or self.read()).wants(transaction)

    def apply(self, book: Book) -> None:
        """Keep it, and let its events take effect."""
        (self.first or self.read()).apply(book)

    def poisoned(self, error: Exception) -> Entry[None] | None:
        """Keep it, quarantined, without its events: whether it was read by then or not."""
        self.rest = ()
        self.state = QUARANTINED
        return (self.first or self._cut(*self._labels(), None)).poisoned(error)


def label(value: str) -> str:
    """Make a header's value fit to be kept: bounded, and without bytes that are no text."""
    if not value.isascii():
        value = value.encode(errors="backslashreplace").decode()
    return value[:MAX_LABEL_CHARACTERS]


def kept_headers(headers: Mapping[str, str]) -> str:
    """Keep the user agent and the `x-*` headers as a JSON list of pairs, 8 kB at most."""
    kept = [(lower, value) for name, value in headers.items() if (lower := _kept_as(name))]
    return _write(tuple(kept)) if kept else "[]"


@lru_cache(maxsize=64)
def _kept_as(name: str) -> str | None:
    """Give the name in small letters, where the header is one to keep."""
    lower = name.lower()
    return lower if lower.startswith("x-") or lower == "user-agent" else None


@lru_cache(maxsize=64)
def _write(kept: tuple[tuple[str, str], ...]) -> str:
    """Write pairs; a sender sends mostly the same."""
    written = json.dumps(kept)
    return written if len(written) <= MAX_HEADER_BYTES else json.dumps(_fitting(kept))


def _fitting(kept: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    room = MAX_HEADER_BYTES
    for count, pair in enumerate(kept):
        room -= len(json.dumps(pair)) + 2
        if room < 0:
            return kept[:count]
    return kept
