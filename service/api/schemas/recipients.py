"""Answers about recipients: contacts, and whether they may be written to."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.fields import (
    AccountName,
    Cursor,
    Hash,
    NoUserId,
    Text,
    Time,
    UserId,
    WaId,
    open_text,
)
from service.api.schemas.problems import ItemProblem
from service.model.gate import CLEARS_WHEN


class OptIn(TypedDict):
    """When and how the customer agreed to be written to."""

    at: Time
    how: Annotated[str, Field(examples=["web form 17"])]


class Contact(TypedDict):
    """What the client last reported about a number."""

    account: AccountName
    input: Annotated[str, Field(description="As it was checked.", examples=["+1 631 555 1001"])]
    wa_id: WaId | None
    status: Annotated[str, open_text("valid", "invalid", "failed", "processing")]
    checked_at: Time
    expires_at: Time
    checking: Annotated[bool, Field(examples=[False])]
    canonical: Annotated[str | None, Field(examples=["16315551001"])]
    opt_in: OptIn | None


class ContactList(TypedDict):
    """A page of contacts."""

    items: list[Contact]
    next_cursor: Cursor


class CheckedContacts(TypedDict):
    """One contact for each input, in their order."""

    items: list[Contact]


class Reason(TypedDict):
    """Why not to write to a user, or what to be aware of, about whom and what would clear it.

    `of` is an alias of the user whom it is about, or null where it is about the account. `wa_id` or
    `user_id` is whom to write to, or to ask by, instead.
    """

    code: Annotated[str, open_text(*CLEARS_WHEN)]
    since: Time | None
    of: WaId | None
    clears_when: Annotated[str, Field(examples=[CLEARS_WHEN["identity_pending"]])]
    wa_id: NotRequired[WaId]
    user_id: NotRequired[UserId]
    until: NotRequired[Time]
    detail: NotRequired[Text]


class GateAnswer(TypedDict):
    """Whether a user may be written to; the last two fields on accounts of the Cloud API alone."""

    account: AccountName
    wa_id: WaId | None
    known: Annotated[bool, Field(examples=[True])]
    sendable: Annotated[bool, Field(description="No `reasons`.", examples=[False])]
    reasons: list[Reason]
    warnings: Annotated[list[Reason], Field(examples=[[]])]
    as_of: Time
    user_id: NotRequired[NoUserId]
    identity_key_hash: NotRequired[
        Annotated[
            Hash | None,
            Field(
                description="What to send as `recipient_identity_key_hash`.",
                examples=[None],
            ),
        ]
    ]


Asked = Annotated[str, Field(description="As it was asked about.", examples=["16315567001"])]


class LookupAnswer(GateAnswer):
    """The gate's answer about one recipient of a lookup."""

    input: Asked


class LookupProblem(TypedDict):
    """The place of an answer, where a text can be no recipient."""

    input: Annotated[str, Field(description="As it was asked about.", examples=["n/a"])]
    error: ItemProblem


class LookupAnswers(TypedDict):
    """The gate's answers, in the order of the request."""

    items: list[LookupAnswer | LookupProblem]
