"""What no key can tell by itself: checks across keys, each naming the key to change."""

import ssl
from collections import Counter
from collections.abc import Iterator, Sequence

from service.settings.policy import RuleSettings
from service.settings.tree import FIRST_USE, Settings
from service.settings.types import host_of, is_loopback

Problem = tuple[str, str]


def problems(settings: Settings) -> Iterator[Problem]:
    """Yield each key at fault with what is wrong and what to do."""
    yield from _addresses(settings)
    yield from _tls_files(settings)
    yield from _limits(settings)
    yield from _rules("policy.rules", settings.policy.rules)
    for name, account in settings.accounts.items():
        yield from _rules(f"accounts.{name}.policy.rules", account.policy.rules)
        if not account.verify_tls and not is_loopback(host_of(account.base_url)):
            key = f"accounts.{name}.verify_tls"
            yield key, "may be false for a loopback host alone; set ca_file instead"
        for code in sorted(set(account.gate.warn) & set(account.gate.block)):
            yield f"accounts.{name}.gate.warn", f"{code} is in gate.block too; choose one"
    yield from _apps(settings)
    yield from _api_keys(settings)
    yield from _openness(settings)


def _addresses(settings: Settings) -> Iterator[Problem]:
    server, internal = settings.server, settings.server.internal
    if internal and server.port and (server.host, server.port) == (internal.host, internal.port):
        yield "server.internal.port", "the same address as server.port; choose another"


def _tls_files(settings: Settings) -> Iterator[Problem]:
    certificate, key = settings.server.tls_cert_file, settings.server.tls_key_file
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


def _limits(settings: Settings) -> Iterator[Problem]:
    if settings.server.max_in_flight_bytes < settings.server.max_body_bytes:
        yield "server.max_in_flight_bytes", "must be at least server.max_body_bytes"


def _rules(path: str, rules: Sequence[RuleSettings]) -> Iterator[Problem]:
    counts = Counter(rule.name for rule in rules)
    for index, rule in enumerate(rules):
        if rule.name in {"default", FIRST_USE.name}:
            yield f"{path}[{index}].name", f"{rule.name} is reserved; choose another name"
        if counts[rule.name] > 1:
            yield f"{path}[{index}].name", "used twice in this list; choose another name"
        if not rule.wa_ids and not rule.wa_id_prefixes:
            yield f"{path}[{index}].wa_ids", "names nobody; set wa_ids or wa_id_prefixes"


def _apps(settings: Settings) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for name, account in settings.cloud_accounts.items():
        if account.app not in settings.apps:
            yield f"accounts.{name}.app", "there is no such app; set it under apps.NAME"
        other = seen.setdefault((account.app, account.phone_number_id), name)
        if other != name:
            key = f"accounts.{name}.phone_number_id"
            yield key, f"the same as that of accounts.{other}; an app has one account a number"
    for name in settings.apps:
        if name in settings.accounts:
            yield f"apps.{name}", "an account has this name too; both are doors under /webhooks/"


def _api_keys(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, key in settings.api.keys.items():
        other = seen.setdefault(key.sha256.get_secret_value(), name)
        if other != name:
            yield f"api.keys.{name}.sha256", f"the same as that of api.keys.{other}; make a new key"


def _openness(settings: Settings) -> Iterator[Problem]:
    for host in settings.public_hosts:
        if not settings.api.keys:
            yield host, "must be a loopback address until a key of the API is set: api.keys.NAME"
        if settings.account_without_token is not None:
            key = f"accounts.{settings.account_without_token}.webhook_token"
            yield key, f"missing: without it {host} must be a loopback address"
