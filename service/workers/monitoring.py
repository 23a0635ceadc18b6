"""Regular checks: is the service alive, does each account answer, and is it set up rightly?

Nothing is ever changed at a client or at Meta here: `ackgate accounts setup` does that.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from service.ledger.ledger import Ledger
from service.model.account_checks import (
    NOTICES,
    ExpectedSettings,
    Issue,
    wrong_cloud_settings,
    wrong_settings,
)
from service.model.gate import Reason, catching_up, catching_up_from
from service.settings import ApiKeySettings, Settings
from service.store.accounts import alive_at, downtime, note_alive, note_downtime
from service.store.database import APP_MARK, Database, UnavailableError
from service.store.erasing import unfinished
from service.store.journal import unknown_numbers
from service.store.users import count_pending_since
from service.whatsapp.cloud import Graph
from service.whatsapp.http import (
    BusyError,
    CallError,
    ForbiddenError,
    NotThereError,
    Reachability,
)
from service.whatsapp.onprem import Client, fingerprints

HEALTH_EVERY_SECONDS = 30.0
"""The client allows ten health checks a minute."""
ALIVE_EVERY_SECONDS = 10.0
QUICK_RESTART_MS = 15_000
"""Whoever was alive so lately may be so still: another replica, that is."""
AGAIN_SECONDS = 30.0
"""After an account did not answer; its health is asked for as often."""
EXPIRES_SOON_MS = 7 * 86_400_000
MANY = 1_000
"""So many identities that wait are not counted further."""
NAMED = 100
"""So many numbers are an issue each; the others follow once these are cured, or dismissed."""

log = structlog.get_logger(__name__)


async def watch_health(client: Client) -> None:
    """Ask a client for its health, again and again."""
    while True:
        try:
            await client.check_health()
        except Exception:
            log.exception("a health check failed", account=client.name)
        await asyncio.sleep(HEALTH_EVERY_SECONDS)


class Heartbeat:
    """Records that the service is alive, so that a start knows for how long it was not.

    `report` is called with the warning of the gate after a time without service, or None. A time in
    which the database could not be written is one too: callbacks were answered 503 then. What it
    reports is noted for the other replicas. Not so what a start finds where one of them, or this
    one before a quick restart, was alive a moment ago: each finds that by itself.
    """

    def __init__(
        self, ledger: Ledger, database: Database, report: Callable[[Reason | None], None]
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._report = report
        self._well_at: int | None = None
        self._refused = 0
        self._was_away = True

    async def begin(self) -> None:
        """Find out since when the service was down, before anybody asks the gate."""
        self._well_at, noted = await self._database.read(lambda c: (alive_at(c), downtime(c)))
        now, reason = await self._note(is_start=True)
        if noted is not None and noted.until > max(now, (reason and reason.until) or 0):
            self._report(catching_up_from(*noted, now))

    async def run(self) -> None:
        """Beat, again and again."""
        while True:
            await asyncio.sleep(ALIVE_EVERY_SECONDS)
            await self.beat()

    async def beat(self) -> None:
        """Note that the service is alive, and whether callbacks were refused since."""
        try:
            await self._note()
        except UnavailableError:
            self._was_away = True
        except Exception:
            log.exception("the heartbeat failed")

    async def _note(self, *, is_start: bool = False) -> tuple[int, Reason | None]:
        """Note it, and report it; return the time by the database's clock as well.

        So it doesn't matter whose clock is right: the next one that starts may be another's.
        """
        refused = self._ledger.refused
        is_well = refused == self._refused
        is_away = self._was_away or not is_well

        def write(connection: Connection, now: int) -> tuple[int, Reason | None]:
            reason = catching_up(self._well_at, now) if is_away else None
            is_lone = self._well_at is not None and now - self._well_at > QUICK_RESTART_MS
            if reason is not None and reason.until is not None and (is_lone or not is_start):
                note_downtime(connection, now, reason.until)
            if is_well:
                note_alive(connection, now)
            return now, reason

        try:
            now, reason = await self._database.write_dated(write)
        except UnavailableError:
            if not is_well:
                self._report(catching_up(self._well_at, self._ledger.clock()))
            raise
        if is_away:
            self._report(reason)
        self._was_away, self._refused = not is_well, refused
        if is_well:
            self._well_at = now
        return now, reason


class Finding(NamedTuple):
    """The code of an issue, its detail, and what it is about where there may be several."""

    code: str
    detail: str
    subject: str | None = None


UNREADABLE = Finding(
    "settings_unreadable",
    "the login may not read the client's settings (403), so they are not checked",
)
UNREADABLE_NUMBER = Finding(
    "settings_unreadable",
    "the access token may not read how the number is set up, so that is not checked",
)


class Subject:
    """What an inspector inspects; `check` is what `/health/status` calls it.

    `account` is None where it belongs to no single account; `version` is what the other side says
    of its own version. `every_seconds` is how often it is inspected, where not as often as all.
    """

    check: str
    every_seconds: float | None = None
    account: str | None = None
    version: str | None = None

    async def look(self) -> list[Finding]:
        """Return what is wrong. Raises CallError or UnavailableError where there is no answer."""
        raise NotImplementedError

    def noticed(self) -> Iterable[Issue]:
        """Return what callbacks have shown to be wrong meanwhile."""
        return ()

    def dismiss(self, code: str) -> None:
        """Forget what callbacks have shown so far, where that is an issue with this code."""

    def unreached(self) -> Iterable[Issue]:
        """Return what the last call showed to be wrong with the connection, or the login."""
        return ()


class ClientSubject(Subject):
    """The settings of one account's client."""

    def __init__(self, client: Client, expected: ExpectedSettings) -> None:
        self.account = client.name
        self.check = f"settings:{client.name}"
        self._client = client
        self._expected = expected

    async def look(self) -> list[Finding]:
        """Read the settings, and compare them."""
        try:
            settings = await self._client.settings()
        except ForbiddenError:
            self.version = None
            return [UNREADABLE]
        self.version = settings.version
        return [Finding(x.code, x.detail) for x in wrong_settings(settings, self._expected)]

    def unreached(self) -> Iterable[Issue]:
        """Return whether the client does not answer, or refuses the login."""
        refused = self._client.session.refused
        return _unreached(self._client.reachability, "client_unreachable", refused=refused)


class NumberSubject(Subject):
    """The number of one account of the Cloud API.

    `webhook_url` is the one to be registered, None where it is not known; `declared` is whether it
    is another system's. `noticed` returns what callbacks have shown at any replica.
    """

    def __init__(
        self,
        graph: Graph,
        webhook_url: str | None,
        noticed: Callable[[], Iterable[Issue]],
        *,
        declared: bool,
    ) -> None:
        self.account = graph.name
        self.check = f"settings:{graph.name}"
        self._graph = graph
        self._webhook_url = webhook_url
        self._declared = declared
        self._noticed = noticed

    async def look(self) -> list[Finding]:
        """Read how the number is set up, and compare it."""
        try:
            settings = await self._graph.settings()
        except ForbiddenError:
            return [UNREADABLE_NUMBER]
        except NotThereError as error:
            return [Finding("number_unreadable", str(error))]
        wrong = wrong_cloud_settings(settings, self._webhook_url, declared=self._declared)
        return [Finding(x.code, x.detail) for x in wrong]

    def noticed(self) -> Iterable[Issue]:
        """Return whether the identity change check seems to be off."""
        return [issue for issue in self._noticed() if issue.account == self.account]

    def unreached(self) -> Iterable[Issue]:
        """Return whether the Cloud API does not answer, or refuses the token."""
        refused = self._graph.login == "refused"
        return _unreached(self._graph.reachability, "account_unreachable", refused=refused)


class AppSubject(Subject):
    """The callbacks of one app: those for numbers that no account has, and their signatures.

    `app` and `names`, those of its accounts too, are as the journal has them. The callbacks are
    counted anew each time, for what was replayed meanwhile does not count any more. `noticed`
    returns what callbacks have shown at any replica.
    """

    def __init__(
        self,
        app: str,
        names: Sequence[str],
        database: Database,
        noticed: Callable[[], Iterable[Issue]],
    ) -> None:
        self._called = app.removeprefix(APP_MARK)
        self.check = f"app:{self._called}"
        self._app = app
        self._names = names
        self._database = database
        self._noticed = noticed

    async def look(self) -> list[Finding]:
        """Look for such callbacks in the journal."""
        unknown = await self._database.read(lambda c: unknown_numbers(c, self._app, self._names))
        findings = []
        for number, callbacks in unknown[:NAMED]:
            many = f"{callbacks} callbacks" if callbacks > 1 else "1 callback"
            named = f": phone_number_id {number}" if number else ""
            detail = f"{many} of the app {self._called} for a number that no account has{named}"
            findings.append(Finding("unknown_number", detail, number))
        return findings

    def noticed(self) -> Iterable[Issue]:
        """Return whether the callbacks seem to be signed with another secret."""
        of_app = (None, self._called)
        return [issue for issue in self._noticed() if (issue.account, issue.subject) == of_app]


ERASED_WITHIN_MS = 3_600_000


class PendingSubject(Subject):
    """What of an account has waited for too long: identities, for a person, and erasures.

    Identities may wait for so many minutes.
    """

    every_seconds = 30.0

    def __init__(self, account: str, minutes: float, database: Database) -> None:
        self.account = account
        self.check = f"pending:{account}"
        self._minutes = minutes
        self._database = database

    async def look(self) -> list[Finding]:
        """Count them."""
        now, account = self._database.clock(), self.account or ""
        before = now - round(60_000 * self._minutes)
        count = await self._database.read(lambda c: count_pending_since(c, account, before, MANY))
        open_ = await self._database.read(unfinished)
        findings = []
        if count:
            shown = f"{count:,} identities" if count > 1 else "1 identity"
            many = f"{shown} or more" if count == MANY else shown
            detail = f"{many} pending for more than {self._minutes:g} minutes"
            findings.append(Finding("identities_pending", detail))
        late = [e for e in open_ if e.account == account and e.asked_at < now - ERASED_WITHIN_MS]
        if late:
            what = f"{len(late):,} erasures have" if len(late) > 1 else "1 erasure has"
            findings.append(Finding("erasure_unfinished", f"{what} not ended for over an hour"))
        return findings


class KeysSubject(Subject):
    """The API keys: those that expire within a week, or have expired."""

    check = "api_keys"

    def __init__(self, keys: Mapping[str, ApiKeySettings], ledger: Ledger) -> None:
        self._keys = keys
        self._ledger = ledger

    async def look(self) -> list[Finding]:
        """Return nothing: what is wrong is a matter of time alone."""
        return []

    def noticed(self) -> Iterable[Issue]:
        """Return the keys that expire soon, or have expired."""
        now = self._ledger.clock()
        for name, key in self._keys.items():
            if key.expires_at is not None and key.expires_ms is not None:
                since = key.expires_ms - EXPIRES_SOON_MS
                if now >= since:
                    how = "expires" if now < key.expires_ms else "has expired"
                    detail = f"the API key {name} {how} at {key.expires_at.isoformat()}"
                    yield Issue("key_expires", None, since, detail, name)


class Inspector:
    """Inspects one subject, at the start and regularly, and keeps what is wrong with it.

    `read_at` (Unix ms) is when the subject last answered; None before.
    """

    def __init__(self, subject: Subject, ledger: Ledger, *, every_seconds: float) -> None:
        self.subject = subject
        self._ledger = ledger
        self._every = every_seconds
        self._found: dict[tuple[str, str | None], Issue] = {}
        self.read_at: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether it is to inspect at all."""
        return self._every > 0

    async def run(self) -> None:
        """Inspect, again and again; sooner where there was no answer."""
        while True:
            try:
                answered = await self.look()
            except Exception:
                log.exception("an inspection failed", check=self.subject.check)
                answered = True
            await asyncio.sleep(self._every if answered else min(self._every, AGAIN_SECONDS))

    async def look(self) -> bool:
        """Inspect once; return whether to wait for the regular time before the next look.

        Without an answer that is False, and what was found before stands. An account that says that
        there are too many calls is not asked again sooner.
        """
        try:
            found = await self.subject.look()
        except BusyError:
            return True
        except (CallError, UnavailableError):
            return False
        self._keep(found)
        return True

    def _keep(self, found: list[Finding]) -> None:
        """Keep what is wrong, since when it was first seen, and log what is new or gone."""
        account, now, before = self.subject.account, self._ledger.clock(), self._found
        self.read_at = now
        self._found = {}
        for code, detail, about in found:
            key = code, about
            since = before[key].since if key in before else now
            self._found[key] = Issue(code, account, since, detail, about)
        named = account or self.subject.check
        for code in {code for code, _ in self._found.keys() - before.keys()} - NOTICES:
            log.warning("issue found", account=named, code=code)
        for code in {code for code, _ in before.keys() - self._found.keys()} - NOTICES:
            log.info("issue resolved", account=named, code=code)

    async def dismiss(self, code: str) -> None:
        """Let issues rest that a person has dismissed, until their cause comes again.

        What was found at the last look is looked for again: the store knows what is dismissed.
        """
        self.subject.dismiss(code)
        if code in {found for found, _ in self._found}:
            await self.look()

    def issues(self) -> list[Issue]:
        """Return what is wrong now: with the connection, then what was found."""
        return [*self.subject.unreached(), *self.found]

    @property
    def found(self) -> list[Issue]:
        """What was wrong at the last look, and what was noticed since."""
        return [*self._found.values(), *self.subject.noticed()]


def expected_of(settings: Settings, account: str) -> ExpectedSettings:
    """Return how the client of an account must be set up.

    Raises OSError or ValueError where the file of `server.public_ca_file` can't be read.
    """
    server = settings.server
    authorities: frozenset[str] = frozenset()
    # That file is for the public URL: how the client verifies another URL is that one's business.
    if server.public_ca_file is not None and settings.accounts[account].webhook_url is None:
        authorities = fingerprints(server.public_ca_file.read_text())
    return ExpectedSettings(
        settings.registered_url(account),
        authorities,
        server.max_queue,
        is_declared=settings.accounts[account].webhook_url is not None,
    )


def _unreached(reached: Reachability, code: str, *, refused: bool) -> list[Issue]:
    since = reached.unreachable_since
    if since is None:
        return []
    detail = reached.last_error or "it does not answer"
    return [Issue("login_refused" if refused else code, reached.account, since, detail)]
