"""Answers about accounts: how their clients do, and what is wrong."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.fields import (
    AccountName,
    Count,
    Cursor,
    NoText,
    NoTimeYet,
    Seconds,
    Time,
    open_text,
)
from service.model.account_checks import CURES
from service.model.users import Kind


class BacklogOfKind(TypedDict):
    """Calls to the client that wait."""

    waiting: Count
    overdue: Count
    oldest_due_at: Time | None


class Login(TypedDict):
    """How the login to the client goes, or the use of the access token (Cloud API)."""

    state: Annotated[str, open_text("ok", "none", "refused")]
    since: Time | None
    retry_in_seconds: Annotated[Seconds | None, Field(examples=[None])]


class Health(TypedDict):
    """Whether the client, or the Cloud API, answers."""

    gateway_status: NotRequired[Annotated[str, Field(examples=["connected"])]]
    quality_rating: NotRequired[Annotated[str | None, Field(examples=["GREEN"])]]
    reachable: Annotated[bool, Field(examples=[True])]
    unreachable_since: NoTimeYet
    last_error: NoText


class ClientSettings(TypedDict):
    """When the client's settings were last read, and the codes of what is wrong with them."""

    read_at: Time | None
    client_version: Annotated[str | None, Field(examples=["v2.45.1"])]
    issues: Annotated[list[str], Field(examples=[["callback_persist_off"]])]


class Unverified(TypedDict):
    """After a restore: since when, and about how many users the client is still to be asked."""

    since: Time | None
    remaining: Annotated[int, Field(ge=0, examples=[1840])]


class Account(TypedDict):
    """An account of the configuration, with the state of its client."""

    account: AccountName
    kind: Annotated[str, open_text("onprem", "cloud")]
    first_callback_at: Time | None
    last_callback_at: Time | None
    backlog: Annotated[
        dict[str, BacklogOfKind], Field(description=f"By kind of call: {', '.join(Kind)}.")
    ]
    login: Login | None
    health: Health | None
    settings: ClientSettings | None
    unverified: Annotated[Unverified | None, Field(examples=[None])]


class AccountList(TypedDict):
    """Every account of the configuration."""

    items: list[Account]
    next_cursor: Cursor


class Issue(TypedDict):
    """What is wrong with an account, and how to cure it."""

    code: Annotated[str, open_text(*CURES)]
    account: AccountName | None
    subject: NoText
    severity: Annotated[str, open_text("warning", "notice")]
    since: Time | None
    detail: Annotated[str, Field(examples=["show_security_notifications is off"])]
    cure: Annotated[str, Field(examples=["run 'ackgate accounts setup main'"])]


class IssueList(TypedDict):
    """Issues."""

    items: list[Issue]
    next_cursor: Cursor
