"""What a callback says, in words that hold for every API of WhatsApp."""

from dataclasses import dataclass

from service.model.moments import Moment


@dataclass(frozen=True, slots=True)
class IdentitySeen:
    """A user of the account has this identity hash, as a notification or a message says.

    `changed` is when the hash came to be, `said` when the message that tells it was sent;
    `acknowledged` is what the message claims, None where it claims nothing.
    """

    wa_id: str
    hash: str
    changed: Moment | None
    said: Moment | None = None
    acknowledged: bool | None = None


@dataclass(frozen=True, slots=True)
class SendBlocked:
    """A message to the user failed with 480: an identity is not acknowledged."""

    wa_id: str
    at: Moment | None
    message_id: str | None


@dataclass(frozen=True, slots=True)
class NumberChanged:
    """The user of the old wa_id now has the new one."""

    wa_id: str
    new_wa_id: str
    at: Moment | None


@dataclass(frozen=True, slots=True)
class UserWrote:
    """The user wrote to the business."""

    wa_id: str
    at: Moment | None


@dataclass(frozen=True, slots=True)
class ContactChecked:
    """The result of a contact check: `input` is the literal text that was asked about."""

    input: str
    status: str
    wa_id: str | None


Event = IdentitySeen | SendBlocked | NumberChanged | UserWrote | ContactChecked


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of a callback that can't be read, and why, in words without its content."""

    where: str
    why: str

    def __str__(self) -> str:
        """Give the sentence for the journal."""
        return f"{self.where}: {self.why}" if self.where else self.why


@dataclass(frozen=True, slots=True)
class Reading:
    """What a dialect made of a body: events, faults, and how many elements it let pass.

    `more_faults` counts those that are not named.
    """

    events: tuple[Event, ...] = ()
    faults: tuple[Fault, ...] = ()
    others: int = 0
    more_faults: int = 0
