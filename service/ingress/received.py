"""A callback as it was received: read together with the batch that it is written in.

Reading, like the rules, happens in the ledger's batch. It saves little time as such (137 against
142 µs a callback), but a body that the rules fail on is then kept by the same way as any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from service.ingress.envelope import Envelope
from service.ingress.readers import Dialect
from service.ledger.callbacks import (
    MAX_SLICE,
    QUARANTINED,
    RecordCallback,
    Replay,
    first_slice,
    other_slices,
    replays,
    state_of,
    together,
)
from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.events import Fault, Reading
from service.observability.logs import request_id
from service.store.database import JournalRow, Transaction

BYTES_AN_EVENT = 200
"""About how short an event can be written."""
MAX_FAULTS = 10
"""Faults of several readings that are named together; the others are counted."""
NOTHING_READ = Reading()


@dataclass(slots=True)
class Received:
    """One callback, to be read and written. `arrived` is Unix milliseconds.

    `account` is what the journal calls it: by the door that it came through, and once it is read by
    the account, if exactly one is concerned. `readings` and `state` tell, once it is written, what
    it was found to hold; `rest` are the slices of a large one, and those for other accounts, to be
    written after it.
    """

    account: str
    arrived: int
    dialect: Dialect
    envelope: Envelope
    body: bytes
    readings: Mapping[str, Reading] = field(default_factory=dict)
    state: str = ""
    rest: Sequence[RecordCallback] = ()
    first: RecordCallback | None = None

    @property
    def weight(self) -> int:
        """Until it has been read, as much as it may hold going by its length."""
        return 2 + len(self.body) // BYTES_AN_EVENT if self.first is None else self.first.weight

    def read(self) -> RecordCallback:
        """Let the dialect read the body; give the first slice."""
        envelope = self.envelope
        self.readings = readings = self.dialect(envelope.content_type, envelope.encoding, self.body)
        self.state, reason = state_of(united(readings))
        return self._cut(reason)

    def _cut(self, reason: str | None) -> RecordCallback:
        accounts = [*self.readings]
        if "" in self.readings:
            accounts.remove("")
        if len(accounts) == 1:
            self.account = accounts[0]
        content_type, encoding, headers, id_ = self.envelope
        row = JournalRow(
            self.account,
            self.arrived,
            self.state,
            content_type,
            encoding,
            headers,
            self.body,
            reason,
        )
        reading = self.readings[accounts[0]] if accounts else NOTHING_READ
        has_events = bool(reading.events) or len(accounts) > 1
        known_as = request_id(id_) if has_events else None
        events = together(reading.events)
        self.first = first = first_slice(row, events, known_as)
        if len(accounts) > 1:
            self.first = first = replace(first, account=accounts[0])
            self.rest = [
                *other_slices(first, events),
                *_slices_for_others(first, accounts[1:], self.readings),
            ]
        elif len(events) > MAX_SLICE:
            self.rest = other_slices(first, events)
        return first

    async def required(self, transaction: Transaction) -> Required:
        """Want what its events speak of."""
        return await (self.first or self.read()).required(transaction)

    def apply(self, uow: UnitOfWork) -> None:
        """Keep it, and let its events take effect."""
        (self.first or self.read()).apply(uow)

    def fallback(self, error: Exception) -> Command[None] | None:
        """Keep it, quarantined, without its events: whether it was read by then or not.

        What it holds for other accounts is written all the same.
        """
        self.state = QUARANTINED
        first = self.first or self._cut(None)
        self.rest = [entry for entry in self.rest if entry.account != first.account]
        return first.fallback(error)


def united(readings: Mapping[str, Reading]) -> Reading:
    """Put together what decides the state of a callback: the faults of all its readings."""
    if len(readings) == 1:
        return next(iter(readings.values()))
    faults: list[Fault] = [fault for reading in readings.values() for fault in reading.faults]
    more = sum(reading.more_faults for reading in readings.values())
    synthetic = bool(readings) and all(reading.synthetic for reading in readings.values())
    unnamed = len(faults[MAX_FAULTS:])
    return Reading(
        faults=tuple(faults[:MAX_FAULTS]), more_faults=more + unnamed, synthetic=synthetic
    )


def _slices_for_others(
    first: RecordCallback, accounts: Sequence[str], readings: Mapping[str, Reading]
) -> Iterator[RecordCallback]:
    for account in accounts:
        events = together(readings[account].events)
        own = replace(first, account=account, events=events[:MAX_SLICE], keeps_row=False)
        yield from (own, *other_slices(own, events))


def replayed(
    account: str, arrived: int, body: bytes, readings: Mapping[str, Reading], note: Replay
) -> Iterator[RecordCallback]:
    """Cut a callback that is read again; the last slice writes down what came of it."""
    for name, reading in readings.items():
        *slices, _ = replays(name, arrived, body, reading, note)
        yield from slices
    yield from replays(account, arrived, body, NOTHING_READ, note)
