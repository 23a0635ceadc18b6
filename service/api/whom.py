"""Whom a path names: a user by an alias, or by a phone number in any spelling.

What only reads finds a user by every spelling. What changes something names the user: by an alias,
by the number's own digits, or by what a check of the number told.
"""

from aiohttp import web

from service.api.context import services
from service.api.gate import GATE, no_recipient
from service.api.problems import ProblemError
from service.model.numbers import new_name, own_digits
from service.model.recipients import Meaning, Recipient
from service.model.users import usable_alias


def asked_user(request: web.Request) -> str:
    """Return the text of the path that names a user; 422 for what can name nobody."""
    text = request.match_info["user"]
    if not usable_alias(text) and own_digits(text) is None:
        raise no_recipient()
    return text


async def user_to_show(request: web.Request, account: str, text: str) -> str:
    """Return the alias of the user with an identity whom a text means, by any spelling.

    The text itself where there is none.
    """
    meaning = await request.config_dict[GATE].meaning(account, text)
    first = [] if meaning.first.user is None else [meaning.first.user]
    with_identity = (user for user in (*first, *meaning.users) if user.state is not None)
    return next((user.alias for user in with_identity), text)


async def user_to_change(request: web.Request, account: str, text: str) -> str | None:
    """Return the alias of the one user whom a text names; None where nobody is known by it.

    409 with the candidates where it names several, 404 where only another spelling is known.
    """
    meaning = await request.config_dict[GATE].meaning(account, text)
    named = _named(text, meaning)
    if named is None:
        _refuse_other_spelling(meaning)
    return named


async def user_to_block(request: web.Request, account: str, text: str) -> str:
    """Return the alias of the one user whom a text names, a new one where nobody is known by it.

    409 and 404 as above; 422 for a number without a country code, which may be anybody's. A result
    that nobody asked for does not say whom to block: the number itself is blocked then.
    """
    meaning = await request.config_dict[GATE].meaning(account, text)
    named = _named(text, meaning)
    new = _new(request, account, text, meaning)
    if named is not None and (new is None or _is_sure(named, text, meaning)):
        return named
    if named is None:
        _refuse_other_spelling(meaning)
    if new is None:
        raise no_recipient()
    return new


async def user_to_ask_about(request: web.Request, account: str, text: str) -> str | None:
    """Return by which alias to ask the client about whom a text names; it is the judge of that.

    409 where it names several; None for a number without a country code.
    """
    meaning = await request.config_dict[GATE].meaning(account, text)
    return _named(text, meaning) or _new(request, account, text, meaning)


def _is_sure(alias: str, text: str, meaning: Meaning) -> bool:
    """Tell whether a text names its user by an alias, by its digits, or by what was asked for."""
    own = {text, own_digits(text)}
    users = [name.user for name in meaning.named if name.alias in own and name.user is not None]
    return any(user.alias == alias for user in users) or alias in _asked(meaning)


def _asked(meaning: Meaning) -> list[str]:
    """Return the wa_ids that the client told in answer to a check that was asked for."""
    asked = [check for check in meaning.checks if check.answered_at is not None]
    asked.sort(key=lambda check: check.answered_at or 0, reverse=True)
    return [check.wa_id for check in asked if check.wa_id is not None]


def _named(text: str, meaning: Meaning) -> str | None:
    """Return the alias of the one user whom a text names; an alias names its user exactly."""
    found = {name.user.id: name.user for name in meaning.named if name.user is not None}
    exact = next((n.user for n in meaning.named if n.alias == text and n.user is not None), None)
    users = list(found.values()) if exact is None else [exact]
    if len(users) > 1:
        raise ProblemError(409, "the number may mean several users", candidates=_called(users))
    return users[0].alias if users else None


def _refuse_other_spelling(meaning: Meaning) -> None:
    if meaning.others:
        candidates = _called([name.user for name in meaning.others if name.user is not None])
        detail = "nobody is known by this spelling; another spelling of the number is known"
        raise ProblemError(404, detail, other_spelling=candidates[0], candidates=candidates)


def _new(request: web.Request, account: str, text: str, meaning: Meaning) -> str | None:
    """Return how to call a user of whom nobody has heard: as the client told, else as written."""
    country_of = services(request).settings.accounts[account].phone_number
    return next(iter(_asked(meaning)), None) or new_name(text, country_of)


def _called(users: list[Recipient]) -> list[str]:
    return [user.alias for user in users]
