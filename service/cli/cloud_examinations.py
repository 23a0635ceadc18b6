"""What `ackgate doctor` looks at for accounts of the Cloud API."""

import time
from collections.abc import Iterator

from sqlalchemy import Connection

from service.cli.clients import graph_at
from service.cli.examinations import Check, examine_door
from service.ingress.readers import in_journal, reader_of
from service.model.account_checks import CURES, IdentityCheck, wrong_cloud_settings
from service.settings import Settings
from service.store import maintenance
from service.store.database import StoreError
from service.store.evidence import newest_callbacks
from service.whatsapp.errors import CallError, ForbiddenError, LoginRefusedError, NotThereError
from service.whatsapp.graph import Graph
from service.workers.cloud_inspector import UNREADABLE_NUMBER

NEWEST = 200
"""So many callbacks of an account are read again, the newest."""


async def examine_door_of_app(settings: Settings, app: str) -> list[Check]:
    """Deliver one callback of our own to the door of an app, which all its accounts share."""
    accounts = list(settings.accounts_of(app).values())
    if not accounts:
        return []
    found = await examine_door(settings, accounts[0])
    return [check._replace(account=name) for name in accounts for check in found]


async def examine_number(name: str, settings: Settings) -> list[Check]:
    """Look at how the number is set up, which shows whether the access token is good, too."""
    async with graph_at(name, settings.cloud_accounts[name]) as graph:
        return await _number(graph, settings)


async def _number(graph: Graph, settings: Settings) -> list[Check]:
    name = graph.name
    accepted = Check("login", name, "pass", "the access token is accepted")
    try:
        told = await graph.settings()
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
    public = settings.server.public_url
    wrong = wrong_cloud_settings(told, settings.door(name, public) if public else None)
    bad = [Check("settings", name, "fail", x.detail, _cure(x.code, name)) for x in wrong]
    # Without the public URL the registered one may be a bot's that forwards, or anybody's.
    sound = "callbacks of the number go to the door" if public else "a webhook URL is registered"
    right = Check("settings", name, "pass", sound)
    return [accepted, *(bad or [right])]


def examine_identity_checks(settings: Settings) -> Iterator[Check]:
    """Tell by the newest callbacks of each account whether they bring identity hashes."""
    try:
        with maintenance.reading(settings.database.path) as connection:
            for name in settings.cloud_accounts:
                yield _identity_check(name, _seen(settings, name, connection))
    except StoreError:
        return


def _seen(settings: Settings, account: str, connection: Connection) -> IdentityCheck:
    """Read the newest callbacks once more, the oldest of them first."""
    seen, read = IdentityCheck(), reader_of(settings, account)
    names = [account, in_journal(settings.cloud_accounts[account].app)]
    for row in reversed(newest_callbacks(connection, names, NEWEST)):
        readings = read(row.content_type, row.content_encoding, row.body)
        if account in readings:
            seen.note(readings[account].events, row.received_at)
    return seen


def _identity_check(account: str, seen: IdentityCheck) -> Check:
    what, cure = "identity check", _cure("identity_check_off", account)
    if seen.seems_off:
        return Check(what, account, "fail", seen.detail, cure)
    if seen.hash_at is not None:
        minutes = max(0.0, time.time() - seen.hash_at / 1000) / 60
        told = f"the newest identity hash came {minutes:.0f} minutes ago"
        return Check(what, account, "pass", told)
    told = "no callback brought an identity hash so far, so whether it is on is not known"
    return Check(what, account, "warn", told, cure)


def _cure(code: str, account: str) -> str:
    return CURES[code].replace("ACCOUNT", account)
