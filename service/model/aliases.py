"""Cloud API: who is who. A user is a set of aliases, of which the user id is the strongest.

What an element calls one user may so far have been two, and a wa_id may have changed hands. A wa_id
belongs to whom it was last seen with, by event time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from service.model.events import AliasesSeen
from service.model.identity import (
    apply_policy,
    install,
    leave_to_person,
    record_change,
    stop,
    wait_for_person,
)
from service.model.merges import (
    MOVES,
    OWNERS,
    Find,
    add_link,
    are_linked,
    has_hash,
    merge_users,
    share_a_hash,
    used_at,
)
from service.model.timeline import Change, Moment, date_event
from service.model.users import Context, Link, State, User, standing_moves

NAMED_EVERY_MS = 3_600_000
"""So closely it is kept when a user's names were last used together, where nothing else changed."""
IN_OTHER_HANDS = "the number is in other hands: it was another user id's"
HELD_BEFORE = f"{IN_OTHER_HANDS}, whose identity was held"


class AliasOwners(NamedTuple):
    """The users whom an element's aliases lead to so far."""

    by_user_id: User | None
    by_wa_id: User | None
    by_parent: User | None


class Handover(NamedTuple):
    """A number that was one user's came with the user id of another."""

    former: User
    owner: User
    since: Moment


@dataclass(slots=True)
class Resolution:
    """What became of an element's aliases: the user they lead to from now on.

    `owned` are the aliases that are this user's from now on, `merged` those who turned out to be
    the same person, `handovers` the numbers that are in other hands.
    """

    user: User
    owned: list[str]
    merged: list[User] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)


class AliasResolver:
    """Decides who is meant by the aliases in one element.

    `find` returns the user whom an alias leads to. `hash_` is what the element says of the user's
    identity, None where it says nothing.
    """

    def __init__(self, seen: AliasesSeen, hash_: str | None, find: Find, context: Context) -> None:
        self._seen = seen
        self._hash = hash_
        self._find = find
        self._context = context
        self._at = date_event(seen.at, context.arrived).moment

    def resolve_aliases(
        self, owners: AliasOwners, new_user: Callable[[str], User]
    ) -> Resolution | None:
        """Return what becomes of the aliases; None where nobody has them, nor is to be kept.

        An unknown user id is that of somebody known, where the parent id or the hash says so.
        """
        seen, holder = self._seen, owners.by_wa_id
        user = owners.by_user_id or owners.by_parent
        if user is None and holder is not None and self._is_holder(holder):
            user = holder
        if user is None:
            if holder is None and not seen.creates:
                return None
            user = new_user(seen.user_id)
        resolution = Resolution(user, [seen.user_id])
        if seen.parent is not None:
            resolution.owned.append(seen.parent)
            if owners.by_parent is not None and owners.by_parent is not user:
                self._merge_into(resolution, owners.by_parent)
                holder = user if holder is owners.by_parent else holder
        if seen.wa_id is not None:
            self._take_wa_id(resolution, seen.wa_id, holder)
        self._take_user_id(user)
        return resolution

    def _is_holder(self, holder: User) -> bool:
        """Return whether an unknown user id is that of who has the number."""
        if holder.user_id is None:
            return True
        return self._hash is not None and has_hash(holder, self._hash)

    def _are_one(self, user: User, holder: User) -> bool:
        """Return whether two who have had one number are one person, whatever their user ids."""
        if self._is_holder(holder) or share_a_hash(user, holder):
            return True
        return are_linked(user, holder, MOVES, self._find)

    def _merge_into(self, resolution: Resolution, other: User) -> None:
        merge_users(resolution.user, other, self._find, self._context)
        resolution.merged.append(other)

    def _take_wa_id(self, resolution: Resolution, wa_id: str, holder: User | None) -> None:
        """Let the user have the wa_id, unless somebody else is known to have had it later."""
        user, at, context = resolution.user, self._at.at, self._context
        if holder is not None and holder is not user:
            if self._are_one(user, holder):
                self._merge_into(resolution, holder)
            elif holder.wa_id == wa_id and at < (holder.named_at or 0):
                # An earlier owner, seen late: nothing was known of this one when the number went.
                if not are_linked(user, holder, OWNERS, self._find):
                    self._hand_over(resolution, user, holder, Moment(holder.named_at or 0))
                return
            else:
                self._take_away(holder, wa_id)
                self._hand_over(resolution, holder, user, self._at)
        resolution.owned.append(wa_id)
        if any(link.alias == wa_id for link in user.links):
            user.links = [link for link in user.links if link.alias != wa_id]
            user.touch(context.now)
        if user.wa_id != wa_id and (user.wa_id is None or at >= (user.named_at or 0)):
            user.wa_id, user.named_at = wa_id, at
            user.touch(context.now)
        elif user.wa_id == wa_id and at >= (user.named_at or 0) + NAMED_EVERY_MS:
            user.named_at = at

    def _take_user_id(self, user: User) -> None:
        """Call the user by the user id that was used last."""
        seen, context = self._seen, self._context
        if user.user_id == seen.user_id or (user.user_id and self._at.at <= used_at(user)):
            return
        if user.user_id is not None:
            reason = "the same person has another user id now"
            user.record(context.entry("user_id_changed", user.hash, reason=reason))
        user.user_id = seen.user_id
        if user.wa_id is not None and user.wa_id == seen.wa_id:
            user.named_at = max(self._at.at, user.named_at or 0)
        user.touch(context.now)

    def _take_away(self, holder: User, wa_id: str) -> None:
        """Take a wa_id away from a user who has a user id: the number changed hands."""
        if holder.wa_id == wa_id:
            holder.wa_id = None
        reason = "another user id has the wa_id"
        holder.record(self._context.entry("alias_moved", holder.hash, reason=reason))
        holder.touch(self._context.now)

    def _hand_over(self, resolution: Resolution, former: User, owner: User, since: Moment) -> None:
        """Note that a number is in other hands, and let nobody be trusted for it by mistake.

        The two are linked, so that what says later that they are one person merges them.
        """
        context = self._context
        add_link(former, Link(owner.user_id or "", "next_owner", since), context)
        add_link(owner, Link(former.user_id or "", "former_owner", since), context)
        inherit_moves(owner, former, since, context)
        _distrust(owner, since, context, held=former.identity.is_held)
        resolution.handovers.append(Handover(former, owner, since))


def inherit_moves(owner: User, former: User, since: Moment, context: Context) -> None:
    """Copy to a number's owner since then the moves that stood of the former owner.

    For it is the number that the gate is asked about.
    """
    for moved in standing_moves(former.links, former.owner_since):
        if not moved.since.after(since):
            add_link(owner, moved, context)
    leave_to_person(owner, context)


def _distrust(owner: User, since: Moment, context: Context, *, held: bool) -> None:
    """Treat the identity of a number's new owner as a change: never trusted for being the first.

    Where none is known yet, that there is another one is known all the same. What a person decided
    about it stays, unless the identity of the former owner was held.
    """
    latest, reason = owner.identity.latest, HELD_BEFORE if held else IN_OTHER_HANDS
    if latest is None:
        change = Change(None, since, context.arrived, [since])
        install(owner, change, context)
        wait_for_person(owner, change, context)
        record_change(owner, change, context, reason)
    else:
        owner.record(context.entry("alias_moved", owner.hash, reason=reason))
        if held and owner.identity.state not in (State.PENDING, State.HELD):
            stop(owner, latest, reason, context)
        elif latest.is_decided_by_policy:
            apply_policy(owner, latest, context)
    owner.identity.after_hold = owner.identity.after_hold or held
