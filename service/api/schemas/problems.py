"""Problems, and the answers that hold one beside others that went well."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.fields import AccountName, Hash, WaId, open_text
from service.api.schemas.identities import Identity


class ItemProblem(TypedDict):
    """What is wrong with one item of a request whose other items are answered."""

    type: Annotated[str, Field(examples=["/docs/problems#not_valid"])]
    title: Annotated[str, Field(examples=["Unprocessable Entity"])]
    status: Annotated[int, Field(ge=400, le=599, examples=[422])]
    detail: Annotated[str, Field(examples=["neither a usable alias nor a phone number"])]


class FieldAtFault(TypedDict):
    """A field of the request that is not valid, and what is wrong with it."""

    field: Annotated[str, Field(examples=["limit"])]
    message: Annotated[str, Field(examples=["must be at most 1000"])]


class DecisionProblem(ItemProblem):
    """Why a decision is not taken; the last members depend on the type."""

    errors: NotRequired[list[FieldAtFault]]
    identity: NotRequired[Identity]
    candidates: NotRequired[Annotated[list[str], Field(examples=[["16315567001"]])]]
    other_spelling: NotRequired[WaId]


class Problem(DecisionProblem):
    """Why a request is not answered (RFC 9457); the last members depend on the type."""

    request_id: Annotated[str, Field(examples=["jgkwmdlsbvkqpzfyhxtc"])]
    reason: NotRequired[Annotated[str, open_text("budget", "rate")]]
    retry_after: NotRequired[Annotated[int, Field(ge=1, examples=[5])]]
    code: NotRequired[
        Annotated[str, open_text("database_lost", "database_damaged", "database_restored")]
    ]


class DecidedIdentity(TypedDict):
    """What became of one of many decisions: its identity, or the problem."""

    account: AccountName
    user: Annotated[str, Field(description="As it was sent.", examples=["16315567001"])]
    hash: Hash | None
    status: Annotated[int, Field(ge=200, le=599, examples=[200])]
    identity: NotRequired[Identity]
    error: NotRequired[DecisionProblem]


class DecidedIdentities(TypedDict):
    """What became of each decision, in the order of the request."""

    items: list[DecidedIdentity]
