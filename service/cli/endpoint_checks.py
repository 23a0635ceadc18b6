"""Checks of `ackgate doctor` over the network: webhook endpoints and certificates."""

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from service.dialects.common import SYNTHETIC
from service.model.account_checks import CURES
from service.model.webhook_urls import origin
from service.settings import Settings
from service.settings.types import host_of, is_loopback
from service.store.database import StoreError
from service.store.journal import is_kept, newest_entry
from service.store.operating import operated
from service.webhooks.incoming import in_journal
from service.webhooks.signatures import signed

TIMEOUT_SECONDS = 20.0
DAY_SECONDS = 86_400
DAYS_LEFT = 21
FEW_DAYS_LEFT = 3
HEADERS = {"Content-Type": "application/json", "User-Agent": "ackgate-doctor"}
HTTPS_PORT = 443

Status = Literal["pass", "warn", "fail"]


class Check(NamedTuple):
    """What was checked, and what was found."""

    name: str
    account: str | None
    status: Status
    detail: str
    cure: str | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The status of the answer to a callback of the doctor's, or why there was no answer."""

    status: int | None = None
    problem: str = ""


async def check_endpoint_of_app(settings: Settings, app: str) -> list[Check]:
    """Deliver one callback to the endpoint of an app, which all accounts of the app share."""
    accounts = list(settings.accounts_of(app).values())
    if not accounts:
        return []
    found = await check_endpoint(settings, accounts[0])
    if settings.apps[app].auth == "signature":
        # The doctor signs with the configured secret: whether it is Meta's the service sees.
        found.append(await _check_signatures(settings, app))
    return [check._replace(account=name) for name in accounts for check in found]


async def _check_signatures(settings: Settings, app: str) -> Check:
    """Ask the running service whether callbacks came with wrong signatures, and none with a right.

    Its health, which needs no key, names the issues of an app by their codes.
    """
    problem, checks = await _health(settings)
    found = checks.get(f"app:{app}")
    if not isinstance(found, dict):
        detail = f"whether those of callbacks are right is known to the service alone: {problem}"
        return Check("signatures", None, "warn", detail, "run this where the service runs")
    if "wrong_signatures" in str(found.get("detail")):
        detail = f"callbacks of the app {app} come with wrong signatures, and none with a right one"
        return Check(
            "signatures", None, "fail", detail, CURES["wrong_signatures"].replace("SUBJECT", app)
        )
    return Check("signatures", None, "pass", "none was wrong without a right one after it")


async def _health(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the checks of the running service's health, or why there are none."""
    server = settings.server
    url = _local_url(settings)
    if server.internal is not None:
        url = _url_here("http", server.internal.host, server.internal.port)
    if url is None:
        return "its port is any", {}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"{url}/health/status", allow_redirects=False, ssl=False) as response,
        ):
            checks = (await response.json())["checks"]
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{origin(url)} does not tell ({_why(error)})", {}
    return f"{origin(url)} does not know the app", checks if isinstance(checks, dict) else {}


async def check_endpoint(settings: Settings, account: str) -> list[Check]:
    """Deliver a synthetic callback through the public URL, and check the URL's certificate."""
    public, local = settings.server.public_url, _local_url(settings)
    if public is None:
        return [await _check_local(settings, account, local)]
    # Meta takes no private authority; only a simulator, on this machine, is given one.
    cloud = settings.cloud_accounts.get(account)
    at_meta = cloud is not None and not is_loopback(host_of(cloud.base_url))
    tls = ssl.create_default_context()
    if settings.server.public_ca_file is not None and not at_meta:
        tls.load_verify_locations(settings.server.public_ca_file)
    onprem = settings.onprem_accounts.get(account)
    if onprem is not None and onprem.webhook_auth == "proxy":
        found = [await _check_behind_proxy(settings, account, local)]
    else:
        found = [await _check_public(settings, account, public, local, tls)]
    if public.startswith("https:"):
        cure = (
            "use a certificate that is publicly known: Meta takes no other"
            if cloud is not None
            else "name the authority in server.public_ca_file, and run "
            f"'ackgate accounts setup {account}'; or use a certificate that is publicly known"
        )
        found.append(await check_certificate("webhook certificate", account, public, tls, cure))
    elif not is_loopback(host_of(public)):
        detail = f"{origin(public)} is plain http: the client demands https"
        found.append(Check("webhook certificate", account, "fail", detail, "end TLS in a proxy"))
    return found


async def _check_local(settings: Settings, account: str, local: str | None) -> Check:
    """Check the address on this machine alone, where no public URL is set."""
    cure = "set server.public_url to how the client reaches the webhook endpoint"
    if local is None:
        detail = "server.public_url is not set, and server.port is any: nothing to try"
        return Check("webhook", account, "warn", detail, cure)
    status, detail = await _deliver(settings, account, local, tls=False)
    detail = f"server.public_url is not set; here {detail}"
    return Check("webhook", account, "warn" if status == "pass" else "fail", detail, cure)


async def _check_behind_proxy(settings: Settings, account: str, local: str | None) -> Check:
    """Check the address on this machine alone: the proxy lets nobody but the client through."""
    detail = "webhook_auth is proxy, so this command isn't let through from outside"
    if local is None:
        any_port = "server.port is any; set it to have the webhook endpoint tried here"
        return Check("webhook", account, "warn", detail, any_port)
    status, here = await _deliver(settings, account, local, tls=False)
    cure = None if status == "pass" else "is the service running with this configuration?"
    return Check("webhook", account, status, f"{detail}; here {here}", cure)


async def _check_public(
    settings: Settings, account: str, public: str, local: str | None, tls: ssl.SSLContext
) -> Check:
    status, detail = await _deliver(settings, account, public, tls=tls)
    if status == "pass":
        return Check("webhook", account, status, detail)
    if local is None:
        return Check(
            "webhook", account, status, detail, "is the service running, and forwarded to?"
        )
    here, there = await _deliver(settings, account, local, tls=False)
    if here == "pass":
        cure = f"{there}: look at what lies between, the proxy, the name, the firewall"
    else:
        cure = f"nor here: {there}; is the service running with this configuration?"
    return Check("webhook", account, status, detail, cure)


def _local_url(settings: Settings) -> str | None:
    server = settings.server
    scheme = "http" if server.tls_cert_file is None else "https"
    return _url_here(scheme, server.host, server.port)


def _url_here(scheme: str, host: str, port: int) -> str | None:
    """Return how this machine reaches an address that is listened on; None where it is any port."""
    if port == 0:
        return None
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{here}]' if ':' in here else here}:{port}"


async def _deliver(
    settings: Settings, account: str, at: str, *, tls: ssl.SSLContext | bool
) -> tuple[Status, str]:
    """Deliver a callback that says nothing, and look for it in the journal."""
    # A number of its own makes this callback findable among those of other runs.
    mark = {"id": secrets.token_hex(8), "at": round(time.time())}
    body = json.dumps({SYNTHETIC: mark}).encode()
    known_as, headers = account, dict(HEADERS)
    if (cloud := settings.cloud_accounts.get(account)) is not None:
        known_as, app = in_journal(cloud.app), settings.apps[cloud.app]
        if app.auth == "signature":
            headers |= signed(app.secrets[0], body, app.signature_header)
    before = await _newest(settings)
    answer = await _post(settings.webhook_url(account, at), body, tls, headers)
    if answer.status != HTTPStatus.OK:
        return "fail", f"{origin(at)} {_refusal(answer)}"
    came = await _came(settings, known_as, body, before)
    if came is None:
        return "pass", f"{origin(at)} answered 200; the database can't be read here"
    if came:
        return "pass", f"{origin(at)} answered 200, and it is in the journal"
    return "fail", f"{origin(at)} answered 200, but another installation took it"


async def _post(
    url: str, body: bytes, tls: ssl.SSLContext | bool, headers: Mapping[str, str]
) -> ProbeResult:
    """Post a callback as the client does, which follows no redirect."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.post(url, data=body, headers=headers, allow_redirects=False, ssl=tls) as response,
        ):
            return ProbeResult(response.status)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return ProbeResult(problem=_why(error))


async def _newest(settings: Settings) -> int | None:
    try:
        return await operated(settings.database.full_url).look(newest_entry)
    except StoreError:
        return None


async def _came(settings: Settings, account: str, body: bytes, before: int | None) -> bool | None:
    """Return whether a callback came into the database; None where that can't be read."""
    if before is None:
        return None
    try:
        query = partial(is_kept, account=account, body=body, after=before)
        return await operated(settings.database.full_url).look(query)
    except StoreError:
        return None


def _refusal(answer: ProbeResult) -> str:
    if answer.status is None:
        return f"does not answer: {answer.problem}"
    meaning = {
        401: "app_secret is another than that of the service",
        403: "it was forwarded, and an API key is missing",
        404: "the path or the token is another",
        405: "something else than the webhook endpoint answers",
        413: "a proxy lets no bodies through",
        503: "it could not be stored",
    }.get(answer.status, "something between does not let it through")
    if answer.status in range(300, 400):
        meaning = "the client follows no redirect"
    return f"answered {answer.status}: {meaning}"


async def check_certificate(
    name: str, account: str, url: str, tls: ssl.SSLContext, cure: str
) -> Check:
    """Check that an https URL has a certificate that is trusted, and how long it is good for."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or HTTPS_PORT
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=host)
    except (OSError, ValueError) as error:
        return Check(name, account, "fail", _why(error), cure)
    found = writer.get_extra_info("peercert")
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
    days = (ssl.cert_time_to_seconds(found["notAfter"]) - time.time()) / DAY_SECONDS
    detail = f"good for {days:.0f} days"
    if days >= DAYS_LEFT:
        return Check(name, account, "pass", detail)
    status: Status = "warn" if days >= FEW_DAYS_LEFT else "fail"
    return Check(name, account, status, detail, "renew it, and start again what serves it")


def _why(error: Exception) -> str:
    """Return in a line why there was no answer, without the URL."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _why(error.certificate_error)
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case TimeoutError():
            return f"no answer within {TIMEOUT_SECONDS:g} s"
        case OSError(strerror=str(text)) if text:
            return text
        case _:
            return type(error).__name__
