"""The answers of the API as types, from which `docs/openapi.json` is made; one module a resource.

The serializers return them, so the type checker holds the code to them, and the acceptance tests
check every answer against them. They are plain dictionaries for `orjson`: the gate's answers are
hot. Requests are models of pydantic instead, each beside the handler that reads it.
"""

from service.api.schemas.accounts import (
    Account,
    AccountList,
    BacklogOfKind,
    ClientSettings,
    Health,
    Issue,
    IssueList,
    Login,
    Unverified,
)
from service.api.schemas.events import BlockedIdentity, Event, EventList
from service.api.schemas.fields import Empty
from service.api.schemas.identities import (
    AuditEntry,
    By,
    Change,
    Identity,
    IdentityList,
    IdentityWithHistory,
    OnPremisesContacts,
    RecordedEvidence,
)
from service.api.schemas.journal import (
    JournalEntry,
    JournalEntryWithBody,
    JournalList,
    Owner,
    TrailEntry,
    TrailList,
)
from service.api.schemas.privacy import Erased
from service.api.schemas.problems import (
    DecidedIdentities,
    DecidedIdentity,
    DecisionProblem,
    ItemProblem,
    Problem,
)
from service.api.schemas.recipients import (
    CheckedContacts,
    Contact,
    ContactList,
    GateAnswer,
    LookupAnswer,
    LookupAnswers,
    LookupProblem,
    Reason,
)
from service.api.schemas.relays import Count, Delivery, DeliveryList, Relay, RelayList, RelayTest
from service.api.schemas.sending import (
    GraphError,
    GraphErrorData,
    GraphFailure,
    GraphMessage,
    GraphRecipient,
    GraphSent,
    GraphUploaded,
    OnPremisesError,
    OnPremisesFailure,
    OnPremisesFile,
    OnPremisesSent,
    OnPremisesUploaded,
)
from service.api.schemas.service import Alive, Checks, Description, Status

__all__ = [
    "Account",
    "AccountList",
    "Alive",
    "AuditEntry",
    "BacklogOfKind",
    "BlockedIdentity",
    "By",
    "Change",
    "CheckedContacts",
    "Checks",
    "ClientSettings",
    "Contact",
    "ContactList",
    "Count",
    "DecidedIdentities",
    "DecidedIdentity",
    "DecisionProblem",
    "Delivery",
    "DeliveryList",
    "Description",
    "Empty",
    "Erased",
    "Event",
    "EventList",
    "GateAnswer",
    "GraphError",
    "GraphErrorData",
    "GraphFailure",
    "GraphMessage",
    "GraphRecipient",
    "GraphSent",
    "GraphUploaded",
    "Health",
    "Identity",
    "IdentityList",
    "IdentityWithHistory",
    "Issue",
    "IssueList",
    "ItemProblem",
    "JournalEntry",
    "JournalEntryWithBody",
    "JournalList",
    "Login",
    "LookupAnswer",
    "LookupAnswers",
    "LookupProblem",
    "OnPremisesContacts",
    "OnPremisesError",
    "OnPremisesFailure",
    "OnPremisesFile",
    "OnPremisesSent",
    "OnPremisesUploaded",
    "Owner",
    "Problem",
    "Reason",
    "RecordedEvidence",
    "Relay",
    "RelayList",
    "RelayTest",
    "Status",
    "TrailEntry",
    "TrailList",
    "Unverified",
]
