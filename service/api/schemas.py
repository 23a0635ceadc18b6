"""The answers of the API as types, from which `docs/openapi.json` is made.

The serializers return them, so the type checker holds the code to them, and the acceptance tests
check every answer against them. They are plain dictionaries for `orjson`: the gate's answers are
hot. Where a text may get new values later (states, codes, events), its schema is a text with the
values known today, so that a generated client doesn't break on a new one.
"""

from enum import StrEnum
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from service.model.account_checks import CURES
from service.model.event_log import EventType
from service.model.gate import CLEARS_WHEN
from service.model.users import Kind, State

_WHEN = "2026-11-23T05:21:50.893Z"


def _open(*values: str | StrEnum, example: str | None = None) -> Any:
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
EventId = Annotated[str, Field(description="To go on from, as `after`.", examples=["3f9a1c07-42"])]


class By(TypedDict):
    """Who decided: the policy (`name` is the rule), an API key, or the client itself."""

    kind: Annotated[str, _open("policy", "key", "client", example="key")]
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
    relation: Annotated[str, _open("successor", "predecessor", "former_owner", "next_owner")]
    since: Time


class Identity(TypedDict):
    """The latest identity of a user, and what becomes of it."""

    account: AccountName
    wa_id: WaId | None
    user_id: NoUserId
    hash: Hash | None
    state: Annotated[str | None, _open(*State, example="pending")]
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
    outcome: Annotated[str | None, _open("superseded", "disputed")]
    changed_at: Time | None
    received_at: Time | None
    decided_by: By | None
    decided_at: Time | None
    acknowledged_at: Time | None


class AuditEntry(TypedDict):
    """What happened to an identity, by whom and why."""

    at: Time
    event: Annotated[
        str, _open("changed", "decided", "held", "acknowledged", "failed", "superseded")
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


class Status(TypedDict):
    """Counts of identities by state, and the age of the oldest pending one."""

    counts: Annotated[dict[str, int], Field(examples=[dict.fromkeys(map(str, State), 0)])]
    oldest_pending_at: Time | None
    oldest_pending_seconds: Seconds | None
    as_of: Time


class BacklogOfKind(TypedDict):
    """Calls to the client that wait."""

    waiting: Count
    overdue: Count
    oldest_due_at: Time | None


class Login(TypedDict):
    """How the login to the client goes, or the use of the access token (Cloud API)."""

    state: Annotated[str, _open("ok", "none", "refused")]
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
    kind: Annotated[str, _open("onprem", "cloud")]
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


class OptIn(TypedDict):
    """When and how the customer agreed to be written to."""

    at: Time
    how: Annotated[str, Field(examples=["web form 17"])]


class Contact(TypedDict):
    """What the client last reported about a number."""

    account: AccountName
    input: Annotated[str, Field(description="As it was checked.", examples=["+1 631 555 1001"])]
    wa_id: WaId | None
    status: Annotated[str, _open("valid", "invalid", "failed", "processing")]
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

    code: Annotated[str, _open(*CLEARS_WHEN)]
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


class ItemProblem(TypedDict):
    """What is wrong with one item of a request whose other items are answered."""

    type: Annotated[str, Field(examples=["/docs/problems#not_valid"])]
    title: Annotated[str, Field(examples=["Unprocessable Entity"])]
    status: Annotated[int, Field(ge=400, le=599, examples=[422])]
    detail: Annotated[str, Field(examples=["neither a usable alias nor a phone number"])]


class LookupProblem(TypedDict):
    """The place of an answer, where a text can be no recipient."""

    input: Annotated[str, Field(description="As it was asked about.", examples=["n/a"])]
    error: ItemProblem


class LookupAnswers(TypedDict):
    """The gate's answers, in the order of the request."""

    items: list[LookupAnswer | LookupProblem]


class Issue(TypedDict):
    """What is wrong with an account, and how to cure it."""

    code: Annotated[str, _open(*CURES)]
    account: AccountName | None
    subject: NoText
    severity: Annotated[str, _open("warning", "notice")]
    since: Time | None
    detail: Annotated[str, Field(examples=["show_security_notifications is off"])]
    cure: Annotated[str, Field(examples=["run 'ackgate accounts setup main'"])]


class IssueList(TypedDict):
    """Issues."""

    items: list[Issue]
    next_cursor: Cursor


class BlockedIdentity(Identity):
    """An Identity, and the reason of the gate that came or went."""

    reason: Reason


class Event(TypedDict):
    """What happened, with the Identity, Contact or Issue as it was at that moment."""

    id: EventId
    type: Annotated[str, _open(*EventType, "gap", "reset", example="identity.pending")]
    at: Time
    account: AccountName | None
    user: Annotated[
        str | None, Field(description="What the user is called.", examples=["16315567001"])
    ]
    data: BlockedIdentity | Identity | Contact | Issue | None


class EventList(TypedDict):
    """A page of events, and where to go on."""

    items: list[Event]
    next_cursor: EventId


class Owner(TypedDict):
    """The account; or the app, of a callback that is of several accounts of it, or of none."""

    account: AccountName | None
    app: NotRequired[Annotated[str, Field(examples=["meta"])]]


class JournalEntry(Owner):
    """A callback as it came."""

    id: Annotated[int, Field(ge=1, examples=[13])]
    received_at: Time
    state: Annotated[str, _open("applied", "quarantined", "synthetic")]
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


class OnPremisesIdentity(TypedDict):
    """The identity of a user as the On-Premises API has it."""

    hash: Hash | None
    created_timestamp: Annotated[int, Field(examples=[1763875310893])]
    acknowledged: Annotated[bool, Field(examples=[True])]


class OnPremisesContacts(TypedDict):
    """The answer of the On-Premises API about an identity."""

    contacts: OnPremisesIdentity


class Empty(TypedDict):
    """An object without members."""

    __pydantic_config__ = ConfigDict(json_schema_extra={"maxProperties": 0})  # type: ignore[misc]


class HealthCheck(TypedDict):
    """One of the things that are looked at."""

    status: Annotated[str, _open("pass", "warn", "fail")]
    detail: NotRequired[Annotated[str, Field(examples=["the database can't be written"])]]
    free_bytes: NotRequired[Annotated[int, Field(ge=0, examples=[1_073_741_824])]]
    gateway_status: NotRequired[Annotated[str, Field(examples=["connected"])]]


class Alive(TypedDict):
    """That the service answers."""

    status: Annotated[str, _open("pass")]


class Checks(TypedDict):
    """The worst of the checks, and each of them by its name."""

    status: Annotated[str, _open("pass", "warn", "fail")]
    checks: Annotated[dict[str, HealthCheck], Field(examples=[{"database": {"status": "pass"}}])]


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
    reason: NotRequired[Annotated[str, _open("budget", "rate")]]
    retry_after: NotRequired[Annotated[int, Field(ge=1, examples=[5])]]
    code: NotRequired[Annotated[str, _open("database_lost", "database_damaged")]]


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


class Description(TypedDict):
    """This description (OpenAPI 3.1)."""

    openapi: Annotated[str, Field(examples=["3.1.0"])]
    info: Annotated[dict[str, JsonValue], Field(examples=[{"title": "Ackgate"}])]
    servers: Annotated[list[JsonValue], Field(examples=[[{"url": "/"}]])]
    tags: Annotated[list[JsonValue], Field(examples=[[{"name": "gate"}]])]
    paths: Annotated[dict[str, JsonValue], Field(examples=[{}])]
    components: Annotated[dict[str, JsonValue], Field(examples=[{}])]
