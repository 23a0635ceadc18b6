"""What relays write: how far they have come, their rows, and what a person asks of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.users import By
from service.store.database import Transaction
from service.store.relays import (
    DeliveryRow,
    Progress,
    ReplayRow,
    add_replay,
    ask_to_retry,
    count_skipped,
    delete_deliveries,
    move_replay,
    note_retried,
    pause,
    resume,
    save_deliveries,
    save_progress,
)


@dataclass(frozen=True, slots=True)
class SaveProgress(Command[None]):
    """Writes what a relay has done since: how far it has come, and its rows.

    `replay` is the one under way, if any, as far as it was read; `replay_ended` whether that is all
    of it. `paused_by` is set where the relay paused itself; `retried` are ids of rows that it tries
    again, as a person asked.
    """

    led: ClassVar[bool] = True
    relay: str
    progress: Progress
    last_delivered_at: int | None
    rows: Sequence[DeliveryRow] = ()
    ended: Sequence[int] = ()
    replay: ReplayRow | None = None
    replay_ended: bool = False
    skipped: int = 0
    paused_by: str | None = None
    retried: Sequence[int] = ()

    @property
    def weight(self) -> int:
        """One, and one for each row."""
        return 1 + len(self.rows) + len(self.ended)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=[f"relay {self.relay}"])

    def apply(self, uow: UnitOfWork) -> None:
        """Write it."""
        connection = uow.connection
        save_progress(connection, self.relay, self.progress, self.last_delivered_at)
        save_deliveries(connection, self.rows)
        delete_deliveries(connection, self.relay, self.ended)
        if self.replay is not None:
            position, ended = self.replay.position, self.replay_ended
            move_replay(connection, self.replay.id, position, ended=ended)
        if self.skipped:
            count_skipped(connection, self.relay, self.skipped)
        if self.paused_by is not None:
            pause(connection, self.relay, self.paused_by)
        if self.retried:
            note_retried(connection, self.relay, self.retried)


@dataclass(frozen=True, slots=True)
class SwitchRelay(Command[None]):
    """Pauses a relay, or resumes it, because a person decided so."""

    relay: str
    by: By
    paused: bool
    request_id: str | None = None

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=[f"relay {self.relay}"])

    def apply(self, uow: UnitOfWork) -> None:
        """Write it, and who did so."""
        if self.paused:
            pause(uow.connection, self.relay, self.by["name"])
            _note(uow, "relay_paused", self.relay, self.by, self.request_id)
        else:
            resume(uow.connection, self.relay, uow.now)
            _note(uow, "relay_resumed", self.relay, self.by, self.request_id)


@dataclass(frozen=True, slots=True)
class ReplayRelay(Command[ReplayRow]):
    """Asks for the `count` rows after an id, up to another, to be sent once more."""

    relay: str
    after: int
    until: int
    count: int
    by: By
    request_id: str | None = None

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=[f"relay {self.relay}"])

    def apply(self, uow: UnitOfWork) -> ReplayRow:
        """Write it, and who did so."""
        _note(uow, "relay_replayed", f"{self.relay}: {self.count}", self.by, self.request_id)
        return add_replay(uow.connection, self.relay, self.after, self.until, uow.now)


@dataclass(frozen=True, slots=True)
class RetryDeliveries(Command[int]):
    """Has a delivery tried again, all dead ones without an id; answered with how many that are."""

    relay: str
    id: int | None
    by: By
    request_id: str | None = None

    def apply(self, uow: UnitOfWork) -> int:
        """Write it, and who did so."""
        count = ask_to_retry(uow.connection, self.relay, self.id)
        if count or self.id is None:
            reason = f"{self.relay}: {count}"
            _note(uow, "deliveries_retried", reason, self.by, self.request_id)
        return count


def _note(uow: UnitOfWork, event: str, reason: str, by: By, request_id: str | None) -> None:
    context = uow.context("", request_id=request_id)
    uow.add_audit(None, context.entry(event, by=by, reason=reason))
