"""A person blocks a user, with no identity change at hand; it ends by itself, or by a person."""

from dataclasses import dataclass, replace

from service.model.moments import LATEST_MS
from service.model.users import AuditEntry, By, Context, User


@dataclass(frozen=True, slots=True)
class Block:
    """Why nobody is to write to a user, since when, and until when (Unix ms); None: for good."""

    reason: str
    since: int
    by: By
    until: int | None = None

    def in_force(self, now: int) -> bool:
        """Tell whether it has not ended by itself."""
        return self.until is None or now < self.until


def stricter(one: Block | None, other: Block | None, now: int) -> Block | None:
    """Give the block in force, of two the one that ends later: of who turned out to be one."""
    blocks = [block for block in (one, other) if block is not None]
    return max(
        blocks, key=lambda block: (block.in_force(now), block.until or LATEST_MS), default=None
    )


def block(
    user: User, known: Block | None, wanted: Block, context: Context, note: str | None = None
) -> Block:
    """Block a user, and leave one audit entry with the note; give the block as it is then.

    Asked for again, it stays as it is. One that says something else takes its place, and has been
    in force since the first.
    """
    if known is not None and known.in_force(context.now):
        if (known.reason, known.until) == (wanted.reason, wanted.until):
            return known
        wanted = replace(wanted, since=known.since)
    user.record(AuditEntry(context.now, "blocked", user.hash, wanted.by, wanted.reason, note))
    return wanted


def copied(block: Block, known: Block | None, other: User, now: int) -> bool:
    """Tell whether a user's block is to hold for another one too; leave an audit entry if so.

    The other is the same person under another number, or has the number that the user had. A block
    of the other's own that ends no earlier stays as it is.
    """
    if not block.in_force(now) or stricter(known, block, now) is known:
        return False
    note = "copied: the block is of who had another number or user id before, or had this number"
    other.record(AuditEntry(now, "blocked", other.hash, block.by, block.reason, note))
    return True


def unblock(user: User, known: Block | None, by: By, context: Context) -> bool:
    """End a block, and leave one audit entry; tell whether there was one in force."""
    if known is None or not known.in_force(context.now):
        return False
    user.record(AuditEntry(context.now, "unblocked", user.hash, by))
    return True
