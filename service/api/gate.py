"""The gate: may I write to this user now, and if not, why not? And blocks that a person puts.

A path names a user by an alias, or by a phone number in any spelling. What only reads finds a user
by every spelling. What changes something needs a name that is the user's own: an alias, the
number's own digits, or the result of a check of the number.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, NamedTuple

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from service.api import serializers
from service.api.auth import CALLER, CALLER_BY
from service.api.context import AppContext, app_context
from service.api.params import (
    BodyTime,
    FreeText,
    RecipientText,
    WaitQuery,
    need_account,
    query_of,
    read_body,
)
from service.api.problems import ProblemError, field_problem
from service.ledger.identities import BlockUser, UnblockUser
from service.model.gate import AccountStatus, Verdict, judge
from service.model.numbers import new_name, own_digits
from service.model.recipients import Meaning, RecipientData, meaning_of
from service.model.shapes import rfc3339
from service.model.timeline import LATEST_MS
from service.model.users import usable_alias
from service.store.database import RecipientQuery, UnavailableError
from service.webhooks.request_ids import REQUEST_ID

log = structlog.get_logger(__name__)

MAX_RECIPIENTS = 1000
JUDGED_ON_LOOP = 64
"""Recipients that are judged on the event loop; more take milliseconds, and go to a thread."""
LOOK_AGAIN_SECONDS = 0.5
"""How often to look again while more than a change of the user has to clear the reasons."""
CLEARED_BY_CHANGE = ("identity_", "send_blocked", "number_changed", "blocked", "erased")
"""Beginnings of the codes that only a change of the user clears: its commit wakes the request."""


ABOUT_ACCOUNTS = frozenset({"account_unreachable", "catching_up"})
"""Codes of what closes the gate of an account for everybody, and ends by itself."""

ANSWERS = SENDABLE, NOT_SENDABLE, NO_RECIPIENT, UNAVAILABLE = (
    "sendable", "not_sendable", "no_recipient", "unavailable",
)  # fmt: skip
"""What metrics call the gate's answer about one recipient."""


class Judged(NamedTuple):
    """A verdict, the users whose change may alter it, and when it was so (Unix ms)."""

    verdict: Verdict
    users: frozenset[int]
    at: int


class Gate:
    """Answers about the recipients of all accounts."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._metrics = context.metrics
        self._cloud = frozenset(context.settings.cloud_accounts)

    async def one(self, account: str, asked: str) -> bytes:
        """Return the answer about one user; raise a 422 where the text can be no recipient."""
        started = time.perf_counter()
        status = self._status(account)
        verdict = _verdict(asked, status, await self._find(account, [asked]))
        self._count(account, [verdict])
        self._metrics.gate_seconds.observe(time.perf_counter() - started)
        return serializers.gate_answer(account, verdict, status.now, cloud=status.cloud)

    async def shown(self, account: str, asked: str) -> bytes:
        """Return what `one` does, for a person who looks: no metric counts it as a question."""
        found = await self._look(account, asked)
        cloud = account in self._cloud
        return serializers.gate_answer(account, found.verdict, found.at, cloud=cloud)

    async def judge_send(self, account: str, asked: str) -> tuple[Verdict, tuple[str, ...]] | None:
        """Return the verdict about the recipient of a message, and the names of whom it may mean.

        The names are those by which a refusal of the message is recorded. Returns None where the
        text can be no recipient.
        """
        started = time.perf_counter()
        status = self._status(account)
        data = await self._find(account, [asked])
        verdict = judge(asked, data, status)
        self._count(account, [verdict])
        self._metrics.gate_seconds.observe(time.perf_counter() - started)
        if verdict is None:
            return None
        return verdict, _names_meant(asked, meaning_of(asked, data, status.now), data.country_of)

    async def many(self, account: str, asked: Sequence[str]) -> bytes:
        """Return the answers about many, in their order."""
        started = time.perf_counter()
        status = self._status(account)
        data = await self._find(account, asked)
        if len(asked) > JUDGED_ON_LOOP:
            verdicts, answer = await asyncio.to_thread(_many, account, asked, status, data)
        else:
            verdicts, answer = _many(account, asked, status, data)
        self._count(account, verdicts)
        self._metrics.gate_seconds.observe(time.perf_counter() - started)
        return answer

    async def wait(self, account: str, asked: str, seconds: float) -> bytes:
        """Return the answer about one user as soon as it is sendable, or when the time is up."""
        ends_at = time.monotonic() + seconds
        found = await self._look(account, asked)
        changes = self._context.changes
        while not found.verdict.sendable and not changes.closing:
            with changes.watching(found.users) as changed:
                # A change between the look before and the start of the watch must not be missed.
                users = found.users
                found = await self._look(account, asked)
                left = ends_at - time.monotonic()
                if found.verdict.sendable or left <= 0:
                    break
                if found.users == users:
                    await _pause(changed, min(left, _look_again(found)))
        self._count(account, [found.verdict])
        cloud = account in self._cloud
        return serializers.gate_answer(account, found.verdict, found.at, cloud=cloud)

    async def is_closed(self, account: str, alias: str) -> bool:
        """Return whether anything but a block by hand closes the gate, which outlasts the user."""
        status = self._status(account)
        verdict = judge(alias, await self._find(account, [alias]), status)
        codes = {reason.code for reason in (() if verdict is None else verdict.reasons)}
        return bool(codes - {"blocked", *ABOUT_ACCOUNTS})

    def _count(self, account: str, verdicts: Sequence[Verdict | None]) -> None:
        self._metrics.count_answers(account, Counter(map(_result, verdicts)))

    async def _look(self, account: str, asked: str) -> Judged:
        return _judged(asked, self._status(account), await self._find(account, [asked]))

    async def meanings(self, account: str, texts: Sequence[str]) -> list[Meaning]:
        """Return whom each text may mean at an account."""
        data = await self._find(account, texts)
        now = self._context.ledger.clock()
        if len(texts) > JUDGED_ON_LOOP:
            return await asyncio.to_thread(_meanings, texts, data, now)
        return _meanings(texts, data, now)

    async def meaning(self, account: str, text: str) -> Meaning:
        """Return whom a text may mean at an account."""
        return (await self.meanings(account, [text]))[0]

    def _status(self, account: str) -> AccountStatus:
        context = self._context
        if account not in context.settings.accounts:
            raise ProblemError(404, "there is no such account", kind="no_such_account")
        return AccountStatus(
            context.ledger.clock(),
            context.unreachable_since(account),
            context.unverified.get(account),
            context.catching_up,
            context.settings.accounts[account].gate.rules,
            account in self._cloud,
        )

    async def _find(self, account: str, asked: Sequence[str]) -> RecipientData:
        """Look up recipients, and have the client asked about those unverified since a restore."""
        context = self._context
        query = RecipientQuery(account, context.settings.accounts[account].phone_number, asked)
        try:
            data = await context.database.find_recipients(query)
        except UnavailableError:
            self._metrics.count_answers(account, {UNAVAILABLE: len(asked)})
            raise
        if account in context.unverified:
            context.want(account, [user.id for user in data.users.values() if user.unverified])
        return data


def _names_meant(text: str, meaning: Meaning, country_of: str | None) -> tuple[str, ...]:
    """Return a name of each user whom a text names; of an unknown one what it would be called."""
    known = [name.user.alias for name in meaning.named if name.user is not None]
    if not known and meaning.first.user is not None:
        known = [meaning.first.user.alias]
    if known:
        return tuple(dict.fromkeys(known))
    new = _as_checked(text, meaning, country_of) or own_digits(text)
    return () if new is None else (new,)


def _many(
    account: str, asked: Sequence[str], status: AccountStatus, data: RecipientData
) -> tuple[list[Verdict | None], bytes]:
    verdicts = [judge(text, data, status) for text in asked]
    given = zip(asked, verdicts, strict=True)
    return verdicts, serializers.gate_answers(account, given, status.now, cloud=status.cloud)


def _result(verdict: Verdict | None) -> str:
    if verdict is None:
        return NO_RECIPIENT
    return SENDABLE if verdict.sendable else NOT_SENDABLE


def _meanings(texts: Sequence[str], data: RecipientData, now: int) -> list[Meaning]:
    return [meaning_of(text, data, now) for text in texts]


def _verdict(asked: str, status: AccountStatus, data: RecipientData) -> Verdict:
    verdict = judge(asked, data, status)
    if verdict is None:
        raise _no_recipient()
    return verdict


def _judged(asked: str, status: AccountStatus, data: RecipientData) -> Judged:
    users = meaning_of(asked, data, status.now).users
    return Judged(_verdict(asked, status, data), frozenset(user.id for user in users), status.now)


def _look_again(found: Judged) -> float:
    """Return after how many seconds to look again, even if no commit changes the user."""
    reasons = found.verdict.reasons
    ends = [reason.until - found.at for reason in reasons if reason.until is not None]
    seconds = max(0, min(ends)) / 1000 if ends else math.inf
    if all(reason.code.startswith(CLEARED_BY_CHANGE) for reason in reasons):
        return seconds
    return min(seconds, LOOK_AGAIN_SECONDS)


async def _pause(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass


GATE = web.AppKey("gate", Gate)


# Which user a path names


async def alias_to_show(request: web.Request, account: str, text: str) -> str:
    """Return the alias of the user with an identity whom a text means, by any spelling.

    Returns the text itself where there is none.
    """
    meaning = await request.app[GATE].meaning(account, text)
    first = [] if meaning.first.user is None else [meaning.first.user]
    with_identity = (user for user in (*first, *meaning.users) if user.state is not None)
    return next((user.alias for user in with_identity), text)


async def alias_to_change(request: web.Request, account: str, text: str) -> str | None:
    """Return the alias of the one user whom a text names; None where nobody is known by it.

    Raises a 409 with the candidates where it names several, and a 404 where only another spelling
    of the number is known.
    """
    return alias_meant(text, await request.app[GATE].meaning(account, text))


def alias_meant(text: str, meaning: Meaning) -> str | None:
    """Return what `alias_to_change` does, where it is known already whom the text may mean."""
    named = _named(text, meaning)
    if named is None:
        _refuse_other_spelling(meaning)
    return named


async def alias_to_ask_about(request: web.Request, account: str, text: str) -> str | None:
    """Return the alias to ask the client by, which knows best whom a text names.

    Returns None for a number without a country code. Raises a 409 where it names several users.
    """
    meaning = await request.app[GATE].meaning(account, text)
    return _named(text, meaning) or _new_alias(request, account, text, meaning)


async def alias_to_erase(request: web.Request, account: str, text: str) -> str:
    """Return the alias of the one user whom a text names, known or not, as for a block."""
    if not usable_alias(text) and own_digits(text) is None:
        raise _no_recipient()
    return await _alias_to_block(request, account, text)


async def _alias_to_block(request: web.Request, account: str, text: str) -> str:
    """Return the alias of the one user whom a text names, a new one where nobody is known by it.

    Raises what `alias_to_change` raises, and a 422 for a number without a country code, which may
    be anybody's.
    """
    meaning = await request.app[GATE].meaning(account, text)
    named = _named(text, meaning)
    new = _new_alias(request, account, text, meaning)
    if named is None:
        _refuse_other_spelling(meaning)
        if new is None:
            raise _no_recipient()
        return new
    # A result that came without a check is no ground to block its user: the number itself is then.
    own = {text, own_digits(text)}
    by_own_name = (name.user for name in meaning.named if name.alias in own and name.user)
    is_sure = any(user.alias == named for user in by_own_name) or named in _checked(meaning)
    return named if new is None or is_sure else new


def _named(text: str, meaning: Meaning) -> str | None:
    """Return the alias of the one user whom a text names; an alias names its user exactly."""
    found = {name.user.id: name.user for name in meaning.named if name.user is not None}
    exact = next((n.user for n in meaning.named if n.alias == text and n.user is not None), None)
    users = list(found.values()) if exact is None else [exact]
    if len(users) > 1:
        candidates = [user.alias for user in users]
        detail = "the number may mean several users"
        raise ProblemError(409, detail, kind="several_users", candidates=candidates)
    return users[0].alias if users else None


def _refuse_other_spelling(meaning: Meaning) -> None:
    if meaning.others:
        candidates = [name.user.alias for name in meaning.others if name.user is not None]
        detail = "nobody is known by this spelling; another spelling of the number is known"
        raise ProblemError(
            404,
            detail,
            kind="other_spelling",
            other_spelling=candidates[0],
            candidates=candidates,
        )


def _new_alias(request: web.Request, account: str, text: str, meaning: Meaning) -> str | None:
    """Return the alias of an unknown user: as a check of the number says, else as written."""
    country_of = app_context(request).settings.accounts[account].phone_number
    return _as_checked(text, meaning, country_of)


def _as_checked(text: str, meaning: Meaning, country_of: str | None) -> str | None:
    return next(iter(_checked(meaning)), None) or new_name(text, country_of)


def _checked(meaning: Meaning) -> list[str]:
    """Return the wa_ids that the client gave in answer to checks, the latest answer first."""
    answered = [check for check in meaning.checks if check.answered_at is not None]
    answered.sort(key=lambda check: check.answered_at or 0, reverse=True)
    return [check.wa_id for check in answered if check.wa_id is not None]


# The routes


class LookupBody(BaseModel):
    """Users by their aliases, or phone numbers as the business holds them."""

    model_config = ConfigDict(extra="forbid")
    recipients: Annotated[list[RecipientText], Field(max_length=MAX_RECIPIENTS)]


class BlockBody(BaseModel):
    """Why nobody is to write to the user, and until when; without a time until it is ended."""

    model_config = ConfigDict(extra="forbid")
    reason: FreeText
    until: BodyTime | None = None


async def show(request: web.Request) -> web.Response:
    """Return the gate's answer about one user; with `wait`, as soon as it turns sendable."""
    asked = _recipient(request)
    wait = query_of(request, WaitQuery).wait
    account, gate = need_account(request), request.app[GATE]
    answer = await (gate.wait(account, asked, wait) if wait else gate.one(account, asked))
    return _json(answer)


async def lookup(request: web.Request) -> web.Response:
    """Return the gate's answers about up to 1,000 recipients, in the order of the request."""
    body = await read_body(request, LookupBody)
    account = need_account(request)
    return _json(await request.app[GATE].many(account, body.recipients))


async def block(request: web.Request) -> web.Response:
    """Block a user, who may be unknown so far."""
    body = await read_body(request, BlockBody)
    account, alias = await block_named(request, _recipient(request), body)
    return _json(await request.app[GATE].one(account, alias))


async def block_named(request: web.Request, text: str, body: BlockBody) -> tuple[str, str]:
    """Block the user whom a text names; return the account of the path and the user's alias."""
    until = _milliseconds(body.until)
    ledger = app_context(request).ledger
    if until is not None and not ledger.clock() < until <= LATEST_MS:
        raise field_problem(("until", "must be a time in the future"))
    account = need_account(request)
    alias = await _alias_to_block(request, account, text)
    note = None if until is None else f"until {rfc3339(until)}"
    by = request[CALLER_BY]
    command = BlockUser(account, alias, body.reason, by, until, note, request[REQUEST_ID])
    await ledger.submit(command)
    log.info("decision", account=account, decision="block", caller=request[CALLER])
    return account, alias


async def unblock(request: web.Request) -> web.Response:
    """End a person's block of a user."""
    account, alias = await unblock_named(request, _recipient(request))
    return _json(await request.app[GATE].one(account, alias))


async def unblock_named(request: web.Request, text: str) -> tuple[str, str]:
    """End the block of whom a text names; return the account of the path and the user's alias.

    Raises a 404 where there is none.
    """
    account = need_account(request)
    alias = await alias_to_change(request, account, text)
    command = None
    if alias is not None:
        command = UnblockUser(account, alias, request[CALLER_BY], request[REQUEST_ID])
    if command is None or not await app_context(request).ledger.submit(command):
        raise ProblemError(404, "the user is not blocked", kind="not_blocked")
    log.info("decision", account=account, decision="unblock", caller=request[CALLER])
    return account, command.alias


def _recipient(request: web.Request) -> str:
    """Return the text of the path that names a user; raise a 422 for one that can name nobody."""
    text = request.match_info["user"]
    if not usable_alias(text) and own_digits(text) is None:
        raise _no_recipient()
    return text


def _no_recipient() -> ProblemError:
    return field_problem(("user", "must be a wa_id, another alias of a user, or a phone number"))


_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
"""No cache may answer in the place of the gate."""


def _json(answer: bytes) -> web.Response:
    return web.Response(body=answer, headers=_HEADERS)


def _milliseconds(at: datetime | None) -> int | None:
    """Return Unix milliseconds; 0 for a time that UTC's calendar can't express, long ago."""
    try:
        return None if at is None else int(at.timestamp() * 1000)
    except (OverflowError, ValueError):
        return 0
