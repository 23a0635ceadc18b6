"""What a callback says, in the same events for every API of WhatsApp.

A `user` is named by any alias: a wa_id, or on the Cloud API a user id.
"""

from typing import NamedTuple

from service.model.timeline import Moment


class IdentitySeen(NamedTuple):
    """A user of the account has this identity hash, as a notification or a message says.

    `changed` is when the hash came to be, `said` when the message that says so was sent;
    `acknowledged` is what the message claims, None where it claims nothing.
    """

    user: str
    hash: str
    changed: Moment | None
    said: Moment | None = None
    acknowledged: bool | None = None


class HashUnreadable(NamedTuple):
    """The user has an identity hash that can't be read: there may be another one than is known.

    `at` is when it was there, `message_id` that of the message that brought it.
    """

    user: str
    at: Moment | None
    message_id: str | None = None


class SendBlocked(NamedTuple):
    """A message to the user failed with 480: an identity is not acknowledged."""

    user: str
    at: Moment | None
    message_id: str | None


class HashRefused(NamedTuple):
    """Cloud API: a message was refused with 137000, for the user has another hash than it named.

    The user may not be named; then an earlier status of the same message says who it was for.
    `hash` is the one that the user has now, where the refusal says so.
    """

    user: str | None
    at: Moment | None
    message_id: str | None
    hash: str | None = None


class NumberChanged(NamedTuple):
    """The user is now found under another alias: the number changed, or the user id did."""

    user: str
    new_user: str
    at: Moment | None


class UserWrote(NamedTuple):
    """The user wrote to the business."""

    user: str
    at: Moment | None


class ContactChecked(NamedTuple):
    """The result of a contact check: `input` is the literal text that was asked about."""

    input: str
    status: str
    wa_id: str | None


class AliasesSeen(NamedTuple):
    """Cloud API: all that one element calls one user; it comes before the events about that user.

    `user_id` is the business-scoped user id, the strongest alias, and what those events use; a
    `parent` id holds across linked businesses. `creates` is false where the element is no reason to
    keep a user of whom nothing is known, as a status is: it only links known aliases.
    """

    user_id: str
    wa_id: str | None
    parent: str | None
    at: Moment | None
    creates: bool = True


class MessageSent(NamedTuple):
    """Cloud API: the message with this id was for this user, which the id itself does not say."""

    user: str
    message_id: str
    at: Moment | None


Event = (
    AliasesSeen
    | IdentitySeen
    | HashUnreadable
    | UserWrote
    | HashRefused
    | MessageSent
    | NumberChanged
    | SendBlocked
    | ContactChecked
)

WIRE_NAMES: dict[type[Event], str] = {
    IdentitySeen: "identity_seen",
    HashUnreadable: "hash_unreadable",
    SendBlocked: "send_blocked",
    HashRefused: "hash_refused",
    NumberChanged: "number_changed",
    UserWrote: "user_wrote",
    ContactChecked: "contact_checked",
    AliasesSeen: "aliases_seen",
    MessageSent: "message_sent",
}
"""What metrics call each event."""


class Fault(NamedTuple):
    """A part of a callback that can't be read, and the reason, in words without its content."""

    where: str
    reason: str

    def __str__(self) -> str:
        """Return the sentence for the journal."""
        return f"{self.where}: {self.reason}" if self.where else self.reason


class Reading(NamedTuple):
    """What a dialect made of a body for one account: events, faults, and elements it ignored.

    `others` counts what was ignored, `more_faults` the faults that are not named. `sent` and
    `delivered` are the recipients of messages of the business, as often as a status says so; they
    are counted, and are no events. `synthetic` is what Ackgate sent itself, to see whether the
    webhook endpoint can be reached: it says nothing.
    """

    events: tuple[Event, ...] = ()
    faults: tuple[Fault, ...] = ()
    others: int = 0
    more_faults: int = 0
    sent: tuple[str, ...] = ()
    delivered: tuple[str, ...] = ()
    synthetic: bool = False
