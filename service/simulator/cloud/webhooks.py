"""The business numbers, and the app's webhooks about them: gathered, signed, and sent to a URL.

A webhook goes to the callback URL of its number, else of the number's account, else of the app,
each of which is verified before it is taken.
"""

import asyncio
import secrets
import ssl
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby
from operator import itemgetter

import aiohttp

from service.simulator.cloud import bodies
from service.simulator.cloud.bodies import Update
from service.simulator.delivery import Callback, Delivery
from service.simulator.faults import Faults
from service.simulator.options import CloudOptions, Number

USER_AGENT = "facebookexternalua"
MOST_BYTES = 3 * 1024 * 1024
"""So large is a webhook at most (Meta's page on webhooks)."""
LONGEST_URL = 200
"""Characters of a callback URL of a number or an account (Meta's page on overrides)."""


@dataclass(slots=True)
class PhoneNumber:
    """A business number as it is set up now."""

    config: Number
    identity_check: bool = False
    webhook_url: str | None = None
    """Its own callback URL, which goes before its account's and the app's."""


@dataclass(slots=True)
class Account:
    """A WhatsApp Business Account as it is set up now."""

    waba_id: str
    subscribed: bool = True
    """Whether the app gets its webhooks."""
    webhook_url: str | None = None
    """Its own callback URL, which goes before the app's."""


class Business:
    """The numbers by id, and the accounts by id."""

    def __init__(self, options: CloudOptions) -> None:
        self.numbers = {
            number.phone_number_id: PhoneNumber(number, options.identity_check)
            for number in options.numbers
        }
        self.accounts = {
            number.waba_id: Account(number.waba_id, options.subscribed)
            for number in options.numbers
        }

    def number(self, phone_number_id: str | None) -> PhoneNumber:
        """Return a number, by default the first; ValueError when there is none of that id."""
        if phone_number_id is None:
            return next(iter(self.numbers.values()))
        if phone_number_id not in self.numbers:
            raise ValueError(f"no business number has the id {phone_number_id}")
        return self.numbers[phone_number_id]

    def account_of(self, number: PhoneNumber) -> Account:
        """Return the account that a number belongs to."""
        return self.accounts[number.config.waba_id]


class VerificationError(ValueError):
    """A callback URL did not answer the challenge: one line that says what came."""


class Webhooks:
    """Gathers updates, and is the destination of their delivery."""

    def __init__(self, options: CloudOptions, business: Business, faults: Faults) -> None:
        self._options = options
        self._business = business
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
        """Return the callback URL of the number that a webhook is about."""
        return self._url(callback.phone_number_id or None)

    def _url(self, phone_number_id: str | None) -> str | None:
        number = self._business.number(phone_number_id)
        own = number.webhook_url or self._business.account_of(number).webhook_url
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
        number = self._business.number(update.number.phone_number_id)
        if not self._business.account_of(number).subscribed:
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
        with_urls = [(self._url(each.number.phone_number_id) or "", each) for each in gathered]
        by_url = groupby(sorted(with_urls, key=itemgetter(0)), key=itemgetter(0))
        for _, group in by_url:
            self._deliver([update for _, update in group])

    def _deliver(self, updates: list[Update]) -> None:
        """Send updates in one webhook, or in several where they are too large for one."""
        kinds, users = {update.kind for update in updates}, {update.user for update in updates}
        body = bodies.escaped(bodies.envelope(updates, self._options.per_change))
        if len(body) > MOST_BYTES and len(updates) > 1:
            half = len(updates) // 2
            self._deliver(updates[:half])
            self._deliver(updates[half:])
            return
        self.delivery.send(
            Callback(
                kinds.pop() if len(kinds) == 1 else "batch",
                body,
                users.pop() if len(users) == 1 else None,
                phone_number_id=updates[0].number.phone_number_id,
            )
        )

    async def verify(self, url: str, verify_token: str) -> None:
        """Verify a callback URL; VerificationError when it doesn't answer right.

        GET with `hub.mode`, `hub.challenge` and `hub.verify_token`, unsigned; right is 200 with the
        challenge as the whole body (Meta's page on creating an endpoint).
        """
        if len(url) > LONGEST_URL or not url.startswith(("https://", "http://")):
            raise VerificationError("the callback URL is no URL, or too long")
        challenge = str(secrets.randbelow(10**10))
        params = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": verify_token,
        }
        timeout = aiohttp.ClientTimeout(total=self._options.webhook_timeout_seconds)
        tls = self.delivery.tls or True
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(url, params=params, allow_redirects=False, ssl=tls) as response,
            ):
                status, reason = response.status, response.reason
                text = await response.text(errors="replace")
        except (aiohttp.ClientError, OSError) as error:
            raise VerificationError(type(error).__name__) from None
        if status != HTTPStatus.OK:  # success is 200 alone
            raise VerificationError(f"HTTP Status Code = {status}; HTTP Message = {reason}")
        if text != challenge:
            raise VerificationError("Response does not match challenge")
