"""`ackgate policy`: what the configuration would do."""

import asyncio
from dataclasses import asdict, dataclass
from time import time
from typing import Any

import typer
from sqlalchemy import Connection

from service.cli.options import Account, AsJson, Config, User, loaded, need_account
from service.cli.output import fail, note, print_json, print_pairs
from service.model.policy import Policies, Policy, evaluate_policy
from service.model.timeline import Change, Moment, count_within
from service.model.users import State, is_user_id, usable_alias
from service.model.users import User as KnownUser
from service.store.database import StoreError
from service.store.operating import operated
from service.store.users import find_user, history_of

TRUSTED = "trusted at once"
"""The effect of a user's first hash, where it has nothing to be compared with."""

app = typer.Typer(
    name="policy",
    help="Explain what the policy does with a user's changes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@dataclass(frozen=True, slots=True)
class _Past:
    """What the database knows of a user; `user` is None where it knows nothing."""

    user: KnownUser | None
    history: list[Change]


@app.command()
def explain(account: Account, user: User, config: Config = None, as_json: AsJson = False) -> None:
    """Return which rule decides about a user's changes, and what would become of one now.

    What would become of it takes the changes into account that the database knows of, since too
    many of them make a change wait for a person. The service may run or not.
    """
    settings = loaded(config)
    need_account(settings, account)
    policies = settings.policies(account)
    if not usable_alias(user):
        fail(
            "USER must be a wa_id or a user id, as WhatsApp gives it: "
            "without plus sign, spaces and slashes"
        )
    past, problem = _past(settings.database.full_url, account, user)
    policy = policies.of(past.user.alias if past and past.user else user)
    document = {
        "account": account,
        **_names(past.user if past else None, user, cloud=policies.local),
        "decided_by": "default" if policy is policies.default else f"rule {policy.name}",
        **{key: value for key, value in asdict(policy).items() if key != "name"},
        "meaning": _meaning(policy),
        **({"first_hash": _of_a_first_hash(policies)} if policies.local else {}),
        "next_change": past and _next_change(policies, policy, past, round(time() * 1000)),
    }
    if as_json:
        print_json(document)
    else:
        print_pairs(document)
    if problem:
        note(f"{problem}; so what would become of a change now is not known")


def _names(known: KnownUser | None, asked: str, *, cloud: bool) -> dict[str, str | None]:
    """Return the names of the user as the API does: on the Cloud API a user id too."""
    if not cloud:
        return {"wa_id": known.alias if known else asked}
    if known is not None:
        return {"wa_id": known.wa_id or None, "user_id": known.user_id}
    by_id = is_user_id(asked)
    return {"wa_id": None if by_id else asked, "user_id": asked if by_id else None}


def _past(url: str, account: str, user: str) -> tuple[_Past | None, str]:
    """Return what the database knows of a user, or why it can't be read."""

    def find(connection: Connection) -> _Past:
        known = find_user(connection, account, user)
        return _Past(known, history_of(connection, known.id) if known else [])

    try:
        return asyncio.run(operated(url).look(find)), ""
    except StoreError as error:
        return None, str(error)


def _meaning(policy: Policy) -> str:
    if policy.mode == "manual":
        return "every change waits for a person"
    return (
        f"a change is acknowledged {_when(policy)}; "
        f"beyond {policy.max_changes} within {policy.per_seconds:g} s it waits for a person"
    )


def _when(policy: Policy) -> str:
    return f"after {policy.delay_seconds:g} s" if policy.delay_seconds else "at once"


def _of_a_first_hash(policies: Policies) -> str:
    return "policy decides, as about a change" if policies.first_use is None else TRUSTED


def _next_change(policies: Policies, policy: Policy, past: _Past, now: int) -> dict[str, Any]:
    """Return what the rules say of a change that would come now."""
    known_before = past.user and (past.user.identity.latest or past.user.moved_to)
    if policies.first_use is not None and not known_before:
        reason = f"policy {policies.first_use.name}: the first hash of this user"
        return {"changes_in_window": 0, "automatic": True, "effect": TRUSTED, "reason": reason}
    known = [c for c in (*reversed(past.history), past.user and past.user.identity.latest) if c]
    coming = Change("", Moment(now), now)
    count = count_within(coming, known, policy.per_seconds)
    verdict = evaluate_policy(policy, count)
    obstacle = verdict.automatic and _obstacle(past.user)
    automatic = verdict.automatic and not obstacle
    return {
        "changes_in_window": count - 1,
        "automatic": automatic,
        "effect": f"acknowledged {_when(policy)}" if automatic else "waits for a person",
        "reason": obstacle or verdict.reason,
    }


def _obstacle(user: KnownUser | None) -> str:
    """Return what in the user's past makes a person decide, although the policy wouldn't."""
    if user and (user.identity.state is State.HELD or user.identity.after_hold):
        return "the identity before was held"
    if user and user.moved_to:
        return "the user has another number now"
    return ""
