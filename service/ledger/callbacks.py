"""Callbacks as entries of the ledger: kept as they came, and in effect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import zip_longest
from typing import assert_never

from service.ledger.unit_of_work import NOTHING, Command, Required, UnitOfWork
from service.model import contacts
from service.model.contacts import record_user_message
from service.model.events import (
    AliasesSeen,
    ContactChecked,
    Event,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    NumberChanged,
    Reading,
    SendBlocked,
    UserWrote,
)
from service.model.send_blocks import (
    ask_about_unreadable_hash,
    place_unreadable_hash,
    record_refusal,
    record_send_block,
)
from service.model.sightings import record_sighting
from service.model.users import By, Context, State, User
from service.store.database import SYNTHETIC, Alias, JournalRow, Transaction
from service.store.journal import note_replay

MAX_SLICE = 1000
"""Events of one callback that one transaction takes, so that neighbours are not held up."""

APPLIED = "applied"
QUARANTINED = "quarantined"


_OF_ONE = (IdentitySeen, UserWrote, SendBlocked, MessageSent, HashUnreadable)
"""Events of one user, who has one name in them; nearly all are."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal entry is read again: by whom, and with which result."""

    journal_id: int
    by: By
    state: str
    reason: str | None
    request_id: str | None = None


@dataclass(slots=True)
class RecordCallback(Command[None]):
    """A callback, or a slice of a large one: only the first slice keeps the journal row.

    `digest` is of the whole callback's `body`, to know a byte-identical redelivery by; `recipients`
    says for whom earlier messages were that were refused now: their statuses may name nobody.
    Once it is written, `journal_id` is that of its row, and `changed` has the state of each
    identity that it changed.
    """

    account: str
    arrived: int
    body: bytes
    events: Sequence[Event]
    row: JournalRow | None = None
    keeps_row: bool = True
    replay: Replay | None = None
    request_id: str | None = None
    digest: str | None = None
    recipients: Mapping[Alias, str] = field(default_factory=dict)
    journal_id: int | None = None
    changed: Sequence[State] = ()

    @property
    def weight(self) -> int:
        """One for the row, and one for each event."""
        return 1 + len(self.events)

    async def required(self, transaction: Transaction, /) -> Required:
        """Want the users and contacts that the events speak of, and the row that is replayed."""
        concerned = await self._concerned(transaction)
        if self.replay is None:
            return concerned
        return concerned._replace(names=[f"journal entry {self.replay.journal_id}"])

    async def _concerned(self, transaction: Transaction) -> Required:
        if not self.events:
            return NOTHING
        account = self.account
        only = self.events[0]
        if len(self.events) == 1 and isinstance(only, _OF_ONE):
            return Required([(account, only.user)])
        aliases: list[Alias] = []
        inputs: list[Alias] = []
        refused: list[Alias] = []
        for event in self.events:
            if isinstance(event, _OF_ONE):
                aliases.append((account, event.user))
            elif isinstance(event, ContactChecked):
                inputs.append((account, event.input))
            else:
                aliases += [(account, name) for name in _names_in(event)]
                if isinstance(event, HashRefused) and event.message_id is not None:
                    refused.append((account, event.message_id))
        if refused:
            self.recipients = await transaction.recipients_of(refused)
            aliases += [(account, alias) for alias in self.recipients.values()]
        return Required(aliases, (), inputs)

    def apply(self, uow: UnitOfWork) -> None:
        """Keep the callback, and let each event take effect."""
        if self.row is not None:
            if self.keeps_row:
                self.journal_id = uow.add_journal(self.row)
            if self.row.account != self.account:
                uow.note_callback(self.account, self.arrived)
        if self.events:
            self._apply_events(uow)
        if self.replay is not None:
            _note_replay(uow, self.account, self.replay)

    def _apply_events(self, uow: UnitOfWork) -> None:
        context = uow.context(self.account, self.arrived, self.request_id)
        names = {name for event in self.events for name in self._users_of(event)}
        before = {name: _known_of(uow.find(self.account, name)) for name in names}
        for event, following in zip_longest(self.events, self.events[1:]):
            self._apply_event(uow, event, following, context)
        after = {name: _known_of(uow.find(self.account, name)) for name in names}
        changed = {known for name, known in after.items() if known != before[name]}
        self.changed = [state for state, *_ in changed if state is not None]

    def _users_of(self, event: Event) -> Iterator[str]:
        """Return the names of the users whose identities an event may change."""
        if isinstance(event, _OF_ONE):
            yield event.user
        elif isinstance(event, HashRefused):
            yield from filter(
                None, (event.user, self.recipients.get((self.account, event.message_id or "")))
            )
        elif not isinstance(event, ContactChecked):
            yield from _names_in(event)

    def _apply_event(
        self, uow: UnitOfWork, event: Event, following: Event | None, context: Context
    ) -> None:
        match event:
            case AliasesSeen():
                hash_ = _hash_in_next_event(event, following)
                uow.resolve_aliases(self.account, event, hash_, context)
            case IdentitySeen():
                user = uow.find_or_create(self.account, event.user)
                uow.unite_by(event.hash, user, context)
                record_sighting(user, event, context)
            case UserWrote():
                record_user_message(uow.find_or_create(self.account, event.user), event, context)
            case ContactChecked():
                self._record_check_result(uow, event)
            case SendBlocked():
                record_send_block(uow.find_or_create(self.account, event.user), event, context)
            case NumberChanged():
                uow.change_number(self.account, event, context)
            case MessageSent():
                uow.note_recipient(self.account, event.message_id, event.user)
            case HashRefused():
                self._record_refusal(uow, event, context)
            case HashUnreadable():
                self._take_unreadable(uow, event, context)
            case _:
                assert_never(event)

    def _take_unreadable(self, uow: UnitOfWork, event: HashUnreadable, context: Context) -> None:
        """Have the client asked. The Cloud API has none: there it counts for a known user alone."""
        if not context.policies.local:
            ask_about_unreadable_hash(uow.find_or_create(self.account, event.user), event, context)
        elif (user := uow.find_or_begin_anew(self.account, event.user)) is not None:
            place_unreadable_hash(user, event, context)

    def _record_refusal(self, uow: UnitOfWork, refused: HashRefused, context: Context) -> None:
        """Record it for the user whom the refused message was for, if that user is known."""
        key = self.account, refused.message_id or ""
        candidates = refused.user, uow.recipient_of(*key), self.recipients.get(key)
        known = (uow.find_or_begin_anew(self.account, alias) for alias in candidates if alias)
        user = next((user for user in known if user is not None), None)
        if user is not None and refused.hash is not None:
            uow.unite_by(refused.hash, user, context)
        if user is not None:
            record_refusal(user, refused, context)

    def _record_check_result(self, uow: UnitOfWork, event: ContactChecked) -> None:
        known = uow.contact(self.account, event.input)
        self.digest = self.digest or digest_of(self.body)
        taken = contacts.apply_result(known, self.account, event, self.digest, self.arrived)
        if taken is not None:
            uow.put_contact(taken)

    def fallback(self, error: Exception, /) -> "RecordCallback | None":
        """Keep the callback, quarantined, without its events."""
        reason = f"the rules failed: {type(error).__name__}"
        if self.replay is not None:
            failed = replace(self.replay, state=QUARANTINED, reason=reason)
            return replace(self, events=(), replay=failed)
        if self.row is None:
            return None
        row = self.row._replace(state=QUARANTINED, reason=reason)
        return replace(self, events=(), row=row, keeps_row=True)


def _known_of(user: User | None) -> tuple[State | None, int, int, int | None]:
    """Return an identity's state, and what else differs once it was changed."""
    if user is None:
        return None, 0, 0, None
    identity = user.identity
    return identity.state, user.id, identity.version, identity.blocked_since


def _hash_in_next_event(named: AliasesSeen, following: Event | None) -> str | None:
    """Return the hash that the same element of a callback gives: it may say who the user is."""
    if isinstance(following, IdentitySeen) and following.user == named.user_id:
        return following.hash
    return None


def _names_in(event: AliasesSeen | NumberChanged | HashRefused) -> Iterator[str]:
    """Return every name in an event that may have more than one, or none."""
    match event:
        case AliasesSeen():
            names: tuple[str | None, ...] = (event.user_id, event.wa_id, event.parent)
        case NumberChanged():
            names = (event.user, event.new_user)
        case HashRefused():
            names = (event.user,)
    return filter(None, names)


def _note_replay(uow: UnitOfWork, account: str, replay: Replay) -> None:
    note_replay(uow.connection, replay.journal_id, replay.state, replay.reason, uow.now)
    reason = f"journal entry {replay.journal_id}: {replay.state}"
    context = uow.context(account, request_id=replay.request_id)
    uow.add_audit(account, context.entry("replayed", by=replay.by, reason=reason))


def together(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events with those that share a name next to each other, in their order.

    However the users of a large callback are mixed, a slice of it then speaks of few, so that each
    one's history is loaded once and not for every slice. Where the order of two events matters,
    they share the name of a user, of a message or of a contact.
    """
    if len(events) <= MAX_SLICE:
        return events
    leader = list(range(len(events)))

    def first(index: int) -> int:
        """Return the first event that this one is to follow; halve the way there."""
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    named_in: dict[str | tuple[str, str], int] = {}
    for index, event in enumerate(events):
        for name in _shared_names(event):
            one, other = first(index), first(named_in.setdefault(name, index))
            leader[max(one, other)] = min(one, other)
    return [events[index] for index in sorted(range(len(events)), key=first)]


def _shared_names(event: Event) -> Iterator[str | tuple[str, str]]:
    match event:
        case ContactChecked():
            yield "input", event.input
        case AliasesSeen() | NumberChanged() | HashRefused():
            yield from _names_in(event)
        case _:
            yield event.user
    if isinstance(event, MessageSent | HashRefused) and event.message_id is not None:
        yield "message", event.message_id


def first_slice(row: JournalRow, events: Sequence[Event], request_id: str | None) -> RecordCallback:
    """Make a callback an entry: the whole, or of a large one the first slice."""
    return RecordCallback(
        row.account,
        row.received_at,
        row.body,
        events[:MAX_SLICE],
        row,
        request_id=request_id,
    )


def other_slices(first: RecordCallback, events: Sequence[Event]) -> list[RecordCallback]:
    """Cut what is left of a large callback, to be written after the first; the last 200 counts."""
    return [
        replace(first, events=events[start : start + MAX_SLICE], keeps_row=False)
        for start in range(MAX_SLICE, len(events), MAX_SLICE)
    ]


def replays(
    account: str, arrived: int, body: bytes, reading: Reading, replay: Replay
) -> Iterator[RecordCallback]:
    """Cut a callback that is read again; the last slice records the result."""
    whole = RecordCallback(account, arrived, body, (), request_id=replay.request_id)
    events = together(reading.events)
    for start in range(0, len(events), MAX_SLICE):
        yield replace(whole, events=events[start : start + MAX_SLICE])
    yield replace(whole, replay=replay)


def digest_of(body: bytes) -> str:
    """Name a body, to know a byte-identical redelivery by."""
    return blake2b(body, digest_size=8).hexdigest()


def state_of(reading: Reading) -> tuple[str, str | None]:
    """Return the journal state for what was read, and the reason where a part could not be."""
    if not reading.faults:
        return (SYNTHETIC if reading.synthetic else APPLIED), None
    named = "; ".join(str(fault) for fault in reading.faults)
    return QUARANTINED, f"{named}; and {reading.more_faults} more" if reading.more_faults else named
