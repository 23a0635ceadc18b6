"""Reading the configuration again while the service runs: all of it takes effect, or nothing."""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import structlog

from service.api.context import AppContext
from service.app.build import keep_policies
from service.app.leading import subjects
from service.model.account_checks import ExpectedSettings
from service.model.policy import Policies
from service.model.users import Kind
from service.settings import Settings, SettingsError, needing_restart
from service.store.database import ChangeSet, UnavailableError
from service.webhooks.handler import WebhookHandler, endpoints
from service.workers.alerts import AlertsError, Channel, channels_of
from service.workers.monitoring import expected_of

log = structlog.get_logger(__name__)


class NeedsRestartError(Exception):
    """The configuration differs in what a reload can't change; the text names the keys."""


REFUSED = (
    AlertsError,
    NeedsRestartError,
    OSError,
    SettingsError,
    UnavailableError,
    ValueError,
)
"""What is wrong with a configuration, or keeps it from being put in force."""


class Reloaded(NamedTuple):
    """What was made of a new configuration, before any of it is in effect."""

    settings: Settings
    expected: Mapping[str, ExpectedSettings]
    policies: Mapping[str, Policies]
    channels: Sequence[Channel]


async def reload(
    context: AppContext,
    handler: WebhookHandler,
    tls: ssl.SSLContext | None,
    read: Callable[[], Settings],
) -> bool:
    """Read the configuration and put it in force; return whether that was done.

    Where anything is wrong with it the former one stays in force as a whole, and a line says so.
    """
    try:
        made = await _prepare(context, read)
        if tls is not None and made.settings.server.tls_cert_file is not None:
            # The pair was tried when the configuration was checked, on a context of its own.
            tls.load_cert_chain(
                made.settings.server.tls_cert_file, made.settings.server.tls_key_file
            )
    except REFUSED as error:
        log.error(  # noqa: TRY400 - what is wrong is the operator's, and stands in the line
            "configuration not reloaded: the former one stays in force",
            problem=str(error) or type(error).__name__,
        )
        return False
    _put_in_force(context, handler, made)
    log.info("configuration reloaded")
    return True


async def _prepare(context: AppContext, read: Callable[[], Settings]) -> Reloaded:
    """Make all that can fail of a new configuration; only the policies are written down then."""
    settings = await asyncio.to_thread(read)
    if keys := needing_restart(context.settings, settings):
        raise NeedsRestartError(
            f"{', '.join(keys)}: can't change while the service runs: restart it"
        )
    expected = {name: expected_of(settings, name) for name in settings.onprem_accounts}
    channels = await asyncio.to_thread(channels_of, settings.alerts)
    policies = await keep_policies(settings, context.database)
    return Reloaded(settings, expected, policies, channels)


def _put_in_force(context: AppContext, handler: WebhookHandler, made: Reloaded) -> None:
    """Give every part the new configuration, without an await: no request meets half of it.

    What a leader is made of goes by it too, now or whenever this replica leads.
    """
    context.settings = settings = made.settings
    context.ledger.policies = made.policies
    context.expected, context.channels = made.expected, made.channels
    handler.endpoints = endpoints(settings, context.signature_checks)
    for name, client in context.clients.items():
        client.session.use(settings.onprem_accounts[name])
    for name, graph in context.graphs.items():
        graph.use(settings.cloud_accounts[name])
    if (leading := context.leading) is not None:
        leading.alerter.use(made.channels)
        for name, relay in leading.relays.items():
            relay.use(settings.relays[name])
        for name, subject in subjects(context, leading):
            inspector = leading.inspectors[name]
            subject.version = inspector.subject.version
            inspector.subject = subject
    # A worker may be waiting for the end of a pause that a new login has ended.
    woken = ChangeSet(work={(name, kind) for name in context.clients for kind in Kind})
    for listener in context.ledger.listeners:
        listener(woken)
