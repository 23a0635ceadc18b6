"""A running simulator, as the commands reach it: its control routes, and its API as a business."""

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

SECONDS = 60


class RemoteError(Exception):
    """What a command asked for could not be done: one line for the person who gave it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message: accepted with an id, or refused with an error."""

    accepted: bool
    id: str | None = None
    code: int | None = None
    title: str | None = None


class Remote:
    """A simulator at an address; `open_remote` makes one."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Call a control route; RemoteError says what it objects to."""
        kind = {"data": body} if isinstance(body, bytes) else {"json": body}
        status, answer = await self._call(method, f"/control{path}", **kind)
        if status != 200:  # noqa: PLR2004 - control routes know no other success
            raise RemoteError(str(answer.get("error", f"the simulator answered {status}")))
        return answer

    async def user(
        self, wa_id: str, act: str, body: object = None, *, under: str = ""
    ) -> dict[str, Any]:
        """Call a control route of one user; those of the Cloud API are `under` `/cloud`."""
        return await self.control("POST", f"{under}/users/{quote(wa_id, safe='')}/{act}", body)

    async def login(self, username: str, password: str) -> str:
        """Log in as the business and return the token."""
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        status, answer = await self._call("POST", "/v1/users/login", headers=headers)
        if status != 200:  # noqa: PLR2004 - a login knows no other success
            raise RemoteError(f"the login was refused with {status}: check --username, --password")
        return str(answer["users"][0]["token"])

    async def send(self, token: str, to: str, text: str) -> Sent:
        """Send a text message as the business."""
        message = {"to": to, "type": "text", "text": {"body": text}}
        headers = {"Authorization": f"Bearer {token}"}
        _, answer = await self._call("POST", "/v1/messages", json=message, headers=headers)
        if "messages" in answer:
            return Sent(accepted=True, id=answer["messages"][0]["id"])
        error = (answer.get("errors") or [{"code": None, "title": "no error given"}])[0]
        return Sent(accepted=False, code=error["code"], title=error["title"])

    async def send_cloud(
        self, token: str, phone_number_id: str, user: str, text: str, hash_: str | None
    ) -> str:
        """Send a text message by the Cloud API and return its id; RemoteError when refused."""
        whom = {"recipient" if "." in user else "to": user}
        along = {} if hash_ is None else {"recipient_identity_key_hash": hash_}
        content = {"messaging_product": "whatsapp", "type": "text", "text": {"body": text}}
        path = f"/v25.0/{phone_number_id}/messages"
        headers = {"Authorization": f"Bearer {token}"}
        how = {"json": {**content, **whom, **along}, "headers": headers}
        status, answer = await self._call("POST", path, **how)
        if "messages" not in answer:
            why = answer.get("error", {}).get("message", f"the simulator answered {status}")
            raise RemoteError(f"refused: {why}")
        return str(answer["messages"][0]["id"])

    async def deliver_cloud(
        self, token: str, phone_number_id: str | None, user: str, text: str, hash_: str | None
    ) -> dict[str, Any]:
        """Send by the Cloud API, from the first number unless named, and return the message.

        Its `outcome` is `delivered`, `mismatch` or `undeliverable`. RemoteError when refused.
        """
        state = await self.control("GET", "/cloud/state")
        sender = phone_number_id or next(iter(state["numbers"]))
        message_id = await self.send_cloud(token, sender, user, text, hash_)
        state = await self.control("GET", "/cloud/state")
        found = (each for each in state["messages"]["latest"] if each["id"] == message_id)
        return next(found)

    async def _call(self, method: str, path: str, **how: Any) -> tuple[int, dict[str, Any]]:
        try:
            async with self._session.request(method, self._url + path, **how) as response:
                if response.content_type != "application/json":
                    return response.status, {}
                return response.status, await response.json()
        except aiohttp.ClientConnectorCertificateError:
            raise RemoteError(f"{self._url} isn't trusted: give its CA file, --ca-file") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            why = str(error) or type(error).__name__
            raise RemoteError(f"no simulator answers at {self._url}: {why}") from None


@asynccontextmanager
async def open_remote(url: str, ca_file: Path) -> AsyncIterator[Remote]:
    """Reach a simulator, whose certificate the CA file verifies when its URL begins with https."""
    connector = aiohttp.TCPConnector(ssl=_tls(ca_file) if url.startswith("https:") else True)
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Remote(session, url)


def _tls(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise RemoteError(
            f"{ca_file} can't be read: the simulator makes it in its --var folder; give --ca-file"
        ) from None
