"""What is looked at of the Cloud API: each account's number, and the callbacks of each app."""

from collections.abc import Iterable, Sequence

from service.model.account_checks import IdentityCheck, Issue, wrong_cloud_settings
from service.store.database import APP_MARK, Database
from service.store.strangers import Stranger, strangers
from service.whatsapp.errors import ForbiddenError, NotThereError
from service.whatsapp.graph import Graph
from service.workers.inspector import Finding, unreached

UNREADABLE_NUMBER = Finding(
    "settings_unreadable",
    "the access token may not read how the number is set up, so that is not checked",
)
NAMED = 100
"""Numbers that are an issue each; the others come once these are cured, or dismissed."""


class NumberSubject:
    """The number of one account. `door` is its app's webhook URL, None where that is not known."""

    def __init__(self, graph: Graph, door: str | None, check: IdentityCheck) -> None:
        self.account = graph.name
        self.check = f"settings:{graph.name}"
        self._graph = graph
        self._door = door
        self._check = check

    @property
    def version(self) -> str | None:
        """The Cloud API tells none."""
        return None

    async def look(self) -> list[Finding]:
        """Read how the number is set up."""
        try:
            told = await self._graph.settings()
        except ForbiddenError:
            return [UNREADABLE_NUMBER]
        except NotThereError as error:
            return [Finding("number_unreadable", str(error))]
        return [Finding(x.code, x.detail) for x in wrong_cloud_settings(told, self._door)]

    def noticed(self) -> Iterable[Issue]:
        """Tell whether callbacks let the identity change check seem off."""
        check = self._check
        if check.seems_off and check.since is not None:
            yield Issue("identity_check_off", self.account, check.since, check.detail)

    def unreached(self) -> Iterable[Issue]:
        """Tell whether the Cloud API does not answer, or refuses the token."""
        refused = self._graph.login == "refused"
        return unreached(self._graph.reachability, "account_unreachable", refused=refused)


class AppSubject:
    """What came for one app, and for a number that no account has.

    `app` and `names`, those of its accounts too, are as the journal has them.
    It is counted anew each time: what is replayed in the meantime is none of it any more.
    """

    account = None
    version = None

    def __init__(self, app: str, names: Sequence[str], database: Database) -> None:
        self.check = f"app:{app.removeprefix(APP_MARK)}"
        self._app = app
        self._names = names
        self._database = database

    async def look(self) -> list[Finding]:
        """Look for such callbacks in the journal. Raises UnavailableError."""
        found = await self._database.read(lambda c: strangers(c, self._app, self._names))
        app = self._app.removeprefix(APP_MARK)
        return [Finding("unknown_number", _told(app, each), each.number) for each in found[:NAMED]]

    def noticed(self) -> Iterable[Issue]:
        """Give nothing: the journal has it all."""
        return ()

    def unreached(self) -> Iterable[Issue]:
        """Give nothing: nobody is called."""
        return ()


def _told(app: str, found: Stranger) -> str:
    many = f"{found.callbacks} callbacks" if found.callbacks > 1 else "1 callback"
    named = f": phone_number_id {found.number}" if found.number else ""
    return f"{many} of the app {app} for a number that no account has{named}"
