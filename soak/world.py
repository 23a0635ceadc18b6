"""The users as the client has them: whose identity changes, and the callbacks that tell of it."""

import base64
import itertools
import json
import random
import time
from asyncio import Lock
from dataclasses import dataclass, field
from typing import Any

from benchmarks import bodies
from service.simulator.onprem import bodies as callback_bodies
from service.simulator.users import User
from soak.client import Client
from soak.door import Callback
from soak.record import MAX_CHANGES, PREFIXES, Change, Handling, Move, Record

EVERYDAY_USERS = 2_000
NEW_NUMBERS, INVALID_NUMBERS = "1635", "1634"
KNOWN_AGAIN = 0.5
"""How often a user is taken who is known already, while there are changes left for one."""
HASH_BYTES = 8


@dataclass(slots=True, eq=False)
class Person:
    """A user with an identity. `deciding` is held by whoever decides about it."""

    wa_id: str
    handling: Handling
    changes: list[Change] = field(default_factory=list)
    deciding: Lock = field(default_factory=Lock)


class World:
    """All users, and the numbers that make every body distinct."""

    def __init__(self, client: Client, record: Record) -> None:
        self.client = client
        self.people: list[Person] = []
        self._record = record
        self._numbers = itertools.count(1)

    def anyone(self, chance: random.Random) -> Person | None:
        """Give a user who has an identity; None while there is none."""
        return chance.choice(self.people) if self.people else None

    def someone(self, chance: random.Random, handling: Handling) -> Person:
        """Give a user to whom the guard has no objection yet, known or new."""
        known = [p for p in self.people[-200:] if self._has_changes_left(p, handling)]
        if known and chance.random() < KNOWN_AGAIN:
            return chance.choice(known)
        return self.newcomer(handling)

    def _has_changes_left(self, person: Person, handling: Handling) -> bool:
        return person.handling is handling and 0 < len(person.changes) < MAX_CHANGES

    def newcomer(self, handling: Handling) -> Person:
        """Give a new user."""
        wa_id = f"{PREFIXES[handling]}{next(self._numbers):07}"
        self.people.append(Person(wa_id, handling))
        return self.people[-1]

    async def change(self, chance: random.Random, person: Person, ago_ms: int = 0) -> Callback:
        """Let an identity change, and give the notification; each is later than the one before."""
        earliest = person.changes[-1].at_ms + 1 if person.changes else 0
        at_ms = max(earliest, time.time_ns() // 1_000_000 - ago_ms)
        hash_ = base64.b64encode(chance.randbytes(HASH_BYTES)).decode()
        change = Change(person.wa_id, hash_, at_ms)
        person.changes.append(change)
        await self.client.do(
            "change_identity", wa_id=person.wa_id, hash=hash_, at_ms=at_ms, notify=False
        )
        user = User(person.wa_id, hash_, at_ms, acknowledged=False)
        return Callback(_json(callback_bodies.identity_changed(user)), change)

    async def message(self, person: Person) -> Callback | None:
        """Let a user write; the message bears what the client knows of the identity by now."""
        found = await self.client.do("user", wa_id=person.wa_id)
        return None if found is None else self._stamped(User(**found))

    def claim(self, person: Person) -> Callback:
        """Write a message that claims the latest change to be acknowledged, be it so or not."""
        change = person.changes[-1]
        return self._stamped(User(change.wa_id, change.hash, change.at_ms, acknowledged=True))

    def _stamped(self, user: User) -> Callback:
        change = Change(user.wa_id, user.hash, user.created_timestamp)
        now_ms = time.time_ns() // 1_000_000
        body = callback_bodies.text_message(user, "Hello", "A user", now_ms, with_identity=True)
        return Callback(_json(body), change)

    def failed(self, person: Person) -> Callback:
        """Write that a message to a user failed with 480."""
        message_id = callback_bodies.outbound_id(person.wa_id)
        now_ms = time.time_ns() // 1_000_000
        return Callback(_json(callback_bodies.blocked(message_id, person.wa_id, now_ms)))

    def moved(self, person: Person) -> Callback:
        """Let a user take another number."""
        new = f"{NEW_NUMBERS}{next(self._numbers):07}"
        at_ms = time.time_ns() // 1_000_000
        body = callback_bodies.number_changed(person.wa_id, new, at_ms)
        note = {person.wa_id: Move(new, at_ms)}
        return Callback(_json(body), note=lambda: self._record.moves.update(note))

    def status(self, chance: random.Random) -> Callback:
        """Write what became of a message."""
        user, number = chance.randrange(EVERYDAY_USERS), next(self._numbers)
        return Callback(bodies.status(user, number))

    def checked(self, chance: random.Random) -> Callback:
        """Write the result of a contact check; some are of the same number again."""
        user = chance.randrange(EVERYDAY_USERS)
        if chance.random() < 0.5:  # noqa: PLR2004  half of them each
            return self._checked(bodies.contact_check(user), f"+{bodies.wa_id(user)}", "valid")
        name = f"+{INVALID_NUMBERS}{user:07}"
        body = _json({"contacts": [{"input": name, "status": "invalid"}]})
        return self._checked(body, name, "invalid")

    def _checked(self, body: bytes, name: str, status: str) -> Callback:
        return Callback(body, note=lambda: self._record.checks.update({name: status}))


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
