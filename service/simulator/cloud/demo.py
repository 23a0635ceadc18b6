"""The walk through Ackgate's main job over an account of the Cloud API.

Meta's side follows its guide to the identity change check: a message that is sent along with
another hash than the user's is not delivered (137000), and nothing tells of a changed identity but
that, the user's next message, and the status of a message that was sent without a hash.
"""

from dataclasses import dataclass

from service.simulator.remote import Remote
from service.simulator.walk import Demo, DemoError, Json, named

TEXT = "Your parcel is on its way"


@dataclass(frozen=True, slots=True)
class CloudDemo(Demo):
    """The walk over an account of the Cloud API; `number` is the phone_number_id it sends from."""

    number: str

    async def check(self) -> None:
        """See that the number tells of identities, and whom."""
        state = await self.remote.control("GET", "/cloud/state")
        line = state["numbers"][self.number]
        if not line["identity_check"]:
            raise DemoError(
                "the identity change check is off: ackgate simulate cloud settings "
                "identity_check=true, or ackgate accounts setup"
            )
        waba = state["accounts"][line["waba_id"]]
        if not (line["webhook_url"] or waba["webhook_url"] or state["settings"]["webhook_url"]):
            raise DemoError(
                "the simulator has no webhook for the Cloud API: ackgate simulate cloud webhook"
            )

    async def by_policy(self, wa_id: str) -> None:
        """Walk through a change that policy acknowledges once the user has written."""
        new = await self._changed(wa_id)
        await self._writes(wa_id, new)
        await self.acknowledged_by_policy(wa_id, new)
        await self._protected(wa_id, new)

    async def by_a_person(self, wa_id: str) -> None:
        """Walk through a change whose hash comes by the status of the message that is approved."""
        tell = self.walk.tell
        new = await self._changed(wa_id)
        tell("   Ackgate leaves it to a person, who approves one message without a hash")
        await self.decided(wa_id, None, "awaiting_hash")
        await self._open(wa_id, None)
        await self._delivered(wa_id, None)
        identity = await self.walk.until(
            "the hash of the status", lambda: self.in_state(wa_id, new, "acknowledged")
        )
        tell(
            f"   Ackgate acknowledged {new}, which the status brought, "
            f"for {named(identity['decided_by'])}"
        )
        await self._protected(wa_id, new)

    async def _changed(self, wa_id: str) -> str:
        """Get to know the user, change the identity, and see Meta and the gate refuse the user."""
        tell = self.walk.tell
        old: str = (await self._user(wa_id, "write", text="Where is my parcel?"))["hash"]
        tell(f"   {wa_id} writes, and the message brings the identity hash {old}")
        await self._protected(wa_id, old)
        new: str = (await self._user(wa_id, "reinstall"))["hash"]
        tell(f"   the user's identity changes to {new}, and nothing tells of it")
        outcome = await self._send(wa_id, old)
        if outcome != "mismatch":
            raise DemoError(f"the next message should fail with 137000, but was {outcome}")
        tell(f"   the next message, with {old}: not delivered, 137000")
        await self.gate_closes(wa_id)
        return new

    async def _writes(self, wa_id: str, hash_: str) -> None:
        await self._user(wa_id, "write", text="Hello?")
        self.walk.tell(f"   the user writes, and the message brings {hash_}")

    async def _protected(self, wa_id: str, hash_: str) -> None:
        """See the gate give the hash, and a message go through with it."""
        await self._open(wa_id, hash_)
        await self._delivered(wa_id, hash_)

    async def _open(self, wa_id: str, hash_: str | None) -> None:
        async def opened() -> Json | None:
            gate = await self.ackgate.gate(self.account, wa_id)
            as_expected = gate["sendable"] and gate["known"] and gate["identity_key_hash"] == hash_
            return gate if as_expected else None

        await self.walk.until("the gate to open", opened)
        self.walk.tell(f"   Ackgate's gate: sendable, {_with(hash_)}")

    async def _delivered(self, wa_id: str, hash_: str | None) -> None:
        outcome = await self._send(wa_id, hash_)
        if outcome != "delivered":
            raise DemoError(f"a message {_with(hash_)} should be delivered, but was {outcome}")
        self.walk.tell(f"   a message {_with(hash_)}: delivered")

    async def _send(self, wa_id: str, hash_: str | None) -> str:
        sent = await self.remote.deliver_cloud(self.token, self.number, wa_id, TEXT, hash_)
        return str(sent["outcome"])

    async def _user(self, wa_id: str, act: str, **body: str) -> Json:
        more = {} if act == "reinstall" else {"number": self.number}
        return await self.remote.user(wa_id, act, {**body, **more}, under="/cloud")


def _with(hash_: str | None) -> str:
    return f"with {hash_}" if hash_ else "without a hash"


async def number_of(remote: Remote, number: str | None) -> str:
    """Return the phone_number_id that messages are sent from: the one named, else the first."""
    numbers = (await remote.control("GET", "/cloud/state"))["numbers"]
    if number is not None and number not in numbers:
        raise DemoError(f"the simulator has no number {number}; it has {', '.join(numbers)}")
    return number or next(iter(numbers))
