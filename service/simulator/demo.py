"""The walk that shows Ackgate's main job, with the simulator and Ackgate's public REST API alone.

Every line says what was seen just now; a step that isn't as promised within its time ends the walk.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp

from service.simulator.remote import Remote, Sent

BY_POLICY, BY_A_PERSON = "1631555", "1631556"
"""The wa_ids of both cases begin so; the development configuration has a rule for the second."""

REFUSED_CODE = 1028
POLL_SECONDS = 0.1
OK, NOT_FOUND = 200, 404
T = TypeVar("T")
Json = dict[str, Any]


class DemoError(Exception):
    """A step that did not turn out as promised: what was seen instead."""


@dataclass(slots=True)
class Walk:
    """The walk so far; `seconds` is the time limit of each step."""

    account: str
    seconds: float
    say: Callable[[str], None]
    lines: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        """Say what was seen."""
        self.lines.append(line)
        self.say(line)


class Ackgate:
    """Ackgate's public REST API, as far as the walk needs it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, account: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._account = f"/api/v1/accounts/{account}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def is_ready(self) -> bool:
        """Tell whether Ackgate can store a callback."""
        return (await self._call("GET", "/health/ready"))[0] == OK

    async def gate(self, wa_id: str) -> Json:
        """Ask the gate whether a user may be written to."""
        return await self._found("GET", f"{self._account}/recipients/{quote(wa_id, safe='')}")

    async def identity(self, wa_id: str) -> Json | None:
        """Return a user's Identity; None while there is none."""
        path = f"{self._account}/identities/{quote(wa_id, safe='')}"
        status, body = await self._call("GET", path)
        return None if status == NOT_FOUND else _checked(path, status, body)

    async def acknowledge(self, wa_id: str, hash_: str) -> Json:
        """Decide as a person does, who has spoken to the user, and wait for the outcome."""
        decision = {
            "hash": hash_,
            "note": "a walk through the main job",
            "evidence": {"method": "phone_call", "reference": "demo"},
        }
        path = f"{self._account}/identities/{quote(wa_id, safe='')}/acknowledge?wait=20"
        return await self._found("POST", path, decision)

    async def _found(self, method: str, path: str, body: object = None) -> Json:
        status, answer = await self._call(method, path, body)
        return _checked(path, status, answer)

    async def _call(self, method: str, path: str, body: object = None) -> tuple[int, Json]:
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=self._headers
            ) as response:
                return response.status, await response.json(content_type=None) or {}
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise DemoError(f"Ackgate does not answer at {self._url}: {why}") from None


def _checked(path: str, status: int, body: Json) -> Json:
    if status != OK:
        raise DemoError(f"Ackgate answered {status} to {path}: {body.get('detail', body)}")
    return body


@dataclass(frozen=True, slots=True)
class Demo:
    """The parties of the walk."""

    walk: Walk
    remote: Remote
    token: str
    ackgate: Ackgate

    async def check_parties(self) -> None:
        """See that both sides are there and that the client tells of changed identities."""
        if not await self.ackgate.is_ready():
            raise DemoError("Ackgate is not ready: see /health/ready")
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
        tell = self.walk.tell
        hash_ = await self._changed(wa_id)
        acknowledged = await self._until(
            "the policy's acknowledgement", lambda: self._in_state(wa_id, hash_, "acknowledged")
        )
        decider = _decider(acknowledged, "policy")
        tell(f"   Ackgate acknowledged {hash_} by the policy {decider}")
        await self._through_again(wa_id)

    async def by_a_person(self, wa_id: str) -> None:
        """Walk through a change that a person decides about."""
        tell = self.walk.tell
        hash_ = await self._changed(wa_id)
        await self._until("the state pending", lambda: self._in_state(wa_id, hash_, "pending"))
        tell("   Ackgate leaves it to a person, who decides with the hash and evidence")
        identity = await self.ackgate.acknowledge(wa_id, hash_)
        if identity["state"] != "acknowledged":
            raise DemoError(f"after the decision the state is {identity['state']}")
        tell(f"   Ackgate acknowledged {hash_} for {_name(identity['decided_by'])}")
        await self._through_again(wa_id)

    async def _changed(self, wa_id: str) -> str:
        """Send, change the identity, and see both the client and the gate refuse the user."""
        tell = self.walk.tell
        tell(f"   a message to {wa_id}: accepted {await self._accepted(wa_id)}")
        hash_: str = (await self.remote.user(wa_id, "change", {}))["hash"]
        tell(f"   the user's identity changes to {hash_}")
        refused = await self._send(wa_id)
        if refused.accepted or refused.code != REFUSED_CODE:
            raise DemoError(f"the next message should be refused with 1028, but was {refused}")
        tell(f"   the next message: refused {refused.code}, {refused.title}")
        gate = await self._until("the gate to close", lambda: self._gate(wa_id, sendable=False))
        codes = ", ".join(reason["code"] for reason in gate["reasons"])
        tell(f"   Ackgate's gate: not sendable, because {codes}")
        return hash_

    async def _through_again(self, wa_id: str) -> None:
        await self._until("the gate to open", lambda: self._gate(wa_id, sendable=True))
        self.walk.tell("   Ackgate's gate: sendable")
        self.walk.tell(f"   the next message: accepted {await self._accepted(wa_id)}")

    async def _send(self, wa_id: str) -> Sent:
        return await self.remote.send(self.token, wa_id, "Your parcel is on its way")

    async def _accepted(self, wa_id: str) -> str:
        sent = await self._send(wa_id)
        if not sent.accepted or sent.id is None:
            raise DemoError(f"a message to {wa_id} was refused: {sent.code} {sent.title}")
        return sent.id

    async def _gate(self, wa_id: str, *, sendable: bool) -> Json | None:
        gate = await self.ackgate.gate(wa_id)
        return gate if gate["sendable"] is sendable else None

    async def _in_state(self, wa_id: str, hash_: str, state: str) -> Json | None:
        """Return the Identity once it has this hash and this state; tell each state that is new."""
        identity = await self.ackgate.identity(wa_id)
        if identity is None or identity["hash"] != hash_:
            return None
        line = f"   Ackgate's state of this identity: {identity['state']}"
        if line != self.walk.lines[-1]:
            self.walk.tell(line)
        return identity if identity["state"] == state else None

    async def _until(self, what: str, look: Callable[[], Awaitable[T | None]]) -> T:
        """Look until something is seen; DemoError when the time is up."""
        ends = time.monotonic() + self.walk.seconds
        while time.monotonic() < ends:
            seen = await look()
            if seen is not None:
                return seen
            await asyncio.sleep(POLL_SECONDS)
        raise DemoError(f"waited {self.walk.seconds:g} s for {what}, in vain")


def _decider(identity: Json, kind: str) -> str:
    decided_by = identity.get("decided_by") or {}
    if decided_by.get("kind") != kind:
        raise DemoError(f"it should have been decided by {kind}, but was by {decided_by}")
    return str(decided_by.get("name"))


def _name(decided_by: Json | None) -> str:
    return f"the {decided_by['kind']} {decided_by['name']}" if decided_by else "nobody"


def fresh_wa_id(prefix: str) -> str:
    """Return a wa_id that is new in most runs, so that the flapping guard stays out of the way."""
    return f"{prefix}{secrets.randbelow(10_000):04}"


async def demonstrate(walk: Walk, remote: Remote, token: str, url: str, key: str) -> None:
    """Walk through both cases; DemoError where one isn't as promised."""
    limit = aiohttp.ClientTimeout(total=walk.seconds + 20)
    async with aiohttp.ClientSession(timeout=limit) as session:
        demo = Demo(walk, remote, token, Ackgate(session, url, key, walk.account))
        await demo.check_parties()
        walk.tell("1. Policy decides")
        await demo.by_policy(fresh_wa_id(BY_POLICY))
        walk.tell("2. A person decides")
        await demo.by_a_person(fresh_wa_id(BY_A_PERSON))
        walk.tell("Both went as promised.")
