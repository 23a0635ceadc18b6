"""Who is who on the Cloud API, whatever the order in which the names arrive."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.aliases import Known, name
from service.model.events import IdentitySeen, Named
from service.model.identities import see
from service.model.moments import Moment, Precision
from service.model.policy import Policies, Policy
from service.model.users import Context, State, User

thorough = settings(max_examples=300, deadline=None)
START = 1_700_000_000_000
NOW = START + 1_000_000
NUMBER = "16505551234"
FIRST, SECOND, PARENT = "US.1", "US.2", "US.ENT.9"
CONTEXT = Context(NOW, Policies((), Policy("default"), local=True), NOW)
TRUSTING = CONTEXT._replace(
    policies=Policies((), Policy("default"), local=True, first_use=Policy("trust_first_use"))
)


@dataclass
class People:
    """The users of an account by what they are called, as the ledger keeps them."""

    context: Context = CONTEXT
    by_alias: dict[str, User] = field(default_factory=dict)
    all: list[User] = field(default_factory=list)

    def of(self, alias: str) -> User:
        if alias not in self.by_alias:
            number = None if alias.startswith("US.") else alias
            user_id = None if number else alias
            user = User(len(self.all) + 1, "shop", number, NOW, user_id=user_id)
            self.by_alias[alias] = user
            self.all.append(user)
        return self.by_alias[alias]

    def take(self, said: "Said") -> None:
        if said.user_id is not None:
            named = Named(said.user_id, said.wa_id, said.parent, said.at)
            known = Known(*(self.by_alias.get(x or "") for x in (named[0], named[1], named[2])))
            naming = name(named, known, self.context, self.of)
            assert naming is not None
            for alias in naming.owned:
                self.by_alias[alias] = naming.user
        alias = said.user_id or said.wa_id
        assert alias is not None
        see(self.of(alias), IdentitySeen(alias, said.hash, said.at), self.context)


@dataclass(frozen=True)
class Said:
    """What one message tells: some of the names of its sender, and the hash."""

    at: Moment
    hash: str
    user_id: str | None
    wa_id: str | None
    parent: str | None = None


def at(slot: int) -> Moment:
    return Moment(START + slot * 4_000, Precision.SECOND)


@st.composite
def one_person(draw: st.DrawFn) -> tuple[list[Said], list[Said]]:
    """Give messages of one person, each naming them by some of their names, and a delivery."""
    names = [(FIRST, NUMBER, None), (FIRST, None, None), (None, NUMBER, None)]
    names += [(FIRST, NUMBER, PARENT), (FIRST, None, PARENT)]
    slots = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
    said = [
        Said(at(slot), draw(st.sampled_from("AB")), *draw(st.sampled_from(names)))
        for slot in sorted(slots)
    ]
    both = Said(at(10), draw(st.sampled_from("AB")), FIRST, NUMBER, PARENT)
    said.append(both)
    return said, list(draw(st.permutations(said)))


@st.composite
def a_number_changes_hands(draw: st.DrawFn) -> tuple[list[Said], list[Said]]:
    """Give messages of two people, one after the other under the same number, and a delivery."""
    handover = draw(st.integers(1, 8))
    slots = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
    slots = sorted({*slots, 0, handover})
    said = []
    for slot in slots:
        user_id = FIRST if slot < handover else SECOND
        number = NUMBER if slot in {0, handover} else draw(st.sampled_from([NUMBER, None]))
        said.append(Said(at(slot), f"hash of {user_id}", user_id, number))
    delivered = draw(st.permutations(said + draw(st.lists(st.sampled_from(said), max_size=3))))
    return said, list(delivered)


def deliver(messages: list[Said], context: Context = CONTEXT) -> People:
    people = People(context)
    for message in messages:
        people.take(message)
    return people


@thorough
@given(one_person() | a_number_changes_hands())
def test_who_has_no_user_id_is_called_by_the_wa_id_alone(
    told: tuple[list[Said], list[Said]],
) -> None:
    """The gate's short way goes by it: there the wa_id that leads to such a user is the user's."""
    people = People()
    for message in told[1]:
        people.take(message)
        for alias, user in people.by_alias.items():
            assert user.user_id is not None or user.wa_id == alias


def identity(user: User) -> Any:
    return user.hash, user.state, [c.hash for c in user.history]


@thorough
@given(one_person())
def test_two_who_turn_out_to_be_one_become_one_whatever_came_first(
    told: tuple[list[Said], list[Said]],
) -> None:
    said, delivered = told
    people = deliver(delivered)
    known = people.of(FIRST)
    assert people.of(NUMBER) is known
    assert people.of(PARENT) is known
    assert (known.user_id, known.wa_id) == (FIRST, NUMBER)
    assert known.hash == said[-1].hash
    others = [user for user in people.all if user is not known]
    assert all(user.merged_into == known.id and user.state is None for user in others)
    assert not any(user.history or user.work for user in others)


@thorough
@given(one_person())
def test_a_merger_never_trusts_a_second_hash_for_being_the_first(
    told: tuple[list[Said], list[Said]],
) -> None:
    said, delivered = told
    known = deliver(delivered, TRUSTING).of(FIRST)
    if len({message.hash for message in said}) == 1:
        assert known.state is State.ACKNOWLEDGED
    else:
        assert known.state is State.PENDING


@thorough
@given(one_person(), st.sampled_from([CONTEXT, TRUSTING]))
def test_one_person_ends_in_the_same_state_whatever_came_first_and_by_which_name(
    told: tuple[list[Said], list[Said]], context: Context
) -> None:
    said, delivered = told
    in_order, as_delivered = (deliver(some, context).of(FIRST) for some in (said, delivered))
    assert identity(as_delivered) == identity(in_order)


@thorough
@given(a_number_changes_hands())
def test_a_number_belongs_to_who_had_it_last_and_brings_nothing_along(
    told: tuple[list[Said], list[Said]],
) -> None:
    said, delivered = told
    in_order, as_delivered = deliver(said), deliver(delivered)
    for people in (in_order, as_delivered):
        assert people.of(NUMBER) is people.of(SECOND)
        assert people.of(FIRST).wa_id is None
        assert people.of(SECOND).wa_id == NUMBER
        assert {c and c.hash for c in (people.of(FIRST).latest,)} == {f"hash of {FIRST}"}
        assert identity(people.of(SECOND)) == (f"hash of {SECOND}", State.PENDING, [])
    assert identity(in_order.of(FIRST)) == identity(as_delivered.of(FIRST))
