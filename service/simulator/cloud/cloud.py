"""One app on the Cloud API: all that it knows, and the actions that a test makes it do."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from service.simulator.api import KEPT_MESSAGES, Api
from service.simulator.cloud import bodies
from service.simulator.cloud.bodies import Body, Style, Update
from service.simulator.cloud.webhooks import Business, PhoneNumber, Webhooks
from service.simulator.delivery import Callback
from service.simulator.options import CloudOptions
from service.simulator.users import CloudUser, CloudUsers, new_hash, new_user_id

CHANGEABLE = frozenset(
    {
        "app_secret",
        "access_token",
        "webhook_url",
        "retry_base_seconds",
        "retry_cap_seconds",
        "give_up_seconds",
        "batch",
        "batch_seconds",
        "per_change",
        "user_ids",
        "absent",
        "statuses",
        "failed_with_hash",
        "failed_with_contacts",
        "refuse_mismatch",
    }
)
"""The options that can be changed while it runs; `identity_check` changes every number."""


@dataclass(slots=True)
class CloudMessage:
    """A message that the business sent; `at` in Unix seconds."""

    id: str
    phone_number_id: str
    to: str
    """As the business wrote it: a number or a user id."""
    hash: str | None
    """The hash that it was sent with."""
    at: float
    outcome: str = "delivered"
    """`delivered`, `mismatch` (137000) or `undeliverable` (131026)."""
    by_number: bool = True
    body: Body = field(default_factory=dict, repr=False)
    """All that the business sent."""
    more: Body = field(default_factory=dict)
    """What each of its statuses repeats."""


class Cloud(Api):
    """The Cloud API: its state, and the actions on it."""

    options: CloudOptions

    def _begin(self) -> None:
        super()._begin()
        self.users = CloudUsers()
        self.business = Business(self.options)
        self.counts: Counter[str] = Counter()
        """How many messages were accepted, refused, and each outcome."""
        self.messages: deque[CloudMessage] = deque(maxlen=KEPT_MESSAGES)
        self.marks: deque[Body] = deque(maxlen=KEPT_MESSAGES)
        """What marked a message of a user as read, as it was sent."""
        self.webhooks = Webhooks(self.options, self.business, self.faults)
        self.delivery = self.webhooks.delivery

    @property
    def webhook_url(self) -> str | None:
        """The callback URL of the app; setting it tries the pending ones at once."""
        return self.options.webhook_url

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        self.change_settings(webhook_url=url)

    @property
    def style(self) -> Style:
        """How webhooks name users now."""
        return Style(self.options.user_ids, empty=self.options.absent == "empty")

    def set_user(self, alias: str, **values: Any) -> CloudUser:
        """Add or change a user silently; the values are fields of `CloudUser`."""
        user = self.users.get_or_add(alias)
        unknown = values.keys() - {each.name for each in fields(CloudUser)}
        if unknown:
            raise ValueError(f"no such value of a user: {', '.join(sorted(unknown))}")
        self.users.rename(user, **values)
        return user

    def write(
        self, alias: str, text: str, *, number: str | None = None, at: float | None = None
    ) -> CloudUser:
        """Let a user write to a business number, by default the first, at a time or now."""
        to, user = self.business.number(number), self.users.get_or_add(alias)
        when = self.now() if at is None else at
        lists = bodies.text_message(user, text, when, self.style, with_hash=to.identity_check)
        self._send("message", to, user, lists)
        return user

    def reinstall(self, alias: str, hash: str | None = None) -> str:  # noqa: A002 - the field's name
        """Return a user another identity, which no webhook reports by itself; return its hash."""
        user = self.users.get_or_add(alias)
        user.hash = hash or new_hash()
        return user.hash

    def change_number(
        self,
        alias: str,
        new: str,
        *,
        number: str | None = None,
        at: float | None = None,
        spelling: Literal["user", "customer"] = "user",
    ) -> CloudUser:
        """Let a user take another number, and with it another user id and another identity.

        `spelling` is `user` (`user_changed_number`, or `user_changed_user_id` when the number may
        not be shown) or `customer` (the older `customer_changed_number`).
        """
        user = self.users.get_or_add(alias)
        if spelling != "user":
            _require_number(user)
        return self._change(user, spelling, number, at, wa_id=new)

    def change_user_id(
        self, alias: str, *, number: str | None = None, at: float | None = None
    ) -> CloudUser:
        """Let a user get another user id, as one whose number isn't known does on changing it."""
        return self._change(self.users.get_or_add(alias), "user", number, at)

    def _change(
        self,
        user: CloudUser,
        spelling: Literal["user", "customer"],
        number: str | None,
        at: float | None,
        **aliases: str,
    ) -> CloudUser:
        to, before = self.business.number(number), replace(user)
        parent = user.parent_user_id and new_user_id(kind="ENT.")
        self.users.rename(
            user, user_id=new_user_id(), parent_user_id=parent, hash=new_hash(), **aliases
        )
        when = self.now() if at is None else at
        if spelling == "user":
            seen = user if aliases else replace(user, hidden=True)
            message = bodies.user_changed(before, seen, when, self.style)
        else:
            message = bodies.customer_changed_number(before, user, when)
        self._send("number", to, before, {"messages": [message]})
        return user

    def announce_identity(
        self,
        alias: str,
        *,
        spelling: Literal["customer", "sibling"] = "customer",
        number: str | None = None,
        at: float | None = None,
    ) -> str:
        """Report the identity that a user has, in an older spelling; return its hash.

        `customer` names it in `system`, `sibling` beside it in `identity`.
        """
        to, user = self.business.number(number), self.users.get_or_add(alias)
        _require_number(user)
        when = self.now() if at is None else at
        message = bodies.customer_identity_changed(user, when, spelling)
        self._send("identity", to, user, {"messages": [message]})
        return user.hash

    def report_error(
        self, code: int, title: str, details: str = "", number: str | None = None
    ) -> None:
        """Report an error that belongs to no message."""
        lists = {"errors": [bodies.error(code, title, details)]}
        self._send("errors", self.business.number(number), None, lists)

    def report(self, message: CloudMessage) -> None:
        """Send the statuses of an accepted message: failed, or sent, delivered, and read."""
        user = self.users.get(message.to)
        if message.outcome == "delivered" and user is not None:
            for state in self.options.statuses:
                self._report_state(message, user, state)
            return
        code, details, found = bodies.UNDELIVERABLE_CODE, "Message undeliverable.", {}
        if message.outcome == "mismatch" and user is not None:
            code, details = bodies.MISMATCH_CODE, "The identity key has changed."
            if self.options.failed_with_hash:
                found = {"recipient_identity_key_hash": user.hash}
        # A failure names the recipient as the business did.
        recipient = {"recipient_id" if message.by_number else "recipient_user_id": message.to}
        more = {**found, **bodies.failed(code, details), **message.more}
        status = bodies.status(message.id, "failed", self.now(), recipient, more)
        lists = {"statuses": [status]}
        if user is not None and self.options.failed_with_contacts:
            shown = user.wa_id if message.by_number else user.shown
            lists = {"contacts": [bodies.contact(user, self.style, shown)], **lists}
        self._send("status", self.business.number(message.phone_number_id), user, lists)

    def _report_state(self, message: CloudMessage, user: CloudUser, state: str) -> None:
        sender = self.business.number(message.phone_number_id)
        shown = user.wa_id if message.by_number else user.shown
        recipient = self.style.names(user, shown, bodies.RECIPIENT)
        more = dict(message.more)
        if sender.identity_check and message.hash is None:
            more["recipient_identity_key_hash"] = user.hash
        if state != "read":
            more |= bodies.PRICING
        lists = {"statuses": [bodies.status(message.id, state, self.now(), recipient, more)]}
        if self.options.user_ids:
            named = state != "sent"
            lists = {"contacts": [bodies.contact(user, self.style, shown, named=named)], **lists}
        self._send("status", sender, user, lists)

    def _send(
        self, kind: str, number: PhoneNumber, user: CloudUser | None, lists: dict[str, list[Body]]
    ) -> None:
        key = None if user is None else user.key
        self.webhooks.send(Update(kind, number.config, lists, key))

    def send_callback(
        self,
        body: object,
        *,
        signed: bool = True,
        headers: Mapping[str, str] | None = None,
        number: str | None = None,
    ) -> Callback:
        """Deliver a body of any kind, signed by default: bytes as they are, all else as JSON."""
        raw = body if isinstance(body, bytes) else bodies.escaped(body)
        number_id = self.business.number(number).config.phone_number_id
        return self.delivery.send(
            Callback(
                "raw", raw, headers=dict(headers or {}), phone_number_id=number_id, signed=signed
            )
        )

    async def register(self, url: str, verify_token: str) -> str:
        """Make a URL the app's, as the App Dashboard does; VerificationError when it fails."""
        await self.webhooks.verify(url, verify_token)
        self.webhook_url = url
        return url

    def change_settings(self, **values: Any) -> None:
        """Change options; ValueError for unknown ones and for values that can't be."""
        unknown = values.keys() - CHANGEABLE - {"identity_check"}
        if unknown:
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        for key, value in values.items():
            setattr(self.options, key, value)
        if "identity_check" in values:
            for number in self.business.numbers.values():
                number.identity_check = self.options.identity_check
        self.delivery.hurry()

    def retry_now(self) -> int:
        """Send the gathered updates, and try every pending webhook now; return how many."""
        self.webhooks.flush()
        return super().retry_now()

    async def settled(self, timeout: float = 10) -> None:  # noqa: ASYNC109 - what tests call it
        """Wait until every webhook is delivered; TimeoutError after so many seconds."""
        self.webhooks.flush()
        await super().settled(timeout)


def _require_number(user: CloudUser) -> None:
    if user.wa_id is None:
        raise ValueError("the older spellings name users by their numbers")
