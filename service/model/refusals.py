"""Cloud API: a message was refused, for its user has another hash than it named."""

from service.model.doubts import known_already
from service.model.events import HashRefused
from service.model.identities import (
    change_of,
    install,
    just_after,
    record_change,
    retire,
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
    if latest.hash is None and user.state is State.PENDING:
        _hear_again(user, latest, dating.moment)
    if user.state is not State.ACKNOWLEDGED:
        return
    if dating.moment.until < max(latest.acknowledged_at or 0, latest.first.at):
        return
    if not dating.moment.after(latest.last):
        dating = just_after(latest, dating)
    change = change_of(None, dating, context)
    retire(user, latest, "superseded", context)
    install(user, change, context)
    wait_for_person(user, change, context)
    record_change(user, change, context, "a message was refused: there is another hash, not told")


def _hear_again(user: User, unknown: Change, moment: Moment) -> None:
    """Take another refusal for the same reason, which may have been the first."""
    if not user.history or moment.after(user.history[-1].last):
        unknown.absorb(moment)
