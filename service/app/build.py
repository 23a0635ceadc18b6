"""The parts of one service, built around its database, with every counter at 0."""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import MISSING, asdict, fields
from functools import partial
from itertools import product
from typing import get_args

from prometheus_client import Counter, Histogram

from service.api.context import AppContext, Changes, StorageProbe
from service.api.event_hub import EventHub
from service.api.gate import ANSWERS
from service.api.params import MAX_BODY_BYTES, MAX_BODY_SECONDS
from service.api.sending import RESULTS as SEND_RESULTS
from service.ledger.callbacks import APPLIED, QUARANTINED
from service.ledger.contacts import Messages
from service.ledger.identities import MoveToCloud
from service.ledger.ledger import Ledger
from service.model.account_checks import IdentityCheck
from service.model.event_log import EventType
from service.model.events import WIRE_NAMES
from service.model.outcomes import GetOutcome, PutOutcome, Settled
from service.model.policy import Policies
from service.model.relays import Result
from service.model.signature_check import SignatureCheck
from service.model.users import Kind
from service.observability.metrics import Metrics
from service.settings import Settings
from service.store.accounts import (
    CLOUD_MIGRATION,
    created_at,
    moved_back,
    need_release,
    note_policies,
)
from service.store.database import SYNTHETIC, Database, StoreError
from service.store.events import epoch_of
from service.store.relays import ensure_relays
from service.store.restore import unverified_accounts
from service.webhooks.body import BodyReader
from service.webhooks.handler import OTHER, REFUSED, WebhookHandler, endpoints
from service.webhooks.incoming import in_journal
from service.whatsapp.cloud import Graph
from service.whatsapp.onprem import Client
from service.workers.contacts import Checker
from service.workers.monitoring import expected_of

RESULTS = (
    APPLIED, QUARANTINED, SYNTHETIC, REFUSED, "too_large", "stalled", "broken", "not_stored",
)  # fmt: skip
OPERATIONS = {
    "onprem": (
        "login", "identity_get", "identity_put", "contacts", "health", "settings", "certificates",
        "messages", "media",
    ),
    "cloud": ("number", "subscribed_apps", "settings", "messages", "media"),
}  # fmt: skip
OUTCOMES = {
    Kind.ACKNOWLEDGE: {outcome.name for outcome in get_args(PutOutcome)},
    Kind.ASK: {outcome.name for outcome in get_args(GetOutcome)},
}
UNSETTLED = {settled.name.lower() for settled in Settled if settled is not Settled.TAKEN}


async def build(settings: Settings, database: Database, stack: AsyncExitStack) -> AppContext:
    """Build the parts; what is to be closed in the end goes on the stack.

    Before anybody asks what an account left behind that moved to the Cloud API is settled, and each
    relay has its place: a new one begins with the first callback that comes in.

    Raises StoreError where an account with a client was one of the Cloud API before, and OSError or
    ValueError where the file of `server.public_ca_file` can't be read.
    """
    back = await database.read(partial(moved_back, onprem=list(settings.onprem_accounts)))
    if back is not None:
        raise StoreError(
            f"accounts.{back}.kind: the account has users that only the Cloud API knows; make it "
            "cloud again, or restore the backup from before it moved there"
        )
    if settings.cloud_accounts:
        await database.write(partial(need_release, migration=CLOUD_MIGRATION))
    policies = await keep_policies(settings, database)
    context = _connect(settings, database, policies, await database.read(epoch_of))
    context.created_at = await database.read(created_at)
    known = await database.read(unverified_accounts)
    context.unverified = {name: known[name] for name in context.clients if name in known}
    stack.push_async_callback(context.ledger.close)
    stack.callback(context.refused_keys.close)
    for part in (context.clients, context.graphs, context.checkers):
        for each in part.values():
            stack.push_async_callback(each.close)
    for name in settings.cloud_accounts:
        last: int | None = 0
        while last is not None:
            last = await context.ledger.submit(MoveToCloud(name, last))
    sources = {name: relay.source for name, relay in settings.relays.items()}
    await database.write(partial(ensure_relays, sources=sources))
    context.expected = {name: expected_of(settings, name) for name in settings.onprem_accounts}
    return context


async def keep_policies(settings: Settings, database: Database) -> dict[str, Policies]:
    """Return each account's policies, once it is written down which of them have changed."""
    policies = {name: settings.policies(name) for name in settings.accounts}
    written = [(name, _written(policy)) for name, policy in policies.items()]
    await database.write(partial(note_policies, policies=written, now=database.clock()))
    return policies


def _connect(
    settings: Settings, database: Database, policies: dict[str, Policies], epoch: str
) -> AppContext:
    metrics = Metrics()
    start_at_zero(metrics, settings)
    ledger = Ledger(database, policies, metrics, max_waiting=settings.server.max_queue)
    storage = StorageProbe(ledger, database, settings.server.max_body_bytes)
    messages = Messages()
    hub = EventHub(epoch, database, metrics)
    onprem = settings.onprem_accounts
    clients = {name: Client(name, account, metrics) for name, account in onprem.items()}
    checkers = {
        name: Checker(
            client, onprem[name].contacts, ledger=ledger, metrics=metrics, messages=messages
        )
        for name, client in clients.items()
    }
    context = AppContext(
        settings,
        database,
        ledger,
        clients,
        metrics,
        Changes(),
        storage,
        messages,
        checkers,
        hub,
    )
    ledger.listeners += [context.changes.notify, hub.notify]
    for name, account in settings.cloud_accounts.items():
        context.graphs[name] = Graph(name, account, metrics)
        context.identity_checks[name] = IdentityCheck()
    for app in settings.apps:
        context.signature_checks[in_journal(app)] = SignatureCheck(app)
    return context


def _written(policies: Policies) -> str:
    """Write them as earlier releases did, where what came later is as it was without it."""
    later = {one.name: one.default for one in fields(policies) if one.default is not MISSING}
    written = asdict(policies)
    kept = {k: v for k, v in written.items() if k not in later or v != later[k]}
    return json.dumps(kept, sort_keys=True, default=sorted)


def webhook_handler(context: AppContext) -> WebhookHandler:
    """Build the handler of the webhooks of all accounts and apps."""
    server = context.settings.server
    bodies = BodyReader(
        context.metrics.bytes_in_flight,
        max_body=server.max_body_bytes,
        max_in_flight=server.max_in_flight_bytes,
        timeout_seconds=server.body_timeout_seconds,
    )
    return WebhookHandler(
        endpoints(context.settings, context.signature_checks),
        context.ledger,
        bodies,
        context.metrics,
        context.messages,
        context.identity_checks,
    )


def api_bodies(context: AppContext) -> BodyReader:
    """Build the reader of the bodies of API requests, whose bytes are counted apart.

    Callers have keys, but the lowest role is for many programs. So their bodies are bounded like
    those of callbacks that are not verified: they get a part of the bytes, and no more time for
    bytes that keep coming.
    """
    server = context.settings.server
    return BodyReader(
        context.metrics.api_bytes_in_flight,
        max_body=MAX_BODY_BYTES,
        max_in_flight=server.max_in_flight_bytes,
        timeout_seconds=min(server.body_timeout_seconds, MAX_BODY_SECONDS),
    )


def start_at_zero(metrics: Metrics, settings: Settings) -> None:
    """Let each labelled counter begin at 0, so that an alert on an increase sees the first one.

    Prometheus knows no increase from nothing to 1. What can't be known at the start, such as the
    HTTP status of an answer, comes with the first one all the same.
    """
    accounts, onprem = settings.accounts, settings.onprem_accounts
    apps = [in_journal(app) for app in settings.apps]
    calls = [
        (name, *labels)
        for name, account in accounts.items()
        for labels in product(OPERATIONS[account.kind], ("not_sent", "no_reply"))
    ]
    outcomes = [
        (name, kind, outcome)
        for name in accounts
        for kind, known in OUTCOMES.items()
        for outcome in known | UNSETTLED
    ]
    beginning: list[tuple[Counter | Histogram, Iterable[tuple[str, ...]]]] = [
        (metrics.callbacks, [("", REFUSED), *product([*accounts, *apps], RESULTS)]),
        (
            metrics.events,
            product([*accounts, ""], [*WIRE_NAMES.values(), OTHER]),
        ),
        (metrics.told, product(EventType)),
        (metrics.keys_refused, [("missing",), ("unknown",)]),
        (metrics.unknown_numbers, product(settings.apps)),
        (metrics.signature_failures, product(settings.apps)),
        (metrics.gate_answers, product(accounts, ANSWERS)),
        (metrics.sends, product(accounts, SEND_RESULTS)),
        (metrics.client_calls, calls),
        (metrics.outcomes, outcomes),
        (metrics.acknowledged_seconds, product(accounts)),
        (metrics.contact_failures, product(onprem)),
        (metrics.contact_checks, product(onprem, ("asked", "again"))),
        (metrics.contact_refusals, product(onprem, ("budget", "opt_in", "client", "renewal"))),
        (metrics.relay_deliveries, product(settings.relays, Result)),
        (metrics.relay_seconds, product(settings.relays)),
        (metrics.relay_delay, product(settings.relays)),
        (metrics.relay_skipped, product(settings.relays)),
    ]
    for metric, combinations in beginning:
        for labels in combinations:
            metric.labels(*labels)
