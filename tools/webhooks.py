"""Webhooks of the Cloud API, made of the simulator's bodies; times are Unix seconds."""

from service.simulator.cloud import bodies
from service.simulator.cloud.bodies import Style, Update
from service.simulator.options import Number
from service.simulator.users import CloudUser

__all__ = [
    "BOTH",
    "BY_NUMBER",
    "CloudUser",
    "Number",
    "Style",
    "Update",
    "delivered",
    "refused",
    "signature",
    "webhook",
    "wrote",
]

TEXT = "Does it come in another color?"
BY_NUMBER = Style(user_ids=False)
"""Users have their numbers alone, as before 2026."""
BOTH = Style()


def wrote(line: Number, user: CloudUser, at: int, style: Style = BOTH) -> Update:
    """Return what a user wrote, with the identity hash."""
    return Update("message", line, bodies.text_message(user, TEXT, at, style, with_hash=True))


def delivered(
    line: Number, user: CloudUser, at: int, style: Style = BOTH, *, with_hash: bool = True
) -> Update:
    """Return that a message was delivered, with the hash where it was sent without one."""
    more = {"recipient_identity_key_hash": user.hash} if with_hash else {}
    recipient = style.names(user, user.shown, bodies.RECIPIENT)
    message_id = bodies.outbound_id(user.shown or user.user_id)
    status = bodies.status(message_id, "delivered", at, recipient, {**more, **bodies.PRICING})
    return Update("status", line, {"statuses": [status]})


def refused(line: Number, alias: str, at: int) -> Update:
    """Return that a message was refused with 137000: only its id says for whom it was."""
    reason = bodies.failed(bodies.MISMATCH_CODE, "The identity key has changed.")
    status = bodies.status(bodies.outbound_id(alias), "failed", at, {}, reason)
    return Update("status", line, {"statuses": [status]})


def webhook(*updates: Update) -> bytes:
    """Return the body of a webhook with these updates."""
    return bodies.escaped(bodies.envelope(updates))


def signature(secret: str, body: bytes) -> dict[str, str]:
    """Return the header by which an app signs a body."""
    return {"X-Hub-Signature-256": bodies.signature(secret, body)}
