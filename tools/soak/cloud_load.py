"""The load of the Cloud API: users, and the webhooks about them, one step after another.

Each step waits until it is accepted, so that the order is known; what is delivered once more comes
at any time.
"""

import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tools import webhooks
from tools.soak.api import Api
from tools.soak.cloud_model import ACCOUNTS, Kind, Life, Step
from tools.soak.delivery import Callback
from tools.soak.record import Record
from tools.soak.service import CLOUD, CLOUD_AUTOMATIC
from tools.webhooks import CloudUser, Number, Style, Update

AGO_SECONDS = 3000
"""How long ago lives begin: their times must grow, and are whole seconds."""
STEP_SECONDS = 2
LINES = {
    account.name: Number(
        phone_number_id=account.phone_number_id, display_phone_number=f"1555078388{n}"
    )
    for n, account in enumerate(CLOUD, start=1)
}
MANUAL = "1641"
"""How wa_ids begin whose other hashes wait for a person."""
CROWD, LARGE_CROWD = 40, 400
MOST_STEPS = 8

Deliver = Callable[[Callback], Awaitable[None]]
"""Delivers a callback, and waits until it is accepted."""


@dataclass(slots=True)
class Person:
    """A user whom things happen to, and when the last thing happened.

    Who was refused a message `keeps_number`: delivered once more within the same second, the
    refusal would rightly be about whoever has the number by then.
    """

    user: CloudUser
    life: Life
    line: Number
    at: int
    begun: int
    changes: int = 0
    late_hashes: int = 0
    keeps_number: bool = False

    @property
    def name(self) -> str:
        """A name by which the user is found."""
        return self.user.shown or self.user.user_id

    def next_at(self) -> int:
        """Return the time of the next step."""
        self.at += STEP_SECONDS
        return self.at

    def add(self, kind: Kind, hash_: str | None, style: Style = webhooks.BOTH) -> None:
        """Note a step that was accepted, by the names that were in it."""
        user_id = self.user.user_id if style.user_ids else None
        self.life.steps.append(Step(kind, self.user.shown, user_id, hash_))


class CloudLoad:
    """Makes users, and lets things happen to them."""

    def __init__(self, record: Record, api: Api, deliver: Deliver) -> None:
        self._record = record
        self._api = api
        self._deliver = deliver
        self._numbers = itertools.count(1)

    def _person(self, account: str, prefix: str = MANUAL) -> Person:
        number = next(self._numbers)
        user = CloudUser(wa_id=f"{prefix}{number:07}", user_id=f"US.{number:016}")
        begun = int(time.time()) - AGO_SECONDS
        life = Life(account, automatic=prefix == CLOUD_AUTOMATIC)
        self._record.lives.append(life)
        return Person(user, life, LINES[account], begun, begun)

    async def lives(self, chance: random.Random) -> None:
        """Let a user be seen for the first time, and then whatever may happen."""
        person = self._person(chance.choice(ACCOUNTS))
        await self._is_seen(person)
        steps = (
            self._writes, self._reinstalls, self._comes_late, self._is_refused, self._is_decided,
            self._is_decided, self._reinstalls, self._gives_number_away, self._is_forged,
        )  # fmt: skip
        for _ in range(chance.randint(1, MOST_STEPS)):
            await chance.choice(steps)(person, chance)

    async def lives_by_policy(self, chance: random.Random) -> None:
        """Let things happen to a user whose other hashes are trusted after a delay."""
        person = self._person("shop", CLOUD_AUTOMATIC)
        await self._is_seen(person)
        for step in chance.sample((self._writes, self._reinstalls, self._comes_late), 2):
            await step(person, chance)

    async def turns_out_to_be_one(self, chance: random.Random) -> None:
        """Name one user by number and by user id, and then by both."""
        person = self._person(chance.choice(ACCOUNTS))
        ways = [(webhooks.BY_NUMBER, False), (webhooks.BOTH, True)]
        chance.shuffle(ways)
        for style, hidden in ways:
            person.user.hidden = hidden
            await self._is_seen(person, style)
            if chance.random() < 0.5:  # noqa: PLR2004  half of them
                self._renew_hash(person)
        person.user.hidden = False
        await self._is_seen(person)
        await self._is_decided(person, chance)

    async def crowds(self, chance: random.Random) -> None:
        """Deliver one webhook about many users of both accounts."""
        count = LARGE_CROWD if chance.random() < 0.1 else CROWD  # noqa: PLR2004  one in ten
        people = [self._person(account) for _ in range(count) for account in ACCOUNTS]
        await self._send(*(webhooks.wrote(one.line, one.user, one.next_at()) for one in people))
        for one in people:
            one.add(Kind.SEEN, one.user.hash)

    async def _send(self, *updates: Update) -> None:
        await self._deliver(Callback(webhooks.webhook(*updates), cloud=True))

    async def _is_seen(self, person: Person, style: Style = webhooks.BOTH) -> None:
        """Deliver a message with the hash."""
        await self._send(webhooks.wrote(person.line, person.user, person.next_at(), style))
        person.add(Kind.SEEN, person.user.hash, style)

    async def _writes(self, person: Person, _: random.Random) -> None:
        await self._is_seen(person)

    def _renew_hash(self, person: Person) -> None:
        person.changes += 1
        person.user.hash = f"{person.user.user_id[3:]}/{person.changes}="

    async def _reinstalls(self, person: Person, chance: random.Random) -> None:
        """Let a user have another hash, which a message or a status reports."""
        self._renew_hash(person)
        if chance.random() < 0.5:  # noqa: PLR2004  half of them
            await self._is_seen(person)
            return
        await self._send(webhooks.delivered(person.line, person.user, person.next_at()))
        person.add(Kind.SEEN, person.user.hash)

    async def _comes_late(self, person: Person, _: random.Random) -> None:
        """Deliver a hash that the user had before all others."""
        person.late_hashes += 1
        hash_ = f"{person.user.user_id[3:]}/late{person.late_hashes}="
        before = replace(person.user, hash=hash_)
        at = person.begun - STEP_SECONDS * person.late_hashes
        await self._send(webhooks.delivered(person.line, before, at))
        person.add(Kind.LATE, hash_)

    async def _is_refused(self, person: Person, _: random.Random) -> None:
        """Let a message to a trusted user be refused with 137000, newer than any trust.

        For other users it means nothing; delivered once more, it would within a second of new
        trust.
        """
        found = await self._api.identity(person.life.account, person.name)
        if found is None or found[1] != "acknowledged":
            return
        person.at, person.keeps_number = max(person.next_at(), int(time.time())), True
        await self._send(webhooks.refused(person.line, person.name, person.at))
        person.add(Kind.REFUSED, None)

    async def _is_decided(self, person: Person, chance: random.Random) -> None:
        """Let a person decide about the hash that the API shows, or about an unknown one."""
        account = person.life.account
        found = await self._api.identity(account, person.name)
        if found is None or found[1] not in {"pending", "held"}:
            return
        verb = chance.choice((Kind.ACKNOWLEDGE, Kind.ACKNOWLEDGE, Kind.HOLD))
        if await self._api.decide_locally(account, person.name, found[0], verb):
            person.add(verb, found[0])

    async def _gives_number_away(self, person: Person, _: random.Random) -> None:
        """Let another user write from the number; the former owner has a user id alone from now on.

        Nothing else happens to the new owner, who is the second user of this life.
        """
        user = person.user
        if user.hidden or person.keeps_number:
            return
        owner = CloudUser(wa_id=user.wa_id, user_id=f"US.{next(self._numbers):016}")
        await self._send(webhooks.wrote(person.line, owner, person.next_at()))
        person.life.steps.append(Step(Kind.SEEN, owner.wa_id, owner.user_id, owner.hash))
        user.hidden = True

    async def _is_forged(self, person: Person, _: random.Random) -> None:
        """Deliver another hash with the signature of another app."""
        forged = replace(person.user, hash="forged=")
        update = webhooks.wrote(person.line, forged, person.next_at())
        await self._api.forge(webhooks.webhook(update))
