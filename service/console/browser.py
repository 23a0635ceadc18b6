"""What a request says of the browser that sent it: over TLS or not, and from which page."""

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from service.api.context import app_context

READING = frozenset({"GET", "HEAD"})
LIVE = "Ackgate-Live"
"""The header of what a page asks by itself, and nobody did: that keeps no session alive."""


def is_secure(request: web.Request) -> bool:
    """Return whether the browser came over TLS, to this service or to a proxy in front of it.

    Anybody can claim so in a header; it makes the cookie stricter, and never less strict.
    """
    # Several proxies make a list; the first one of it is the one that the browser came to.
    claimed = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    if request.secure or claimed == "https":
        return True
    server = app_context(request).settings.server
    public = urlsplit(server.public_url or "")
    return public.scheme == "https" and server.internal is None and request.host == public.netloc


def is_own_form(request: web.Request) -> bool:
    """Return whether a page of this very host sent the request, as the browser says.

    Browsers name the relation of the two sites, or at least the origin of what they send; who says
    neither is no browser that the console knows.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin", "")
    return bool(request.host) and origin.partition("://")[2] == request.host


def is_asked_by_page(request: web.Request) -> bool:
    """Return whether a page repaints itself, or follows the stream, without a person's doing."""
    return LIVE in request.headers or request.path.endswith("/stream")


def wants_fragment(request: web.Request) -> bool:
    """Return whether htmx asks for a part of the page."""
    return request.headers.get("HX-Request") == "true" and "HX-Boosted" not in request.headers


def comes_from_proxy(request: web.Request) -> bool:
    """Return whether the connection is from an address whose header is believed."""
    networks = app_context(request).settings.console.proxy.networks
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
