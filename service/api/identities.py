"""Identities: lists, one with its history, and a person's decisions."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated, cast

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from service.api import schemas, serializers
from service.api.auth import CALLER, CALLER_BY
from service.api.context import CALLER_ACCOUNTS, AppContext, app_context, sees
from service.api.gate import (
    GATE,
    alias_meant,
    alias_to_ask_about,
    alias_to_change,
    alias_to_show,
)
from service.api.params import (
    FilterText,
    FreeText,
    Names,
    PageQuery,
    QueryTime,
    RecipientText,
    WaitQuery,
    need_account,
    need_client,
    page,
    query_of,
    read_body,
)
from service.api.problems import ProblemError, document, field_problem
from service.ledger.identities import RecordAnswer, TakeDecision
from service.model.decisions import Decision, Result, Verb
from service.model.recipients import Meaning
from service.model.users import MAX_HASH_CHARACTERS, State, User, on_behalf
from service.store.database import UnavailableError
from service.store.logs import dated_before
from service.store.users import IdentityFilter, audit_of, find_user, history_of, list_identities
from service.webhooks.request_ids import REQUEST_ID
from service.whatsapp.http import CallError

log = structlog.get_logger(__name__)

MAX_ASKS = 3
MAX_DECISIONS = 1000
SETTLED = {State.ACKNOWLEDGED, State.FAILED, State.AWAITING_HASH}
"""How an acknowledgement ends; on the Cloud API at once."""

Hash = Annotated[
    str, Field(min_length=1, max_length=MAX_HASH_CHARACTERS, examples=["rHEhX5K/adk="])
]


class Evidence(BaseModel):
    """What a decision rests on: how the user was recognised, and where that is recorded."""

    model_config = ConfigDict(extra="forbid")
    method: FreeText
    reference: FreeText


class Grounds(BaseModel):
    """What is recorded with a decision: a note, the evidence, and who decided."""

    model_config = ConfigDict(extra="forbid")
    note: FreeText | None = None
    evidence: Evidence | None = None
    on_behalf_of: FreeText | None = None


class DecisionBody(Grounds):
    """A decision about the hash that was seen; null stands for one not yet known (Cloud API)."""

    hash: Hash | None


class DecisionItem(BaseModel):
    """One of many identities that are to be acknowledged, by the hash that was seen."""

    model_config = ConfigDict(extra="forbid")
    account: Annotated[str, Field(max_length=256)]
    user: RecipientText
    hash: Hash | None


class ManyBody(Grounds):
    """Identities to be acknowledged, all on the same grounds."""

    items: Annotated[list[DecisionItem], Field(max_length=MAX_DECISIONS)]


class IdentitiesQuery(PageQuery):
    """Which identities to list."""

    state: Annotated[
        list[State],
        Names,
        Field(
            default_factory=list,
            description="Only these states; repeated, or with commas.",
            examples=[["pending"]],
        ),
    ]
    account: Annotated[FilterText | None, Field(description="Only this account.")] = None
    updated_since: Annotated[
        QueryTime | None,
        Field(description="Only those updated since, in the order of their updates."),
    ] = None


async def list_(request: web.Request) -> web.Response:
    """List identities, oldest change first; with `updated_since`, by `updated_at`."""
    query = query_of(request, IdentitiesQuery)
    since = query.updated_since
    asked = page(request, 2)
    after = None if asked.after is None else (asked.after[0], asked.after[1])
    within = request[CALLER_ACCOUNTS] or None
    database = app_context(request).database
    # Asked before, so that whatever is dated earlier is there for the list.
    before = None if since is None else await database.read(dated_before)
    wanted = IdentityFilter(query.account, query.state, since, within, before)
    users = await database.read(
        partial(list_identities, wanted=wanted, after=after, limit=asked.limit + 1)
    )

    def place(user: User) -> tuple[int, int]:
        if since is not None:
            return user.identity.updated_at or 0, user.id
        return user.identity.latest.changed.at if user.identity.latest else 0, user.id

    return asked.answer(users, serializers.identity, place)


def _load(connection: Connection, account: str, alias: str) -> schemas.IdentityWithHistory | None:
    user = find_user(connection, account, alias)
    if user is None or user.identity.state is None:
        return None
    return {
        **serializers.identity(user),
        "history": [serializers.change(entry) for entry in history_of(connection, user.id)],
        "audit": [serializers.audit_entry(entry) for entry in audit_of(connection, user.id)],
    }


async def show(request: web.Request) -> web.Response:
    """Return an identity with its history and audit trail."""
    account = need_account(request)
    alias = await alias_to_show(request, account, request.match_info["user"])
    found = await app_context(request).database.read(partial(_load, account=account, alias=alias))
    if found is None:
        raise _no_identity()
    return web.json_response(found)


def _no_identity() -> ProblemError:
    return ProblemError(404, "there is no identity of this user", kind="no_identity")


async def acknowledge(request: web.Request) -> web.Response:
    """Decide to acknowledge the hash that was seen."""
    wait = query_of(request, WaitQuery).wait
    user = await _decide(request, Verb.ACKNOWLEDGE)
    if wait and user.identity.state not in SETTLED:
        user = await wait_for(app_context(request), user, wait)
    return web.json_response(serializers.identity(user), status=_status_of(user))


def _status_of(user: User) -> int:
    """Return 200 where an acknowledgement has ended, 202 while it goes on."""
    return 200 if user.identity.state in SETTLED else 202


async def acknowledge_many(request: web.Request) -> web.Response:
    """Decide to acknowledge up to 1,000 identities; return what became of each, in their order."""
    body = await read_body(request, ManyBody)
    items = await decide_many(request, body.items, Verb.ACKNOWLEDGE, body)
    return web.json_response({"items": items})


async def decide_many(
    request: web.Request, items: list[DecisionItem], verb: Verb, grounds: Grounds
) -> list[schemas.DecidedIdentity]:
    """Record the caller's decision about each; return what became of each, in their order."""
    meanings = await _meanings(request, items)
    return await asyncio.gather(
        *(
            _decide_one(request, item, meaning, verb, grounds)
            for item, meaning in zip(items, meanings, strict=True)
        )
    )


async def _meanings(request: web.Request, items: list[DecisionItem]) -> list[Meaning | None]:
    """Return whom each item may mean; None where its account is unknown."""
    known = app_context(request).settings.accounts
    texts: dict[str, list[str]] = {}
    for item in items:
        if item.account in known and sees(request, item.account):
            texts.setdefault(item.account, []).append(item.user)
    found = {
        account: iter(await request.app[GATE].meanings(account, users))
        for account, users in texts.items()
    }
    return [next(found[item.account]) if item.account in found else None for item in items]


async def _decide_one(
    request: web.Request,
    item: DecisionItem,
    meaning: Meaning | None,
    verb: Verb,
    grounds: Grounds,
) -> schemas.DecidedIdentity:
    """Return the Identity as it is then, or the problem for which the others need not wait."""
    try:
        _need_hash(request, item.account, item.hash)
        alias = _alias_of(item, meaning)
        decision = _decision(request, verb, item.hash, grounds)
        user = await _take(request, item.account, alias, decision)
    except ProblemError as error:
        problem = document(error.status, error.detail, kind=error.kind, **error.extra)
        return _refused(item, problem)
    except UnavailableError:
        return _refused(item, document(503, "the database can't be used right now"))
    return {
        "account": item.account,
        "user": item.user,
        "hash": item.hash,
        "status": _status_of(user),
        "identity": serializers.identity(user),
    }


def _refused(item: DecisionItem, problem: schemas.ItemProblem) -> schemas.DecidedIdentity:
    return {
        "account": item.account,
        "user": item.user,
        "hash": item.hash,
        "status": problem["status"],
        "error": cast(schemas.DecisionProblem, problem),
    }


def _alias_of(item: DecisionItem, meaning: Meaning | None) -> str | None:
    if meaning is None:
        raise ProblemError(404, "there is no such account", kind="no_such_account")
    return alias_meant(item.user, meaning)


async def hold(request: web.Request) -> web.Response:
    """Decide to keep the block."""
    return web.json_response(serializers.identity(await _decide(request, Verb.HOLD)))


async def _decide(request: web.Request, verb: Verb) -> User:
    body = await read_body(request, DecisionBody)
    return await decide(request, request.match_info["user"], verb, body)


async def decide(request: web.Request, text: str, verb: Verb, body: DecisionBody) -> User:
    """Record the caller's decision, and return the user as it is then.

    Raises a 404 where there is no identity, and a 409 where another hash is the latest, or where it
    is too late.
    """
    _need_hash(request, request.match_info["account"], body.hash)
    account = need_account(request)
    alias = await alias_to_change(request, account, text)
    return await _take(request, account, alias, _decision(request, verb, body.hash, body))


def _need_hash(request: web.Request, account: str, hash_: str | None) -> None:
    """Raise a 422 where no hash is named, and the account's client always tells one."""
    if hash_ is None and account in app_context(request).clients and sees(request, account):
        raise field_problem(("hash", "must be text: null is for accounts of the Cloud API"))


def _decision(request: web.Request, verb: Verb, hash_: str | None, grounds: Grounds) -> Decision:
    return Decision(
        verb,
        hash_,
        on_behalf(request[CALLER_BY], grounds.on_behalf_of),
        grounds.note,
        grounds.evidence.model_dump() if grounds.evidence else None,
    )


async def _take(request: web.Request, account: str, alias: str | None, decision: Decision) -> User:
    """Record a decision about the user with this alias; raise what `decide` raises."""
    if alias is None:
        raise _no_identity()
    command = TakeDecision(account, alias, decision, request[REQUEST_ID])
    result, user = await app_context(request).ledger.submit(command)
    log.info(
        "decision",
        account=account,
        decision=decision.verb.value,
        result=result.name.lower(),
        state=user.identity.state if user else None,
        caller=request[CALLER],
    )
    if user is None or result is Result.NO_IDENTITY:
        raise _no_identity()
    if result is Result.ANOTHER_HASH:
        raise _conflict("another hash is the latest", user)
    if result is Result.TOO_LATE:
        detail = "it is acknowledged, or is being acknowledged right now"
        raise _conflict(detail, user, "too_late")
    return user


def _conflict(detail: str, user: User, kind: str = "another_hash") -> ProblemError:
    return ProblemError(409, detail, kind=kind, identity=serializers.identity(user))


async def wait_for(context: AppContext, user: User, seconds: float) -> User:
    """Return the user as soon as the acknowledgement has ended, or when the time is up.

    Raises a 409 where another hash is the latest by then.
    """
    hash_ = user.hash
    with context.changes.watching([user.id]) as changed, suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                changed.clear()
                find = partial(find_user, account=user.account, alias=user.alias)
                found = await context.database.read(find)
                user = found or user
                ended = user.hash != hash_ or user.identity.state is not State.ACKNOWLEDGING
                if ended or context.changes.closing:
                    break
                await changed.wait()
    if user.hash != hash_:
        raise _conflict("another hash is the latest now", user)
    return user


async def refresh(request: web.Request) -> web.Response:
    """Ask the client now, and return the identity that the user has then."""
    account, text = need_client(request), request.match_info["user"]
    context = app_context(request)
    alias = await alias_to_ask_about(request, account, text)
    if alias is None:
        raise _no_identity()
    for _ in range(MAX_ASKS):
        known = await context.database.read(partial(find_user, account=account, alias=alias))
        wa_id = alias if known is None else known.alias
        try:
            answer = await context.clients[account].identity(wa_id)
        except CallError as error:
            raise ProblemError(504 if error.timed_out else 502, f"the client: {error}") from None
        version = 0 if known is None else known.identity.version
        refreshed = await context.ledger.submit(
            RecordAnswer(account, wa_id, version, answer, request[REQUEST_ID])
        )
        if refreshed.changed:
            # The identity changed while the client was asked: its answer may be the older one.
            continue
        if answer is None or refreshed.user is None:
            raise ProblemError(404, "the client knows no identity of this user", kind="no_identity")
        return web.json_response(serializers.identity(refreshed.user))
    raise ProblemError(502, "the identity changed each time that the client was asked")
