"""A callback as it came: what is kept of its head, how it is read, and how it is written.

It is read within the ledger's batch, so that a body that the rules fail on is kept in the same way
as any other.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from service.dialects import cloud, onprem
from service.dialects.shares import Share
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
from service.settings import CloudAccountSettings, Settings
from service.store.database import APP_MARK, JournalRow, Transaction

MAX_HEADER_BYTES = 8192
MAX_LABEL_CHARACTERS = 200
BYTES_AN_EVENT = 200
"""About how short an event can be written."""
MAX_FAULTS = 10
"""Faults of several readings that are named together; the others are counted."""
NOTHING_READ = Reading()

Dialect = Callable[[str, str, bytes], Mapping[str, Reading]]
"""Content type, content encoding and body to the reading for each account that is concerned.

Under the empty name: what concerns no account.
"""


def in_journal(app: str) -> str:
    """Return what the journal calls an app."""
    return f"{APP_MARK}{app}"


def share_of(settings: Settings, account: str) -> Share:
    """Return what the journal has of an account, also of one that is configured no more."""
    cloud = settings.cloud_accounts
    if (own := cloud.get(account)) is None:
        return Share(account, (account,))
    others = frozenset(one.phone_number_id for one in cloud.values()) - {own.phone_number_id}
    return Share(account, (account, in_journal(own.app)), own.phone_number_id, others)


def reader_of(settings: Settings, name: str) -> Dialect:
    """Return how a callback is read that the journal has under this name.

    An account of the Cloud API is read as its app is; one that is configured no more as one of the
    On-Premises API.
    """
    account = settings.accounts.get(name)
    app = account.app if isinstance(account, CloudAccountSettings) else None
    if name.startswith(APP_MARK):
        app = name.removeprefix(APP_MARK)
    if app is None:
        return partial(_read_onprem, name)
    return partial(_read_cloud, settings.accounts_of(app))


def _read_onprem(
    account: str, content_type: str, content_encoding: str, body: bytes
) -> Mapping[str, Reading]:
    return {account: onprem.read(content_type, content_encoding, body)}


def _read_cloud(
    accounts: Mapping[str, str], content_type: str, content_encoding: str, body: bytes
) -> Mapping[str, Reading]:
    return cloud.read(content_type, content_encoding, body, accounts)


class Envelope(NamedTuple):
    """How a body came: its media type and its encoding, the headers that are kept, as JSON.

    `request_id` is that of the request.
    """

    content_type: str = ""
    encoding: str = ""
    headers: str = "[]"
    request_id: str | None = None


def envelope_of(headers: Mapping[str, str], request_id: str, signature: str = "") -> Envelope:
    """Return what is kept of a request's headers, and its id; `signature` is the one that signs."""
    return Envelope(
        label(headers.get("Content-Type", "")),
        label(headers.get("Content-Encoding", "")).strip().lower(),
        kept_headers(headers, signature),
        request_id,
    )


def label(value: str) -> str:
    """Make a header's value fit to be kept: bounded, and without bytes that are no text."""
    return value.encode(errors="backslashreplace").decode()[:MAX_LABEL_CHARACTERS]


def kept_headers(headers: Mapping[str, str], signature: str = "") -> str:
    """Return the user agent and the `x-*` headers as a JSON list of pairs, 8 kB at most.

    Not the signatures, Meta's and that in the header `signature`: they were checked, each is
    another, and they say nothing else.
    """
    pairs = []
    room = MAX_HEADER_BYTES
    for name, value in headers.items():
        lower = name.lower()
        if lower != "user-agent" and not lower.startswith("x-"):
            continue
        if lower.startswith("x-hub-signature") or lower == signature.lower():
            continue
        pair = json.dumps([lower, value])
        room -= len(pair) + len(", ")
        if room < 0:
            break
        pairs.append(pair)
    return f"[{', '.join(pairs)}]"


@dataclass(slots=True)
class IncomingCallback(Command[None]):
    """One callback, to be read and written. `arrived` is Unix milliseconds.

    `account` is what the journal calls it: by the endpoint that it came to, and once it is read by
    the account, if exactly one is concerned. Once it is written, `readings` and `state` say what it
    was found to hold; `rest` are the slices of a large one, and those for other accounts, to be
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
        """Let the dialect read the body; return the first slice."""
        envelope = self.envelope
        self.readings = readings = self.dialect(envelope.content_type, envelope.encoding, self.body)
        self.state, reason = state_of(united(readings))
        return self._cut(reason)

    def _cut(self, reason: str | None) -> RecordCallback:
        """Cut what was read into slices, one for each account and no more than `MAX_SLICE`."""
        accounts = [account for account in self.readings if account]
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
            id_,
        )
        reading = self.readings[accounts[0]] if accounts else NOTHING_READ
        events = together(reading.events)
        first = first_slice(row, events, id_)
        if len(accounts) > 1:
            first = replace(first, account=accounts[0])
        self.first = first
        self.rest = [
            *other_slices(first, events),
            *_slices_for_others(first, accounts[1:], self.readings),
        ]
        return first

    async def required(self, transaction: Transaction, /) -> Required:
        """Return what its events speak of."""
        return await (self.first or self.read()).required(transaction)

    def apply(self, uow: UnitOfWork) -> None:
        """Keep it, and let its events take effect."""
        (self.first or self.read()).apply(uow)

    def fallback(self, error: Exception, /) -> Command[None] | None:
        """Keep it, quarantined, without its events: whether it was read by then or not.

        What it holds for other accounts is written all the same.
        """
        self.state = QUARANTINED
        first = self.first or self._cut(None)
        self.rest = [entry for entry in self.rest if entry.account != first.account]
        self.first = first.fallback(error)
        return self.first

    @property
    def changed(self) -> list[str]:
        """The states of the identities that it changed, each once."""
        slices = [*self.rest] if self.first is None else [self.first, *self.rest]
        return sorted({state.value for one in slices for state in one.changed})


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
    """Cut a callback that is read again; the last slice writes the outcome down."""
    for name, reading in readings.items():
        *slices, _ = replays(name, arrived, body, reading, note)
        yield from slices
    yield from replays(account, arrived, body, NOTHING_READ, note)
