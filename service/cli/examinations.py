"""What `ackgate doctor` looks at: each examination gives checks, each bad one with its cure."""

import shutil
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from service.api.room import LOW_DISK_BYTES
from service.cli.clients import client_at
from service.cli.probes import (
    Certificate,
    Knock,
    certificate_of,
    knock,
    synthetic_callback,
    trusting,
)
from service.ingress.readers import in_journal
from service.ingress.signatures import signed
from service.model.account_checks import CURES, MAX_SKEW_SECONDS, origin, wrong_settings
from service.settings import OnPremAccountSettings, Settings
from service.settings.types import host_of, is_loopback
from service.store import maintenance
from service.store.database import StoreError
from service.store.evidence import is_kept, newest_entry
from service.store.queries import account_rows
from service.whatsapp.client import Client
from service.whatsapp.errors import CallError, ForbiddenError, LoginRefusedError
from service.workers.inspector import UNREADABLE, expected_of

Status = Literal["pass", "warn", "fail"]

DAYS_LEFT = 21
FEW_DAYS_LEFT = 3
SILENT_HOURS = 24
MEBIBYTE = 1_048_576
KEPT = 200


class Check(NamedTuple):
    """What was looked at, and what was found."""

    name: str
    account: str | None
    status: Status
    detail: str
    cure: str | None = None


# The database


def examine_database(settings: Settings) -> Iterator[Check]:
    """Look at the file, its schema, and the disk that it is on."""
    path = settings.database.path
    yield _file(path)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        yield Check("disk", None, "fail", f"{path.parent}: {error.strerror}", "make the folder")
        return
    low = free < LOW_DISK_BYTES
    cure = "make room; soon callbacks can't be stored" if low else None
    yield Check("disk", None, "fail" if low else "pass", f"{free // MEBIBYTE} MiB are free", cure)


def _file(path: Path) -> Check:
    try:
        report = maintenance.check(path, quick=True)
    except StoreError as error:
        cure = (
            "start the service, which makes it; or run this with its configuration, and as its user"
        )
        return Check("database", None, "fail", str(error), cure)
    if report.faults:
        cure = "see 'ackgate db check'; restore a backup where it is damaged"
        return Check("database", None, "fail", report.faults[0], cure)
    size = report.size // MEBIBYTE
    return Check("database", None, "pass", f"whole, {size} MiB, its schema at {report.schema}")


def examine_callbacks(settings: Settings) -> Iterator[Check]:
    """Tell when each account had its last callback."""
    try:
        with maintenance.reading(settings.database.path) as connection:
            rows = account_rows(connection)
    except StoreError:
        return
    for name in settings.accounts:
        yield _last_callback(name, rows[name].last_callback_at if name in rows else None)


def _last_callback(account: str, at: int | None) -> Check:
    cure = (
        "is the webhook URL right, and reachable for the client (Cloud API: for Meta)? what a "
        f"client delivers, its log tells; see 'ackgate accounts setup {account}'"
    )
    if at is None:
        return Check("last callback", account, "warn", "there never was any", cure)
    hours = max(0.0, time.time() - at / 1000) / 3600
    told = f"{hours * 60:.0f} minutes ago" if hours < 1 else f"{hours:.0f} hours ago"
    if hours < SILENT_HOURS:
        return Check("last callback", account, "pass", told)
    return Check("last callback", account, "warn", told, cure)


# The door


async def examine_door(settings: Settings, account: str) -> list[Check]:
    """Deliver a callback of our own through the public URL, and look at its certificate."""
    public, local = settings.server.public_url, _local_url(settings)
    if public is None:
        return [await _local_door(settings, account, local)]
    tls = trusting(_authority_of(settings, account))
    found = [await _public_door(settings, account, public, local, tls)]
    if public.startswith("https:"):
        served = await certificate_of(public, tls)
        cure = _certificate_cure(settings, account)
        found.append(_certificate("door certificate", account, served, cure))
    elif not is_loopback(host_of(public)):
        detail = f"{origin(public)} is plain http: the client demands https"
        found.append(Check("door certificate", account, "fail", detail, "end TLS in a proxy"))
    return found


def _authority_of(settings: Settings, account: str) -> Path | None:
    """Give the authority that verifies the door beside those publicly known.

    Meta takes no other than these; only a simulator, on this machine, is given one.
    """
    cloud = settings.cloud_accounts.get(account)
    if cloud is not None and not is_loopback(host_of(cloud.base_url)):
        return None
    return settings.server.public_ca_file


def _certificate_cure(settings: Settings, account: str) -> str:
    if account in settings.cloud_accounts:
        return "use a certificate that is publicly known: Meta takes no other"
    return (
        "name the authority in server.public_ca_file, and run "
        f"'ackgate accounts setup {account}'; or use a certificate that is publicly known"
    )


async def _local_door(settings: Settings, account: str, local: str | None) -> Check:
    """Without a public URL only this machine's own address can be tried."""
    cure = "set server.public_url to how the client reaches the door"
    if local is None:
        detail = "server.public_url is not set, and server.port is any: nothing to try"
        return Check("door", account, "warn", detail, cure)
    status, detail = await _try(settings, account, local, tls=False)
    told = f"server.public_url is not set; here {detail}"
    return Check("door", account, "warn" if status == "pass" else "fail", told, cure)


async def _public_door(
    settings: Settings, account: str, public: str, local: str | None, tls: ssl.SSLContext
) -> Check:
    status, detail = await _try(settings, account, public, tls=tls)
    if status == "pass":
        return Check("door", account, status, detail)
    if local is None:
        return Check("door", account, status, detail, "is the service running, and forwarded to?")
    here, there = await _try(settings, account, local, tls=False)
    if here == "pass":
        cure = f"{there}: look at what lies between, the proxy, the name, the firewall"
    else:
        cure = f"nor here: {there}; is the service running with this configuration?"
    return Check("door", account, status, detail, cure)


async def _try(
    settings: Settings, account: str, at: str, *, tls: ssl.SSLContext | bool
) -> tuple[Status, str]:
    """Deliver one, and look for it in the journal."""
    path, body = settings.database.path, synthetic_callback()
    before = _newest(path)
    answer = await knock(settings.door(account, at), body, tls, _signed(settings, account, body))
    if answer.status != KEPT:
        return "fail", f"{origin(at)} {_refusal(answer)}"
    cloud = settings.cloud_accounts.get(account)
    came = _came(path, account if cloud is None else in_journal(cloud.app), body, before)
    if came is None:
        return "pass", f"{origin(at)} answered 200; the database can't be read here"
    if came:
        return "pass", f"{origin(at)} answered 200, and it is in the journal"
    return "fail", f"{origin(at)} answered 200, but another installation took it"


def _signed(settings: Settings, account: str, body: bytes) -> Mapping[str, str]:
    """Give the header that the door of an app demands; a client's callbacks have none."""
    cloud = settings.cloud_accounts.get(account)
    if cloud is None:
        return {}
    return signed(settings.apps[cloud.app].app_secret.get_secret_value().encode(), body)


def _came(path: Path, account: str, body: bytes, before: int | None) -> bool | None:
    """Tell whether a callback came into the database; None where that can't be read."""
    if before is None:
        return None
    try:
        with maintenance.reading(path) as connection:
            return is_kept(connection, account, body, before)
    except StoreError:
        return None


def _newest(path: Path) -> int | None:
    try:
        with maintenance.reading(path) as connection:
            return newest_entry(connection)
    except StoreError:
        return None


def _refusal(answer: Knock) -> str:
    if answer.status is None:
        return f"does not answer: {answer.problem}"
    meaning = {
        401: "app_secret is another than that of the service",
        403: "it was forwarded, and an API key or a webhook token is missing",
        404: "the path or the token is another",
        405: "something else than the door answers",
        413: "a proxy lets no bodies through",
        503: "it could not be stored",
    }.get(answer.status, "something between does not let it through")
    if answer.status // 100 == 3:  # noqa: PLR2004  the class of redirects
        meaning = "the client follows no redirect"
    return f"answered {answer.status}: {meaning}"


def _local_url(settings: Settings) -> str | None:
    server = settings.server
    if server.port == 0:
        return None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    scheme = "http" if server.tls_cert_file is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"


def _certificate(name: str, account: str, found: Certificate, cure: str) -> Check:
    if found.days is None:
        return Check(name, account, "fail", found.problem, cure)
    told = f"good for {found.days:.0f} days"
    if found.days >= DAYS_LEFT:
        return Check(name, account, "pass", told)
    status: Status = "warn" if found.days >= FEW_DAYS_LEFT else "fail"
    return Check(name, account, status, told, "renew it, and start again what serves it")


# The client


async def examine_client(name: str, settings: Settings) -> list[Check]:
    """Log in, and look at how the client is, how it is set, and what time it has."""
    account = settings.onprem_accounts[name]
    found = await _client_certificate(name, account)
    async with client_at(name, account) as client:
        found += await _login(client, settings)
        if client.session.logged_in_at is not None:
            await client.check_health()
            found.append(_gateway(client))
            found += _clock(client)
    return found


async def _client_certificate(name: str, account: OnPremAccountSettings) -> list[Check]:
    if not account.base_url.startswith("https:") or not account.verify_tls:
        return []
    served = await certificate_of(account.base_url, _as_calls_do(account.ca_file))
    return [_certificate("client certificate", name, served, CURES["client_unreachable"])]


def _as_calls_do(ca_file: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


async def _login(client: Client, settings: Settings) -> list[Check]:
    """Ask for the settings, which takes a login first."""
    name = client.name
    try:
        told = await client.settings()
    except LoginRefusedError as error:
        return [Check("login", name, "fail", str(error), CURES["login_refused"])]
    except ForbiddenError:
        code, detail, _ = UNREADABLE
        return [_logged_in(name), Check("settings", name, "warn", detail, CURES[code])]
    except CallError as error:
        if client.session.logged_in_at is None:
            return [Check("login", name, "fail", str(error), CURES["client_unreachable"])]
        again = "try again; what went wrong, the client's log tells"
        return [_logged_in(name), Check("settings", name, "fail", str(error), again)]
    wrong = wrong_settings(told, expected_of(settings, name))
    bad = [
        Check("settings", name, "fail", x.detail, CURES[x.code].replace("ACCOUNT", name))
        for x in wrong
        if x.code != "clock_skew"
    ]
    version = f" (client {told.version})" if told.version else ""
    right = Check("settings", name, "pass", f"as they should be{version}")
    return [_logged_in(name), *(bad or [right])]


def _logged_in(name: str) -> Check:
    return Check("login", name, "pass", "logged in")


def _gateway(client: Client) -> Check:
    status = client.reachability.gateway
    if status == "connected":
        return Check("gateway", client.name, "pass", status)
    cure = "look at the client: without WhatsApp's servers it neither sends nor receives"
    known = status != "unknown"
    return Check("gateway", client.name, "fail" if known else "warn", status, cure)


def _clock(client: Client) -> list[Check]:
    skew = client.skew_seconds
    if skew is None:
        return []
    name, seconds = client.name, f"{abs(skew):.0f} s"
    if abs(skew) <= MAX_SKEW_SECONDS:
        return [Check("clock", name, "pass", f"within {seconds} of ours" if skew else "as ours")]
    told = f"the client's is {seconds} {'ahead of' if skew > 0 else 'behind'} ours"
    return [Check("clock", name, "fail", told, CURES["clock_skew"])]
