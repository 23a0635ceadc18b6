"""`ackgate simulate demo`: a walk through Ackgate's main job, over the accounts that it has.

It uses the simulator and Ackgate's public REST API alone. Every line says what was seen just now; a
step that isn't as promised within its time ends the walk.

On the Cloud API, Meta's side follows its guide to the identity change check: a message that is sent
along with another hash than the user's is not delivered (137000), and nothing reports a changed
identity but that, the user's next message, and the status of a message sent without a hash.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp

from service.simulator.remote import Ackgate, DemoError, Json, Remote, Sent, user_path

BY_POLICY, BY_A_PERSON = "1631555", "1631556"
"""The wa_ids of both cases begin so; the development configuration has a rule for the second."""

POLL_SECONDS = 0.1
REFUSED_CODE = 1028
TEXT = "Your parcel is on its way"
CLOUD, ON_PREMISES = "cloud", "onprem"
TITLES = {CLOUD: "the Cloud API", ON_PREMISES: "the On-Premises API"}
T = TypeVar("T")


@dataclass(slots=True)
class Walk:
    """The walk so far; `seconds` is the time limit of each step."""

    seconds: float
    print: Callable[[str], None]
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Print what was seen, and keep it."""
        self.lines.append(line)
        self.print(line)

    async def until(self, what: str, look: Callable[[], Awaitable[T | None]]) -> T:
        """Look until something is seen; DemoError when the time is up."""
        ends = time.monotonic() + self.seconds
        while time.monotonic() < ends:
            seen = await look()
            if seen is not None:
                return seen
            await asyncio.sleep(POLL_SECONDS)
        raise DemoError(f"waited {self.seconds:g} s for {what}, in vain")


@dataclass(frozen=True, slots=True)
class BusinessLogin:
    """How the business whose messages are shown calls the simulator."""

    username: str
    password: str = field(repr=False)
    access_token: str = field(repr=False)
    number: str | None = None
    """The phone_number_id that it writes from on the Cloud API; else the simulator's first."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The parties of a walk over one account, and what a walk over either API looks at."""

    walk: Walk
    remote: Remote
    ackgate: Ackgate
    account: str
    token: str
    """What the business calls the simulator with."""

    async def see_policy_acknowledge(self, wa_id: str, hash_: str) -> None:
        """Wait until policy has acknowledged an identity."""
        identity = await self.walk.until(
            "the policy's acknowledgement", lambda: self.in_state(wa_id, hash_, "acknowledged")
        )
        decided_by = identity.get("decided_by") or {}
        if decided_by.get("kind") != "policy":
            raise DemoError(f"it should have been decided by policy, but was by {decided_by}")
        line = f"   Ackgate acknowledged {hash_} by the policy {decided_by.get('name')}"
        self.walk.say(line)

    async def decide(self, wa_id: str, hash_: str | None, expected: str) -> Json:
        """Decide as a person, and check the state afterwards."""
        identity = await self.ackgate.acknowledge(self.account, wa_id, hash_)
        if identity["state"] != expected:
            raise DemoError(f"after the decision the state is {identity['state']}")
        return identity

    async def see_gate_close(self, wa_id: str) -> None:
        """Wait until the gate says why the user may not be written to."""

        async def closed() -> Json | None:
            gate = await self.ackgate.gate(self.account, wa_id)
            return None if gate["sendable"] else gate

        gate = await self.walk.until("the gate to close", closed)
        codes = ", ".join(reason["code"] for reason in gate["reasons"])
        self.walk.say(f"   Ackgate's gate: not sendable, because {codes}")

    async def in_state(self, wa_id: str, hash_: str | None, state: str) -> Json | None:
        """Return the Identity once it has this hash and this state; say each state that is new."""
        identity = await self.ackgate.identity(self.account, wa_id)
        if identity is None or identity["hash"] != hash_:
            return None
        line = f"   Ackgate's state of this identity: {identity['state']}"
        if line != self.walk.lines[-1]:
            self.walk.say(line)
        return identity if identity["state"] == state else None


class OnPremisesDemo(Demo):
    """The walk over an account with a WhatsApp client."""

    __slots__ = ()

    async def check(self) -> None:
        """Check that the client reports changed identities, and to whom."""
        settings = await self.remote.control("PATCH", "/settings", {})
        if not settings["show_security_notifications"]:
            raise DemoError(
                "show_security_notifications is off: "
                "ackgate simulate settings show_security_notifications=true"
            )
        if not settings["webhooks"]["url"]:
            raise DemoError("the simulator has no webhook: ackgate simulate settings webhook_url=…")

    async def by_policy(self, wa_id: str) -> None:
        """Walk through a change that policy acknowledges."""
        hash_ = await self._change(wa_id)
        await self.see_policy_acknowledge(wa_id, hash_)
        await self._see_sendable(wa_id)

    async def by_a_person(self, wa_id: str) -> None:
        """Walk through a change that a person decides about."""
        say = self.walk.say
        hash_ = await self._change(wa_id)
        await self.walk.until("the state pending", lambda: self.in_state(wa_id, hash_, "pending"))
        say("   Ackgate leaves it to a person, who decides with the hash and evidence")
        identity = await self.decide(wa_id, hash_, "acknowledged")
        say(f"   Ackgate acknowledged {hash_} for {_named(identity['decided_by'])}")
        await self._see_sendable(wa_id)

    async def _change(self, wa_id: str) -> str:
        """Send, change the identity, and see both the client and the gate refuse the user."""
        say = self.walk.say
        say(f"   a message to {wa_id}: accepted {await self._accepted(wa_id)}")
        answer = await self.remote.control("POST", user_path(wa_id, "change"), {})
        hash_: str = answer["hash"]
        say(f"   the user's identity changes to {hash_}")
        refused = await self.remote.send(self.token, wa_id, TEXT)
        if refused.accepted or refused.code != REFUSED_CODE:
            raise DemoError(f"the next message should be refused with 1028, but was {refused}")
        say(f"   the next message: refused {refused.code}, {refused.title}")
        await self.see_gate_close(wa_id)
        return hash_

    async def _see_sendable(self, wa_id: str) -> None:
        async def opened() -> Json | None:
            gate = await self.ackgate.gate(self.account, wa_id)
            return gate if gate["sendable"] else None

        await self.walk.until("the gate to open", opened)
        self.walk.say("   Ackgate's gate: sendable")
        self.walk.say(f"   the next message: accepted {await self._accepted(wa_id)}")

    async def _accepted(self, wa_id: str) -> str:
        sent: Sent = await self.remote.send(self.token, wa_id, TEXT)
        if not sent.accepted or sent.id is None:
            raise DemoError(f"a message to {wa_id} was refused: {sent.code} {sent.title}")
        return sent.id


@dataclass(frozen=True, slots=True)
class CloudDemo(Demo):
    """The walk over an account of the Cloud API; `number` is the phone_number_id it sends from."""

    number: str

    async def check(self) -> None:
        """Check that the number reports identities, and to whom."""
        state = await self.remote.control("GET", "/cloud/state")
        number = state["numbers"][self.number]
        if not number["identity_check"]:
            raise DemoError(
                "the identity change check is off: ackgate simulate cloud settings "
                "identity_check=true, or ackgate accounts setup"
            )
        waba = state["accounts"][number["waba_id"]]
        if not (number["webhook_url"] or waba["webhook_url"] or state["settings"]["webhook_url"]):
            raise DemoError(
                "the simulator has no webhook for the Cloud API: ackgate simulate cloud webhook"
            )

    async def by_policy(self, wa_id: str) -> None:
        """Walk through a change that policy acknowledges once the user has written."""
        new = await self._change(wa_id)
        await self._act(wa_id, "write", text="Hello?", number=self.number)
        self.walk.say(f"   the user writes, and the message brings {new}")
        await self.see_policy_acknowledge(wa_id, new)
        await self._see_delivered(wa_id, new)

    async def by_a_person(self, wa_id: str) -> None:
        """Walk through a change whose hash comes by the status of the message that is approved."""
        say = self.walk.say
        new = await self._change(wa_id)
        say("   Ackgate leaves it to a person, who approves one message without a hash")
        await self.decide(wa_id, None, "awaiting_hash")
        await self._see_delivered(wa_id, None)
        identity = await self.walk.until(
            "the hash of the status", lambda: self.in_state(wa_id, new, "acknowledged")
        )
        decided_by = _named(identity["decided_by"])
        say(f"   Ackgate acknowledged {new}, which the status brought, for {decided_by}")
        await self._see_delivered(wa_id, new)

    async def _change(self, wa_id: str) -> str:
        """Get to know the user, change the identity, and see Meta and the gate refuse the user."""
        say = self.walk.say
        first = await self._act(wa_id, "write", text="Where is my parcel?", number=self.number)
        old = first["hash"]
        say(f"   {wa_id} writes, and the message brings the identity hash {old}")
        await self._see_delivered(wa_id, old)
        new: str = (await self._act(wa_id, "reinstall"))["hash"]
        say(f"   the user's identity changes to {new}, and nothing tells of it")
        outcome = await self._send(wa_id, old)
        if outcome != "mismatch":
            raise DemoError(f"the next message should fail with 137000, but was {outcome}")
        say(f"   the next message, with {old}: not delivered, 137000")
        await self.see_gate_close(wa_id)
        return new

    async def _see_delivered(self, wa_id: str, hash_: str | None) -> None:
        """Wait until the gate returns the hash, and see a message delivered with it."""

        async def opened() -> Json | None:
            gate = await self.ackgate.gate(self.account, wa_id)
            as_expected = gate["sendable"] and gate["known"] and gate["identity_key_hash"] == hash_
            return gate if as_expected else None

        along = f"with {hash_}" if hash_ else "without a hash"
        await self.walk.until("the gate to open", opened)
        self.walk.say(f"   Ackgate's gate: sendable, {along}")
        outcome = await self._send(wa_id, hash_)
        if outcome != "delivered":
            raise DemoError(f"a message {along} should be delivered, but was {outcome}")
        self.walk.say(f"   a message {along}: delivered")

    async def _send(self, wa_id: str, hash_: str | None) -> str:
        sent = await self.remote.deliver_cloud(self.token, self.number, wa_id, TEXT, hash_)
        return str(sent["outcome"])

    async def _act(self, wa_id: str, action: str, **body: str) -> Json:
        return await self.remote.control("POST", f"/cloud{user_path(wa_id, action)}", body)


def _named(decided_by: Json | None) -> str:
    return f"the {decided_by['kind']} {decided_by['name']}" if decided_by else "nobody"


def fresh_wa_id(prefix: str) -> str:
    """Return a wa_id that is new in most runs, so that the flapping guard stays out of the way."""
    return f"{prefix}{secrets.randbelow(10_000):04}"


async def demonstrate(
    walk: Walk, remote: Remote, business: BusinessLogin, url: str, key: str, account: str | None
) -> None:
    """Walk over one account, or over one of each kind; DemoError where one isn't as promised."""
    limit = aiohttp.ClientTimeout(total=walk.seconds + 20)
    async with aiohttp.ClientSession(timeout=limit) as session:
        ackgate = Ackgate(session, url, key)
        if not await ackgate.is_ready():
            raise DemoError("Ackgate is not ready: see /health/ready")
        kinds = await ackgate.kinds()
        for name in [account] if account else _one_of_each(kinds):
            if name not in kinds:
                raise DemoError(f"Ackgate has no account {name}; it has {', '.join(kinds)}")
            walk.say(f"{name}, an account of {TITLES.get(kinds[name], kinds[name])}")
            demo = await _demo(walk, remote, business, ackgate, name, kinds[name])
            await demo.check()
            walk.say("1. Policy decides")
            await demo.by_policy(fresh_wa_id(BY_POLICY))
            walk.say("2. A person decides")
            await demo.by_a_person(fresh_wa_id(BY_A_PERSON))
        walk.say("Everything went as promised.")


def _one_of_each(kinds: dict[str, str]) -> list[str]:
    """Return the first account of each kind, that of the Cloud API before the other."""
    first = {kind: name for name, kind in reversed(kinds.items())}
    if not first:
        raise DemoError("Ackgate has no account")
    return [first[kind] for kind in (CLOUD, ON_PREMISES) if kind in first]


async def _demo(
    walk: Walk, remote: Remote, business: BusinessLogin, ackgate: Ackgate, name: str, kind: str
) -> CloudDemo | OnPremisesDemo:
    if kind != CLOUD:
        token = await remote.login(business.username, business.password)
        return OnPremisesDemo(walk, remote, ackgate, name, token)
    numbers = (await remote.control("GET", "/cloud/state"))["numbers"]
    if business.number is not None and business.number not in numbers:
        has = ", ".join(numbers)
        raise DemoError(f"the simulator has no number {business.number}; it has {has}")
    number = business.number or next(iter(numbers))
    return CloudDemo(walk, remote, ackgate, name, business.access_token, number)
