"""Webhooks of the Cloud API, in the words of the simulator: what the soak and the crash tests send.

Times are Unix seconds, for webhooks tell no closer.
"""

from service.simulator.cloud import bodies
from service.simulator.cloud.bodies import Style, Update
from service.simulator.options import Number
from service.simulator.users import CloudUser

BY_NUMBER = Style(user_ids=False)
"""Users are told by their numbers alone, as before 2026."""
BOTH = Style()


def wrote(line: Number, user: CloudUser, at: int, style: Style = BOTH) -> Update:
    """Write what a user wrote, with the identity hash."""
    lists = bodies.text_message(user, "Hello", at, style, with_hash=True)
    return Update("message", line, lists)


def delivered(
    line: Number, user: CloudUser, at: int, style: Style = BOTH, *, with_hash: bool = True
) -> Update:
    """Write that a message was delivered, with the hash where it was sent without one."""
    more = {"recipient_identity_key_hash": user.hash} if with_hash else {}
    recipient = style.names(user, user.shown, bodies.RECIPIENT)
    message_id = bodies.outbound_id(user.shown or user.user_id)
    status = bodies.status(message_id, "delivered", at, recipient, {**more, **bodies.PRICING})
    return Update("status", line, {"statuses": [status]})


def refused(line: Number, alias: str, at: int) -> Update:
    """Write that a message was refused with 137000: only its id says for whom it was."""
    why = bodies.failed(bodies.MISMATCH_CODE, "The identity key has changed.")
    status = bodies.status(bodies.outbound_id(alias), "failed", at, {}, why)
    return Update("status", line, {"statuses": [status]})


def webhook(*updates: Update) -> bytes:
    """Put updates into one body."""
    return bodies.escaped(bodies.envelope(updates))


def signature(secret: str, body: bytes) -> dict[str, str]:
    """Sign a body as an app does."""
    return {"X-Hub-Signature-256": bodies.signature(secret, body)}
