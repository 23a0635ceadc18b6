"""The app's webhooks: gathered updates, signed bytes, where they go, and the handshake before."""

import asyncio
import secrets
import ssl
from collections import Counter
from itertools import groupby

import aiohttp

from service.simulator.cloud import bodies
from service.simulator.cloud.bodies import Update
from service.simulator.cloud.lines import Line, Lines
from service.simulator.cloud.options import CloudOptions
from service.simulator.delivery import Callback, Delivery
from service.simulator.faults import Faults

USER_AGENT = "facebookexternalua"
MOST_BYTES = 3 * 1024 * 1024
"""So large is a webhook at most (Meta's page on webhooks)."""
LONGEST_URL = 200
"""Characters of a callback URL of a number or an account (Meta's page on overrides)."""


class HandshakeError(ValueError):
    """A callback URL that did not answer the challenge: one line that says what came."""


class Webhooks:
    """Gathers updates, and delivers them by the ways of the Cloud API."""

    def __init__(self, options: CloudOptions, lines: Lines, faults: Faults) -> None:
        self._options = options
        self._lines = lines
        self._gathered: list[Update] = []
        self._timer: asyncio.TimerHandle | None = None
        self.counts: Counter[str] = Counter()
        """How many updates were sent, and how many `unsubscribed` because no app listens."""
        self.delivery = Delivery(options, lambda: self, faults)
        if options.webhook_ca_file is not None:
            pem = options.webhook_ca_file.read_text()
            self.delivery.tls = ssl.create_default_context(cadata=pem)

    @property
    def concurrency(self) -> int:
        """How many webhooks are delivered at once."""
        return self._options.max_concurrent_requests

    def retry_seconds(self, attempts: int) -> float:
        """Return the pause after so many failed attempts: doubled each time, and capped."""
        doublings = min(attempts - 1, 64)
        return min(
            self._options.retry_base_seconds * 2.0**doublings, self._options.retry_cap_seconds
        )

    def url_for(self, callback: Callback) -> str | None:
        """Return the callback URL of the number, else of its account, else of the app."""
        return self._url(self._lines.line(callback.phone_number_id or None))

    def _url(self, line: Line) -> str | None:
        own = line.webhook_url or self._lines.account_of(line).webhook_url
        return own or self._options.webhook_url

    def headers_for(self, callback: Callback) -> dict[str, str]:
        """Return the user agent, and the signature by the secret that the app has now."""
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        if callback.signed:
            signed = bodies.signature(self._options.app_secret, callback.body)
            headers["X-Hub-Signature-256"] = signed
        return headers

    def send(self, update: Update) -> None:
        """Take on an update, which goes out once enough are gathered, or soon."""
        line = self._lines.line(update.number.phone_number_id)
        if not self._lines.account_of(line).subscribed:
            self.counts["unsubscribed"] += 1
            return
        self.counts["updates"] += 1
        self._gathered.append(update)
        if len(self._gathered) >= self._options.batch:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._options.batch_seconds, self.flush)

    def flush(self) -> None:
        """Send what is gathered: a webhook for each URL, the updates in their order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        routes = {update.number.phone_number_id for update in gathered}
        urls = {route: self._url(self._lines.line(route)) or "" for route in routes}
        by_url = sorted(gathered, key=lambda update: urls[update.number.phone_number_id])
        for _, updates in groupby(by_url, key=lambda update: urls[update.number.phone_number_id]):
            self._deliver(list(updates))

    def _deliver(self, updates: list[Update]) -> None:
        """Send updates in one webhook, or in several where they are too large for one."""
        callback = self._callback(updates)
        if len(callback.body) > MOST_BYTES and len(updates) > 1:
            half = len(updates) // 2
            self._deliver(updates[:half])
            self._deliver(updates[half:])
        else:
            self.delivery.send(callback)

    def _callback(self, updates: list[Update]) -> Callback:
        kinds = {update.kind for update in updates}
        users = {update.user for update in updates}
        return Callback(
            kinds.pop() if len(kinds) == 1 else "batch",
            bodies.escaped(bodies.envelope(updates, self._options.per_change)),
            users.pop() if len(users) == 1 else None,
            phone_number_id=updates[0].number.phone_number_id,
        )

    async def verify(self, url: str, verify_token: str) -> None:
        """Shake hands with a callback URL; HandshakeError when it isn't answered right.

        GET with `hub.mode`, `hub.challenge` and `hub.verify_token`, unsigned; right is 200 with the
        challenge as the whole body (Meta's page on creating an endpoint).
        """
        if len(url) > LONGEST_URL or not url.startswith(("https://", "http://")):
            raise HandshakeError("the callback URL is no URL, or too long")
        challenge = str(secrets.randbelow(10**10))
        params = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": verify_token,
        }
        status, reason, text = await self._get(url, params)
        if status != 200:  # noqa: PLR2004 - success is 200 alone
            raise HandshakeError(f"HTTP Status Code = {status}; HTTP Message = {reason}")
        if text != challenge:
            raise HandshakeError("Response does not match challenge")

    async def _get(self, url: str, params: dict[str, str]) -> tuple[int, str | None, str]:
        timeout = aiohttp.ClientTimeout(total=self._options.webhook_timeout_seconds)
        tls = self.delivery.tls or True
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(url, params=params, allow_redirects=False, ssl=tls) as response,
            ):
                return response.status, response.reason, await response.text(errors="replace")
        except (aiohttp.ClientError, OSError) as error:
            raise HandshakeError(type(error).__name__) from None
