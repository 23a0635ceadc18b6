"""An account moves from an On-Premises client to the Cloud API: nobody is left to be asked or told.

What is known of its users stays, and so does what was decided.
"""

from service.model.doubts import unblock
from service.model.identities import start, stop
from service.model.users import Context, State, User

BLOCKED = "a message had been blocked when the account moved to the Cloud API"


def move(user: User, context: Context) -> None:
    """Settle what a client was still to be asked or told about a user.

    A decision to acknowledge is in effect: it is our own to make now. What the client would have
    been asked about a blocked message, a person decides.
    """
    blocked, latest = user.identity.blocked_since is not None, user.identity.latest
    user.identity.ask, user.changed = None, True
    unblock(user, context)
    if latest is None:
        user.identity.work = None
    elif user.identity.state is State.ACKNOWLEDGING and latest.decided_by is not None:
        start(user, latest, latest.decided_by, context)
    elif blocked:
        stop(user, latest, BLOCKED, context)
