"""A system of the business, to which a relay passes on what arrives: it prints what comes.

It verifies what Standard Webhooks say (https://www.standardwebhooks.com) by itself, as a receiver
does that knows nothing of Ackgate.
"""

import asyncio
import base64
import binascii
import hmac
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

MAX_BODY_BYTES = 8_388_608
SHOWN_CHARACTERS = 1_000
PREFIX = "whsec_"


@dataclass(frozen=True)
class Receiver:
    """Answers each delivery with a status, and says what it was."""

    say: Callable[[str], None]
    key: bytes | None = None
    status: int = 200

    async def take(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        body = await request.read()
        self.say(f"{self._head(request.headers, body)}\n  {shown(body)}")
        return web.Response(status=self.status)

    def _head(self, headers: Mapping[str, str], body: bytes) -> str:
        words = [
            headers.get("Ackgate-Account") or "no account",
            headers.get("webhook-id", "no id"),
            f"attempt {headers.get('Ackgate-Attempt', '?')}",
            self._signed(headers, body),
        ]
        if "Ackgate-Replay-Of" in headers:
            words.append("a replay")
        if "Ackgate-Test" in headers:
            words.append("a test")
        line = f"received: {', '.join(words)}; answered {self.status}"
        return "".join(c if c.isprintable() else "?" for c in line)

    def _signed(self, headers: Mapping[str, str], body: bytes) -> str:
        given = headers.get("webhook-signature")
        if given is None or self.key is None:
            return "not signed" if given is None else "signed"
        head = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}."
        digest = hmac.digest(self.key, head.encode() + body, "sha256")
        right = f"v1,{base64.b64encode(digest).decode()}"
        is_right = any(hmac.compare_digest(right.encode(), one.encode()) for one in given.split())
        return "rightly signed" if is_right else "WRONGLY SIGNED"


def key_of(secret: str) -> bytes:
    """Return what a secret signs with. Raises ValueError."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"the secret must be {PREFIX} and base64") from None


def shown(body: bytes) -> str:
    """Return the beginning of a body in one line, without control characters."""
    text = body.decode(errors="replace")
    cut = "" if len(text) <= SHOWN_CHARACTERS else f" … {len(body)} bytes"
    return "".join(c if c.isprintable() else " " for c in text[:SHOWN_CHARACTERS]) + cut


async def serve(receiver: Receiver, host: str, port: int) -> None:
    """Receive until SIGTERM or SIGINT, and say where. Raises OSError."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        receiver.say(f"The receiver listens on http://{host}:{runner.addresses[0][1]}")
        await ended.wait()
    finally:
        await runner.cleanup()
