"""The gate behind its routes: what is asked, what is known, and the wait until it opens."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from aiohttp import web

from service.api import verdicts
from service.api.context import AppContext
from service.api.problems import ProblemError, field_problem
from service.model.gate import AccountStatus, Rules, Verdict, judge
from service.model.recipients import Meaning, RecipientData, meaning_of
from service.store.database import RecipientQuery

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 0.5
"""How often to look while it is not a change of the user alone that would open the gate."""
HEARD = ("identity_", "send_blocked", "number_changed", "blocked")
"""How the codes begin that only a change of the user takes away: a commit tells of it."""


class Judged(NamedTuple):
    """An answer, the users whose change may make it another, and when it was so (Unix ms)."""

    verdict: Verdict
    users: frozenset[int]
    at: int


class Gate:
    """Answers about recipients."""

    def __init__(self, parts: AppContext) -> None:
        self._parts = parts
        self._rules: Mapping[str, Rules] = {
            name: account.gate.rules for name, account in parts.settings.accounts.items()
        }
        self._cloud = frozenset(parts.settings.cloud_accounts)

    async def one(self, account: str, asked: str) -> bytes:
        """Answer about one user; 422 where the text can be no recipient."""
        status = self._status(account)
        verdict = await self._ask(account, [asked], partial(_verdict, asked, status))
        return verdicts.one(account, verdict, status.now, cloud=status.cloud)

    async def many(self, account: str, asked: Sequence[str]) -> bytes:
        """Answer about many, in their order."""
        status = self._status(account)
        return await self._ask(account, asked, partial(_many, account, asked, status))

    async def wait(self, account: str, asked: str, seconds: float) -> bytes:
        """Answer about one user as soon as it is sendable, or when the time is up."""
        ends_at = time.monotonic() + seconds
        found = await self._look(account, asked)
        changes = self._parts.changes
        while not found.verdict.sendable and not changes.closing:
            with changes.watching(found.users) as changed:
                # What came between the first look and the watch is not missed.
                users = found.users
                found = await self._look(account, asked)
                left = ends_at - time.monotonic()
                if found.verdict.sendable or left <= 0:
                    break
                if found.users == users:
                    await _pause(changed, min(left, _look_again(found)))
        cloud = account in self._cloud
        return verdicts.one(account, found.verdict, found.at, cloud=cloud)

    async def _look(self, account: str, asked: str) -> Judged:
        return await self._ask(account, [asked], partial(_judged, asked, self._status(account)))

    async def meaning(self, account: str, text: str) -> Meaning:
        """Return whom a text may mean at an account."""
        now = self._parts.ledger.clock()
        return await self._ask(account, [text], lambda data: meaning_of(text, data, now))

    def _status(self, account: str) -> AccountStatus:
        parts = self._parts
        if account not in parts.settings.accounts:
            raise ProblemError(404, "there is no such account")
        verifier = parts.verifiers.get(account)
        side = parts.clients.get(account) or parts.graphs.get(account)
        return AccountStatus(
            parts.ledger.clock(),
            None if side is None else side.reachability.unreachable_since,
            None if verifier is None else verifier.since,
            parts.catching_up,
            self._rules[account],
            account in self._cloud,
        )

    async def _ask(
        self, account: str, asked: Sequence[str], then: Callable[[RecipientData], T]
    ) -> T:
        """Look recipients up, and have the client asked about those unverified since a restore."""
        parts = self._parts
        query = RecipientQuery(account, parts.settings.accounts[account].phone_number, asked)
        verifier = parts.verifiers.get(account)
        if verifier is None or verifier.since is None:
            return await parts.database.look_up(query, then)
        answer, unverified = await parts.database.look_up(
            query, lambda data: (then(data), _unverified(data))
        )
        verifier.want(unverified)
        return answer


def _unverified(data: RecipientData) -> list[int]:
    return [user.id for user in data.users.values() if user.unverified]


def _many(account: str, asked: Sequence[str], status: AccountStatus, data: RecipientData) -> bytes:
    given = [(text, judge(text, data, status)) for text in asked]
    return verdicts.many(account, given, status.now, cloud=status.cloud)


def _verdict(asked: str, status: AccountStatus, data: RecipientData) -> Verdict:
    verdict = judge(asked, data, status)
    if verdict is None:
        raise no_recipient()
    return verdict


def _judged(asked: str, status: AccountStatus, data: RecipientData) -> Judged:
    users = meaning_of(asked, data, status.now).users
    return Judged(_verdict(asked, status, data), frozenset(user.id for user in users), status.now)


def no_recipient() -> ProblemError:
    """Make the problem of a path whose user can be none."""
    return field_problem(("user", "a wa_id, another alias of a user, or a phone number"))


def _look_again(found: Judged) -> float:
    """Tell after how long (s) to look again, though no change is heard of."""
    reasons = found.verdict.reasons
    ends = [reason.until - found.at for reason in reasons if reason.until is not None]
    seconds = max(0, min(ends)) / 1000 if ends else math.inf
    heard = all(reason.code.startswith(HEARD) for reason in reasons)
    return seconds if heard else min(seconds, LOOK_AGAIN_SECONDS)


async def _pause(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass


GATE = web.AppKey("gate", Gate)
