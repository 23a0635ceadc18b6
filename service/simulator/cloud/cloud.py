"""One app on the Cloud API: all that it knows, and what the world outside does to it."""

import asyncio
import math
import secrets
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from service.simulator.calls import Calls
from service.simulator.cloud import bodies
from service.simulator.cloud.bodies import Body, Spelling, Style, Update
from service.simulator.cloud.lines import Line, Lines
from service.simulator.cloud.options import CloudOptions
from service.simulator.cloud.users import CloudUser, CloudUsers, new_user_id
from service.simulator.cloud.webhooks import Webhooks
from service.simulator.delivery import Callback, first_of
from service.simulator.faults import Fault, Faults
from service.simulator.users import new_hash

KEPT_MESSAGES = 10_000

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
    user: str | None = None
    by_number: bool = True
    more: Body | None = None


class Cloud:
    """The state of the Cloud API and the acts on it; the control routes have the same."""

    def __init__(self, options: CloudOptions) -> None:
        self._initial = options.model_copy()
        self.options = options.model_copy()
        self.closing = asyncio.Event()
        """Ends every hanging call when the simulator stops."""
        self._begin()

    def _begin(self) -> None:
        self.users = CloudUsers()
        self.lines = Lines(self.options)
        self.calls = Calls()
        self.counts: Counter[str] = Counter()
        """How many messages were accepted, refused, and each outcome."""
        self.messages: deque[CloudMessage] = deque(maxlen=KEPT_MESSAGES)
        self.faults = Faults(self.options.seed)
        for fault in self.options.faults:
            self.faults.add(fault)
        self.webhooks = Webhooks(self.options, self.lines, self.faults)

    @property
    def callbacks(self) -> list[Callback]:
        """The webhooks so far, each with its state and its attempts."""
        return list(self.webhooks.delivery.history)

    @property
    def webhook_url(self) -> str | None:
        """The callback URL of the app; setting it tries the pending ones at once."""
        return self.options.webhook_url

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        self.change_settings(webhook_url=url)

    @property
    def style(self) -> Style:
        """How webhooks tell of users now."""
        return Style(self.options.user_ids, empty=self.options.absent == "empty")

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self.options.clock()

    def request_id(self) -> str:
        """Return an id for a call that brought none."""
        return secrets.token_hex(16)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the simulator."""
        await first_of(self.closing.wait(), None if math.isinf(seconds) else seconds)

    def set_user(self, alias: str, **values: Any) -> CloudUser:
        """Add a user, or set one right, silently; the values are fields of `CloudUser`."""
        user = self.users.known(alias)
        unknown = values.keys() - CloudUser.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(f"no such value of a user: {', '.join(sorted(unknown))}")
        self.users.rename(user, **values)
        return user

    def write(
        self, alias: str, text: str, *, number: str | None = None, at: float | None = None
    ) -> CloudUser:
        """Let a user write to a business number, the first unless named, at a time or now."""
        line, user = self.lines.line(number), self.users.known(alias)
        when = self.now() if at is None else at
        lists = bodies.text_message(user, text, when, self.style, with_hash=line.identity_check)
        self._tell("message", line, user, lists)
        return user

    def reinstall(self, alias: str, hash: str | None = None) -> str:  # noqa: A002 - the field's name
        """Give a user another identity and return its hash; nothing tells of it by itself."""
        user = self.users.known(alias)
        user.hash = hash or new_hash()
        return user.hash

    def change_number(
        self,
        alias: str,
        new: str,
        *,
        number: str | None = None,
        at: float | None = None,
        spelling: Spelling = "user",
    ) -> CloudUser:
        """Let a user take another number, and with it another user id and another identity.

        `spelling` is `user` (`user_changed_number`, or `user_changed_user_id` when the number may
        not be shown) or `customer` (the older `customer_changed_number`).
        """
        user = self.users.known(alias)
        if spelling != "user":
            _require_number(user)
        return self._changed(user, spelling, number, at, wa_id=new)

    def change_user_id(
        self, alias: str, *, number: str | None = None, at: float | None = None
    ) -> CloudUser:
        """Let a user get another user id, as one whose number isn't known changed it."""
        return self._changed(self.users.known(alias), "user", number, at)

    def _changed(
        self,
        user: CloudUser,
        spelling: Spelling,
        number: str | None,
        at: float | None,
        **aliases: str,
    ) -> CloudUser:
        line, before = self.lines.line(number), replace(user)
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
        self._tell("number", line, before, {"messages": [message]})
        return user

    def announce_identity(
        self,
        alias: str,
        *,
        spelling: Spelling = "customer",
        number: str | None = None,
        at: float | None = None,
    ) -> str:
        """Tell of the identity that a user has, in an older spelling; return its hash.

        `customer` names it in `system`, `sibling` beside it in `identity`.
        """
        line, user = self.lines.line(number), self.users.known(alias)
        _require_number(user)
        when = self.now() if at is None else at
        message = bodies.customer_identity_changed(user, when, spelling)
        self._tell("identity", line, user, {"messages": [message]})
        return user.hash

    def report_error(self, code: int, title: str, details: str, number: str | None = None) -> None:
        """Report an error that belongs to no message."""
        lists = {"errors": [bodies.error(code, title, details)]}
        self._tell("errors", self.lines.line(number), None, lists)

    def report(self, message: CloudMessage) -> None:
        """Send the statuses of an accepted message: failed, or sent, delivered, and read."""
        line = self.lines.line(message.phone_number_id)
        user = self.users.get(message.to)
        if message.outcome == "mismatch":
            assert user is not None  # noqa: S101 - a hash can differ from somebody's only
            told = (
                {"recipient_identity_key_hash": user.hash} if self.options.failed_with_hash else {}
            )
            self._fail(line, message, bodies.MISMATCH_CODE, "The identity key has changed.", told)
        elif user is None:
            self._fail(line, message, bodies.UNDELIVERABLE_CODE, "Message undeliverable.", {})
        else:
            for state in self.options.statuses:
                self._status(line, message, user, state)

    def _fail(self, line: Line, message: CloudMessage, code: int, details: str, told: Body) -> None:
        """Tell of a failure, the recipient named as the business did."""
        key = "recipient_id" if message.by_number else "recipient_user_id"
        more = {**told, **bodies.failed(code, details), **(message.more or {})}
        body = bodies.status(message.id, "failed", self.now(), {key: message.to}, more)
        user = self.users.get(message.to)
        lists = {"statuses": [body]}
        if user is not None and self.options.failed_with_contacts:
            shown = user.wa_id if message.by_number else user.shown
            lists = {"contacts": [bodies.contact(user, self.style, shown)], **lists}
        self._tell("status", line, user, lists)

    def _status(self, line: Line, message: CloudMessage, user: CloudUser, state: str) -> None:
        shown = user.wa_id if message.by_number else user.shown
        recipient = self.style.names(user, shown, bodies.RECIPIENT)
        more: Body = dict(message.more or {})
        if line.identity_check and message.hash is None:
            more["recipient_identity_key_hash"] = user.hash
        if state != "read":
            more |= bodies.PRICING
        body = bodies.status(message.id, state, self.now(), recipient, more)
        lists = {"statuses": [body]}
        if self.options.user_ids:
            named = state != "sent"
            lists = {"contacts": [bodies.contact(user, self.style, shown, named=named)], **lists}
        self._tell("status", line, user, lists)

    def _tell(
        self, kind: str, line: Line, user: CloudUser | None, lists: dict[str, list[Body]]
    ) -> None:
        key = None if user is None else user.key
        self.webhooks.send(Update(kind, line.number, lists, key))

    def send_callback(
        self,
        body: object,
        *,
        signed: bool = True,
        headers: Mapping[str, str] | None = None,
        number: str | None = None,
    ) -> Callback:
        """Deliver a body of any kind: bytes as they are, all else as JSON; signed unless told."""
        raw = body if isinstance(body, bytes) else bodies.escaped(body)
        line = self.lines.line(number)
        return self.webhooks.delivery.send(
            Callback(
                "raw",
                raw,
                headers=dict(headers or {}),
                phone_number_id=line.number.phone_number_id,
                signed=signed,
            )
        )

    async def register(self, url: str, verify_token: str) -> None:
        """Make a URL the app's, as the App Dashboard does; HandshakeError when it fails."""
        await self.webhooks.verify(url, verify_token)
        self.webhook_url = url

    def fault(self, operation: str, **what: Any) -> int:
        """Switch a fault on and return its number; see `Fault` for what can go wrong."""
        return self.faults.add(Fault.model_validate({"operation": operation, **what}))

    def clear_faults(self) -> None:
        """Switch every fault off, and deliver what one of them held."""
        self.faults.clear()
        self.webhooks.delivery.release()

    def change_settings(self, **values: Any) -> None:
        """Change how it behaves; ValueError for what it doesn't know or can't be."""
        unknown = values.keys() - CHANGEABLE - {"identity_check"}
        if unknown:
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        for key, value in values.items():
            setattr(self.options, key, value)
        if "identity_check" in values:
            for line in self.lines.numbers.values():
                line.identity_check = self.options.identity_check
        self.webhooks.delivery.hurry()

    async def settled(self, timeout: float = 10) -> None:  # noqa: ASYNC109 - what tests call it
        """Wait until every webhook is delivered; TimeoutError after so many seconds."""
        self.webhooks.flush()
        await self.webhooks.delivery.settled(timeout)

    def start(self) -> None:
        """Deliver what is pending."""
        self.closing.clear()
        self.webhooks.delivery.resume()

    async def stop(self) -> None:
        """Stop delivering; what it knows stays."""
        self.closing.set()
        self.webhooks.flush()
        await self.webhooks.delivery.pause()

    async def reset(self) -> None:
        """Forget everything: users, numbers' settings, calls, messages, faults, webhooks."""
        await self.webhooks.delivery.pause()
        for name in type(self.options).model_fields:
            setattr(self.options, name, getattr(self._initial, name))
        self._begin()
        self.webhooks.delivery.resume()


def _require_number(user: CloudUser) -> None:
    if user.wa_id is None:
        raise ValueError("the older spellings name users by their numbers")


CLOUD = web.AppKey("cloud", Cloud)
