"""Users on the Cloud API, and the webhooks that tell of them: whole lives, one step after another.

Each step waits until it is accepted, so that the order is known; what is delivered once more comes
at any time.
"""

import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from service.simulator.cloud.bodies import Style, Update
from service.simulator.options import Number
from service.simulator.users import CloudUser
from soak import webhooks
from soak.api import Api
from soak.command import LATER
from soak.customers import ACCOUNTS, Kind, Life, Step
from soak.door import Callback
from soak.record import Record

AGO_SECONDS = 3000
"""So long ago lives begin; times must grow, and only seconds are told."""
STEP_SECONDS = 2
LINES = {
    "shop": Number(),
    "outlet": Number(phone_number_id="106540352242923", display_phone_number="15550783882"),
}
MANUAL = "1641"
"""How wa_ids begin whose other hashes wait for a person."""
CROWD, LARGE_CROWD = 40, 400
MOST_STEPS = 8

Deliver = Callable[[Callback], Awaitable[None]]
"""Delivers a callback, and waits until it is accepted."""


@dataclass(slots=True)
class Someone:
    """A user who lives: who it is, when the last step was, and what was told of it.

    Who was refused a message `keeps` the number: delivered once more within the same second, the
    refusal would rightly be taken to be that of who has the number by then.
    """

    user: CloudUser
    life: Life
    at: int
    begun: int
    changes: int = 0
    late: int = 0
    keeps: bool = False
    line: Number = field(default_factory=Number)

    def next(self) -> int:
        """Give the time of the next step."""
        self.at += STEP_SECONDS
        return self.at


class Customers:
    """Makes users, and lets them live."""

    def __init__(self, record: Record, api: Api, deliver: Deliver) -> None:
        self._record = record
        self._api = api
        self._deliver = deliver
        self._numbers = itertools.count(1)

    def _someone(self, account: str, prefix: str = MANUAL) -> Someone:
        number = next(self._numbers)
        user = CloudUser(wa_id=f"{prefix}{number:07}", user_id=f"US.{number:016}")
        begun = int(time.time()) - AGO_SECONDS
        life = Life(account, automatic=prefix == LATER)
        self._record.lives.append(life)
        return Someone(user, life, begun, begun, line=LINES[account])

    async def lives(self, chance: random.Random) -> None:
        """Let one user live: seen at first, then whatever may come."""
        someone = self._someone(chance.choice(ACCOUNTS))
        await self._sees(someone)
        steps = (
            self._writes, self._reinstalls, self._comes_late, self._is_refused, self._is_decided,
            self._is_decided, self._reinstalls, self._gives_number_away, self._is_forged,
        )  # fmt: skip
        for _ in range(chance.randint(1, MOST_STEPS)):
            await chance.choice(steps)(someone, chance)

    async def lives_by_policy(self, chance: random.Random) -> None:
        """Let one user live whose other hashes are trusted after a moment, but for the guard."""
        someone = self._someone("shop", LATER)
        await self._sees(someone)
        for step in chance.sample((self._writes, self._reinstalls, self._comes_late), 2):
            await step(someone, chance)

    async def turns_out_to_be_one(self, chance: random.Random) -> None:
        """Tell of one user by number and by user id, and then by both."""
        someone = self._someone(chance.choice(ACCOUNTS))
        ways = [(webhooks.BY_NUMBER, False), (webhooks.BOTH, True)]
        chance.shuffle(ways)
        for style, hidden in ways:
            someone.user.hidden = hidden
            await self._sees(someone, style)
            if chance.random() < 0.5:  # noqa: PLR2004  half of them
                self._renew(someone)
        someone.user.hidden = False
        await self._sees(someone)
        await self._is_decided(someone, chance)

    async def crowds(self, chance: random.Random) -> None:
        """Tell of many users of both accounts in one webhook."""
        count = LARGE_CROWD if chance.random() < 0.1 else CROWD  # noqa: PLR2004  one in ten
        many = [self._someone(account) for _ in range(count) for account in ACCOUNTS]
        updates = [webhooks.wrote(one.line, one.user, one.next()) for one in many]
        await self._deliver(_callback(updates))
        for one in many:
            one.life.steps.append(_seen(one, webhooks.BOTH))

    async def _sees(self, someone: Someone, style: Style = webhooks.BOTH) -> None:
        """Tell the hash in a message."""
        update = webhooks.wrote(someone.line, someone.user, someone.next(), style)
        await self._deliver(_callback([update]))
        someone.life.steps.append(_seen(someone, style))

    async def _writes(self, someone: Someone, _: random.Random) -> None:
        await self._sees(someone)

    def _renew(self, someone: Someone) -> None:
        someone.changes += 1
        someone.user.hash = f"{someone.user.user_id[3:]}/{someone.changes}="

    async def _reinstalls(self, someone: Someone, chance: random.Random) -> None:
        """Let a user have another hash, told by a message or by a status."""
        self._renew(someone)
        if chance.random() < 0.5:  # noqa: PLR2004  half of them
            await self._sees(someone)
            return
        update = webhooks.delivered(someone.line, someone.user, someone.next())
        await self._deliver(_callback([update]))
        someone.life.steps.append(_seen(someone, webhooks.BOTH))

    async def _comes_late(self, someone: Someone, _: random.Random) -> None:
        """Tell of a hash that the user had before all others."""
        someone.late += 1
        before = replace(someone.user, hash=f"{someone.user.user_id[3:]}/late{someone.late}=")
        at = someone.begun - STEP_SECONDS * someone.late
        await self._deliver(_callback([webhooks.delivered(someone.line, before, at)]))
        someone.life.steps.append(_seen(someone, webhooks.BOTH, Kind.LATE, before.hash))

    async def _is_refused(self, someone: Someone, _: random.Random) -> None:
        """Let a message to who is trusted be refused with 137000, newer than any trust.

        To others it says nothing; delivered once more, it would do so within a second of new trust.
        """
        user = someone.user
        found = await self._api.identity(someone.life.account, user.shown or user.user_id)
        if found is None or found[1] != "acknowledged":
            return
        someone.at, someone.keeps = max(someone.next(), int(time.time())), True
        update = webhooks.refused(someone.line, user.shown or user.user_id, someone.at)
        await self._deliver(_callback([update]))
        someone.life.steps.append(_seen(someone, webhooks.BOTH, Kind.REFUSED, None))

    async def _is_decided(self, someone: Someone, chance: random.Random) -> None:
        """Let a person decide about the hash that is shown, or about one that nobody knows."""
        account, user = someone.life.account, someone.user
        found = await self._api.identity(account, user.shown or user.user_id)
        if found is None or found[1] not in {"pending", "held"}:
            return
        verb = chance.choice((Kind.ACKNOWLEDGE, Kind.ACKNOWLEDGE, Kind.HOLD))
        if await self._api.decide_locally(account, user.shown or user.user_id, found[0], verb):
            someone.life.steps.append(_seen(someone, webhooks.BOTH, verb, found[0]))

    async def _gives_number_away(self, someone: Someone, _: random.Random) -> None:
        """Let somebody else write from the number; who had it is told by the user id from now on.

        For `someone` that is all there is to know: the life has a second user, whom nothing
        happens to any more.
        """
        user = someone.user
        if user.hidden or someone.keeps:
            return
        number = next(self._numbers)
        heir = CloudUser(wa_id=user.wa_id, user_id=f"US.{number:016}")
        update = webhooks.wrote(someone.line, heir, someone.next())
        await self._deliver(_callback([update]))
        someone.life.steps.append(Step(Kind.SEEN, heir.wa_id, heir.user_id, heir.hash))
        user.hidden = True

    async def _is_forged(self, someone: Someone, _: random.Random) -> None:
        """Let a stranger tell of another hash, with a signature of another app."""
        forged = replace(someone.user, hash="forged=")
        update = webhooks.wrote(someone.line, forged, someone.next())
        await self._api.forge(webhooks.webhook(update))


def _callback(updates: Sequence[Update]) -> Callback:
    return Callback(webhooks.webhook(*updates), cloud=True)


def _seen(someone: Someone, style: Style, kind: Kind = Kind.SEEN, hash_: str | None = "") -> Step:
    """Write down what was told, by the names that were told."""
    user = someone.user
    user_id = user.user_id if style.user_ids else None
    return Step(kind, user.shown, user_id, user.hash if hash_ == "" else hash_)
