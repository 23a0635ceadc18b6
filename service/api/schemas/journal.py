"""Answers from the journal and the audit trail."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.fields import (
    AccountName,
    Cursor,
    NoText,
    NoTimeYet,
    NoUserId,
    Time,
    WaId,
    open_text,
)
from service.api.schemas.identities import AuditEntry


class Owner(TypedDict):
    """The account; or the app, of a callback that is of several accounts of it, or of none."""

    account: AccountName | None
    app: NotRequired[Annotated[str, Field(examples=["meta"])]]


class JournalEntry(Owner):
    """A callback as it came."""

    id: Annotated[int, Field(ge=1, examples=[13])]
    received_at: Time
    state: Annotated[str, open_text("applied", "quarantined", "synthetic", "erased")]
    reason: NoText
    replayed_at: NoTimeYet
    request_id: Annotated[str | None, Field(examples=["jgkwmdlsbvkqpzfyhxtc"])]


class JournalEntryWithBody(JournalEntry):
    """The same with headers and body, which admins alone see; one of `body`, `body_base64`."""

    content_type: NotRequired[Annotated[str | None, Field(examples=["application/json"])]]
    content_encoding: NotRequired[NoText]
    headers: NotRequired[Annotated[list[list[str]], Field(examples=[[["user-agent", "WhatsApp"]]])]]
    body: NotRequired[Annotated[str, Field(examples=['{"statuses": []}'])]]
    body_base64: NotRequired[str]


class JournalList(TypedDict):
    """A page of the journal, without the bodies."""

    items: list[JournalEntry]
    next_cursor: Cursor


class TrailEntry(Owner, AuditEntry):
    """An entry of the whole audit trail, with the user's present names."""

    id: Annotated[int, Field(ge=1, examples=[2])]
    wa_id: WaId | None
    user_id: NoUserId


class TrailList(TypedDict):
    """A page of the audit trail."""

    items: list[TrailEntry]
    next_cursor: Cursor
