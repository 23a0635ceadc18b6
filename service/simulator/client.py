"""The simulated client: all that it knows and remembers, in one place for its routes."""

import asyncio
import math
import secrets
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any

from service.simulator import application
from service.simulator.calls import Calls
from service.simulator.contact_checks import ContactChecks
from service.simulator.delivery import Delivery, first_of
from service.simulator.faults import Faults
from service.simulator.limits import RateLimit
from service.simulator.logins import Logins
from service.simulator.options import Options
from service.simulator.users import Users

KEPT_MESSAGES = 10_000


@dataclass(slots=True)
class Message:
    """A message that the business sent; `at` in Unix seconds."""

    to: str
    accepted: bool
    at: float
    id: str | None = None
    code: int | None = None
    """The error that refused it, or that it failed with afterwards."""


class Client:
    """The state of one client, made afresh from its options."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.closing = asyncio.Event()
        """Ends every hanging call when the simulator stops."""
        self.settings = application.initial(options)
        self.users = Users()
        self.logins = Logins(options)
        self.calls = Calls()
        self.messages: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        self.contacts = ContactChecks(options)
        self.contacts_limit = RateLimit(
            options.contacts_per_second, options.contacts_burst, options.clock
        )
        self.health: dict[str, Any] = {"gateway_status": "connected"}
        self.health_limit = RateLimit(
            options.health_per_minute / 60, options.health_per_minute, options.clock
        )
        self.faults = Faults(options.seed)
        for fault in options.faults:
            self.faults.add(fault)
        self.delivery = Delivery(options, lambda: self.settings, self.faults)
        self.webhook_ca: str | None = None
        """The authority that verifies the webhook's certificate, PEM; None for the system's."""
        if options.webhook_ca_file is not None:
            self.trust_webhook(options.webhook_ca_file.read_text())

    def trust_webhook(self, pem: str | None) -> None:
        """Verify the webhook's certificate by this authority, or by the system's.

        Raises ssl.SSLError or ValueError when it isn't one.
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
        self.delivery.restarted(is_kept=self.settings.callback_persist)
        if self.options.restart_seconds:
            self.delivery.running.clear()
            loop = asyncio.get_running_loop()
            loop.call_later(self.options.restart_seconds, self.delivery.running.set)

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self.options.clock()

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""
        return int(self.now() * 1000)

    def request_id(self) -> str:
        """Return an id for a call that brought none."""
        return secrets.token_hex(16)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the simulator."""
        await first_of(self.closing.wait(), None if math.isinf(seconds) else seconds)
