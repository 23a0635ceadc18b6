"""The load: what happens on a busy day, in a random order that a seed repeats."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable

from tools.soak.api import Api
from tools.soak.cloud_load import CloudLoad
from tools.soak.delivery import Callback, Delivery
from tools.soak.record import MAX_CHANGES, Handling, Record
from tools.soak.world import Person, World

SENDERS = 12
LONGEST_PAUSE_SECONDS = 0.12
RECENT = 500
"""The number of the last callbacks that may be delivered once more."""
LATE_MS = 3000
"""How late an earlier change may be reported, at most."""
AUTOMATIC = (Handling.AUTO, Handling.AUTO, Handling.AUTO, Handling.DELAYED)


class Load:
    """Twelve senders, each doing one thing after another."""

    def __init__(self, world: World, delivery: Delivery, api: Api, record: Record) -> None:
        self._world = world
        self._delivery = delivery
        self._api = api
        self._recent: deque[Callback] = deque(maxlen=RECENT)
        self._changed_number: set[str] = set()
        cloud = CloudLoad(record, api, self._deliver_until_accepted)
        self._actions: dict[Callable[[random.Random], Awaitable[None]], int] = {
            self.status: 30,
            self.writes: 20,
            self.contact_check: 5,
            self.changes: 12,
            self.changes_at_once: 6,
            self.changes_in_disorder: 6,
            self.again: 8,
            self.flaps: 1,
            self.changes_number: 1,
            self.blocked: 4,
            self.claims: 2,
            self.waits: 2,
            self.decided: 6,
            self.held_in_time: 2,
            self.hangs_up: 2,
            self.stalls: 1,
            self.asks_the_gate: 6,
            self.refreshes: 3,
            api.read: 8,
            api.abandon: 1,
            cloud.lives: 8,
            cloud.lives_by_policy: 3,
            cloud.turns_out_to_be_one: 3,
            cloud.crowds: 1,
        }
        """What the senders do, and how often beside the other actions."""

    async def send(self, seed: str, stop: asyncio.Event) -> None:
        """Send until `stop` is set; what was begun by then is finished."""
        senders = (self._send(random.Random(f"{seed} sender {n}"), stop) for n in range(SENDERS))
        await asyncio.gather(*senders)

    async def _send(self, chance: random.Random, stop: asyncio.Event) -> None:
        actions, weights = list(self._actions), list(self._actions.values())
        while not stop.is_set():
            (action,) = chance.choices(actions, weights)
            await action(chance)
            await asyncio.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS))

    async def _deliver(self, *callbacks: Callback) -> None:
        """Deliver them at once."""
        self._recent.extend(callbacks)
        await asyncio.gather(*map(self._delivery.deliver, callbacks))

    async def _deliver_until_accepted(self, callback: Callback) -> None:
        """Deliver, and wait until it is accepted, which may be in a later delivery."""
        await self._deliver(callback)
        await callback.accepted.wait()

    def _person(self, chance: random.Random, *handlings: Handling) -> Person:
        return self._world.someone(chance, chance.choice(handlings or AUTOMATIC))

    async def status(self, chance: random.Random) -> None:
        """Deliver the status of a message."""
        await self._deliver(self._world.status(chance))

    async def contact_check(self, chance: random.Random) -> None:
        """Deliver the result of a contact check."""
        await self._deliver(self._world.contact_check(chance))

    async def writes(self, chance: random.Random) -> None:
        """Deliver what a user wrote, with the identity as the client has it."""
        person = self._world.anyone(chance)
        callback = None if person is None else await self._world.message(person)
        if callback is not None:
            await self._deliver(callback)

    async def blocked(self, chance: random.Random) -> None:
        """Let a message fail with 480, whether or not the identity is acknowledged."""
        person = self._world.anyone(chance)
        if person is not None:
            await self._deliver(self._world.blocked(person))

    async def again(self, chance: random.Random) -> None:
        """Deliver once more what was delivered before."""
        if self._recent:
            await self._deliver(chance.choice(self._recent))

    async def changes(self, chance: random.Random) -> None:
        """Let an identity change, and check that this is in effect."""
        callback = await self._world.change(chance, self._person(chance))
        await self._deliver(callback)
        if callback.accepted.is_set() and callback.change is not None:
            await self._api.check_effect(callback.change)

    async def changes_at_once(self, chance: random.Random) -> None:
        """Deliver one change several times at once."""
        callback = await self._world.change(chance, self._person(chance))
        await self._deliver(*[callback] * chance.randint(2, 4))

    async def changes_in_disorder(self, chance: random.Random) -> None:
        """Deliver several changes in the opposite order."""
        person = self._person(chance, *AUTOMATIC, Handling.MANUAL, Handling.MANUAL)
        late = chance.randrange(LATE_MS)
        count = max(2, MAX_CHANGES - len(person.changes))
        callbacks = [await self._world.change(chance, person, late) for _ in range(count)]
        for callback in reversed(callbacks):
            await self._deliver(callback)

    async def flaps(self, chance: random.Random) -> None:
        """Let one user change more often than the guard allows."""
        person = self._world.newcomer(Handling.AUTO)
        for _ in range(MAX_CHANGES + chance.randint(1, 2)):
            await self._deliver_until_accepted(await self._world.change(chance, person))

    async def changes_number(self, chance: random.Random) -> None:
        """Let a user take another number, and deliver that twice; only once for each user."""
        person = self._world.anyone(chance)
        if person is not None and person.wa_id not in self._changed_number:
            self._changed_number.add(person.wa_id)
            callback = self._world.number_change(person)
            await self._deliver(callback, callback)

    async def claims(self, chance: random.Random) -> None:
        """Claim in a message that a pending identity is acknowledged."""
        person = self._person(chance, Handling.MANUAL)
        await self._deliver(await self._world.change(chance, person))
        await self._deliver(self._world.claim(person))

    async def waits(self, chance: random.Random) -> None:
        """Let an identity change that nobody decides about."""
        person = self._person(chance, Handling.MANUAL)
        await self._deliver(await self._world.change(chance, person))

    async def decided(self, chance: random.Random) -> None:
        """Let a person decide, once or twice, about a change that waits."""
        person = self._person(chance, Handling.MANUAL)
        verbs = chance.choice((["acknowledge"], ["acknowledge"], ["hold"], ["hold", "acknowledge"]))
        await self._decide(chance, person, verbs)

    async def held_in_time(self, chance: random.Random) -> None:
        """Let a person hold what policy would acknowledge after a delay."""
        await self._decide(chance, self._person(chance, Handling.DELAYED), ["hold"])

    async def _decide(self, chance: random.Random, person: Person, verbs: list[str]) -> None:
        async with person.deciding:
            callback = await self._world.change(chance, person)
            await self._deliver_until_accepted(callback)
            for verb in verbs:
                if callback.change is not None:
                    query = chance.choice(("", "?wait=1")) if verb == "acknowledge" else ""
                    await self._api.decide(callback.change, verb, query)
                await asyncio.sleep(chance.uniform(0, 0.2))

    async def hangs_up(self, chance: random.Random) -> None:
        """Close the connection in the middle of a body."""
        await self._delivery.hang_up(await self._world.change(chance, self._person(chance)))

    async def stalls(self, chance: random.Random) -> None:
        """Stop in the middle of a body, and wait."""
        await self._delivery.stall(await self._world.change(chance, self._person(chance)))

    async def asks_the_gate(self, chance: random.Random) -> None:
        """Ask the gate about one user, or about some."""
        people = self._world.people[-50:]
        if people:
            await self._api.gate(chance.choice(people).wa_id)
            await self._api.lookup(person.wa_id for person in people)

    async def refreshes(self, chance: random.Random) -> None:
        """Have the client asked about a user."""
        person = self._world.anyone(chance)
        if person is not None:
            await self._api.refresh(person.wa_id)
