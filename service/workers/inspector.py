"""Looks at how each account is set up, at the start and regularly, and tells what is wrong.

Nothing is ever changed here: `ackgate accounts setup` does that, when it is asked to.
"""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import structlog

from service.ledger.ledger import Ledger
from service.model.account_checks import (
    NOTICES,
    ClientSettings,
    ExpectedSettings,
    Issue,
    wrong_settings,
)
from service.settings import Settings
from service.store.database import UnavailableError
from service.whatsapp.client import Client
from service.whatsapp.errors import BusyError, CallError, ForbiddenError
from service.whatsapp.reachability import Reachability
from service.whatsapp.settings import fingerprints

AGAIN_SECONDS = 30.0
"""After a client did not answer; no more often than its health is asked for."""


class Finding(NamedTuple):
    """The code of an issue, its detail, and what it is about where there may be several."""

    code: str
    detail: str
    subject: str | None = None


UNREADABLE = Finding(
    "settings_unreadable",
    "the login may not read the client's settings (403), so they are not checked",
)

log = structlog.get_logger(__name__)


def expected_of(settings: Settings, account: str) -> ExpectedSettings:
    """Tell how the client of an account must be set. OSError, ValueError: the CA file is gone."""
    server = settings.server
    authorities: frozenset[str] = frozenset()
    if server.public_ca_file is not None:
        authorities = fingerprints(server.public_ca_file.read_text())
    return ExpectedSettings(
        settings.door(account, server.public_url) if server.public_url else None,
        authorities,
        server.max_connections,
    )


class Subject(Protocol):
    """What is looked at."""

    @property
    def check(self) -> str:
        """What `/health/status` calls it."""

    @property
    def account(self) -> str | None:
        """The account whose it is; None where it is none of one account."""

    @property
    def version(self) -> str | None:
        """The version that the other side tells of itself."""

    async def look(self) -> list[Finding]:
        """Look once. Raises CallError where there is no answer."""

    def noticed(self) -> Iterable[Issue]:
        """Give what is wrong by what was noticed meanwhile, without being looked for."""

    def unreached(self) -> Iterable[Issue]:
        """Give what is wrong with the way there."""


class Inspector:
    """Looks after one subject. `read_at` (Unix ms) is when it last answered; None before."""

    def __init__(self, subject: Subject, ledger: Ledger, *, every_seconds: float) -> None:
        self.subject = subject
        self._ledger = ledger
        self._every = every_seconds
        self._found: dict[tuple[str, str | None], Issue] = {}
        self.read_at: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether it is to look at all."""
        return self._every > 0

    async def run(self) -> None:
        """Look, again and again; sooner where there was no answer."""
        while True:
            try:
                answered = await self.look()
            except Exception:
                log.exception("looking at the settings failed", account=self.subject.account)
                answered = True
            await asyncio.sleep(self._every if answered else min(self._every, AGAIN_SECONDS))

    async def look(self) -> bool:
        """Look once; False where nobody answered, and what was found before stands.

        Who says that it is asked too much is not asked again sooner.
        """
        try:
            found = await self.subject.look()
        except BusyError:
            return True
        except (CallError, UnavailableError):
            return False
        self._note(found)
        return True

    def _note(self, found: list[Finding]) -> None:
        """Keep what is wrong, since when it was first seen, and log what is new or gone."""
        name, now, before = self.subject.account, self._ledger.clock(), self._found
        known_as = name or self.subject.check
        self.read_at = now
        self._found = {}
        for code, detail, about in found:
            key = code, about
            since = before[key].since if key in before else now
            self._found[key] = Issue(code, name, since, detail, about)
        for code in _alarming(self._found.keys() - before.keys()):
            log.warning("a setting of the client is wrong", account=known_as, code=code)
        for code in _alarming(before.keys() - self._found.keys()):
            log.info("a setting of the client is right again", account=known_as, code=code)

    def issues(self) -> list[Issue]:
        """Give what is wrong now: with the way there, then with what was found."""
        return [*self.subject.unreached(), *self.found]

    @property
    def found(self) -> list[Issue]:
        """What was wrong when it was last looked at, and what was noticed since."""
        return [*self._found.values(), *self.subject.noticed()]


def _alarming(keys: Iterable[tuple[str, str | None]]) -> set[str]:
    return {code for code, _ in keys} - NOTICES


class ClientSubject:
    """The settings of one account's client."""

    def __init__(self, client: Client, expected: ExpectedSettings) -> None:
        self.account = client.name
        self.check = f"settings:{client.name}"
        self._client = client
        self._expected = expected
        self._told: ClientSettings | None = None

    @property
    def version(self) -> str | None:
        """The client's version."""
        return self._told.version if self._told else None

    async def look(self) -> list[Finding]:
        """Read the settings."""
        try:
            self._told = told = await self._client.settings()
        except ForbiddenError:
            self._told = None
            return [UNREADABLE]
        return [Finding(x.code, x.detail) for x in wrong_settings(told, self._expected)]

    def noticed(self) -> Iterable[Issue]:
        """Give nothing: a client tells all when it is asked."""
        return ()

    def unreached(self) -> Iterable[Issue]:
        """Tell whether the client does not answer, or refuses the login."""
        refused = self._client.session.refused
        return unreached(self._client.reachability, "client_unreachable", refused=refused)


def unreached(reached: Reachability, code: str, *, refused: bool) -> list[Issue]:
    """Tell by the last call whether the other side does not answer, or refuses the login."""
    since = reached.unreachable_since
    if since is None:
        return []
    detail = reached.last_error or "it does not answer"
    return [Issue("login_refused" if refused else code, reached.account, since, detail)]
