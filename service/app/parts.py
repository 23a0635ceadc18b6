"""The parts of one service, built around its database."""

import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import MISSING, asdict, fields
from functools import partial

from service.api.context import AppContext, Changes
from service.api.room import Room
from service.app.counters import start_at_zero
from service.ingress.readers import in_journal
from service.ledger.ledger import Ledger
from service.ledger.messages import Messages
from service.ledger.moves import MoveToCloud
from service.model.account_checks import IdentityCheck
from service.model.policy import Policies
from service.model.users import AuditEntry
from service.observability.metrics import Metrics
from service.settings import Settings
from service.store.database import Database, StoreError, Transaction
from service.store.moved import moved_back, need_cloud_release
from service.store.queries import note_policies
from service.store.unverified import unverified_accounts
from service.whatsapp.client import Client
from service.whatsapp.graph import Graph
from service.workers.checker import Checker
from service.workers.cloud_inspector import AppSubject, NumberSubject
from service.workers.inspector import ClientSubject, Inspector, Subject, expected_of
from service.workers.verifier import Verifier


async def build(settings: Settings, database: Database, stack: AsyncExitStack) -> AppContext:
    """Build the parts; what is to be closed in the end goes on the stack.

    Before anybody asks: what an account left behind that moved to the Cloud API is settled, and it
    is known which accounts are unverified since a restore.

    Raises StoreError where an account with a client was one of the Cloud API before.
    """
    back = await database.read(partial(moved_back, onprem=list(settings.onprem_accounts)))
    if back is not None:
        raise StoreError(
            f"accounts.{back}.kind: the account has users that only the Cloud API knows; make it "
            "cloud again, or restore the backup from before it moved there"
        )
    if settings.cloud_accounts:
        await database.write(_note_cloud)
    policies = {name: settings.policies(name) for name in settings.accounts}
    await database.write(partial(_note_start, policies=policies))
    parts = _parts(settings, database, policies)
    stack.push_async_callback(parts.ledger.close)
    for part in (parts.clients, parts.graphs, parts.checkers):
        for each in part.values():
            stack.push_async_callback(each.close)
    for name in settings.cloud_accounts:
        last: int | None = 0
        while last is not None:
            last = await parts.ledger.submit(MoveToCloud(name, last))
    await _add_verifiers(parts)
    return parts


def _parts(settings: Settings, database: Database, policies: dict[str, Policies]) -> AppContext:
    metrics = Metrics()
    start_at_zero(metrics, settings)
    ledger = Ledger(database, policies, metrics, max_waiting=settings.server.max_queue)
    room = Room(ledger, database, settings.database.path, settings.server.max_body_bytes)
    messages = Messages()
    onprem = settings.onprem_accounts
    clients = {name: Client(name, account, metrics) for name, account in onprem.items()}
    checkers = {
        name: Checker(
            client, onprem[name].contacts, ledger=ledger, metrics=metrics, messages=messages
        )
        for name, client in clients.items()
    }
    parts = AppContext(
        settings, database, ledger, clients, metrics, Changes(), room, messages, checkers
    )
    ledger.listeners.append(parts.changes.hear)
    for name, account in settings.cloud_accounts.items():
        parts.graphs[name] = Graph(name, account, metrics)
        parts.identity_checks[name] = IdentityCheck()
    every = settings.inspector.every_seconds
    for name, subject in _subjects(parts):
        parts.inspectors[name] = Inspector(subject, ledger, every_seconds=every)
    return parts


def _subjects(parts: AppContext) -> Iterator[tuple[str, Subject]]:
    """Give what is to be looked after: each account's settings, and each app's callbacks."""
    settings = parts.settings
    for name, client in parts.clients.items():
        yield name, ClientSubject(client, expected_of(settings, name))
    public = settings.server.public_url
    for name, graph in parts.graphs.items():
        door = settings.door(name, public) if public else None
        yield name, NumberSubject(graph, door, parts.identity_checks[name])
    for app in settings.apps:
        known_as = in_journal(app)
        names = [known_as, *settings.accounts_of(app).values()]
        yield known_as, AppSubject(known_as, names, parts.database)


async def _add_verifiers(parts: AppContext) -> None:
    known = await parts.database.read(unverified_accounts)
    parts.verifiers |= {
        name: Verifier(
            name,
            known[name],
            client=client,
            ledger=parts.ledger,
            database=parts.database,
            per_second=parts.settings.reconciler.verify_per_second,
        )
        for name, client in parts.clients.items()
        if name in known
    }


def _note_cloud(transaction: Transaction) -> None:
    need_cloud_release(transaction.connection)


def _note_start(transaction: Transaction, policies: dict[str, Policies]) -> None:
    """Write down in the audit trail which policies changed since the last start."""
    now = time.time_ns() // 1_000_000
    written = [(name, _written(policy)) for name, policy in policies.items()]
    for name in note_policies(transaction.connection, written):
        transaction.add_audit(name, [AuditEntry(now, "policy_changed", reason="configuration")])


def _written(policies: Policies) -> str:
    """Write them as earlier releases did, where what came later is as it was without it."""
    later = {one.name: one.default for one in fields(policies) if one.default is not MISSING}
    written = asdict(policies)
    kept = {k: v for k, v in written.items() if k not in later or v != later[k]}
    return json.dumps(kept, sort_keys=True, default=sorted)
