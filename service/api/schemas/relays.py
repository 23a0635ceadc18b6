"""Answers about the relays."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.fields import Count as Number
from service.api.schemas.fields import Cursor, NoText, NoTimeYet, Seconds, open_text
from service.model.relays import RowState


class Relay(TypedDict):
    """Where a relay stands.

    `behind` counts rows of its log that are still to be looked at or delivered; `retrying`,
    `waiting` and `dead` are deliveries that failed while others passed. `replaying` is how many
    are still to be sent once more, at most: its filters are applied as it reads on.
    """

    name: Annotated[str, Field(examples=["crm"])]
    source: Annotated[str, open_text("callbacks", "events")]
    state: Annotated[str, open_text("running", "backing_off", "paused")]
    paused_by: Annotated[
        str | None,
        Field(description="A key, or why it paused by itself: gone, too_many_rows."),
    ]
    behind: Number
    behind_seconds: Seconds
    retrying: Number
    waiting: Number
    dead: Number
    skipped: Number
    replaying: Number
    last_delivered_at: NoTimeYet
    last_error: NoText
    position: Number


class RelayList(TypedDict):
    """All relays."""

    items: list[Relay]
    next_cursor: Cursor


class Delivery(TypedDict):
    """A delivery that failed while others passed, or waits behind one of the same user.

    `answer` is the first kilobyte of the last answer.
    """

    id: Annotated[int, Field(ge=1, examples=[3])]
    journal_id: Annotated[int, Field(ge=1, examples=[13])]
    replay: bool
    state: Annotated[str, open_text(*RowState)]
    attempts: Number
    due_at: NoTimeYet
    last_status: Annotated[int | None, Field(examples=[400])]
    last_error: NoText
    answer: NoText


class DeliveryList(TypedDict):
    """A page of deliveries."""

    items: list[Delivery]
    next_cursor: Cursor


class RelayTest(TypedDict):
    """What a destination answered to a body of our own; `status` is null where it did not.

    `answer` is the first kilobyte of what it said.
    """

    status: Annotated[int | None, Field(examples=[200])]
    milliseconds: Number
    error: NoText
    answer: NoText


class Count(TypedDict):
    """How many there are."""

    count: Number
