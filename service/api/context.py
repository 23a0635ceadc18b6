"""What the resources work with: the parts of the running service, waiters, the storage probe."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import structlog
from aiohttp import web

from service.api.event_hub import EventHub
from service.api.reports import Elsewhere
from service.ledger.contacts import Messages
from service.ledger.ledger import Ledger
from service.model.account_checks import ExpectedSettings, IdentityCheck, Issue
from service.model.gate import Reason
from service.model.signature_check import SignatureCheck
from service.observability.metrics import Metrics
from service.observability.tally import Tally
from service.settings import Settings
from service.store.accounts import CREATED, free_reserve, write_reserve
from service.store.database import ChangeSet, Database, UnavailableError
from service.store.events import IssueKey
from service.store.replicas import MAX_WANTED
from service.webhooks.body import BodyReader, Reservation
from service.whatsapp.cloud import Graph
from service.whatsapp.onprem import Client
from service.workers.alerts import Alerter, Channel
from service.workers.contacts import Checker
from service.workers.erasing import Eraser
from service.workers.monitoring import Inspector
from service.workers.relays import Relay
from service.workers.restore import Verifier

log = structlog.get_logger(__name__)

CREATED_DETAIL = "a start made a new database: who was held or blocked before is not known to it"


@dataclass(slots=True)
class Changes:
    """Wakes the requests that wait for a user to change."""

    _waiting: dict[int, set[asyncio.Event]] = field(default_factory=dict)
    closing: bool = False

    def notify(self, commit: ChangeSet) -> None:
        """Wake every request that waits for one of the users that a commit changed."""
        for user_id in commit.users & self._waiting.keys():
            for event in self._waiting[user_id]:
                event.set()

    @property
    def watched(self) -> Collection[int]:
        """The users whom requests wait for."""
        return self._waiting.keys()

    def close(self) -> None:
        """Wake all of them, because the service stops."""
        self.closing = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    @contextmanager
    def watching(self, user_ids: Iterable[int]) -> Iterator[asyncio.Event]:
        """Yield an event that is set once any of the users has changed."""
        event, watched = asyncio.Event(), set(user_ids)
        for user_id in watched:
            self._waiting.setdefault(user_id, set()).add(event)
        try:
            yield event
        finally:
            for user_id in watched:
                self._waiting[user_id].discard(event)
                if not self._waiting[user_id]:
                    del self._waiting[user_id]


@dataclass(slots=True)
class StorageProbe:
    """Finds out whether a callback of any size can be stored.

    Once a write was refused, a small one that succeeds proves nothing: a disk that is nearly full
    would take it, and refuse the next large callback. So a reserve as large as the largest callback
    must be written before the database is considered writable again.
    """

    ledger: Ledger
    database: Database
    reserve_bytes: int
    _resolved: int = 0
    _trying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def can_write(self) -> bool:
        """Return whether callbacks can be stored; write the reserve if one was refused lately."""
        async with self._trying:
            refused = self.ledger.refused
            if refused != self._resolved and await self._reserve_fits():
                self._resolved = refused
                self.ledger.available = True
            return self._resolved == refused

    async def _reserve_fits(self) -> bool:
        try:
            await self.database.write(partial(write_reserve, size=self.reserve_bytes))
            await self.database.write(partial(free_reserve, now=self.ledger.clock()))
        except UnavailableError:
            return False
        return True


@dataclass(slots=True)
class Leading:
    """The parts of the leader that others work with.

    `inspectors` hold one for each account and, under its name in the journal, one for each app, and
    those of relays, keys and what is pending, whose names no account has; `verifiers` one for each
    account that is unverified since a restore. `rows_erased` is when rows of the logs were erased
    last, as far as relays have heeded it.
    """

    alerter: Alerter
    verifiers: dict[str, Verifier] = field(default_factory=dict)
    inspectors: dict[str, Inspector] = field(default_factory=dict)
    relays: dict[str, Relay] = field(default_factory=dict)
    rows_erased: str | None = None

    def is_settled(self, key: IssueKey) -> bool:
        """Return whether an issue that is not there has passed: after a start nobody may know yet.

        Nobody looks at what left the configuration, or where inspections are off.
        """
        owner, code, subject = key
        name = owner
        if code in {"identities_pending", "erasure_unfinished"}:
            name = f"pending:{owner}"
        elif code.startswith("relay_"):
            name = f"relay:{subject}"
        inspector = self.inspectors.get(name)
        return inspector is None or not inspector.wanted or inspector.read_at is not None


@dataclass(slots=True)
class AppContext:
    """The parts of one running service.

    `clients`, `checkers` and `expected`, the settings that a client must have, hold one for each
    account of the On-Premises API, `graphs` and `identity_checks` one for each of the Cloud API;
    `signature_checks` one for each app, by its name in the journal. `leading` is set where this
    replica leads, and `channels` are where its alerts go then. `catching_up` is set while the
    client may still be delivering callbacks of the service's downtime; `stopping` from the signal
    to stop on. `created_at` (Unix ms) is set where a start made the database, until a person
    dismisses that; `unverified` says since which restore accounts are. `elsewhere` is what other
    replicas have told. `wanted` are users whom the leader is still to be told that the gate was
    asked about, by account; `dismissed` are the dismissals that were heeded.
    """

    settings: Settings
    database: Database
    ledger: Ledger
    clients: Mapping[str, Client]
    metrics: Metrics
    changes: Changes
    storage: StorageProbe
    messages: Messages
    checkers: Mapping[str, Checker]
    hub: EventHub
    expected: Mapping[str, ExpectedSettings] = field(default_factory=dict)
    channels: Sequence[Channel] = ()
    graphs: dict[str, Graph] = field(default_factory=dict)
    identity_checks: dict[str, IdentityCheck] = field(default_factory=dict)
    refused_keys: Tally = field(
        default_factory=lambda: Tally(log, "API requests without a valid key were refused")
    )
    signature_checks: dict[str, SignatureCheck] = field(default_factory=dict)
    leading: Leading | None = None
    catching_up: Reason | None = None
    created_at: int | None = None
    unverified: dict[str, int] = field(default_factory=dict)
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    wanted: dict[str, set[int]] = field(default_factory=dict)
    dismissed: Mapping[IssueKey, int] = field(default_factory=dict)
    heeding: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: bool = False
    stopping: bool = False
    eraser: Eraser = field(init=False)

    def __post_init__(self) -> None:
        """Make what knows of all erasures that run here."""
        self.eraser = Eraser(self.ledger, self.database)

    def count_refused_key(self, *, is_given: bool) -> None:
        """Count a request without an API key, or with one that is not known."""
        reason = "unknown" if is_given else "missing"
        self.metrics.keys_refused.labels(reason).inc()
        self.refused_keys.count(reason)

    def unreachable_since(self, account: str) -> int | None:
        """Return since when (Unix ms) an account's client, or the Cloud API, does not answer.

        The leader asks it regularly, and tells the others.
        """
        if self.leading is None:
            told = self.elsewhere.leading.accounts.get(account)
            return None if told is None else told.unreachable_since
        side = self.clients.get(account) or self.graphs.get(account)
        return None if side is None else side.reachability.unreachable_since

    def want(self, account: str, user_ids: Iterable[int]) -> None:
        """Have the client asked first about users whom the gate was asked about, since a restore.

        Only the leader asks. Others tell it once a second.
        """
        if self.leading is None:
            wanted = self.wanted.setdefault(account, set())
            wanted.update(islice(user_ids, max(0, MAX_WANTED - len(wanted))))
        elif account in self.leading.verifiers:
            self.leading.verifiers[account].want(user_ids)

    def issues(self, leading: Leading) -> Iterator[tuple[str, Issue]]:
        """Yield all issues, each with the name of its account or app in the journal."""
        if self.created_at is not None:
            yield "", Issue(CREATED, None, self.created_at, CREATED_DETAIL)
        for name, inspector in leading.inspectors.items():
            for issue in inspector.issues():
                yield issue.account or name, issue

    def noticed(self) -> list[Issue]:
        """Return what callbacks have shown to be wrong, whatever replica took them."""
        return self.elsewhere.noticed(self.noticed_here(), self.hashes_at())

    def noticed_here(self) -> list[Issue]:
        """Return what the callbacks that this replica took have shown to be wrong."""
        found = [
            Issue("identity_check_off", name, check.since, check.detail)
            for name, check in self.identity_checks.items()
            if check.seems_off and check.since is not None
        ]
        found += [
            Issue("wrong_signatures", None, check.since, check.detail, check.app)
            for check in self.signature_checks.values()
            if check.since is not None
        ]
        return found

    def hashes_at(self) -> dict[str, int]:
        """Return when (Unix ms) the last identity hash of an account came to this replica."""
        checks = self.identity_checks.items()
        return {name: check.hash_at for name, check in checks if check.hash_at is not None}


APP_CONTEXT = web.AppKey("context", AppContext)
BODIES = web.AppKey("bodies", BodyReader)
RESERVATION = web.RequestKey("reservation", Reservation)
"""What a request holds of the bytes that the bodies of API requests may have together."""


def app_context(request: web.Request) -> AppContext:
    """Return the parts of the service that answers a request."""
    return request.app[APP_CONTEXT]


CALLER_ACCOUNTS = web.RequestKey("caller_accounts", Sequence[str])
"""The accounts that the key is for; none where it is for all."""


def sees(request: web.Request, account: str) -> bool:
    """Return whether the caller's key is for an account; others are to it as unknown ones."""
    accounts = request[CALLER_ACCOUNTS]
    return not accounts or account in accounts
