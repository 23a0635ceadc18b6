"""Cloud API: who is who. A user is a set of aliases; the user id is the strongest of them.

What an element calls one user may so far have been two, and a wa_id may have changed hands.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from service.model.events import Named
from service.model.identities import (
    apply_policy,
    by_somebody,
    install,
    leave_to_person,
    record_change,
    stop,
    wait_for_person,
)
from service.model.links import add_link
from service.model.merges import (
    MOVES,
    OWNERS,
    Find,
    are_linked,
    has_hash,
    merge,
    share_a_hash,
    used_at,
    was_held,
)
from service.model.moments import Moment, date
from service.model.timeline import Change
from service.model.users import AuditEntry, Context, Link, State, User, standing

NAMED_EVERY_MS = 3_600_000
"""So closely it is kept when a user's names were last used together, where nothing else changed."""
IN_OTHER_HANDS = "the number is in other hands: it was another user id's"
HELD_BEFORE = f"{IN_OTHER_HANDS}, whose identity was held"


class Known(NamedTuple):
    """The users whom an element's names lead to so far."""

    by_user_id: User | None
    by_wa_id: User | None
    by_parent: User | None


class Handover(NamedTuple):
    """A number that was one user's came with the user id of another."""

    former: User
    owner: User
    since: Moment


@dataclass(slots=True)
class Naming:
    """What became of an element's names: the user they lead to from now on.

    `owned` are the names that are this user's from now on, `merged` those who turned out to be the
    same person, `handovers` the numbers that are in other hands.
    """

    user: User
    owned: list[str]
    merged: list[User] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)


class Namer:
    """Decides who is meant by the names in one element.

    `find` gives the user whom an alias leads to. `hash_` is what the element tells of the user's
    identity, None where it tells nothing.
    """

    def __init__(self, named: Named, hash_: str | None, find: Find, context: Context) -> None:
        self._named = named
        self._hash = hash_
        self._find = find
        self._context = context
        self._at = date(named.at, context.arrived).moment

    def name(self, known: Known, new_user: Callable[[str], User]) -> Naming | None:
        """Give what becomes of the names; None where they lead to nobody, and none is to be kept.

        A user id never heard of is that of somebody known, where the parent id or the hash says so.
        """
        named, holder = self._named, known.by_wa_id
        user = known.by_user_id or known.by_parent
        if user is None and holder is not None and self._is_holder(holder):
            user = holder
        if user is None:
            if holder is None and not named.creates:
                return None
            user = new_user(named.user_id)
        naming = Naming(user, [named.user_id])
        if named.parent is not None:
            naming.owned.append(named.parent)
            if known.by_parent is not None and known.by_parent is not user:
                self._merge_into(naming, known.by_parent)
                holder = user if holder is known.by_parent else holder
        if named.wa_id is not None:
            self._take_wa_id(naming, named.wa_id, holder)
        self._take_user_id(user)
        return naming

    def _is_holder(self, holder: User) -> bool:
        """Tell whether a user id never heard of is that of who has the number."""
        if holder.user_id is None:
            return True
        return self._hash is not None and has_hash(holder, self._hash)

    def _merge_into(self, naming: Naming, other: User) -> None:
        merge(naming.user, other, self._find, self._context)
        naming.merged.append(other)

    def _take_user_id(self, user: User) -> None:
        """Call the user by the user id that was used last."""
        named, context = self._named, self._context
        if user.user_id == named.user_id or (user.user_id and self._at.at <= used_at(user)):
            return
        if user.user_id is not None:
            reason = "the same person has another user id now"
            user.record(AuditEntry(context.now, "user_id_changed", user.hash, reason=reason))
        user.user_id = named.user_id
        if user.wa_id is not None and user.wa_id == named.wa_id:
            user.named_at = max(self._at.at, user.named_at or 0)
        user.touch(context.now)

    def _take_wa_id(self, naming: Naming, wa_id: str, holder: User | None) -> None:
        """Let the user have the wa_id, unless somebody else is known to have had it later."""
        user, at, context = naming.user, self._at.at, self._context
        if holder is not None and holder is not user:
            if self._are_one(user, holder):
                self._merge_into(naming, holder)
            elif holder.wa_id == wa_id and at < (holder.named_at or 0):
                # Told late: an earlier owner, of whom nothing was known when the number changed.
                if not are_linked(user, holder, OWNERS, self._find):
                    self._hand_over(naming, user, holder, Moment(holder.named_at or 0))
                return
            else:
                _lose(holder, wa_id, context)
                self._hand_over(naming, holder, user, self._at)
        naming.owned.append(wa_id)
        if any(link.alias == wa_id for link in user.links):
            user.links = [link for link in user.links if link.alias != wa_id]
            user.touch(context.now)
        if user.wa_id != wa_id and (user.wa_id is None or at >= (user.named_at or 0)):
            user.wa_id, user.named_at = wa_id, at
            user.touch(context.now)
        elif user.wa_id == wa_id and at >= (user.named_at or 0) + NAMED_EVERY_MS:
            user.named_at = at
            user.changed = True

    def _are_one(self, user: User, holder: User) -> bool:
        """Tell whether two who have had one number are one person, whatever their user ids are."""
        if holder.user_id is None or share_a_hash(user, holder):
            return True
        if self._hash is not None and has_hash(holder, self._hash):
            return True
        return are_linked(user, holder, MOVES, self._find)

    def _hand_over(self, naming: Naming, former: User, owner: User, since: Moment) -> None:
        """Note that a number is in other hands, and let nobody be trusted for it by mistake."""
        context = self._context
        add_link(former, Link(owner.user_id or "", "next_owner", since), context)
        add_link(owner, Link(former.user_id or "", "former_owner", since), context)
        inherit_moves(owner, former, since, context)
        _distrust(owner, since, context, held=was_held(former))
        naming.handovers.append(Handover(former, owner, since))


def inherit_moves(owner: User, former: User, since: Moment, context: Context) -> None:
    """Let who has a number since then be asked about as who had left it before."""
    for moved in standing(former.links, former.owner_since):
        if not moved.since.after(since):
            add_link(owner, moved, context)
    leave_to_person(owner, context)


def _distrust(owner: User, since: Moment, context: Context, *, held: bool) -> None:
    """Take the identity of who has a number for a change: never trusted for being the first.

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
        owner.record(AuditEntry(context.now, "alias_moved", owner.hash, reason=reason))
        if held and owner.identity.state not in (State.PENDING, State.HELD):
            stop(owner, latest, reason, context)
        elif latest.decided_by is not None and not by_somebody(latest):
            apply_policy(owner, latest, context)
    owner.identity.after_hold = owner.identity.after_hold or held


def _lose(user: User, wa_id: str, context: Context) -> None:
    """Take a wa_id away from a user who has a user id: the number changed hands."""
    if user.wa_id == wa_id:
        user.wa_id = None
    user.record(
        AuditEntry(context.now, "alias_moved", user.hash, reason="another user id has the wa_id")
    )
    user.touch(context.now)
