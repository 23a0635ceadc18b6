"""Who waits for a decision, and one identity with its story."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from aiohttp import web
from sqlalchemy import Connection

from service.api.auth import CALLER_ROLE
from service.api.context import CALLER_ACCOUNTS, AppContext, app_context
from service.api.gate import alias_to_show
from service.api.identities import DecisionBody, decide
from service.api.params import need_account
from service.api.problems import ProblemError
from service.console.browser import wants_fragment
from service.console.decisions import DONE, Kept, grounds_of, kept_of, verb_of, why_refused
from service.console.forms import read_form, text_of
from service.console.pages import fragment, page, see_other
from service.console.words import decider, event_of
from service.dialects.shares import Share
from service.model.decisions import Block
from service.model.timeline import Change
from service.model.users import AuditEntry, State, User
from service.settings import Settings
from service.store.profiles import Told, callbacks_at, names_in
from service.store.users import (
    IdentityFilter,
    audit_of,
    count_states_up_to,
    find_block,
    find_user,
    history_of,
    list_identities,
)
from service.webhooks.incoming import share_of

PAGE = 200
MOST_COUNTED = 2_000
"""Of more than so many the page says only that there are more: counting them would take longer."""
MAX_STORY = 300
MAX_CALLBACKS = 20
"""Callbacks that are looked for, for the story of one identity."""
CONFLICT = 409
_PLACE = re.compile(r"-?\d{1,18}\.\d{1,18}")


class View(NamedTuple):
    """A list that the page offers: whom it is of, and what it is for."""

    title: str
    states: Sequence[State]
    empty: str


VIEWS: Mapping[str, View] = {
    "waiting": View(
        "Waiting",
        (State.PENDING, State.HELD, State.FAILED),
        "Nobody waits. When somebody's identity changes and a person has to decide, it appears "
        "here by itself.",
    ),
    "pending": View("Undecided", (State.PENDING,), "Everything is decided."),
    "held": View(
        "Held", (State.HELD,), "Nobody is held. Whom you hold stays blocked, and is listed here."
    ),
    "failed": View("Failed", (State.FAILED,), "Nothing has failed."),
    "under-way": View(
        "Under way",
        (State.SCHEDULED, State.ACKNOWLEDGING, State.AWAITING_HASH),
        "Nothing is under way. What a rule or a person has decided is listed here until WhatsApp "
        "has accepted it.",
    ),
    "done": View("Let through", (State.ACKNOWLEDGED,), "Nobody was let through yet."),
}
COUNTED = (State.PENDING, State.HELD, State.FAILED, State.SCHEDULED, State.ACKNOWLEDGING,
           State.AWAITING_HASH)  # fmt: skip


class Row(NamedTuple):
    """One of a list; `tick` changes with the hash, so that a tick is never about another one."""

    user: User
    name: str
    tick: str
    item: str
    path: str


class Listed(NamedTuple):
    """What the page of a list shows."""

    view: str
    account: str
    rows: Sequence[Row]
    counts: Mapping[str, str]
    next: str | None
    here: str


def accounts_of(request: web.Request) -> list[str]:
    """Return the accounts that the caller may see, as the configuration has them."""
    of_key = request[CALLER_ACCOUNTS]
    return [name for name in app_context(request).settings.accounts if not of_key or name in of_key]


def path_of(account: str, alias: str) -> str:
    """Return the path of the page of one identity."""
    return f"/console/accounts/{quote(account, safe='')}/identities/{quote(alias, safe='')}"


async def waiting(request: web.Request) -> web.Response:
    """Show who waits, or another list; htmx gets the list alone."""
    listed = await _listed(request)
    values: dict[str, Any] = {
        "listed": listed,
        "views": VIEWS,
        "accounts": accounts_of(request),
        "may_decide": _may_decide(request),
    }
    if wants_fragment(request):
        return fragment(request, "_waiting.html", **values)
    return page(request, "waiting.html", **values)


def _may_decide(request: web.Request) -> bool:
    return request[CALLER_ROLE] in {"operator", "admin"}


async def _listed(request: web.Request) -> Listed:
    view = request.query.get("show", "waiting")
    if view not in VIEWS:
        raise ProblemError(404, "there is no such list")
    known = accounts_of(request)
    account = request.query.get("account", "")
    if account and account not in known:
        raise ProblemError(404, "there is no such account")
    after = request.query.get("after", "")
    if after and not _PLACE.fullmatch(after):
        raise ProblemError(400, "there is no such part of the list")
    context = app_context(request)
    names = [account] if account else known
    place = None
    if after:
        at, _, id_ = after.partition(".")
        place = int(at), int(id_)
    wanted = IdentityFilter(None, VIEWS[view].states, within=names)
    load = partial(
        _load_list,
        wanted=wanted,
        place=place,
        settings=context.settings,
        with_names=_may_decide(request),
    )
    users, called, counts = await context.database.read(load)
    rows = [_row(user, called) for user in users[:PAGE]]
    more = None
    if len(users) > PAGE:
        more = _link(view, account, _place_of(users[PAGE - 1]))
    return Listed(view, account, rows, _counted(counts), more, _link(view, account, after))


def _load_list(
    connection: Connection,
    wanted: IdentityFilter,
    place: tuple[int, int] | None,
    settings: Settings,
    *,
    with_names: bool,
) -> tuple[list[User], dict[tuple[str, int], str], dict[State, int]]:
    users = list_identities(connection, wanted, place, PAGE + 1)
    counts = count_states_up_to(connection, wanted.within or (), COUNTED, MOST_COUNTED)
    called: dict[tuple[str, int], str] = {}
    if with_names:
        called = names_of(connection, users[:PAGE], settings)
    return users, called, counts


def names_of(
    connection: Connection, users: Sequence[User], settings: Settings
) -> dict[tuple[str, int], str]:
    """Return what users are called on WhatsApp, where the callback that told of them says so."""
    times = {user.identity.latest.received_at for user in users if user.identity.latest}
    shares = {user.account: share_of(settings, user.account) for user in users}
    owners = {owner for share in shares.values() for owner in share.owners}
    told: dict[int, list[Told]] = {}
    for one in callbacks_at(connection, owners, times):
        told.setdefault(one.at, []).append(one)
    found = {}
    for user in users:
        at = user.identity.latest.received_at if user.identity.latest else 0
        name = name_in(told.get(at, ()), user, shares[user.account])
        if name:
            found[user.account, user.id] = name
    return found


def name_in(told: Sequence[Told], user: User, share: Share) -> str:
    """Return what callbacks call a user, in what is of the account; the last one counts."""
    for one in reversed(told):
        for part in share.parts_in(one.owner, one.value):
            names = names_in(part)
            for alias in (user.wa_id, user.user_id):
                if alias is not None and alias in names:
                    return names[alias]
    return ""


def _row(user: User, called: Mapping[tuple[str, int], str]) -> Row:
    item = f"{user.account} {user.alias}" + (f" {user.hash}" if user.hash else "")
    tick = blake2b(f"{user.id} {item}".encode(errors="replace"), digest_size=8).hexdigest()
    name = called.get((user.account, user.id), "")
    return Row(user, name, f"tick-{tick}", item, path_of(user.account, user.alias))


def _place_of(user: User) -> str:
    """Return where the list goes on after a user."""
    latest = user.identity.latest
    return f"{0 if latest is None else latest.changed.at}.{user.id}"


def _link(view: str, account: str, after: str) -> str:
    asked = {"show": "" if view == "waiting" else view, "account": account, "after": after}
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"/console/?{query}" if query else "/console/"


def _counted(counts: Mapping[State, int]) -> dict[str, str]:
    """Return how many each list has, as the page shows it; only a few states are counted."""
    shown = {}
    for name, view in VIEWS.items():
        if all(state in counts for state in view.states):
            count = sum(counts[state] for state in view.states)
            is_more = any(counts[state] >= MOST_COUNTED for state in view.states)
            shown[name] = f"{MOST_COUNTED:,}+" if is_more else f"{count:,}"
    return shown


# One identity


class Entry(NamedTuple):
    """Something that happened, on the time line."""

    at: int
    title: str
    kind: str
    by: str = ""
    hash: str | None = None
    reason: str | None = None
    note: str | None = None
    evidence: Mapping[str, str] | None = None
    request_id: str | None = None


class Story(NamedTuple):
    """What is known of one user: the identity, what came before, and what happened."""

    user: User
    history: Sequence[Change]
    audit: Sequence[AuditEntry]
    block: Block | None
    told: Sequence[Told]
    name: str

    @property
    def entries(self) -> list[Entry]:
        """What happened, the newest first: callbacks, and what they and people brought about."""
        found = [Entry(one.at, _TOLD.format(one.journal_id), "callback") for one in self.told]
        for entry in self.audit:
            who = decider(entry.by)
            found.append(
                Entry(
                    entry.at,
                    event_of(entry.event),
                    entry.event,
                    who,
                    entry.hash,
                    entry.reason,
                    entry.note,
                    entry.evidence,
                    entry.request_id,
                )
            )
        return sorted(found, key=lambda entry: entry.at)[::-1]


async def show(request: web.Request) -> web.Response:
    """Show one identity with its story."""
    return await _show(request, Kept())


async def _show(
    request: web.Request,
    kept: Kept,
    *,
    problem: str = "",
    conflict: bool = False,
    seen: str | None = None,
    status: int = 200,
) -> web.Response:
    account = need_account(request)
    alias = await alias_to_show(request, account, request.match_info["user"])
    context = app_context(request)
    story = await context.database.read(partial(_load_story, context=context, key=(account, alias)))
    if story is None:
        raise ProblemError(404, "no change of identity is known of this number")
    may_decide = _may_decide(request)
    done = request.query.get("done", "")
    values: dict[str, Any] = {
        "story": story,
        "name": story.name if may_decide else "",
        "own_path": path_of(account, story.user.alias),
        "may_decide": may_decide,
        "can_acknowledge": story.user.identity.state not in _PASSING,
        "can_hold": story.user.identity.state not in {State.HELD, State.ACKNOWLEDGED},
        "kept": kept,
        "problem": problem,
        "conflict": conflict,
        "seen": seen,
        "done": done if done in DONE.values() else "",
    }
    if wants_fragment(request):
        values["seen"] = request.query.get("seen")
        return fragment(request, "_identity.html", status=status, **values)
    return page(request, "identity.html", status=status, **values)


_TOLD = "WhatsApp told of it (callback {} in the journal)"
_PASSING = {State.ACKNOWLEDGED, State.ACKNOWLEDGING, State.AWAITING_HASH}


def _load_story(connection: Connection, context: AppContext, key: tuple[str, str]) -> Story | None:
    user = find_user(connection, *key)
    if user is None or user.identity.latest is None:
        return None
    history = history_of(connection, user.id, MAX_STORY)
    changes = [user.identity.latest, *history][:MAX_CALLBACKS]
    share = share_of(context.settings, user.account)
    came = callbacks_at(connection, share.owners, {change.received_at for change in changes})
    told = [one for one in came if share.parts_in(one.owner, one.value)]
    return Story(
        user,
        history,
        audit_of(connection, user.id, MAX_STORY),
        find_block(connection, user.id),
        told,
        name_in(told, user, share),
    )


async def decide_one(request: web.Request) -> web.Response:
    """Decide about one identity by the hash that was shown, and show it again.

    Where it changed meanwhile nothing is decided, and the page shows what is there now.
    """
    form = await read_form(request)
    verb, kept = verb_of(form), kept_of(form)
    hash_ = text_of(form, "hash")
    try:
        grounds = grounds_of(kept)
        body = DecisionBody(hash=hash_ or None, **grounds.model_dump())
        user = await decide(request, request.match_info["user"], verb, body)
    except ProblemError as error:
        if error.status not in {409, 422} or "candidates" in error.extra:
            raise
        if error.status == CONFLICT:
            is_other = error.kind == "another_hash"
            return await _show(
                request,
                kept,
                problem=why_refused(error),
                conflict=is_other,
                seen=hash_,
                status=CONFLICT,
            )
        wrong = "; ".join(one["message"] for one in error.extra.get("errors", ()))
        return await _show(request, kept, problem=f"Nothing was decided: {wrong}.", status=422)
    return see_other(f"{path_of(user.account, user.alias)}?done={DONE[verb]}")
