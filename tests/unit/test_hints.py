"""What a status calls its user: left alone only where taking it in would change nothing."""

from copy import deepcopy
from itertools import product

import pytest

from service.model.aliases import NAMED_EVERY_MS, Known, Namer, Names, says_nothing
from service.model.events import Named
from service.model.moments import Moment
from service.model.policy import Policies, Policy
from service.model.users import Context, User

NOW = 1_700_000_000_000
CONTEXT = Context(NOW, Policies((), Policy("default"), local=True), NOW)
ID, OTHER_ID, WA_ID, OTHER_WA_ID, PARENT = "US.1", "US.2", "16505551234", "16505550000", "US.ENT.3"
NAMED_AT = (None, NOW, NOW - NAMED_EVERY_MS)


def users_with(user_id: str | None) -> list[User]:
    """Make users who have this user id, with each wa_id that they may have."""
    names = product((None, WA_ID, OTHER_WA_ID), NAMED_AT)
    return [
        User(1, "shop", wa_id, NOW, user_id=user_id, named_at=named_at)
        for wa_id, named_at in names
        if user_id or wa_id
    ]


def known_before() -> list[tuple[User | None, User | None, User | None]]:
    """Give who may be known: by the user id, by the wa_id, by the parent id."""
    found: list[tuple[User | None, User | None, User | None]] = []
    for user in [None, *users_with(ID)]:
        holders = [None, user, *users_with(None), *users_with(OTHER_ID)]
        found += [(user, holder, parent) for holder in holders for parent in (None, user, holder)]
    return found


def names_of(user: User | None) -> Names | None:
    return None if user is None else Names(user.id, user.wa_id, user.user_id, user.named_at)


@pytest.mark.parametrize("parent", [None, PARENT])
def test_who_is_left_alone_would_not_have_changed(parent: str | None) -> None:
    said: set[bool] = set()
    for number, known in enumerate(known_before()):
        user, holder, head = known
        if holder is not None and holder is not user:
            holder.id = 2
        leads = {ID: user, WA_ID: holder, PARENT: head}
        named = Named(ID, WA_ID, parent, Moment(NOW), heard_of=False)
        nothing = says_nothing(named, NOW, lambda alias, of=leads: names_of(of[alias]))
        said.add(nothing)
        if nothing:
            before = deepcopy(known)
            of_names = Known(user, holder, head if parent else None)
            naming = Namer(named, None, leads.get, CONTEXT).name(of_names, new_user)
            assert known == before, number
            assert naming is None or (naming.merged == [] and naming.user is user), number
            owned = [] if naming is None else naming.owned
            assert all(leads[alias] is user for alias in owned), number
    assert said == {True, False}


def new_user(_: str) -> User:
    raise AssertionError("nobody is new")
