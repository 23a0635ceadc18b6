"""The simulated client: all that it knows, and the actions that a test makes it do."""

import asyncio
import json
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from service.simulator.api import KEPT_MESSAGES, Api, Call
from service.simulator.delivery import Callback, Delivery
from service.simulator.onprem import bodies
from service.simulator.onprem.contact_checks import ContactChecks
from service.simulator.onprem.state import ApplicationSettings, Logins, RateLimit
from service.simulator.options import Options
from service.simulator.users import User, Users, new_hash

CHANGEABLE = frozenset(
    {
        "blocked_send",
        "refusal_status",
        "admin",
        "restart_seconds",
        "stale_hash_status",
        "send_statuses",
        "contact_check_seconds",
        "contact_cache_seconds",
        "contacts_per_callback",
        "processing_wa_id",
        "version",
        "token_seconds",
        "give_up_seconds",
    }
)
"""The options that can be changed while it runs."""


@dataclass(slots=True)
class Message:
    """A message that the business sent; `at` in Unix seconds."""

    to: str
    accepted: bool
    at: float
    id: str | None = None
    code: int | None = None
    """The error that refused it, or that it failed with afterwards."""
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    """All that the business sent."""


class Client(Api):
    """A WhatsApp Business API client: its state, and the actions on it."""

    options: Options

    def _begin(self) -> None:
        super()._begin()
        options = self.options
        self.settings = ApplicationSettings.initial(options)
        self.users = Users()
        self.logins = Logins(options)
        self.messages: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        """The messages that the business sent, accepted or refused."""
        self.contacts = ContactChecks(options)
        self.contacts_limit = RateLimit(
            options.contacts_per_second, options.contacts_burst, options.clock
        )
        self.health: dict[str, Any] = {"gateway_status": "connected"}
        self.health_limit = RateLimit(
            options.health_per_minute / 60, options.health_per_minute, options.clock
        )
        self.delivery = Delivery(options, lambda: self.settings, self.faults)
        self.webhook_ca: str | None = None
        """The authority that verifies the webhook's certificate, PEM; None for the system's."""
        if options.webhook_ca_file is not None:
            self.trust_webhook(options.webhook_ca_file.read_text())

    @property
    def puts(self) -> list[Call]:
        """Every PUT of an identity that came in, with its hash and its outcome."""
        return self.calls.of("identity_put")

    @property
    def webhook_url(self) -> str | None:
        """Where callbacks go; setting it tries the pending ones at once."""
        return self.settings.webhooks.url

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        self.settings.webhooks.url = url
        self.delivery.hurry()

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""
        return int(self.now() * 1000)

    def trust_webhook(self, pem: str | None) -> None:
        """Verify the webhook's certificate by this authority, or by the system's.

        Raise ssl.SSLError or ValueError when it isn't one.
        """
        if pem is not None and not pem.strip():
            raise ValueError("no certificate")
        self.delivery.tls = None if pem is None else ssl.create_default_context(cadata=pem)
        self.webhook_ca = pem

    @property
    def is_restarting(self) -> bool:
        """Whether the Coreapps are restarting."""
        return not self.delivery.running.is_set()

    def restart(self) -> None:
        """Restart the Coreapps, which delivers nothing for a while."""
        self.lose_unkept()
        if self.options.restart_seconds:
            self.delivery.running.clear()
            loop = asyncio.get_running_loop()
            loop.call_later(self.options.restart_seconds, self.delivery.running.set)

    def lose_unkept(self) -> None:
        """Lose the pending callbacks unless `callback_persist` keeps them on the client's disk."""
        if not self.settings.callback_persist:
            self.delivery.lose_pending()

    def set_user(
        self,
        wa_id: str,
        *,
        hash: str | None = None,  # noqa: A002 - the field's name
        acknowledged: bool = True,
        created_timestamp: int | None = None,
    ) -> User:
        """Add or replace a user silently; `created_timestamp` in Unix milliseconds."""
        at_ms = self.now_ms() if created_timestamp is None else created_timestamp
        self.users[wa_id] = User(wa_id, hash or new_hash(), at_ms, acknowledged)
        return self.users[wa_id]

    def change_identity(
        self,
        wa_id: str,
        hash: str | None = None,  # noqa: A002 - the field's name
        at_ms: int | None = None,
        *,
        notify: bool = True,
    ) -> str:
        """Change a user's identity and return the new hash, a random one by default.

        The client notifies the webhook when `show_security_notifications` is on; `notify=False`
        is a lost notification. Two changes never share a millisecond unless `at_ms` says so.
        """
        user = self.users.get_or_add(wa_id, 0)
        now_ms = max(self.now_ms(), user.created_timestamp + 1)
        user.hash = new_hash() if hash is None else hash
        user.created_timestamp = now_ms if at_ms is None else at_ms
        user.acknowledged = False
        if notify and self.settings.show_security_notifications:
            self.call_back("identity", bodies.identity_changed(user), wa_id)
        return user.hash

    def acknowledge_elsewhere(self, wa_id: str) -> str:
        """Acknowledge a user's latest identity without Ackgate; return its hash."""
        user = self.users.get_or_add(wa_id, self.now_ms())
        user.acknowledged = True
        return user.hash

    def write(self, wa_id: str, text: str, *, name: str = "A user") -> Callback:
        """Let a user write to the business."""
        now_ms = self.now_ms()
        user = self.users.get_or_add(wa_id, now_ms)
        with_identity = self.settings.show_security_notifications
        body = bodies.text_message(user, text, name, now_ms, with_identity=with_identity)
        return self.call_back("message", body, wa_id)

    def change_number(self, old: str, new: str) -> str:
        """Let a user take another number, and return it; it has an identity of its own."""
        now_ms = self.now_ms()
        self.users.get_or_add(new, now_ms)
        if self.settings.notify_user_change_number:
            self.call_back("number", bodies.number_changed(old, new, now_ms), old)
        return new

    def report_error(self, code: int, title: str, details: str | None = None) -> Callback:
        """Report an error that belongs to no call."""
        return self.call_back("errors", bodies.error(code, title, details))

    def send_callback(
        self, body: object, *, wa_id: str | None = None, headers: dict[str, str] | None = None
    ) -> Callback:
        """Deliver a body of any kind: bytes as they are, all else as JSON."""
        return self.call_back("raw", body, wa_id, headers=dict(headers or {}))

    def call_back(self, kind: str, body: object, wa_id: str | None = None, **more: Any) -> Callback:
        """Deliver a callback about a user; `kind` is what faults call it."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.delivery.send(Callback(kind, raw, wa_id, **more))

    def expire_tokens(self) -> int:
        """Let every token expire; return how many."""
        return self.logins.expire()

    def change_password(self, password: str, *, expire_tokens: bool = True) -> None:
        """Change the password, and by default let the tokens issued for the old one expire."""
        self.options.password = password
        if expire_tokens:
            self.expire_tokens()

    def set_contacts(
        self,
        *,
        unknown: set[str] | None = None,
        failing: set[str] | None = None,
        stuck: set[str] | None = None,
        wa_ids: dict[str, str] | None = None,
    ) -> None:
        """Set which numbers are no user, fail, or never get a result, and whose wa_id is which."""
        checks = self.contacts
        checks.unknown = checks.unknown if unknown is None else set(unknown)
        checks.failing = checks.failing if failing is None else set(failing)
        checks.stuck = checks.stuck if stuck is None else set(stuck)
        checks.wa_ids = checks.wa_ids if wa_ids is None else dict(wa_ids)

    def set_health(self, health: dict[str, Any]) -> None:
        """Set the health that the client answers: one object, or a map by `host:container`."""
        self.health = dict(health)

    def change_settings(self, **values: Any) -> None:
        """Change application settings, `webhook_url`, or options; ValueError for unknown ones."""
        behaviour = {key: values.pop(key) for key in list(values) if key in CHANGEABLE}
        if "webhook_url" in values:
            values["webhooks"] = {"url": values.pop("webhook_url")}
        unknown = values.keys() - type(self.settings).model_fields.keys()
        if unknown:
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        self.settings = self.settings.changed(values)
        for key, value in behaviour.items():
            setattr(self.options, key, value)
        self.delivery.hurry()
