"""Cloud API: a message was refused, for its user has another hash than it named."""

from service.model.doubts import known_already
from service.model.events import HashRefused, IdentitySeen
from service.model.identities import (
    change_of,
    install,
    just_after,
    record_change,
    retire,
    see,
    wait_for_person,
)
from service.model.moments import Moment, date
from service.model.timeline import Change
from service.model.users import Context, State, User


def refuse(user: User, refused: HashRefused, context: Context) -> None:
    """Take a 137000: where the identity was trusted, there is another now, and nobody knows which.

    One that is older than the trust says nothing new, and one that was heeded says nothing twice.
    A person decides whatever the policy is, for there is no hash to decide about.
    """
    latest = user.latest
    if latest is None or known_already(user, refused.message_id):
        return
    dating = date(refused.at, context.arrived)
    if refused.hash is not None:
        _take_told(user, latest, refused, refused.hash, context)
        return
    if latest.hash is None and user.state is State.PENDING:
        _hear_again(user, latest, dating.moment)
    if user.state is not State.ACKNOWLEDGED:
        return
    if _is_old(latest, dating.moment):
        return
    if not dating.moment.after(latest.last):
        dating = just_after(latest, dating)
    change = change_of(None, dating, context)
    retire(user, latest, "superseded", context)
    install(user, change, context)
    wait_for_person(user, change, context)
    record_change(user, change, context, "a message was refused: there is another hash, not told")


def _is_old(latest: Change, moment: Moment) -> bool:
    """Tell a refusal from before the latest hash was trusted, or came to be."""
    return moment.until < max(latest.acknowledged_at or 0, latest.first.at)


def _take_told(
    user: User, latest: Change, refused: HashRefused, told: str, context: Context
) -> None:
    """Take a refusal that tells the hash, which is then as in any message."""
    trusted = user.state is State.ACKNOWLEDGED
    if not (trusted and _is_old(latest, date(refused.at, context.arrived).moment)):
        see(user, IdentitySeen(user.alias, told, refused.at), context)


def _hear_again(user: User, unknown: Change, moment: Moment) -> None:
    """Take another refusal for the same reason, which may have been the first."""
    if not user.history or moment.after(user.history[-1].last):
        unknown.absorb(moment)
