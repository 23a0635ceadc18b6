"""Fields that several answers have.

Where a text may get new values later (states, codes, events), its schema is a text with the values
known today, so that a generated client doesn't break on a new one.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

_WHEN = "2026-11-23T05:21:50.893Z"


def open_text(*values: str | StrEnum, example: str | None = None) -> Any:
    """Return the schema of a text with these values today, and perhaps others later."""
    known = [str(value) for value in values]
    more: dict[str, JsonValue] = {"x-extensible-enum": [*known]}
    return Field(
        description=f"One of {', '.join(known)}; others may come.",
        examples=[example or known[0]],
        json_schema_extra=more,
    )


Time = Annotated[
    str,
    Field(
        description="RFC 3339 in UTC with milliseconds",
        examples=[_WHEN],
        json_schema_extra={"format": "date-time"},
    ),
]
NoTimeYet = Annotated[Time | None, Field(examples=[None])]
AccountName = Annotated[str, Field(description="As in the configuration.", examples=["main"])]
WaId = Annotated[str, Field(examples=["16315567001"])]
UserId = Annotated[str, Field(description="The user id of the Cloud API.", examples=["US.1349"])]
NoUserId = Annotated[UserId | None, Field(examples=[None])]
Hash = Annotated[str, Field(description="An opaque identity hash.", examples=["rHEhX5K/adk="])]
Text = Annotated[str, Field(examples=["called back"])]
NoText = Annotated[str | None, Field(examples=[None])]
Seconds = Annotated[float, Field(ge=0, examples=[4.264])]
Count = Annotated[int, Field(ge=0, examples=[2])]
Cursor = Annotated[
    str | None, Field(description="The `cursor` of the next page, if any.", examples=[None])
]


class Empty(TypedDict):
    """An object without members."""

    __pydantic_config__ = ConfigDict(json_schema_extra={"maxProperties": 0})  # type: ignore[misc]
