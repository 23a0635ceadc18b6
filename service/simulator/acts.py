"""What the world outside does to the client: users change, write and move; callbacks come in."""

import json
from typing import Any

from service.simulator import callback_bodies
from service.simulator.application import ApplicationSettings
from service.simulator.calls import Call, Calls
from service.simulator.client import Client, Message
from service.simulator.contact_checks import ContactChecks
from service.simulator.delivery import Callback
from service.simulator.faults import Fault
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


class Acts:
    """The acts on a client; the control routes have the same."""

    def __init__(self, options: Options) -> None:
        self._initial = options.model_copy()
        self.options = options.model_copy()
        self.client = Client(self.options)

    @property
    def users(self) -> Users:
        """The users by wa_id."""
        return self.client.users

    @property
    def settings(self) -> ApplicationSettings:
        """The application settings as they are now."""
        return self.client.settings

    @property
    def calls(self) -> Calls:
        """Every call that came in."""
        return self.client.calls

    @property
    def puts(self) -> list[Call]:
        """Every PUT of an identity that came in, with its hash and what it came to."""
        return self.calls.of("identity_put")

    @property
    def messages(self) -> list[Message]:
        """Every message that the business sent, accepted or refused."""
        return list(self.client.messages)

    @property
    def callbacks(self) -> list[Callback]:
        """The callbacks so far, each with its state and its attempts."""
        return list(self.client.delivery.history)

    @property
    def contacts(self) -> ContactChecks:
        """The contact checks: what each number is, and how many came."""
        return self.client.contacts

    @property
    def webhook_ca(self) -> str | None:
        """The authority that verifies the webhook's certificate, PEM; None for the system's."""
        return self.client.webhook_ca

    @property
    def webhook_url(self) -> str | None:
        """Where callbacks go; setting it tries the pending ones at once."""
        return self.client.settings.webhooks.url

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        self.client.settings.webhooks.url = url
        self.client.delivery.hurry()

    def set_user(
        self,
        wa_id: str,
        *,
        hash: str | None = None,  # noqa: A002 - the field's name
        acknowledged: bool = True,
        created_timestamp: int | None = None,
    ) -> User:
        """Add a user, or set one right, silently; `created_timestamp` in Unix milliseconds."""
        at_ms = self.client.now_ms() if created_timestamp is None else created_timestamp
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
        """Change a user's identity and return the new hash, a random one unless given.

        The client notifies the webhook when `show_security_notifications` is on; `notify=False`
        is a lost notification. Two changes never share a millisecond unless `at_ms` says so.
        """
        user = self.users.known(wa_id, 0)
        now_ms = max(self.client.now_ms(), user.created_timestamp + 1)
        user.change(hash, now_ms if at_ms is None else at_ms)
        if notify and self.client.settings.show_security_notifications:
            self._send("identity", callback_bodies.identity_changed(user), wa_id)
        return user.hash

    def acknowledge_elsewhere(self, wa_id: str) -> str:
        """Acknowledge a user's latest identity behind Ackgate's back; return its hash."""
        user = self.users.known(wa_id, self.client.now_ms())
        user.acknowledged = True
        return user.hash

    def write(self, wa_id: str, text: str, *, name: str = "A user") -> Callback:
        """Let a user write to the business."""
        now_ms = self.client.now_ms()
        body = callback_bodies.text_message(
            self.users.known(wa_id, now_ms),
            text,
            name,
            now_ms,
            with_identity=self.client.settings.show_security_notifications,
        )
        return self._send("message", body, wa_id)

    def change_number(self, old: str, new: str) -> None:
        """Let a user take another number, under which the client meets a new identity."""
        now_ms = self.client.now_ms()
        self.users.known(new, now_ms)
        if self.client.settings.notify_user_change_number:
            self._send("number", callback_bodies.number_changed(old, new, now_ms), old)

    def report_error(self, code: int, title: str, details: str | None = None) -> Callback:
        """Report an error that belongs to no call."""
        body = callback_bodies.error(code, title, details)
        return self.client.delivery.send(Callback("errors", json.dumps(body).encode()))

    def send_callback(
        self,
        body: object,
        *,
        wa_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Callback:
        """Deliver a body of any kind: bytes as they are, all else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.delivery.send(Callback("raw", raw, wa_id, dict(headers or {})))

    def _send(self, kind: str, body: dict[str, Any], wa_id: str) -> Callback:
        return self.client.delivery.send(Callback(kind, json.dumps(body).encode(), wa_id))

    def fault(self, operation: str, **what: Any) -> int:
        """Switch a fault on and return its number; see `Fault` for what can go wrong."""
        return self.client.faults.add(Fault.model_validate({"operation": operation, **what}))

    def clear_faults(self) -> None:
        """Switch every fault off, and deliver what one of them held."""
        self.client.faults.clear()
        self.client.delivery.release()

    def expire_tokens(self) -> int:
        """Let every token expire; return how many."""
        return self.client.logins.expire()

    def change_password(self, password: str, *, expire_tokens: bool = True) -> None:
        """Change the password; the tokens given out for the old one expire unless told not to."""
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
        """Say which numbers are no user, fail, or never get a result, and whose wa_id is which."""
        checks = self.client.contacts
        checks.unknown = checks.unknown if unknown is None else set(unknown)
        checks.failing = checks.failing if failing is None else set(failing)
        checks.stuck = checks.stuck if stuck is None else set(stuck)
        checks.wa_ids = checks.wa_ids if wa_ids is None else dict(wa_ids)

    def set_health(self, health: dict[str, Any]) -> None:
        """Say what the health of the client is: one object, or a map by `host:container`."""
        self.client.health = dict(health)

    def change_settings(self, **values: Any) -> None:
        """Change application settings, `webhook_url`, or how it behaves; ValueError for no such."""
        behaviour = {key: values.pop(key) for key in list(values) if key in CHANGEABLE}
        if "webhook_url" in values:
            values["webhooks"] = {"url": values.pop("webhook_url")}
        unknown = values.keys() - type(self.client.settings).model_fields.keys()
        if unknown:
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        self.client.settings = self.client.settings.changed(values)
        for key, value in behaviour.items():
            setattr(self.options, key, value)
        self.client.delivery.hurry()

    async def settled(self, timeout: float = 10) -> None:  # noqa: ASYNC109 - what tests call it
        """Wait until every callback is delivered; TimeoutError after so many seconds."""
        await self.client.delivery.settled(timeout)

    async def reset(self) -> None:
        """Forget everything: users, calls, tokens, faults, callbacks, settings and password."""
        delivery = self.client.delivery
        await delivery.pause()
        for name in type(self.options).model_fields:
            setattr(self.options, name, getattr(self._initial, name))
        self.client = Client(self.options)
        self.client.delivery.resume()
