"""Looks at how a client is set, at the start and regularly, and tells what is wrong with it.

Nothing is ever changed here: `ackgate accounts setup` does that, when it is asked to.
"""

import asyncio

import structlog

from service.ledger.ledger import Ledger
from service.model.client_settings import ClientSettings, Expected, wrong_settings
from service.model.issues import NOTICES, Issue
from service.settings import Settings
from service.whatsapp.client import Client
from service.whatsapp.errors import CallError, ForbiddenError
from service.whatsapp.settings import fingerprints

AGAIN_SECONDS = 30.0
"""After a client did not answer; no more often than its health is asked for."""
UNREADABLE = (
    "settings_unreadable",
    "the login may not read the client's settings (403), so they are not checked",
)

log = structlog.get_logger(__name__)


def expected_of(settings: Settings, account: str) -> Expected:
    """Tell how the client of an account must be set. OSError, ValueError: the CA file is gone."""
    server = settings.server
    authorities: frozenset[str] = frozenset()
    if server.public_ca_file is not None:
        authorities = fingerprints(server.public_ca_file.read_text())
    return Expected(
        settings.door(account, server.public_url) if server.public_url else None,
        authorities,
        server.max_connections,
    )


class Inspector:
    """Looks after the settings of one account's client.

    `read_at` (Unix ms) is when they were last read, or refused to be; None before. `told` is
    what they were then.
    """

    def __init__(
        self,
        client: Client,
        expected: Expected,
        ledger: Ledger,
        *,
        every_seconds: float,
    ) -> None:
        self._client = client
        self._expected = expected
        self._ledger = ledger
        self._every = every_seconds
        self._found: dict[str, Issue] = {}
        self.read_at: int | None = None
        self.told: ClientSettings | None = None

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
                log.exception("looking at the settings failed", account=self._client.name)
                answered = True
            await asyncio.sleep(self._every if answered else min(self._every, AGAIN_SECONDS))

    async def look(self) -> bool:
        """Look once; False where the client did not answer, and what was found before stands."""
        try:
            told = await self._client.settings()
        except ForbiddenError:
            self.told = None
            self._note([UNREADABLE])
        except CallError:
            return False
        else:
            self.told = told
            self._note([(x.code, x.detail) for x in wrong_settings(told, self._expected)])
        return True

    def _note(self, found: list[tuple[str, str]]) -> None:
        """Keep what is wrong, since when it was first seen, and log what is new or gone."""
        name, now, before = self._client.name, self._ledger.clock(), self._found
        self.read_at = now
        self._found = {
            code: Issue(code, name, before[code].since if code in before else now, detail)
            for code, detail in found
        }
        for code in self._found.keys() - before.keys() - NOTICES:
            log.warning("a setting of the client is wrong", account=name, code=code)
        for code in before.keys() - self._found.keys() - NOTICES:
            log.info("a setting of the client is right again", account=name, code=code)

    def issues(self) -> list[Issue]:
        """Give what is wrong with the account now: with its client, then with its settings."""
        return [*self._client_issues(), *self.found]

    @property
    def found(self) -> list[Issue]:
        """What was wrong with the settings when they were last read."""
        return list(self._found.values())

    def _client_issues(self) -> list[Issue]:
        reached = self._client.reachability
        since = reached.unreachable_since
        if since is None:
            return []
        code = "login_refused" if self._client.session.refused else "client_unreachable"
        return [Issue(code, self._client.name, since, reached.last_error or "it does not answer")]
