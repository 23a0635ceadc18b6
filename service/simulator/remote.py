"""A running simulator and a running Ackgate, as the commands reach them over HTTP.

At the simulator these are its control API, and its two APIs as a business calls them; at Ackgate
the public REST API, as far as the demonstration needs it.
"""

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
OK, NOT_FOUND = 200, 404
Json = dict[str, Any]


class RemoteError(Exception):
    """What a command asked for could not be done: one line for the person who gave it."""


class DemoError(Exception):
    """A step of the demonstration did not turn out as promised: what was seen instead."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer to a message: accepted with an id, or refused with an error."""

    accepted: bool
    id: str | None = None
    code: int | None = None
    title: str | None = None


def user_path(user: str, action: str) -> str:
    """Return the path of a control route of one user."""
    return f"/users/{quote(user, safe='')}/{action}"


class Remote:
    """A simulator at an address; `open_remote` makes one."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def control(self, method: str, path: str, body: object = None) -> Json:
        """Call a control route; RemoteError says what it objects to."""
        kind = {"data": body} if isinstance(body, bytes) else {"json": body}
        status, answer = await self._call(method, f"/control{path}", **kind)
        if status != OK:
            raise RemoteError(str(answer.get("error", f"the simulator answered {status}")))
        return answer

    async def login(self, username: str, password: str) -> str:
        """Log in as the business and return the token."""
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        status, answer = await self._call("POST", "/v1/users/login", headers=headers)
        if status != OK:
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

    async def deliver_cloud(
        self, token: str, phone_number_id: str | None, user: str, text: str, hash_: str | None
    ) -> Json:
        """Send by the Cloud API, by default from the first number, and return the message.

        Its `outcome` is `delivered`, `mismatch` or `undeliverable`. RemoteError when refused.
        """
        state = await self.control("GET", "/cloud/state")
        sender = phone_number_id or next(iter(state["numbers"]))
        message = {
            "messaging_product": "whatsapp",
            "type": "text",
            "text": {"body": text},
            "recipient" if "." in user else "to": user,
        }
        if hash_ is not None:
            message["recipient_identity_key_hash"] = hash_
        headers = {"Authorization": f"Bearer {token}"}
        path = f"/v25.0/{sender}/messages"
        status, answer = await self._call("POST", path, json=message, headers=headers)
        if "messages" not in answer:
            why = answer.get("error", {}).get("message", f"the simulator answered {status}")
            raise RemoteError(f"refused: {why}")
        message_id = answer["messages"][0]["id"]
        state = await self.control("GET", "/cloud/state")
        return next(each for each in state["messages"]["latest"] if each["id"] == message_id)

    async def _call(self, method: str, path: str, **how: Any) -> tuple[int, Json]:
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
    tls: ssl.SSLContext | bool = True
    if url.startswith("https:"):
        try:
            tls = ssl.create_default_context(cafile=ca_file)
        except OSError:
            raise RemoteError(
                f"{ca_file} can't be read: the simulator makes it in its --var folder; "
                "give --ca-file"
            ) from None
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    connector = aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Remote(session, url)


class Ackgate:
    """Ackgate's public REST API; DemoError where it doesn't answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def is_ready(self) -> bool:
        """Return whether Ackgate can store a callback."""
        return (await self._call("GET", "/health/ready"))[0] == OK

    async def kinds(self) -> dict[str, str]:
        """Return the kind of each account that is configured, by its name."""
        found = await self._ask("GET", "/api/v1/accounts")
        return {each["account"]: each["kind"] for each in found["items"]}

    async def gate(self, account: str, wa_id: str) -> Json:
        """Ask the gate whether a user may be written to."""
        return await self._ask("GET", _path(account, "recipients", wa_id))

    async def identity(self, account: str, wa_id: str) -> Json | None:
        """Return a user's Identity; None while there is none."""
        path = _path(account, "identities", wa_id)
        status, body = await self._call("GET", path)
        return None if status == NOT_FOUND else _checked(path, status, body)

    async def acknowledge(self, account: str, wa_id: str, hash_: str | None) -> Json:
        """Decide as a person does, who has spoken to the user, and wait for the outcome."""
        decision = {
            "hash": hash_,
            "note": "a walk through the main job",
            "evidence": {"method": "phone_call", "reference": "demo"},
        }
        path = f"{_path(account, 'identities', wa_id)}/acknowledge?wait=20"
        return await self._ask("POST", path, decision)

    async def _ask(self, method: str, path: str, body: object = None) -> Json:
        return _checked(path, *await self._call(method, path, body))

    async def _call(self, method: str, path: str, body: object = None) -> tuple[int, Json]:
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=self._headers
            ) as response:
                return response.status, await response.json(content_type=None) or {}
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise DemoError(f"Ackgate does not answer at {self._url}: {why}") from None


def _path(account: str, what: str, wa_id: str) -> str:
    return f"/api/v1/accounts/{account}/{what}/{quote(wa_id, safe='')}"


def _checked(path: str, status: int, body: Json) -> Json:
    if status != OK:
        raise DemoError(f"Ackgate answered {status} to {path}: {body.get('detail', body)}")
    return body
