"""Checks across keys: what the type of a single key can't say, each naming the key to change."""

import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.dialects.routing import KINDS
from service.model.event_log import EventType
from service.settings.accounts import SIGNATURE_HEADER, AppSettings, RuleSettings
from service.settings.sources import PREFIX
from service.settings.tree import FIRST_USE, ServerSettings, Settings
from service.settings.types import host_of, is_loopback

Problem = tuple[str, str]


def problems(settings: Settings) -> Iterator[Problem]:
    """Yield each key at fault with what is wrong and what to do."""
    yield from _server(settings.server)
    if settings.database.password is not None and not settings.database.is_postgres:
        yield "database.password", "a SQLite file has none: remove it, or name a server"
    yield from _rules("policy.rules", settings.policy.rules)
    yield from _accounts(settings)
    digests = {name: key.sha256.get_secret_value() for name, key in settings.api.keys.items()}
    for name, other in _repeated(digests):
        yield f"api.keys.{name}.sha256", f"the same as that of api.keys.{other}; make a new key"
    for name, key in settings.api.keys.items():
        for index, account in enumerate(key.accounts):
            if account not in settings.accounts:
                yield f"api.keys.{name}.accounts[{index}]", "there is no such account; correct it"
    yield from _relays(settings)
    yield from _public(settings)


def _relays(settings: Settings) -> Iterator[Problem]:
    for name, relay in settings.relays.items():
        path = f"relays.{name}"
        known = KINDS if relay.source == "callbacks" else [*EventType]
        for index, kind in enumerate(relay.kinds):
            if kind not in known:
                yield f"{path}.kinds[{index}]", f"must be one of {', '.join(known)}"
        for index, account in enumerate(relay.accounts):
            if account not in settings.accounts:
                yield f"{path}.accounts[{index}]", "there is no such account; correct it"
        if relay.secret is None and relay.secret_previous is not None:
            yield f"{path}.secret", missing(f"{path}.secret")


def _public(settings: Settings) -> Iterator[Problem]:
    """Yield what an installation lacks that others than this machine can call.

    An API key or a public URL says so as well as a host: a proxy in front makes everybody local.
    """
    if not settings.api.keys:
        for host in settings.public_hosts:
            yield host, "must be a loopback address until a key of the API is set: api.keys.NAME"
        if settings.server.public_url is not None:
            problem = "needs a key of the API: set api.keys.NAME, or remove public_url"
            yield "server.public_url", problem
        if settings.console.proxy.addresses:
            problem = "needs a key of the API: set api.keys.NAME, or remove addresses"
            yield "console.proxy.addresses", problem
        return
    for name, account in settings.onprem_accounts.items():
        if account.webhook_token is None and account.webhook_auth == "token":
            problem = (
                "missing: anybody could send callbacks; set it, or webhook_auth = 'proxy' if a "
                "proxy in front lets nobody but the client through (mTLS or an address list)"
            )
            yield f"accounts.{name}.webhook_token", problem
    if settings.console.proxy.addresses and settings.server.internal is None:
        problem = (
            "needs an address that no webhook's proxy leads to, else that one passes on a person's "
            "name from anybody; set server.internal, or remove addresses"
        )
        yield "console.proxy.addresses", problem


def _server(server: ServerSettings) -> Iterator[Problem]:
    internal = server.internal
    if internal and server.port and (server.host, server.port) == (internal.host, internal.port):
        yield "server.internal.port", "the same address as server.port; choose another"
    if server.max_in_flight_bytes < server.max_body_bytes:
        yield "server.max_in_flight_bytes", "must be at least server.max_body_bytes"
    certificate, key = server.tls_cert_file, server.tls_key_file
    if certificate is None and key is not None:
        yield "server.tls_cert_file", "missing: tls_key_file is set, and one needs the other"
    if certificate is not None and key is None:
        yield "server.tls_key_file", "missing: tls_cert_file is set, and one needs the other"
    if certificate is None or key is None:
        return
    try:
        # A password of its own, else OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError):
        yield "server.tls_cert_file", "not a PEM certificate with the unencrypted key beside it"


def _accounts(settings: Settings) -> Iterator[Problem]:
    for name, account in settings.accounts.items():
        yield from _rules(f"accounts.{name}.policy.rules", account.policy.rules)
        if not account.verify_tls and not is_loopback(host_of(account.base_url)):
            key = f"accounts.{name}.verify_tls"
            yield key, "may be false for a loopback host alone; set ca_file instead"
        for code in sorted(set(account.gate.warn) & set(account.gate.block)):
            yield f"accounts.{name}.gate.warn", f"{code} is in gate.block too; choose one"
    for name, cloud_account in settings.cloud_accounts.items():
        if cloud_account.app not in settings.apps:
            yield f"accounts.{name}.app", "there is no such app; set it under apps.NAME"
    numbers = {name: (a.app, a.phone_number_id) for name, a in settings.cloud_accounts.items()}
    for name, other in _repeated(numbers):
        key = f"accounts.{name}.phone_number_id"
        yield key, f"the same as that of accounts.{other}; an app has one account a number"
    for name, app in settings.apps.items():
        yield from _app(f"apps.{name}", app)
        if name in settings.accounts:
            yield f"apps.{name}", "an account has this name too; both name a URL under /webhooks/"


def _app(path: str, app: AppSettings) -> Iterator[Problem]:
    if app.auth == "token":
        if app.webhook_token is None:
            yield f"{path}.webhook_token", missing(f"{path}.webhook_token")
        return
    if app.app_secret is None:
        yield f"{path}.app_secret", missing(f"{path}.app_secret")
    if app.webhook_token is not None:
        yield f"{path}.webhook_token", "takes the signature's place: set auth = 'token' as well"
    # A provider that signs for itself makes no handshake of Meta's.
    if app.verify_token is None and app.signature_header.lower() == SIGNATURE_HEADER.lower():
        yield f"{path}.verify_token", missing(f"{path}.verify_token")


def missing(key: str) -> str:
    """Return what to say of a value that is needed."""
    return f"missing; set it, or {PREFIX}{key.upper().replace('.', '__')} in the environment"


def _rules(path: str, rules: Sequence[RuleSettings]) -> Iterator[Problem]:
    counts = Counter(rule.name for rule in rules)
    for index, rule in enumerate(rules):
        if rule.name in {"default", FIRST_USE.name}:
            yield f"{path}[{index}].name", f"{rule.name} is reserved; choose another name"
        if counts[rule.name] > 1:
            yield f"{path}[{index}].name", "used twice in this list; choose another name"
        if not rule.wa_ids and not rule.wa_id_prefixes:
            yield f"{path}[{index}].wa_ids", "names nobody; set wa_ids or wa_id_prefixes"


def _repeated(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each value that came before, and the name that it came under first."""
    first: dict[Any, str] = {}
    for name, value in values.items():
        if (other := first.setdefault(value, name)) != name:
            yield name, other
