"""What the resources work with, as the composition root hands it to them."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from aiohttp import web

from service.api.room import Room
from service.ledger.ledger import Ledger
from service.ledger.messages import Messages
from service.ledger.unit_of_work import ChangeSet
from service.model.account_checks import IdentityCheck
from service.model.gate import Reason
from service.observability.metrics import Metrics
from service.settings import Settings
from service.store.database import Database
from service.whatsapp.client import Client
from service.whatsapp.graph import Graph
from service.workers.checker import Checker
from service.workers.inspector import Inspector
from service.workers.leasing import Worker
from service.workers.verifier import Verifier


@dataclass(slots=True)
class Changes:
    """Wakes those who wait for a user to change."""

    _waiting: dict[int, set[asyncio.Event]] = field(default_factory=dict)
    closing: bool = False

    def hear(self, commit: ChangeSet) -> None:
        """Wake whoever waits for one of the users that a commit changed."""
        for user_id in commit.users & self._waiting.keys():
            for event in self._waiting[user_id]:
                event.set()

    def close(self) -> None:
        """Wake everybody: the service stops."""
        self.closing = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    def watch(self, user_id: int) -> asyncio.Event:
        """Begin to wait for a user."""
        event = asyncio.Event()
        self._waiting.setdefault(user_id, set()).add(event)
        return event

    def unwatch(self, user_id: int, event: asyncio.Event) -> None:
        """Wait no longer."""
        events = self._waiting[user_id]
        events.discard(event)
        if not events:
            del self._waiting[user_id]

    @contextmanager
    def watching(self, user_ids: Iterable[int]) -> Iterator[asyncio.Event]:
        """Wait for any of some users, as long as the block lasts."""
        event, watched = asyncio.Event(), list(user_ids)
        for user_id in watched:
            self._waiting.setdefault(user_id, set()).add(event)
        try:
            yield event
        finally:
            for user_id in watched:
                self.unwatch(user_id, event)


@dataclass(slots=True)
class AppContext:
    """The parts of one running service.

    A client for each account of the On-Premises API, a graph and an identity check for each of the
    Cloud API; a verifier for each account that is unverified, an inspector for each there is, and
    for each app by what the journal calls it; an acknowledger for each account, once they work;
    `catching_up` says that callbacks of the time when the service was down may be under way.
    """

    settings: Settings
    database: Database
    ledger: Ledger
    clients: Mapping[str, Client]
    metrics: Metrics
    changes: Changes
    room: Room
    messages: Messages
    checkers: Mapping[str, Checker]
    verifiers: dict[str, Verifier] = field(default_factory=dict)
    inspectors: dict[str, Inspector] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    identity_checks: dict[str, IdentityCheck] = field(default_factory=dict)
    acknowledgers: dict[str, Worker] = field(default_factory=dict)
    catching_up: Reason | None = None
    ready: bool = False


APP_CONTEXT = web.AppKey("services", AppContext)


def services(request: web.Request) -> AppContext:
    """Give the parts to a handler."""
    return request.config_dict[APP_CONTEXT]


def rfc3339(at: int | None) -> str | None:
    """Write Unix milliseconds as RFC 3339 in UTC with milliseconds."""
    return None if at is None else f"{_second(at // 1000)}.{at % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}"
