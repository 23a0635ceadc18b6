"""Answers about a person's rights: what was erased."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict


class Erased(TypedDict):
    """In how many rows of each kind something was erased, and the backups that have it still.

    `linked` are other numbers of the same person, of whom nothing was erased.
    """

    account: str
    erased: Annotated[dict[str, int], Field(examples=[{"callbacks": 12, "events": 3}])]
    linked: Annotated[list[str], Field(examples=[["16315567002"]])]
    backups: Annotated[list[str], Field(examples=[["ackgate.db.before-0019"]])]
