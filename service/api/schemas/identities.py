"""Answers about identities: one, lists of them, and their audit trail."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.fields import (
    AccountName,
    Cursor,
    Hash,
    NoText,
    NoTimeYet,
    NoUserId,
    Text,
    Time,
    WaId,
    open_text,
)
from service.model.users import State


class By(TypedDict):
    """Who decided: the policy (`name` is the rule), an API key, a person, or the client."""

    kind: Annotated[str, open_text("policy", "key", "person", "client", example="key")]
    name: NotRequired[Annotated[str, Field(examples=["crm"])]]
    on_behalf_of: NotRequired[Annotated[str, Field(examples=["Ana"])]]


class RecordedEvidence(TypedDict):
    """What a decision rests on: how the user was recognised, and where that is recorded."""

    method: Annotated[str, Field(examples=["phone_call"])]
    reference: Annotated[str, Field(examples=["T-17"])]


class Linked(TypedDict):
    """Another user who has to do with this one by a number; one of the two names is set."""

    wa_id: WaId | None
    user_id: NoUserId
    relation: Annotated[str, open_text("successor", "predecessor", "former_owner", "next_owner")]
    since: Time


class Identity(TypedDict):
    """The latest identity of a user, and what becomes of it."""

    account: AccountName
    wa_id: WaId | None
    user_id: NoUserId
    hash: Hash | None
    state: Annotated[str | None, open_text(*State, example="pending")]
    blocking: Annotated[
        bool,
        Field(description="True unless `acknowledged` or `awaiting_hash`.", examples=[True]),
    ]
    changed_at: Time | None
    received_at: Time | None
    updated_at: Time | None
    due_at: NoTimeYet
    decided_by: Annotated[By | None, Field(examples=[None])]
    decided_at: NoTimeYet
    acknowledged_at: NoTimeYet
    attempts: Annotated[int, Field(ge=0, examples=[0])]
    last_error: NoText
    linked: Annotated[list[Linked], Field(examples=[[]])]


class Change(TypedDict):
    """An earlier change of a user's identity."""

    hash: Hash | None
    outcome: Annotated[str | None, open_text("superseded", "disputed")]
    changed_at: Time | None
    received_at: Time | None
    decided_by: By | None
    decided_at: Time | None
    acknowledged_at: Time | None


class AuditEntry(TypedDict):
    """What happened to an identity, by whom and why."""

    at: Time
    event: Annotated[
        str, open_text("changed", "decided", "held", "acknowledged", "failed", "superseded")
    ]
    hash: Hash | None
    by: By | None
    reason: NoText
    note: Text | None
    evidence: RecordedEvidence | None
    request_id: Annotated[str | None, Field(examples=["jgkwmdlsbvkqpzfyhxtc"])]


class IdentityWithHistory(Identity):
    """An Identity with its earlier changes, newest first, and its audit trail."""

    history: list[Change]
    audit: list[AuditEntry]


class IdentityList(TypedDict):
    """A page of identities."""

    items: list[Identity]
    next_cursor: Cursor


class OnPremisesIdentity(TypedDict):
    """The identity of a user as the On-Premises API has it."""

    hash: Hash | None
    created_timestamp: Annotated[int, Field(examples=[1763875310893])]
    acknowledged: Annotated[bool, Field(examples=[True])]


class OnPremisesContacts(TypedDict):
    """The answer of the On-Premises API about an identity."""

    contacts: OnPremisesIdentity
