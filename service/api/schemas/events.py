"""Answers from the event log."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.accounts import Issue
from service.api.schemas.fields import AccountName, Time, open_text
from service.api.schemas.identities import Identity
from service.api.schemas.recipients import Contact, Reason
from service.model.event_log import EventType

EventId = Annotated[str, Field(description="To go on from, as `after`.", examples=["3f9a1c07-42"])]


class BlockedIdentity(Identity):
    """An Identity, and the reason of the gate that came or went."""

    reason: Reason


class Event(TypedDict):
    """What happened, with the Identity, Contact or Issue as it was at that moment."""

    id: EventId
    type: Annotated[str, open_text(*EventType, "gap", "reset", example="identity.pending")]
    at: Time
    account: AccountName | None
    user: Annotated[
        str | None, Field(description="What the user is called.", examples=["16315567001"])
    ]
    data: Identity | BlockedIdentity | Contact | Issue | None


class EventList(TypedDict):
    """A page of events, and where to go on."""

    items: list[Event]
    next_cursor: EventId
