"""What is left of a user who was erased: a tombstone, which opens nothing.

Nothing in it names the user. Where the gate was closed it stays so; blocks by hand stay; and the
next identity is a change that waits for a person, never one that is trusted for being the first.
"""

from service.model.users import OPEN_STATES, By, Context, Identity, Link, User

ERASED_ALIAS = "erased"
"""What a link calls somebody who was erased: the move that it stands for stays."""


def is_closed(user: User) -> bool:
    """Return whether anything that is known of the user itself closes the gate."""
    identity = user.identity
    is_open = identity.state is None or identity.state in OPEN_STATES
    is_blocked = identity.blocked_since is not None or user.moved_to is not None
    return not is_open or is_blocked or identity.after_hold


def erase_user(user: User, by: By, context: Context, *, closed: bool) -> None:
    """Forget everything of a user but that there was one; `closed` keeps the gate closed.

    `after_hold` does both: every identity that comes waits for a person, and until then the gate
    gives the reason `erased`.
    """
    keeps_closed = closed or is_closed(user)
    user.identity = Identity(
        version=user.identity.version + 1, updated_at=context.now, after_hold=keeps_closed
    )
    user.history, user.links, user.blocked_ids = [], [], []
    user.wa_id = user.user_id = user.named_at = user.wrote_at = user.owner_since = None
    user.erased_at = context.now
    user.record(context.entry("erased", by=by))


def erase_links(user: User, names: frozenset[str]) -> bool:
    """Rename those whom a user's links name so; return whether any was."""
    if all(link.alias not in names for link in user.links):
        return False
    user.links = [
        Link(ERASED_ALIAS, link.relation, link.since) if link.alias in names else link
        for link in user.links
    ]
    return True
