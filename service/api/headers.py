"""The headers by which a browser takes an answer for what it is, and for nothing else.

Every answer has them but that of a webhook: no browser reads one, and it is the way that has to be
fast. What an answer says itself stays: pages have a policy of their own, and some may be cached.
"""

from aiohttp import web

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
OVER_TLS = {"Strict-Transport-Security": "max-age=31536000"}
"""Where TLS ends here; a proxy in which it ends says it itself. Browsers heed no other."""
WEBHOOKS = "/webhooks/"


async def secure(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that an answer lacks, before it begins: as signal `on_response_prepare`."""
    if request.path.startswith(WEBHOOKS):
        return
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.secure:
        for name, value in OVER_TLS.items():
            response.headers.setdefault(name, value)
