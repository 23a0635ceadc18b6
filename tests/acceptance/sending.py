"""What tests of sending through share: keys of every role, and the calls of a business."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests import answers
from tests.acceptance.conftest import (
    NUMBER,
    SHEENA,
    WA_ID,
    Caller,
    CloudInstallation,
    Json,
    digest_of,
)

ROLES = ("gate", "sender", "reader", "operator", "admin")
SENDER = "key-of-sender"
KEYS = {
    "keys": {f"the_{role}": {"role": role, "sha256": digest_of(f"key-of-{role}")} for role in ROLES}
}
GRAPH = f"/graph/v25.0/{NUMBER}"
COMPAT = "/compat/main/v1"
CLOUD, ONPREM = f"{GRAPH}/messages", f"{COMPAT}/messages"
BOTH = pytest.mark.parametrize("path", [CLOUD, ONPREM])


def cloud_message(to: str = SHEENA, text: str = "Hello", **more: Any) -> Json:
    return {
        "messaging_product": "whatsapp",
        "recipient" if "." in to else "to": to,
        "type": "text",
        "text": {"body": text},
        **more,
    }


def onprem_message(to: str = WA_ID, text: str = "Hello", **more: Any) -> Json:
    return {"to": to, "type": "text", "text": {"body": text}, **more}


def message(path: str, **more: Any) -> Json:
    """Make a message of the API that has the path."""
    return cloud_message(**more) if path.startswith("/graph") else onprem_message(**more)


async def known(shop: CloudInstallation, alias: str = SHEENA) -> str:
    """Let a user of the Cloud API have written, whose first hash is trusted; give the hash."""
    hash_ = shop.meta.write(alias, "Hello").hash
    await shop.meta.settled()
    return hash_


@dataclass
class Sent:
    """An answer to what was sent through."""

    status: int
    body: Any
    headers: Mapping[str, str]
    raw: bytes

    @property
    def reasons(self) -> list[str]:
        """The codes of the gate's reasons, in either shape."""
        if "error" in self.body:
            return [one["code"] for one in self.body["error"]["error_data"]["reasons"]]
        return [one["reason"]["code"] for one in self.body["errors"]]


async def post(
    made: Caller,
    path: str,
    body: Any,
    *,
    key: str | None = SENDER,
    headers: Mapping[str, str] | None = None,
    checked: bool = True,
) -> Sent:
    """Send something through; a dictionary as JSON, bytes as they are, a form as one."""
    url = URL(made.base + path, encoded=True)
    given = dict(headers or {})
    if key is not None:
        given["Authorization"] = f"Bearer {key}"
    data: Any = {"json": body} if isinstance(body, dict) else {"data": body}
    if isinstance(body, bytes):
        data = {"data": BytesIO(body)}
        given.setdefault("Content-Type", "application/json")
    async with made.http.post(
        url, headers=given, ssl=made.tls, allow_redirects=False, **data
    ) as response:
        raw = await response.read()
        if checked:
            kind = response.content_type
            answers.check("POST", url.raw_path, response.status, kind, raw)
        is_json = response.content_type == "application/json"
        shown = await response.json() if is_json and raw else None
        return Sent(response.status, shown, response.headers.copy(), raw)


def form(file: bytes, **fields: str) -> aiohttp.FormData:
    """Make the form of an upload to the Cloud API."""
    made = aiohttp.FormData()
    for name, value in {"messaging_product": "whatsapp", "type": "image/jpeg", **fields}.items():
        made.add_field(name, value)
    made.add_field("file", BytesIO(file), filename="photo.jpg", content_type="image/jpeg")
    return made
