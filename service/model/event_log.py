"""The event log: what happens to identities, recipients, contacts and issues, told to others.

An event of the log says what became of something, a callback's event (`model/events.py`) what
WhatsApp says. The rules record the former where they set a state, see `model/telling.py`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class EventType(StrEnum):
    """What happened. Readers must expect further types."""

    PENDING = "identity.pending"
    SCHEDULED = "identity.scheduled"
    ACKNOWLEDGED = "identity.acknowledged"
    HELD = "identity.held"
    FAILED = "identity.failed"
    SUPERSEDED = "identity.superseded"
    BLOCKED = "recipient.blocked"
    RESUMED = "recipient.resumed"
    RESOLVED = "contact.resolved"
    RAISED = "issue.raised"
    CLEARED = "issue.cleared"


class LoggedEvent(NamedTuple):
    """One event, as it is written in the transaction that it tells of.

    `account` is named as the journal does: empty for no account, that of an app with its mark.
    `names` are those of the user, by which one is asked for; none where it is of no user. `data` is
    the Identity, the Contact or the Issue as it was at `at` (Unix ms), in the shape of the API.
    """

    at: int
    account: str
    type: EventType
    names: tuple[str, ...]
    data: Mapping[str, Any]
