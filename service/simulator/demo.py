"""`ackgate simulate demo`: a walk through Ackgate's main job, over the accounts that it has.

It uses the simulator and Ackgate's public REST API alone.
"""

from dataclasses import dataclass, field

import aiohttp

from service.simulator.cloud.demo import CloudDemo, number_of
from service.simulator.remote import Remote, Sent
from service.simulator.walk import (
    BY_A_PERSON,
    BY_POLICY,
    Ackgate,
    Demo,
    DemoError,
    Json,
    Walk,
    fresh_wa_id,
    named,
)

REFUSED_CODE = 1028
CLOUD, ON_PREMISES = "cloud", "onprem"
TITLES = {CLOUD: "the Cloud API", ON_PREMISES: "the On-Premises API"}


@dataclass(frozen=True, slots=True)
class Business:
    """How the business whose messages are shown calls the simulator."""

    username: str
    password: str = field(repr=False)
    access_token: str = field(repr=False)
    number: str | None = None
    """The phone_number_id that it writes from on the Cloud API; else the simulator's first."""


class OnPremisesDemo(Demo):
    """The walk over an account with a WhatsApp client."""

    __slots__ = ()

    async def check(self) -> None:
        """See that the client tells of changed identities, and whom."""
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
        hash_ = await self._changed(wa_id)
        await self.acknowledged_by_policy(wa_id, hash_)
        await self._through_again(wa_id)

    async def by_a_person(self, wa_id: str) -> None:
        """Walk through a change that a person decides about."""
        tell = self.walk.tell
        hash_ = await self._changed(wa_id)
        await self.walk.until("the state pending", lambda: self.in_state(wa_id, hash_, "pending"))
        tell("   Ackgate leaves it to a person, who decides with the hash and evidence")
        identity = await self.decided(wa_id, hash_, "acknowledged")
        tell(f"   Ackgate acknowledged {hash_} for {named(identity['decided_by'])}")
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
        await self.gate_closes(wa_id)
        return hash_

    async def _through_again(self, wa_id: str) -> None:
        await self.walk.until("the gate to open", lambda: self._open(wa_id))
        self.walk.tell("   Ackgate's gate: sendable")
        self.walk.tell(f"   the next message: accepted {await self._accepted(wa_id)}")

    async def _open(self, wa_id: str) -> Json | None:
        gate = await self.ackgate.gate(self.account, wa_id)
        return gate if gate["sendable"] else None

    async def _send(self, wa_id: str) -> Sent:
        return await self.remote.send(self.token, wa_id, "Your parcel is on its way")

    async def _accepted(self, wa_id: str) -> str:
        sent = await self._send(wa_id)
        if not sent.accepted or sent.id is None:
            raise DemoError(f"a message to {wa_id} was refused: {sent.code} {sent.title}")
        return sent.id


async def demonstrate(
    walk: Walk, remote: Remote, business: Business, url: str, key: str, account: str | None
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
            walk.tell(f"{name}, an account of {TITLES.get(kinds[name], kinds[name])}")
            await _walk_over(await _demo(walk, remote, business, ackgate, name, kinds[name]))
        walk.tell("Everything went as promised.")


def _one_of_each(kinds: dict[str, str]) -> list[str]:
    """Return the first account of each kind, that of the Cloud API before the other."""
    first = {kind: name for name, kind in reversed(kinds.items())}
    if not first:
        raise DemoError("Ackgate has no account")
    return [first[kind] for kind in (CLOUD, ON_PREMISES) if kind in first]


async def _demo(
    walk: Walk, remote: Remote, business: Business, ackgate: Ackgate, name: str, kind: str
) -> CloudDemo | OnPremisesDemo:
    if kind == CLOUD:
        number = await number_of(remote, business.number)
        return CloudDemo(walk, remote, ackgate, name, business.access_token, number)
    token = await remote.login(business.username, business.password)
    return OnPremisesDemo(walk, remote, ackgate, name, token)


async def _walk_over(demo: CloudDemo | OnPremisesDemo) -> None:
    await demo.check()
    demo.walk.tell("1. Policy decides")
    await demo.by_policy(fresh_wa_id(BY_POLICY))
    demo.walk.tell("2. A person decides")
    await demo.by_a_person(fresh_wa_id(BY_A_PERSON))
