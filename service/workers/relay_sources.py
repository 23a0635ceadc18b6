"""What relays read, callbacks or events: how a row is routed, and what it is sent with."""

from collections.abc import Callable, Mapping
from functools import cache, partial

import orjson

from service.dialects.routing import OTHER, Routing, route_cloud, route_onprem
from service.ledger.callbacks import QUARANTINED
from service.settings import CloudAccountSettings, Settings
from service.store.database import APP_MARK, Database
from service.store.relays import LogRow, Source
from service.webhooks.signatures import signed
from service.workers.relay_log import Log

Route = Callable[[str, str, bytes], Routing]


def journal(database: Database, settings: Callable[[], Settings], epoch: str) -> Log:
    """Return the journal as a log. `settings` returns those in force: secrets may change."""

    @cache
    def route_of(name: str) -> Route:
        """Return how callbacks are routed that the journal has under this name."""
        app = _app_of(settings(), name)
        if app is None:
            return partial(route_onprem, name)
        return partial(route_cloud, settings().accounts_of(app))

    def route(row: LogRow) -> Routing:
        found = route_of(row.account)(row.content_type, row.content_encoding, row.body)
        if row.state != QUARANTINED:
            return found
        # Of a callback that was read in part, what could be read counts too.
        return Routing(found.kinds | {OTHER}, found.accounts, found.names, found.is_of_one)

    def headers(row: LogRow, routing: Routing) -> Mapping[str, str]:
        sent = {
            "Ackgate-Account": ",".join(routing.accounts),
            "Content-Type": row.content_type,
            "Content-Encoding": row.content_encoding,
        }
        app = settings().apps.get(_app_of(settings(), row.account) or "")
        if app is not None and app.app_secret is not None:
            sent |= signed(app.secrets[0], row.body)
        return {name: value for name, value in sent.items() if value}

    return Log("callbacks", database, route, headers, ids_of("callbacks", epoch))


def _app_of(settings: Settings, name: str) -> str | None:
    """Return the app whose callbacks the journal has under a name; None for an account's own."""
    if name.startswith(APP_MARK):
        return name.removeprefix(APP_MARK)
    account = settings.accounts.get(name)
    return account.app if isinstance(account, CloudAccountSettings) else None


def events(database: Database, epoch: str) -> Log:
    """Return the event log as relays read it: each event as the API shows it."""

    def route(row: LogRow) -> Routing:
        event = orjson.loads(row.body)
        account, user = event["account"], event["user"]
        names = frozenset() if user is None else frozenset({f"{account}/{user}"})
        return Routing(frozenset({event["type"]}), (account,) if account else (), names)

    def headers(row: LogRow, routing: Routing) -> Mapping[str, str]:
        sent = {"Content-Type": row.content_type}
        return sent | ({"Ackgate-Account": routing.accounts[0]} if routing.accounts else {})

    return Log("events", database, route, headers, ids_of("events", epoch))


def ids_of(source: Source, epoch: str) -> str:
    """Return what the ids of deliveries begin with."""
    return f"{epoch}." if source == "callbacks" else f"{epoch}-"
