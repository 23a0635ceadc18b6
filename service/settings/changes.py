"""What of the configuration can change while the service runs, and what waits for a restart."""

from collections.abc import Iterator
from typing import Any

from service.settings.sources import general
from service.settings.tree import Settings

CHANGEABLE = (
    "server.public_url",
    "server.public_ca_file",
    "server.tls_cert_file",
    "server.tls_key_file",
    "policy",
    "alerts",
    "api.keys",
    "console",
    "accounts.NAME.policy",
    "accounts.NAME.gate",
    "accounts.NAME.username",
    "accounts.NAME.password",
    "accounts.NAME.webhook_token",
    "accounts.NAME.webhook_auth",
    "accounts.NAME.webhook_url",
    "accounts.NAME.access_token",
    "accounts.NAME.token_header",
    "accounts.NAME.trust_first_use",
    "apps.NAME.auth",
    "apps.NAME.app_secret",
    "apps.NAME.app_secret_previous",
    "apps.NAME.signature_header",
    "apps.NAME.webhook_token",
    "apps.NAME.verify_token",
    "relays.NAME.secret",
    "relays.NAME.secret_previous",
    "relays.NAME.headers",
)
"""Keys and tables that are read anew; all others are built into the parts at the start."""


def needing_restart(old: Settings, new: Settings) -> list[str]:
    """Return the keys that differ and can't change while the service runs.

    Secrets are left out of the comparison: every one of them can, but that of the database.
    """
    paths = _differing(old.redacted(), new.redacted(), [])
    found = [".".join(path) for path in paths if not _is_changeable(general(path))]
    if (old.server.tls_cert_file is None) != (new.server.tls_cert_file is None):
        found.append("server.tls_cert_file")
    if old.database.password != new.database.password and "database.password" not in found:
        found.append("database.password")
    if old.open_to_loopback_only != new.open_to_loopback_only:
        found.append("api.keys")
    return found


def _differing(old: Any, new: Any, path: list[str]) -> Iterator[list[str]]:
    """Yield the path of each value that differs, or of the table that one of the two lacks."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differing(old.get(name), new.get(name), [*path, name])
    elif old != new:
        yield path


def _is_changeable(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in CHANGEABLE)
