"""The client of a running service's REST API, for the commands that ask it."""

import asyncio
import json
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from service.cli.documents import print_identity, print_page
from service.cli.output import fail, note, print_json
from service.settings.types import is_loopback

T = TypeVar("T")

CONNECT_SECONDS = 10
ANSWER_SECONDS = 90
"""Longer than a refresh takes, for which the service has to ask the WhatsApp client."""

Query = Mapping[str, str | int] | Sequence[tuple[str, str]]
Page = dict[str, Any]

PAGE = 1000
"""Items of a list in one answer."""


class NoAnswerError(Exception):
    """There was no answer, or none of Ackgate's; the text is one line that names the URL."""


class RefusedError(Exception):
    """The service answered with a problem (RFC 9457); the text is one line."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = problem
        super().__init__(_sentence(status, problem))


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service is, the API key to show it, and which certificates to trust."""

    url: str
    key: str | None = None
    tls: ssl.SSLContext | bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the service that is no problem."""

    status: int
    document: dict[str, Any]


class Api:
    """The REST API of a service, in one session."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self._session = session
        self._server = server

    async def get(
        self,
        *path: str,
        query: Query | None = None,
        patience: float = 0,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Read a resource; the service may take `patience` seconds longer than usual."""
        answer = await self._call("GET", path, query or {}, None, patience, headers)
        return answer.document

    async def post(
        self,
        *path: str,
        body: Mapping[str, Any] | None = None,
        query: Query | None = None,
        patience: float = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Post to a resource; the service may take `patience` seconds longer than usual."""
        return await self._call("POST", path, query or {}, body, patience, headers)

    async def put(self, *path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Put a resource in its place."""
        return (await self._call("PUT", path, {}, body)).document

    async def delete(self, *path: str, query: Query | None = None) -> dict[str, Any]:
        """Delete a resource."""
        return (await self._call("DELETE", path, query or {})).document

    async def _call(
        self,
        method: str,
        path: tuple[str, ...],
        query: Query,
        body: Mapping[str, Any] | None = None,
        patience: float = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        limits = aiohttp.ClientTimeout(
            total=ANSWER_SECONDS + patience, sock_connect=CONNECT_SECONDS
        )
        try:
            async with self._session.request(
                method,
                URL(_url(self._server.url, path, query), encoded=True),
                json=body,
                headers=headers,
                allow_redirects=False,
                timeout=limits,
            ) as response:
                return self._read(response.status, await response.read())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError(f"no answer from {self._server.url}: {_why(error)}") from None

    def _read(self, status: int, raw: bytes) -> Answer:
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or HTTPStatus.MULTIPLE_CHOICES <= status < (
            HTTPStatus.BAD_REQUEST
        ):
            raise NoAnswerError(f"{self._server.url} answers {status}, but not as Ackgate does")
        if status >= HTTPStatus.BAD_REQUEST:
            raise RefusedError(status, document)
        return Answer(status, document)


def _url(base: str, path: tuple[str, ...], query: Query) -> str:
    # Arguments that are not UTF-8 reach the service as the bytes that were typed.
    parts = "/".join(quote(part, safe="", errors="surrogateescape") for part in path)
    asked = urlencode(query, quote_via=quote, errors="surrogateescape")
    return f"{base}/api/v1/{parts}?{asked}".removesuffix("?")


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate isn't trusted; name its authority with --ca-file"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))) if number > 0:
            return f"{os.strerror(number)}; --url or ACKGATE_URL say where the service is"
        case TimeoutError():
            return "the time is up"
        case _:
            return str(error) or type(error).__name__


def _sentence(status: int, problem: Mapping[str, Any]) -> str:
    line = f"{status} {problem.get('title') or ''}".rstrip()
    if problem.get("detail"):
        line += f": {problem['detail']}"
    errors = problem.get("errors")
    named = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
    if named:
        fields = "; ".join(f"{e.get('field')}: {e.get('message')}" for e in named)
        line += f" ({fields})"
    if status == HTTPStatus.UNAUTHORIZED:
        line += " (the key is that of ACKGATE_KEY or --key-file)"
    return line


def server_at(url: str, key_file: Path | None, ca_file: Path | None) -> Server:
    """Return the server that the options name, or end with the line that says what is wrong."""
    url = url.rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        fail("--url must be an http or https URL without user name, query and fragment", status=2)
    key = _key(key_file)
    if key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        note(f"the API key goes to {url} in the clear; use https")
    return Server(url, key, _trusted(ca_file))


def _key(file: Path | None) -> str | None:
    try:
        text = os.environ.get("ACKGATE_KEY", "") if file is None else file.read_text()
    except (OSError, ValueError):
        fail(f"--key-file {file}: can't be read as text", status=2)
    key = text.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        fail("the API key holds characters that no key has", status=2)
    return key or None


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        fail(f"--ca-file {ca_file}: holds no certificate in PEM form", status=2)
    except OSError as error:
        fail(f"--ca-file {ca_file}: {error.strerror}", status=2)


async def pages(
    api: Api, path: Sequence[str], query: Sequence[tuple[str, str]], wanted: int | None
) -> Page:
    """Return a list of as many items as wanted, from as many pages; None stands for all."""
    items: list[Any] = []
    place = list(query)
    while True:
        size = PAGE if wanted is None else min(PAGE, wanted - len(items))
        page = await api.get(*path, query=[*place, ("limit", str(size))])
        found, cursor = page.get("items") or [], page.get("next_cursor")
        items += found
        if not (found and cursor) or len(items) == wanted:
            return {"items": items, "next_cursor": cursor}
        place = [*(one for one in query if one[0] != "cursor"), ("cursor", str(cursor))]


def print_list(
    server: Server,
    columns: Mapping[str, str],
    path: Sequence[str],
    query: Sequence[tuple[str, str]],
    wanted: int | None,
    nothing: str,
    *,
    as_json: bool,
) -> None:
    """Print a list of the API, as many items as wanted; `nothing` where it is empty."""
    found = talk(server, lambda api: pages(api, path, query, wanted), as_json=as_json)
    print_page(columns, found, nothing, as_json=as_json)


def talk(
    server: Server, act: Callable[[Api], Awaitable[T]], *, as_json: bool, failed: int = 1
) -> T:
    """Run `act` with the service's API, or end with the line that says why it failed.

    `failed` is the exit status then. A 409 may hold the identity as it is now: that is printed,
    for the person to look at.
    """
    try:
        return asyncio.run(_talk(server, act))
    except NoAnswerError as error:
        fail(str(error), failed)
    except RefusedError as error:
        if as_json:
            print_json(error.problem)
        elif isinstance(identity := error.problem.get("identity"), dict):
            print_identity(identity)
        fail(str(error), failed)


async def _talk(server: Server, act: Callable[[Api], Awaitable[T]]) -> T:
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    connector = aiohttp.TCPConnector(ssl=server.tls)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        return await act(Api(session, server))
