"""Webhook URLs as they are registered: which lead to the same place, and what of one is shown."""

from typing import Any
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def same_url(one: str, other: str) -> bool:
    """Return whether two URLs lead to the same endpoint."""
    try:
        return _parts(one) == _parts(other)
    except ValueError:
        return False


def _parts(url: str) -> tuple[Any, ...]:
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    return parts.scheme, parts.username, parts.hostname, port, parts.path, parts.query


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, without what may be secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "an address that is none"
    if not parts.hostname or not parts.hostname.isprintable():
        return "an address that is none"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = port is None or port == _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" if plain else f"{parts.scheme}://{host}:{port}"


def shown_url(url: str | None, endpoint: str | None) -> str | None:
    """Return a URL for people: the endpoint's up to the last slash, of another one the origin."""
    if not url:
        return None
    return (
        f"{url.partition('?')[0].rpartition('/')[0]}/…" if url == endpoint else f"{origin(url)}/…"
    )


def is_endpoint_at(url: str, public: str) -> bool:
    """Return whether a URL is one of the webhook endpoints at a public URL, whatever its token."""
    below = f"{urlsplit(public).path}/webhooks/"
    return origin(url) == origin(public) and urlsplit(url).path.startswith(below)
