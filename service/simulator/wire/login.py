"""Logins and bearer tokens (Meta's page on users: login)."""

import base64
import binascii
from datetime import UTC, datetime

from aiohttp import web

from service.simulator.answers import WireError
from service.simulator.wire.keys import CALL, answered, client_of


async def login(request: web.Request) -> web.Response:
    """Give out a token for the right password; a wrong one gets an empty 401, too many get 429."""
    logins = client_of(request).logins
    if logins.too_many():
        raise WireError(429)
    if not logins.is_right(*basic_credentials(request.headers.get("Authorization", ""))):
        request[CALL].outcome = "refused"
        return web.Response(status=401)
    token, until = logins.log_in()
    request[CALL].outcome = "logged_in"
    return answered(request, {"users": [{"token": token, "expires_after": expiry(until)}]})


def basic_credentials(header: str) -> tuple[str, str]:
    """Read name and password of HTTP Basic; two empty ones when there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def expiry(until: float) -> str:
    """Write a time in Unix seconds as the login answers it: `2021-09-14 15:29:26+00:00`."""
    return datetime.fromtimestamp(int(until), UTC).isoformat(" ")


def check_bearer(request: web.Request) -> None:
    """Let a valid token pass; WireError 401 with code 1005 for any other."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not client_of(request).logins.admits(token):
        raise WireError(401)
