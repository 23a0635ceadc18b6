"""The users as the client has them: whose identity changes, and the callbacks that report it."""

import base64
import itertools
import random
import time
from asyncio import Lock
from dataclasses import dataclass, field

from tools import bodies
from tools.soak.delivery import Callback
from tools.soak.record import MAX_CHANGES, PREFIXES, Change, Handling, NumberChange, Record
from tools.soak.service import Client

EVERYDAY_USERS = 2_000
NEW_NUMBERS, INVALID_NUMBERS = "1635", "1634"
KNOWN_AGAIN = 0.5
"""How often a known user is taken, while there are changes left for one."""
RECENT_USERS = 200
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
        self.people: list[Person] = []
        self._client = client
        self._record = record
        self._numbers = itertools.count(1)

    def anyone(self, chance: random.Random) -> Person | None:
        """Return a user who has an identity; None while there is none."""
        return chance.choice(self.people) if self.people else None

    def someone(self, chance: random.Random, handling: Handling) -> Person:
        """Return a user to whom the guard has no objection yet, known or new."""
        known = [
            person
            for person in self.people[-RECENT_USERS:]
            if person.handling is handling and 0 < len(person.changes) < MAX_CHANGES
        ]
        if known and chance.random() < KNOWN_AGAIN:
            return chance.choice(known)
        return self.newcomer(handling)

    def newcomer(self, handling: Handling) -> Person:
        """Return a new user."""
        wa_id = f"{PREFIXES[handling]}{next(self._numbers):07}"
        self.people.append(Person(wa_id, handling))
        return self.people[-1]

    async def change(self, chance: random.Random, person: Person, ago_ms: int = 0) -> Callback:
        """Change an identity, later than the change before, and return the notification."""
        earliest = person.changes[-1].at_ms + 1 if person.changes else 0
        at_ms = max(earliest, _now_ms() - ago_ms)
        hash_ = base64.b64encode(chance.randbytes(HASH_BYTES)).decode()
        change = Change(person.wa_id, hash_, at_ms)
        person.changes.append(change)
        await self._client.do(
            "change_identity", wa_id=person.wa_id, hash=hash_, at_ms=at_ms, notify=False
        )
        return Callback(bodies.identity_change(*change), change)

    async def message(self, person: Person) -> Callback | None:
        """Return what a user wrote, with the identity as the client has it by now."""
        found = await self._client.do("user", wa_id=person.wa_id)
        if found is None:
            return None
        change = Change(found["wa_id"], found["hash"], found["created_timestamp"])
        return self._message(change, acknowledged=found["acknowledged"])

    def claim(self, person: Person) -> Callback:
        """Return a message that claims, rightly or not, that the latest change is acknowledged."""
        return self._message(person.changes[-1], acknowledged=True)

    def _message(self, change: Change, *, acknowledged: bool) -> Callback:
        number = next(self._numbers)
        body = bodies.message(*change, acknowledged=acknowledged, number=number, at_ms=_now_ms())
        return Callback(body, change)

    def blocked(self, person: Person) -> Callback:
        """Return that a message to a user failed with 480."""
        return Callback(bodies.blocked(person.wa_id, next(self._numbers), _now_ms()))

    def number_change(self, person: Person) -> Callback:
        """Let a user take another number."""
        change = NumberChange(f"{NEW_NUMBERS}{next(self._numbers):07}", _now_ms())
        body = bodies.number_change(person.wa_id, change.wa_id, change.at_ms)
        note = {person.wa_id: change}
        return Callback(body, note=lambda: self._record.number_changes.update(note))

    def status(self, chance: random.Random) -> Callback:
        """Return the status of a message."""
        name = bodies.wa_id(chance.randrange(EVERYDAY_USERS))
        return Callback(bodies.status(name, next(self._numbers)))

    def contact_check(self, chance: random.Random) -> Callback:
        """Return the result of a contact check; some are of the same number again."""
        user = chance.randrange(EVERYDAY_USERS)
        is_valid = chance.random() < 0.5  # noqa: PLR2004  half of them each
        name = bodies.wa_id(user) if is_valid else None
        number = f"+{name or f'{INVALID_NUMBERS}{user:07}'}"
        note = {number: "valid" if is_valid else "invalid"}
        body = bodies.contact_check(number, name)
        return Callback(body, note=lambda: self._record.checks.update(note))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
