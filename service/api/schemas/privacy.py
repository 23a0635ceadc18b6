"""Answers about a person's rights: what was erased, and what is kept."""

from typing import Annotated

from pydantic import Field, JsonValue
from typing_extensions import TypedDict

from service.api.schemas.fields import Time


class Erased(TypedDict):
    """In how many rows of each kind something was erased, and the backups that have it still.

    `linked` are other numbers of the same person, of whom nothing was erased.
    """

    account: str
    erased: Annotated[dict[str, int], Field(examples=[{"callbacks": 12, "events": 3}])]
    linked: Annotated[list[str], Field(examples=[["16315567002"]])]
    backups: Annotated[list[str], Field(examples=[["ackgate.db.before-0019"]])]


class ExportedCallback(TypedDict):
    """A callback, with the elements of it that are about the user alone."""

    id: int
    received_at: Time
    elements: list[JsonValue]


Rows = list[dict[str, JsonValue]]


class Exported(TypedDict):
    """All that is kept of a user, as the tables hold it; times are RFC 3339."""

    account: str
    names: list[str]
    user: dict[str, JsonValue] | None
    changes: Rows
    block: dict[str, JsonValue] | None
    work: Rows
    contacts: Rows
    audit: Rows
    callbacks: list[ExportedCallback]
    events: Rows
    messages: Rows
