"""Answers about the service itself: its status, its health, and the description of its API."""

from typing import Annotated, NotRequired

from pydantic import Field, JsonValue
from typing_extensions import TypedDict

from service.api.schemas.fields import Seconds, Time, open_text
from service.model.users import State


class Status(TypedDict):
    """Counts of identities by state, and the age of the oldest pending one.

    `leader` says whether this replica runs the background work: one alone on its database does.
    """

    counts: Annotated[dict[str, int], Field(examples=[dict.fromkeys(map(str, State), 0)])]
    oldest_pending_at: Time | None
    oldest_pending_seconds: Seconds | None
    leader: bool
    as_of: Time


class HealthCheck(TypedDict):
    """One of the things that are looked at."""

    status: Annotated[str, open_text("pass", "warn", "fail")]
    detail: NotRequired[Annotated[str, Field(examples=["the database can't be written"])]]
    free_bytes: NotRequired[Annotated[int, Field(ge=0, examples=[1_073_741_824])]]
    gateway_status: NotRequired[Annotated[str, Field(examples=["connected"])]]


class Alive(TypedDict):
    """That the service answers."""

    status: Annotated[str, open_text("pass")]


class Checks(TypedDict):
    """The worst of the checks, and each of them by its name."""

    status: Annotated[str, open_text("pass", "warn", "fail")]
    checks: Annotated[dict[str, HealthCheck], Field(examples=[{"database": {"status": "pass"}}])]


class Description(TypedDict):
    """This description (OpenAPI 3.1)."""

    openapi: Annotated[str, Field(examples=["3.1.0"])]
    info: Annotated[dict[str, JsonValue], Field(examples=[{"title": "Ackgate"}])]
    servers: Annotated[list[JsonValue], Field(examples=[[{"url": "/"}]])]
    tags: Annotated[list[JsonValue], Field(examples=[[{"name": "gate"}]])]
    paths: Annotated[dict[str, JsonValue], Field(examples=[{}])]
    components: Annotated[dict[str, JsonValue], Field(examples=[{}])]
