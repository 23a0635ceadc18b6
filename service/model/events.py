"""What a callback says, in words that hold for every API of WhatsApp."""

from typing import NamedTuple

from service.model.moments import Moment


class IdentitySeen(NamedTuple):
    """A user of the account has this identity hash, as a notification or a message says.

    `changed` is when the hash came to be, `said` when the message that tells it was sent;
    `acknowledged` is what the message claims, None where it claims nothing.
    """

    wa_id: str
    hash: str
    changed: Moment | None
    said: Moment | None = None
    acknowledged: bool | None = None


class SendBlocked(NamedTuple):
    """A message to the user failed with 480: an identity is not acknowledged."""

    wa_id: str
    at: Moment | None
    message_id: str | None


class NumberChanged(NamedTuple):
    """The user of the old wa_id now has the new one."""

    wa_id: str
    new_wa_id: str
    at: Moment | None


class UserWrote(NamedTuple):
    """The user wrote to the business."""

    wa_id: str
    at: Moment | None


class ContactChecked(NamedTuple):
    """The result of a contact check: `input` is the literal text that was asked about."""

    input: str
    status: str
    wa_id: str | None


Event = IdentitySeen | SendBlocked | NumberChanged | UserWrote | ContactChecked


class Fault(NamedTuple):
    """A part of a callback that can't be read, and why, in words without its content."""

    where: str
    why: str

    def __str__(self) -> str:
        """Give the sentence for the journal."""
        return f"{self.where}: {self.why}" if self.where else self.why


class Reading(NamedTuple):
    """What a dialect made of a body: events, faults, and how many elements it let pass.

    `more_faults` counts those that are not named. `sent` and `delivered` are the recipients of
    messages of the business, as often as a status tells so; they are counted, and are no events.
    `synthetic` is what we sent ourselves, to see whether the door can be reached: it says nothing.
    """

    events: tuple[Event, ...] = ()
    faults: tuple[Fault, ...] = ()
    others: int = 0
    more_faults: int = 0
    sent: tuple[str, ...] = ()
    delivered: tuple[str, ...] = ()
    synthetic: bool = False
