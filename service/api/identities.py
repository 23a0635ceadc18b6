"""Identities: lists, one with its history, and a person's decisions."""

import asyncio
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Connection

from service.api import shapes
from service.api.access import CALLER
from service.api.context import AppContext, services
from service.api.problems import ProblemError, field_problem
from service.api.queries import (
    choices,
    cursor_of,
    listed,
    moment,
    need_account,
    need_client,
    number,
    page,
    read_body,
)
from service.api.whom import user_to_ask_about, user_to_change, user_to_show
from service.ledger.decisions import RecordAnswer, TakeDecision
from service.model.decisions import Decision, Result, Verb
from service.model.outcomes import Answer
from service.model.users import MAX_HASH_CHARACTERS, State, User, by_key
from service.observability.logs import request_id
from service.store.queries import (
    IdentityFilter,
    audit_of,
    find_user,
    history_of,
    list_identities,
)
from service.whatsapp.errors import CallError

MAX_WAIT_SECONDS = 60
MAX_ASKS = 3
STATES = frozenset(state.value for state in State)
SETTLED = {State.ACKNOWLEDGED, State.FAILED, State.AWAITING_HASH}
"""What an acknowledgement comes to, on the Cloud API at once."""

Hash = Annotated[str, Field(min_length=1, max_length=MAX_HASH_CHARACTERS)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class Evidence(BaseModel):
    """What a decision rests on: how the person was recognised, and where that is kept."""

    model_config = ConfigDict(extra="forbid")
    method: Words
    reference: Words


class DecisionBody(BaseModel):
    """A decision about the hash that was seen; on the Cloud API null is one that nobody knows."""

    model_config = ConfigDict(extra="forbid")
    hash: Hash | None
    note: Words | None = None
    evidence: Evidence | None = None
    on_behalf_of: Words | None = None


async def list_(request: web.Request) -> web.Response:
    """List identities, oldest change first; with `updated_since`, by `updated_at`."""
    states = [State(s) for s in choices(request, "state", STATES)]
    since = moment(request, "updated_since")
    asked = page(request, 2)
    after = None if asked.after is None else (asked.after[0], asked.after[1])
    wanted = IdentityFilter(request.query.get("account"), states, since)
    found = await services(request).database.read(
        partial(list_identities, wanted=wanted, after=after, limit=asked.limit + 1)
    )
    items = found[: asked.limit]
    more = len(found) > asked.limit
    return listed([shapes.identity(u) for u in items], _cursor(items[-1], since) if more else None)


def _cursor(last: User, since: int | None) -> str:
    changed = last.identity.latest.changed.at if last.identity.latest else 0
    return cursor_of((last.identity.updated_at or 0) if since is not None else changed, last.id)


def _whole(connection: Connection, account: str, alias: str) -> dict[str, Any] | None:
    user = find_user(connection, account, alias)
    if user is None or user.identity.state is None:
        return None
    return shapes.identity(user) | {
        "history": [shapes.change(entry) for entry in history_of(connection, user.id)],
        "audit": [shapes.audit_entry(entry) for entry in audit_of(connection, user.id)],
    }


async def show(request: web.Request) -> web.Response:
    """Give an identity with its history and audit trail."""
    account = need_account(request)
    alias = await user_to_show(request, account, request.match_info["user"])
    whole = await services(request).database.read(partial(_whole, account=account, alias=alias))
    if whole is None:
        raise _no_identity()
    return web.json_response(whole)


def _no_identity() -> ProblemError:
    return ProblemError(404, "there is no identity of this user")


async def acknowledge(request: web.Request) -> web.Response:
    """Decide to acknowledge the hash that was seen."""
    wait = number(request, "wait", at_most=MAX_WAIT_SECONDS, default=0)
    user = await _decide(request, Verb.ACKNOWLEDGE)
    if wait and user.identity.state not in SETTLED:
        user = await wait_for(services(request), user, wait)
    return web.json_response(
        shapes.identity(user), status=200 if user.identity.state in SETTLED else 202
    )


async def hold(request: web.Request) -> web.Response:
    """Decide to keep the block."""
    return web.json_response(shapes.identity(await _decide(request, Verb.HOLD)))


async def _decide(request: web.Request, verb: Verb) -> User:
    body = await read_body(request, DecisionBody)
    return await decide(request, request.match_info["user"], verb, body)


async def decide(request: web.Request, text: str, verb: Verb, body: DecisionBody) -> User:
    """Take the caller's decision; 404 and 409 where it can't be taken. Give the user after it."""
    if body.hash is None and request.match_info["account"] in services(request).clients:
        raise field_problem(("hash", "string type"))
    account = need_account(request)
    alias = await user_to_change(request, account, text)
    if alias is None:
        raise _no_identity()
    decision = Decision(
        verb,
        body.hash,
        by_key(request[CALLER], body.on_behalf_of),
        body.note,
        body.evidence.model_dump() if body.evidence else None,
    )
    entry = TakeDecision(
        account,
        alias,
        decision,
        request_id(request.headers.get("X-Request-ID")),
    )
    result, user = await _take(services(request), entry)
    if user is None or result is Result.NO_IDENTITY:
        raise _no_identity()
    if result is Result.ANOTHER_HASH:
        raise _conflict("another hash is the latest", user)
    if result is Result.TOO_LATE:
        raise _conflict("it is acknowledged, or is being acknowledged right now", user)
    return user


async def _take(parts: AppContext, entry: TakeDecision) -> tuple[Result, User | None]:
    """Write a decision; what was leased ahead, but not yet called, is not too late to be held."""
    result, user = await parts.ledger.submit(entry)
    acknowledger = parts.acknowledgers.get(entry.account)
    if result is Result.TOO_LATE and user is not None and acknowledger is not None:
        return await acknowledger.recall(user.id, entry) or (result, user)
    return result, user


def _conflict(detail: str, user: User) -> ProblemError:
    return ProblemError(409, detail, identity=shapes.identity(user))


async def wait_for(parts: AppContext, user: User, seconds: float) -> User:
    """Give the user as soon as the acknowledgement has come to an end, or when the time is up.

    A 409 where another hash is the latest by then.
    """
    hash_ = user.hash
    event = parts.changes.watch(user.id)
    try:
        async with asyncio.timeout(seconds):
            while True:
                event.clear()
                user = await _reload(parts, user)
                if user.hash != hash_ or user.identity.state is not State.ACKNOWLEDGING:
                    break
                if parts.changes.closing:
                    break
                await event.wait()
    except TimeoutError:
        pass
    finally:
        parts.changes.unwatch(user.id, event)
    if user.hash != hash_:
        raise _conflict("another hash is the latest now", user)
    return user


async def _reload(parts: AppContext, user: User) -> User:
    found = await parts.database.read(partial(find_user, account=user.account, alias=user.alias))
    return found or user


async def refresh(request: web.Request) -> web.Response:
    """Ask the client now; 404 where it knows no identity of the user."""
    account, text = need_client(request), request.match_info["user"]
    parts = services(request)
    alias = await user_to_ask_about(request, account, text)
    if alias is None:
        raise _no_identity()
    for _ in range(MAX_ASKS):
        known = await parts.database.read(partial(find_user, account=account, alias=alias))
        wa_id = alias if known is None else known.alias
        answer = await _ask(parts, account, wa_id)
        version = 0 if known is None else known.identity.version
        refreshed = await parts.ledger.submit(RecordAnswer(account, wa_id, version, answer))
        if refreshed.changed:
            continue
        if answer is None or refreshed.user is None:
            raise ProblemError(404, "the client knows no identity of this user")
        return web.json_response(shapes.identity(refreshed.user))
    raise ProblemError(502, "the identity changed each time that the client was asked")


async def _ask(parts: AppContext, account: str, wa_id: str) -> Answer | None:
    try:
        return await parts.clients[account].identity(wa_id)
    except CallError as error:
        raise ProblemError(504 if error.timed_out else 502, f"the client: {error}") from None
