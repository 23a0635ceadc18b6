"""Checks of `ackgate doctor` of accounts: the login, the settings, the callbacks that came."""

import asyncio
import ssl
import time
from functools import partial

from sqlalchemy import Connection

from service.cli.endpoint_checks import Check, check_certificate
from service.cli.setup import client_at, graph_at
from service.model.account_checks import (
    CURES,
    MAX_SKEW_SECONDS,
    IdentityCheck,
    wrong_cloud_settings,
    wrong_settings,
)
from service.settings import Settings
from service.store.accounts import account_rows
from service.store.database import StoreError
from service.store.journal import newest_callbacks
from service.store.operating import operated
from service.webhooks.incoming import in_journal, reader_of
from service.whatsapp.http import CallError, ForbiddenError, LoginRefusedError, NotThereError
from service.whatsapp.onprem import Client
from service.workers.monitoring import UNREADABLE, UNREADABLE_NUMBER, expected_of

SILENT_HOURS = 24
NEWEST = 200
"""How many of an account's newest callbacks are read again for identity hashes."""


async def check_client(name: str, settings: Settings) -> list[Check]:
    """Log in to a client, and check its health, its settings and its clock."""
    account = settings.onprem_accounts[name]
    found = []
    if account.base_url.startswith("https:") and account.verify_tls:
        # As calls of the service do: a file replaces the system's authorities.
        tls = ssl.create_default_context(cafile=account.ca_file)
        cure = CURES["client_unreachable"]
        found.append(
            await check_certificate("client certificate", name, account.base_url, tls, cure)
        )
    async with client_at(name, account) as client:
        found += await _check_client_settings(client, settings)
        if client.session.logged_in_at is not None:
            await client.check_health()
            found.append(_check_gateway(client))
            found += _check_clock(client)
    return found


async def _check_client_settings(client: Client, settings: Settings) -> list[Check]:
    """Read the settings, which takes a login first."""
    name = client.name
    logged_in = Check("login", name, "pass", "logged in")
    try:
        read = await client.settings()
    except LoginRefusedError as error:
        return [Check("login", name, "fail", str(error), CURES["login_refused"])]
    except ForbiddenError:
        code, detail, _ = UNREADABLE
        return [logged_in, Check("settings", name, "warn", detail, CURES[code])]
    except CallError as error:
        if client.session.logged_in_at is None:
            return [Check("login", name, "fail", str(error), CURES["client_unreachable"])]
        again = "try again; what went wrong, the client's log tells"
        return [logged_in, Check("settings", name, "fail", str(error), again)]
    wrong = [
        Check("settings", name, "fail", x.detail, _cure(x.code, name))
        for x in wrong_settings(read, expected_of(settings, name))
        if x.code != "clock_skew"
    ]
    version = f" (client {read.version})" if read.version else ""
    right = Check("settings", name, "pass", f"as they should be{version}")
    return [logged_in, *(wrong or [right])]


def _check_gateway(client: Client) -> Check:
    status = client.reachability.gateway
    if status == "connected":
        return Check("gateway", client.name, "pass", status)
    cure = "look at the client: without WhatsApp's servers it neither sends nor receives"
    known = status != "unknown"
    return Check("gateway", client.name, "fail" if known else "warn", status, cure)


def _check_clock(client: Client) -> list[Check]:
    skew = client.skew_seconds
    if skew is None:
        return []
    name, seconds = client.name, f"{abs(skew):.0f} s"
    if abs(skew) <= MAX_SKEW_SECONDS:
        return [Check("clock", name, "pass", f"within {seconds} of ours" if skew else "as ours")]
    detail = f"the client's is {seconds} {'ahead of' if skew > 0 else 'behind'} ours"
    return [Check("clock", name, "fail", detail, CURES["clock_skew"])]


async def check_number(name: str, settings: Settings) -> list[Check]:
    """Check the settings of a number of the Cloud API, whose answer shows the token's state too."""
    account = settings.cloud_accounts[name]
    if not account.check_settings:
        return [Check("settings", name, "pass", "not read, as check_settings of the account says")]
    accepted = Check("login", name, "pass", "the access token is accepted")
    try:
        async with graph_at(name, account) as graph:
            read = await graph.settings()
    except LoginRefusedError as error:
        return [Check("login", name, "fail", str(error), _cure("login_refused", name))]
    except ForbiddenError:
        code, detail, _ = UNREADABLE_NUMBER
        return [accepted, Check("settings", name, "warn", detail, _cure(code, name))]
    except NotThereError as error:
        cure = _cure("number_unreadable", name)
        return [accepted, Check("settings", name, "fail", str(error), cure)]
    except CallError as error:
        return [Check("login", name, "fail", str(error), _cure("account_unreachable", name))]
    url, declared = settings.registered_url(name), account.webhook_url is not None
    wrong = [
        Check("settings", name, "fail", x.detail, _cure(x.code, name))
        for x in wrong_cloud_settings(read, url, declared=declared)
    ]
    # Without the public URL the registered one may be a bot's that forwards, or anybody's.
    where = "callbacks of the number go to the webhook endpoint"
    if declared:
        where = "callbacks of the number go where webhook_url of the account declares"
    right = Check("settings", name, "pass", where if url else "a webhook URL is registered")
    return [accepted, *(wrong or [right])]


def check_callbacks(settings: Settings) -> list[Check]:
    """Check when each account had its last callback, and whether identity hashes come.

    Nothing is said where the database can't be read, which another check tells.
    """
    query = partial(_check_callbacks, settings)
    try:
        return asyncio.run(operated(settings.database.full_url).look(query))
    except StoreError:
        return []


def _check_callbacks(settings: Settings, connection: Connection) -> list[Check]:
    rows = account_rows(connection)
    last = {
        name: rows[name].last_callback_at if name in rows else None for name in settings.accounts
    }
    return [
        *(_check_last_callback(name, at) for name, at in last.items()),
        *(
            _check_hashes(name, _newest_hashes(settings, name, connection))
            for name in settings.cloud_accounts
        ),
    ]


def _check_last_callback(account: str, at: int | None) -> Check:
    cure = (
        "is the webhook URL right, and reachable for the client (Cloud API: for Meta)? what a "
        f"client delivers, its log tells; see 'ackgate accounts setup {account}'"
    )
    if at is None:
        return Check("last callback", account, "warn", "there never was any", cure)
    hours = max(0.0, time.time() - at / 1000) / 3600
    detail = f"{hours * 60:.0f} minutes ago" if hours < 1 else f"{hours:.0f} hours ago"
    if hours < SILENT_HOURS:
        return Check("last callback", account, "pass", detail)
    return Check("last callback", account, "warn", detail, cure)


def _newest_hashes(settings: Settings, account: str, connection: Connection) -> IdentityCheck:
    """Return what the newest callbacks of an account say of its identity check."""
    seen, read = IdentityCheck(), reader_of(settings, account)
    names = [account, in_journal(settings.cloud_accounts[account].app)]
    for row in reversed(newest_callbacks(connection, names, NEWEST)):
        readings = read(row.content_type, row.content_encoding, row.body)
        if account in readings:
            seen.note(readings[account].events, row.received_at)
    return seen


def _check_hashes(account: str, seen: IdentityCheck) -> Check:
    what, cure = "identity check", _cure("identity_check_off", account)
    if seen.seems_off:
        return Check(what, account, "fail", seen.detail, cure)
    if seen.hash_at is not None:
        minutes = max(0.0, time.time() - seen.hash_at / 1000) / 60
        detail = f"the newest identity hash came {minutes:.0f} minutes ago"
        return Check(what, account, "pass", detail)
    detail = "no callback brought an identity hash so far, so whether it is on is not known"
    return Check(what, account, "warn", detail, cure)


def _cure(code: str, account: str) -> str:
    return CURES[code].replace("ACCOUNT", account)
