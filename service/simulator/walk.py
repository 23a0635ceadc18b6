"""What the walks through Ackgate's main job share: Ackgate's public REST API, and looking.

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

from service.simulator.remote import Remote

BY_POLICY, BY_A_PERSON = "1631555", "1631556"
"""The wa_ids of both cases begin so; the development configuration has a rule for the second."""

POLL_SECONDS = 0.1
OK, NOT_FOUND = 200, 404
T = TypeVar("T")
Json = dict[str, Any]


class DemoError(Exception):
    """A step that did not turn out as promised: what was seen instead."""


@dataclass(slots=True)
class Walk:
    """The walk so far; `seconds` is the time limit of each step."""

    seconds: float
    say: Callable[[str], None]
    lines: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        """Say what was seen."""
        self.lines.append(line)
        self.say(line)

    async def until(self, what: str, look: Callable[[], Awaitable[T | None]]) -> T:
        """Look until something is seen; DemoError when the time is up."""
        ends = time.monotonic() + self.seconds
        while time.monotonic() < ends:
            seen = await look()
            if seen is not None:
                return seen
            await asyncio.sleep(POLL_SECONDS)
        raise DemoError(f"waited {self.seconds:g} s for {what}, in vain")


class Ackgate:
    """Ackgate's public REST API, as far as a walk needs it; DemoError where it doesn't answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def is_ready(self) -> bool:
        """Tell whether Ackgate can store a callback."""
        return (await self._call("GET", "/health/ready"))[0] == OK

    async def kinds(self) -> dict[str, str]:
        """Return the kind of each account that is configured, by its name."""
        found = await self._found("GET", "/api/v1/accounts")
        return {each["account"]: each["kind"] for each in found["items"]}

    async def gate(self, account: str, wa_id: str) -> Json:
        """Ask the gate whether a user may be written to."""
        return await self._found("GET", _path(account, "recipients", wa_id))

    async def identity(self, account: str, wa_id: str) -> Json | None:
        """Return a user's Identity; None while there is none."""
        path = _path(account, "identities", wa_id)
        status, body = await self._call("GET", path)
        return None if status == NOT_FOUND else _checked(path, status, body)

    async def acknowledge(self, account: str, wa_id: str, hash_: str | None) -> Json:
        """Decide as a person does, who has spoken to the user, and wait for the outcome."""
        decision = {
            "hash": hash_,
            "note": "a walk through the main job",
            "evidence": {"method": "phone_call", "reference": "demo"},
        }
        path = f"{_path(account, 'identities', wa_id)}/acknowledge?wait=20"
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


def _path(account: str, what: str, wa_id: str) -> str:
    return f"/api/v1/accounts/{account}/{what}/{quote(wa_id, safe='')}"


def _checked(path: str, status: int, body: Json) -> Json:
    if status != OK:
        raise DemoError(f"Ackgate answered {status} to {path}: {body.get('detail', body)}")
    return body


@dataclass(frozen=True, slots=True)
class Demo:
    """The parties of a walk over one account, and what a walk over either API looks at."""

    walk: Walk
    remote: Remote
    ackgate: Ackgate
    account: str
    token: str
    """What the business calls the simulator with."""

    async def acknowledged_by_policy(self, wa_id: str, hash_: str) -> None:
        """See policy acknowledge an identity."""
        identity = await self.walk.until(
            "the policy's acknowledgement", lambda: self.in_state(wa_id, hash_, "acknowledged")
        )
        decided_by = identity.get("decided_by") or {}
        if decided_by.get("kind") != "policy":
            raise DemoError(f"it should have been decided by policy, but was by {decided_by}")
        line = f"   Ackgate acknowledged {hash_} by the policy {decided_by.get('name')}"
        self.walk.tell(line)

    async def decided(self, wa_id: str, hash_: str | None, expected: str) -> Json:
        """Decide as a person, and see the state that is expected then."""
        identity = await self.ackgate.acknowledge(self.account, wa_id, hash_)
        if identity["state"] != expected:
            raise DemoError(f"after the decision the state is {identity['state']}")
        return identity

    async def gate_closes(self, wa_id: str) -> None:
        """See the gate say why the user may not be written to."""

        async def closed() -> Json | None:
            gate = await self.ackgate.gate(self.account, wa_id)
            return None if gate["sendable"] else gate

        gate = await self.walk.until("the gate to close", closed)
        codes = ", ".join(reason["code"] for reason in gate["reasons"])
        self.walk.tell(f"   Ackgate's gate: not sendable, because {codes}")

    async def in_state(self, wa_id: str, hash_: str | None, state: str) -> Json | None:
        """Return the Identity once it has this hash and this state; tell each state that is new."""
        identity = await self.ackgate.identity(self.account, wa_id)
        if identity is None or identity["hash"] != hash_:
            return None
        line = f"   Ackgate's state of this identity: {identity['state']}"
        if line != self.walk.lines[-1]:
            self.walk.tell(line)
        return identity if identity["state"] == state else None


def named(decided_by: Json | None) -> str:
    """Say who decided."""
    return f"the {decided_by['kind']} {decided_by['name']}" if decided_by else "nobody"


def fresh_wa_id(prefix: str) -> str:
    """Return a wa_id that is new in most runs, so that the flapping guard stays out of the way."""
    return f"{prefix}{secrets.randbelow(10_000):04}"
