"""The gate behind its routes: what is asked, what is known, and the wait until it opens."""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from aiohttp import web

from service.api import verdicts
from service.api.access import admit
from service.api.problems import ProblemError, problem_of
from service.api.services import Services
from service.ingress.written import Written
from service.model.gate import (
    Findings,
    LastWord,
    Recipient,
    Rules,
    Situation,
    Verdict,
    judge,
    judge_usual,
    unite,
)
from service.model.names import is_user_id, usable_alias
from service.model.numbers import canonical
from service.store.database import Known, Question

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 0.5
"""How often to look while it is not a change of the user alone that would open the gate."""
UNCUT = 200
"""Recipients up to which a lookup is one question to the database."""
SMALLER_PART = 0.36
HEARD = ("identity_", "send_blocked", "number_changed", "blocked")
"""How the codes begin that only a change of the user takes away: a commit tells of it."""

_PLAIN = re.compile(r"/api/v1/accounts/([a-z0-9_]+)/recipients/([A-Za-z0-9][A-Za-z0-9._-]{0,139})")
ROUTE = "GET /api/v1/accounts/{account}/recipients/{user}"


class Judged(NamedTuple):
    """An answer, the users whose change may make it another, and when it was so (Unix ms)."""

    verdict: Verdict
    users: frozenset[int]
    at: int


class Gate:
    """Answers about recipients; `judge` and `look_up` on the reader's thread."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._rules: Mapping[str, Rules] = {
            name: account.gate.rules for name, account in parts.settings.accounts.items()
        }
        self._cloud = frozenset(parts.settings.cloud_accounts)
        self._answered = parts.metrics.requests.labels(ROUTE, "200")

    def plainly_asked(self, request: web.BaseRequest) -> tuple[str, str] | None:
        """Read account and user off a plain question's path; None for what needs the router."""
        if request.method != "GET" or "Expect" in request.headers:
            return None
        plain = _PLAIN.fullmatch(request.raw_path)
        return None if plain is None else (plain[1], plain[2])

    async def take(
        self, request: web.BaseRequest, account: str, user: str
    ) -> web.Response | Written:
        """Answer a plain question, without the router: it costs a quarter of the whole way."""
        try:
            admit(self._parts.settings, request.headers, "gate")
            answer = await self.one(account, user)
        except Exception as error:  # noqa: BLE001  whatever it is, it is answered as elsewhere
            problem = problem_of(error)
            self._parts.metrics.requests.labels(ROUTE, str(problem.status)).inc()
            return problem
        self._answered.inc()
        return Written(answer)

    async def one(self, account: str, asked: str) -> bytes:
        """Answer about one user."""
        return await self._ask(
            account,
            [asked],
            partial(_one, account, asked, account in self._cloud),
            self._situation(account),
        )

    async def many(self, account: str, asked: Sequence[str]) -> bytes:
        """Answer about many, in their order."""
        cloud = account in self._cloud
        situation = self._situation(account)
        asking = [
            self._ask(account, part, partial(_many, account, part, cloud), situation)
            for part in _parts(asked)
        ]
        return verdicts.together(await _all_of(asking)).encode()

    async def wait(self, account: str, asked: str, seconds: float) -> bytes:
        """Answer about one user as soon as it is sendable, or when the time is up."""
        ends_at = time.monotonic() + seconds
        judge_it = partial(_judge_closely, asked)
        found = await self._ask(account, [asked], judge_it, self._situation(account))
        changes = self._parts.changes
        while not found.verdict.sendable and not changes.closing:
            with changes.watching(found.users) as changed:
                # What came between the first look and the watch is not missed.
                users = found.users
                found = await self._ask(account, [asked], judge_it, self._situation(account))
                left = ends_at - time.monotonic()
                if found.verdict.sendable or left <= 0:
                    break
                if found.users == users:
                    await _pause(changed, min(left, _look_again(found)))
        cloud = account in self._cloud
        return verdicts.one(account, found.verdict, found.at, cloud=cloud).encode()

    def _situation(self, account: str) -> Situation:
        parts = self._parts
        if account not in parts.settings.accounts:
            raise ProblemError(404, "there is no such account")
        verifier = parts.verifiers.get(account)
        side = parts.clients.get(account) or parts.graphs.get(account)
        return Situation(
            parts.ledger.clock(),
            None if side is None else side.reachability.unreachable_since,
            None if verifier is None else verifier.since,
            parts.catching_up,
            self._rules[account],
        )

    async def _ask(
        self,
        account: str,
        asked: Sequence[str],
        then: "Then[T]",
        situation: Situation,
    ) -> T:
        parts = self._parts
        country_of = parts.settings.accounts[account].phone_number
        cloud = account in self._cloud
        fresh_since = None if cloud else situation.fresh_since
        question = Question(account, country_of, asked, cloud, fresh_since)
        answer, unverified = await parts.database.look_up(
            question, partial(_answer, then, question, situation)
        )
        verifier = parts.verifiers.get(account)
        if verifier is not None:
            verifier.want(unverified)
        return answer


def _parts(asked: Sequence[str]) -> list[Sequence[str]]:
    """Cut a large lookup in two for two readers; unequal, so that one writes while one reads."""
    cut = round(SMALLER_PART * len(asked)) if len(asked) > UNCUT else 0
    return [asked[:cut], asked[cut:]] if cut else [asked]


async def _all_of(works: Sequence[Awaitable[T]]) -> list[T]:
    """Wait for each of them, also where one fails: none goes on behind the answer."""
    found = await asyncio.gather(*works, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if not isinstance(one, BaseException)]


class View(NamedTuple):
    """What is known of the recipients of a question, and how things stand at the account.

    `usual` is what is found of those who are as usual.
    """

    question: Question
    known: Known
    situation: Situation
    usual: Findings

    def judge(self, asked: str) -> Verdict | None:
        """Judge a recipient by every name that leads to a user, else by the first.

        None for what can be neither an alias nor a phone number. A number that is a user's alias
        and was also checked is judged as both: what a check of it said can add a reason, never
        take one away.
        """
        known = self.known
        wa_id = known.usual.get(asked)
        if wa_id is not None:
            return Verdict(wa_id, *self.usual)
        own = known.checked.get(asked)
        if own is None and (user := known.users.get(asked)) is not None:
            return self._judge(user.wa_id or None, user, None)
        names = _names(asked, own)
        if not names and own is None:
            dialable = canonical(asked, self.question.country_of) is not None
            return judge(None, None, (), self.situation) if dialable else None
        users = [known.users[name] for name in names if name in known.users]
        if not users:
            return self._judge_stranger(names[0] if names else None, own)
        return unite([self._judge(user.wa_id or None, user, own) for user in users])

    def _judge_stranger(self, alias: str | None, own: LastWord | None) -> Verdict:
        if alias is not None and is_user_id(alias):
            return self._judge(None, None, own)._replace(user_id=alias)
        return self._judge(alias, None, own)

    def _judge(self, wa_id: str | None, user: Recipient | None, own: LastWord | None) -> Verdict:
        newest = None if wa_id is None else self.known.newest.get(wa_id)
        return judge(wa_id, user, (own, newest), self.situation)

    def users_of(self, asked: str) -> list[Recipient]:
        """Give the users whom the recipient's names lead to."""
        names = _names(asked, self.known.checked.get(asked))
        return [self.known.users[name] for name in names if name in self.known.users]


Then = Callable[[View], T]
"""Makes an answer of what is known."""


def _names(asked: str, own: LastWord | None) -> list[str]:
    """Give what the recipient may be called: as the client told of the number, and as asked."""
    told = None if own is None else own.wa_id
    if told is None:
        return [asked] if usable_alias(asked) else []
    return [told, asked] if told != asked and usable_alias(asked) else [told]


def _answer(
    then: "Then[T]", question: Question, situation: Situation, known: Known
) -> tuple[T, list[int]]:
    """Make the answer, and tell whom of those asked about the client is still to be asked about."""
    view = View(question, known, situation, judge_usual(situation))
    unverified: list[int] = []
    if situation.restored_at is not None:
        users = [user for asked in question.asked for user in view.users_of(asked)]
        unverified = [user.id for user in users if user.unverified]
    return then(view), unverified


def _one(account: str, asked: str, cloud: bool, view: View) -> bytes:
    return verdicts.one(account, _judged(asked, view), view.situation.now, cloud=cloud).encode()


def _many(account: str, asked: Sequence[str], cloud: bool, view: View) -> str:
    given = [(one, view.judge(one)) for one in asked]
    return verdicts.many(account, given, view.situation.now, cloud=cloud)


def _judge_closely(asked: str, view: View) -> Judged:
    return Judged(
        _judged(asked, view),
        frozenset(user.id for user in view.users_of(asked)),
        view.situation.now,
    )


def _judged(asked: str, view: View) -> Verdict:
    verdict = view.judge(asked)
    if verdict is None:  # unreachable: whoever asks about one has an alias
        raise ProblemError(422, "no recipient")
    return verdict


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
