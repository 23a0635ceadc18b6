"""The gate: may I write to this user now, and if not, why not?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Connection

from service.api import shapes
from service.api.problems import field_problem
from service.api.queries import need_account, read_body
from service.api.services import services
from service.model.contacts import Contact
from service.model.gate import Verdict, judge, unite
from service.model.names import storable, usable_alias
from service.model.users import User
from service.store.queries import find_contacts, find_users, newest_contacts
from service.store.unverified import find_unverified

MAX_RECIPIENTS = 1000
Recipient = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class LookupBody(BaseModel):
    """Users by their aliases, or phone numbers as they were checked."""

    model_config = ConfigDict(extra="forbid")
    recipients: Annotated[list[Recipient], Field(max_length=MAX_RECIPIENTS)]


async def show(request: web.Request) -> web.Response:
    """Give the gate's answer about one user."""
    asked = request.match_info["user"]
    if not usable_alias(asked):
        raise field_problem(("user", "a wa_id or another alias of a user"))
    account = need_account(request)
    [answer] = await _answers(request, account, [asked])
    return web.json_response(answer)


async def lookup(request: web.Request) -> web.Response:
    """Give the gate's answers about up to 1,000 users, in the order of the request."""
    body = await read_body(request, LookupBody)
    account = need_account(request)
    answers = await _answers(request, account, body.recipients)
    items = [
        {"input": asked} | answer for asked, answer in zip(body.recipients, answers, strict=True)
    ]
    return web.json_response({"items": items})


async def _answers(
    request: web.Request, account: str, asked: Sequence[str]
) -> list[dict[str, Any]]:
    parts = services(request)
    now = parts.ledger.clock()
    client = parts.clients.get(account)
    since = client.reachability.unreachable_since if client else None
    verifier = parts.verifiers.get(account)
    restored = None if verifier is None else verifier.since
    verdicts, unverified = await parts.database.read(
        partial(
            _judge_all,
            account=account,
            asked=asked,
            now=now,
            unreachable_since=since,
            restored_at=restored,
        )
    )
    if verifier is not None:
        verifier.want(unverified)
    return [
        _error() if verdict is None else shapes.verdict(account, verdict, now)
        for verdict in verdicts
    ]


def _error() -> dict[str, Any]:
    detail = "neither a usable alias nor a phone number that was checked"
    return {"error": {"type": "about:blank", "title": "Unprocessable Entity", "detail": detail}}


def _judge_all(
    connection: Connection,
    account: str,
    asked: Sequence[str],
    now: int,
    unreachable_since: int | None,
    restored_at: int | None,
) -> tuple[list[Verdict | None], frozenset[int]]:
    """Judge each recipient; None for one that can be neither an alias nor a checked number.

    Beside the verdicts come the ids of the users whom the client is still to be asked about, where
    the account is unverified since it was restored.

    A number that is a user's alias and was also checked is judged as both: what a check of it
    said can add a reason, never take one away.
    """
    checked = find_contacts(connection, account, [one for one in asked if storable(one)])
    names = {one: _names(one, checked) for one in asked}
    users = find_users(connection, account, sorted(set().union(*names.values())))
    wa_ids = {
        users[name].wa_id if name in users else name for found in names.values() for name in found
    }
    newest = newest_contacts(connection, account, sorted(wa_ids))
    unverified: frozenset[int] = frozenset()
    if restored_at is not None:
        ids = list({user.id: None for user in users.values()})
        unverified = find_unverified(connection, account, ids)
    found = _Found(users, checked, newest, now, unreachable_since, restored_at, unverified)
    return [found.judge(one, names[one]) for one in asked], unverified


def _names(asked: str, checked: Mapping[str, Contact]) -> list[str]:
    """Give what the recipient may be called: as the client told of the number, and as asked."""
    contact = checked.get(asked)
    told = [contact.wa_id] if contact is not None and contact.wa_id is not None else []
    return [*told, asked] if usable_alias(asked) and asked not in told else told


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of all recipients of one question."""

    users: Mapping[str, User]
    checked: Mapping[str, Contact]
    newest: Mapping[str, Contact]
    now: int
    unreachable_since: int | None
    restored_at: int | None
    unverified: frozenset[int]

    def judge(self, asked: str, names: Sequence[str]) -> Verdict | None:
        """Judge one recipient by every name that leads to a user, else by the first."""
        own = self.checked.get(asked)
        if not names and own is None:
            return None
        known = [name for name in names if name in self.users] or list(names[:1])
        verdicts = [self._judge(name, own) for name in known] or [self._judge(None, own)]
        return unite(verdicts)

    def _judge(self, name: str | None, own: Contact | None) -> Verdict:
        user = None if name is None else self.users.get(name)
        wa_id = name if user is None else user.wa_id
        newest = None if wa_id is None else self.newest.get(wa_id)
        contacts = [contact for contact in (own, newest) if contact is not None]
        verified = user is not None and user.id not in self.unverified
        since = None if verified else self.restored_at
        return judge(wa_id, user, contacts, self.now, self.unreachable_since, since)
