"""How a command finds out whether an address answers, and how long its certificate is good for."""

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from service.dialects.common import SYNTHETIC

SECONDS = 20.0
DAY_SECONDS = 86_400
HEADERS = {"Content-Type": "application/json", "User-Agent": "ackgate-doctor"}
HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Knock:
    """What came of a callback of our own: a status, or why there was none."""

    status: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """How many days a certificate has left, or why it can't be trusted."""

    days: float | None = None
    problem: str = ""


def synthetic_callback() -> bytes:
    """Write a callback that says nothing, known by a key and a number of its own."""
    return json.dumps({SYNTHETIC: {"id": secrets.token_hex(8), "at": round(time.time())}}).encode()


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the system's authorities, and those of a file. OSError where it can't be read."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


async def knock(
    url: str, body: bytes, tls: ssl.SSLContext | bool, headers: Mapping[str, str]
) -> Knock:
    """Deliver a callback as the client does: 200 counts, and no redirect is followed."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as http,
            http.post(
                url,
                data=body,
                headers={**HEADERS, **headers},
                allow_redirects=False,
                ssl=tls,
            ) as response,
        ):
            return Knock(response.status)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Knock(problem=why(error))


async def certificate_of(url: str, tls: ssl.SSLContext) -> Certificate:
    """Look at the certificate that an https URL is served with."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or HTTPS_PORT
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=host)
    except (OSError, ValueError) as error:
        return Certificate(problem=why(error))
    found = writer.get_extra_info("peercert")
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
    return Certificate((ssl.cert_time_to_seconds(found["notAfter"]) - time.time()) / DAY_SECONDS)


def why(error: Exception) -> str:
    """Say in a line why there was no answer, without the URL."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return why(error.certificate_error)
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case TimeoutError():
            return f"no answer within {SECONDS:g} s"
        case OSError(strerror=str(text)) if text:
            return text
        case _:
            return type(error).__name__
