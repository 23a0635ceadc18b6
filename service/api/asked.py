"""What a person asks through any replica is in the database: here it is heard, and done."""

from functools import partial

from sqlalchemy import Connection

from service.api.context import AppContext
from service.store.accounts import CREATED
from service.store.events import IssueKey
from service.store.replicas import Asked, asked, dismissed


async def heed(context: AppContext) -> None:
    """Do what is asked by now and not done yet: of each replica, and of the leader.

    It is done once a second, and by the routes at once, so that it shows where it was asked. Raises
    UnavailableError; then the next time does it.
    """
    async with context.heeding:
        is_leader = context.leading is not None
        dismissals, found = await context.database.read(partial(_load, is_leader=is_leader))
        if found is not None:
            _lead(context, found)
        new = {key for key, at in dismissals.items() if context.dismissed.get(key) != at}
        for account, code in sorted({(account, code) for account, code, _ in new}):
            await _dismiss(context, account, code)
        context.dismissed = dismissals


def _load(connection: Connection, *, is_leader: bool) -> tuple[dict[IssueKey, int], Asked | None]:
    return dismissed(connection), asked(connection) if is_leader else None


def _lead(context: AppContext, found: Asked) -> None:
    if context.leading is None:
        return
    for row in found.relays:
        if (relay := context.leading.relays.get(row.name)) is not None:
            replays = [one for one in found.replays if one.relay == row.name]
            if found.rows_erased != context.leading.rows_erased:
                relay.forget()
            relay.heed(row, found.retries.get(row.name, ()), replays)
    context.leading.rows_erased = found.rows_erased
    for account, user_ids in found.wanted.items():
        if (verifier := context.leading.verifiers.get(account)) is not None:
            verifier.want(user_ids)


async def _dismiss(context: AppContext, name: str, code: str) -> None:
    """Let issues rest that a person has dismissed, until their cause comes again.

    What a replica noticed by itself is forgotten there, and what was found is looked for again.
    """
    if code == CREATED:
        context.created_at = None
    elif code == "identity_check_off" and name in context.identity_checks:
        context.identity_checks[name].dismissed = True
    elif code == "wrong_signatures" and name in context.signature_checks:
        context.signature_checks[name].clear()
    elif context.leading is not None and name in context.leading.inspectors:
        await context.leading.inspectors[name].dismiss(code)
