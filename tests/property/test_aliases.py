"""Who is who on the Cloud API, whatever the order in which the names arrive."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from service.ledger.callbacks import RecordCallback
from service.ledger.identities import BlockUser, TakeDecision
from service.ledger.unit_of_work import UnitOfWork
from service.model.decisions import Decision, Result, Verb
from service.model.events import AliasesSeen, Event, IdentitySeen, NumberChanged, UserWrote
from service.model.policy import Policies, Policy
from service.model.timeline import Moment, Precision
from service.model.users import OPEN_STATES, State, User, by_key

START = 1_700_000_000_000
NOW = START + 1_000_000
NUMBER, NEW_NUMBER = "16505551234", "16505550000"
FIRST, SECOND, PARENT = "US.1", "US.2", "US.ENT.9"
MANUAL = Policies((), Policy("default"), local=True)
TRUST = Policy("trust_first_use")
TRUSTING = Policies((), Policy("default"), local=True, first_use=TRUST)
AUTOMATIC = Policies((), Policy("default", "auto"), local=True, first_use=TRUST)
CRM = by_key("crm")


class Memory:
    """Stands for the database: it keeps nothing, for all is within one transaction."""

    now = NOW

    def __init__(self) -> None:
        self._ids = 0

    def new_user_id(self) -> int:
        self._ids += 1
        return self._ids

    def load_users_through(self, *_: object) -> dict[Any, User]:
        return {}


class People:
    """The users of an account by what they are called, as the ledger keeps them."""

    def __init__(self, policies: Policies = MANUAL) -> None:
        self.uow = UnitOfWork(cast(Any, Memory()), {"shop": policies}, 0.5, set())
        self.uow.connection = cast(Any, None)

    def of(self, alias: str) -> User:
        return self.uow.find_or_create("shop", alias)

    @property
    def all(self) -> Iterable[User]:
        return self.uow._by_id.values()

    def take(self, what: "Said | Moved | Blocked") -> None:
        if isinstance(what, Blocked):
            BlockUser("shop", what.alias, "asked us to stop", CRM).apply(self.uow)
        else:
            RecordCallback("shop", NOW, b"", what.events).apply(self.uow)

    def hold(self, alias: str) -> None:
        decision = Decision(Verb.HOLD, self.of(alias).hash, CRM)
        result, _ = TakeDecision("shop", alias, decision).apply(self.uow)
        assert result is Result.TAKEN

    def reasons(self, alias: str) -> set[str]:
        """Return why nobody may write to whom a name leads to."""
        user = self.of(alias)
        found = (
            set()
            if user.identity.state in {None, *OPEN_STATES}
            else {f"identity_{user.identity.state}"}
        )
        if user.moved_to is not None:
            found.add("number_changed")
        if self.uow.block_of(user) is not None:
            found.add("blocked")
        return found


@dataclass(frozen=True)
class Moved:
    """A system message: a user has another number or user id."""

    at: Moment
    old: str
    new: str

    @property
    def events(self) -> list[Event]:
        return [NumberChanged(self.old, self.new, self.at)]


@dataclass(frozen=True)
class Blocked:
    """A person blocks a user."""

    alias: str


@dataclass(frozen=True)
class Said:
    """What one message tells: some of the names of its sender, and the hash."""

    at: Moment
    hash: str | None
    user_id: str | None
    wa_id: str | None
    parent: str | None = None

    @property
    def events(self) -> list[Event]:
        told: list[Event] = []
        if self.user_id is not None:
            told.append(AliasesSeen(self.user_id, self.wa_id, self.parent, self.at))
        alias = self.user_id or self.wa_id or ""
        if self.hash is not None:
            told.append(IdentitySeen(alias, self.hash, self.at, self.at))
        return [*told, UserWrote(alias, self.at)]


def at(slot: int) -> Moment:
    return Moment(START + slot * 4_000, Precision.SECOND)


@st.composite
def one_person(draw: st.DrawFn) -> tuple[list[Said], list[Said]]:
    """Return messages of one person, each naming them by some of their names, and a delivery."""
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
    """Return messages of two people, one after the other under the same number, and a delivery."""
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


def deliver(messages: Iterable["Said | Moved | Blocked"], policies: Policies = MANUAL) -> People:
    people = People(policies)
    for message in messages:
        people.take(message)
    return people


@given(one_person() | a_number_changes_hands())
def test_who_has_no_user_id_is_called_by_the_wa_id_alone(
    told: tuple[list[Said], list[Said]],
) -> None:
    """The gate's short way goes by it: there the wa_id that leads to such a user is the user's."""
    people = People()
    for message in told[1]:
        people.take(message)
        for alias in {name for said in told[1] for name in (said.user_id, said.wa_id) if name}:
            user = people.uow.find("shop", alias)
            assert user is None or user.user_id is not None or user.wa_id == alias


def identity(user: User) -> Any:
    return user.hash, user.identity.state, [c.hash for c in user.history]


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
    assert all(user.merged_into == known.id and user.identity.state is None for user in others)
    assert not any(user.history or user.identity.work for user in others)


@given(one_person())
def test_a_merger_never_trusts_a_second_hash_for_being_the_first(
    told: tuple[list[Said], list[Said]],
) -> None:
    said, delivered = told
    known = deliver(delivered, TRUSTING).of(FIRST)
    if len({message.hash for message in said}) == 1:
        assert known.identity.state is State.ACKNOWLEDGED
    else:
        assert known.identity.state is State.PENDING


@given(one_person(), st.sampled_from([MANUAL, TRUSTING]))
def test_one_person_ends_in_the_same_state_whatever_came_first_and_by_which_name(
    told: tuple[list[Said], list[Said]], policies: Policies
) -> None:
    said, delivered = told
    in_order, as_delivered = (deliver(some, policies).of(FIRST) for some in (said, delivered))
    assert identity(as_delivered) == identity(in_order)


@given(a_number_changes_hands(), st.sampled_from([MANUAL, TRUSTING]))
def test_a_number_belongs_to_who_had_it_last_and_brings_nothing_along(
    told: tuple[list[Said], list[Said]], policies: Policies
) -> None:
    said, delivered = told
    in_order, as_delivered = deliver(said, policies), deliver(delivered, policies)
    for people in (in_order, as_delivered):
        assert people.of(NUMBER) is people.of(SECOND)
        assert people.of(FIRST).wa_id is None
        assert people.of(SECOND).wa_id == NUMBER
        assert {c and c.hash for c in (people.of(FIRST).identity.latest,)} == {f"hash of {FIRST}"}
        assert identity(people.of(SECOND)) == (f"hash of {SECOND}", State.PENDING, [])
    assert identity(in_order.of(FIRST)) == identity(as_delivered.of(FIRST))


@st.composite
def two_user_ids(draw: st.DrawFn, *, same: str | None) -> tuple[list[Said], list[Said]]:
    """Return messages from one number, first with one user id, then with another, and a delivery.

    `same` is what both have in common: the hash, the parent id, or nothing. In some there is no
    hash, in some no number; but each user id is told with the number, at first.
    """
    slots = draw(st.lists(st.integers(0, 9), min_size=2, max_size=6, unique=True))
    slots.sort()
    handover = draw(st.sampled_from(slots[1:]))
    said = []
    for slot in slots:
        user_id = FIRST if slot < handover else SECOND
        hash_ = "A" if same == "hash" or user_id == FIRST else "B"
        begins = slot in {slots[0], handover}
        said.append(
            Said(
                at(slot),
                hash_ if begins and same == "hash" else draw(st.sampled_from([hash_, None])),
                user_id,
                NUMBER if begins else draw(st.sampled_from([NUMBER, None])),
                PARENT if same == "parent" and begins else None,
            )
        )
    repeats = draw(st.lists(st.sampled_from(said), max_size=3))
    return said, list(draw(st.permutations(said + repeats)))


POLICIES = st.sampled_from([MANUAL, TRUSTING, AUTOMATIC])
SAME = st.sampled_from(["hash", "parent", None])


@given(two_user_ids(same=None), POLICIES)
def test_no_order_of_delivery_leaves_a_number_in_other_hands_more_open_than_another(
    told: tuple[list[Said], list[Said]], policies: Policies
) -> None:
    said, delivered = told
    in_order, as_delivered = deliver(said, policies), deliver(delivered, policies)
    assert as_delivered.of(NUMBER) is as_delivered.of(SECOND)
    assert identity(as_delivered.of(NUMBER)) == identity(in_order.of(NUMBER))
    assert as_delivered.reasons(NUMBER) == in_order.reasons(NUMBER)
    decided_by = as_delivered.of(NUMBER).identity.latest
    assert decided_by is not None
    assert decided_by.decided_by in (None, {"kind": "policy", "name": "default"})


@given(two_user_ids(same="hash") | two_user_ids(same="parent"), POLICIES)
def test_two_user_ids_of_one_person_lead_to_one_user_whatever_came_first(
    told: tuple[list[Said], list[Said]], policies: Policies
) -> None:
    said, delivered = told
    in_order, as_delivered = deliver(said, policies), deliver(delivered, policies)
    for people in (in_order, as_delivered):
        known = people.of(NUMBER)
        assert people.of(FIRST) is people.of(SECOND) is known
        assert (known.user_id, known.wa_id, known.merged_into) == (SECOND, NUMBER, None)
        assert not any(link for link in known.links)
    assert identity(as_delivered.of(NUMBER))[0] == identity(in_order.of(NUMBER))[0]
    assert as_delivered.reasons(NUMBER) >= in_order.reasons(NUMBER)


@given(two_user_ids(same="hash"), POLICIES)
def test_whose_hash_was_known_before_the_user_id_changed_is_as_before_in_every_order(
    told: tuple[list[Said], list[Said]], policies: Policies
) -> None:
    said, delivered = told
    before = deliver(said[:1], policies)
    after = deliver([said[0], *delivered], policies)
    assert identity(after.of(NUMBER)) == identity(before.of(NUMBER))
    assert after.reasons(NUMBER) == before.reasons(NUMBER)


@given(two_user_ids(same="hash") | two_user_ids(same=None), POLICIES, st.data())
def test_a_user_id_that_is_told_to_follow_another_is_of_the_same_person(
    told: tuple[list[Said], list[Said]], policies: Policies, data: st.DataObject
) -> None:
    said, _ = told
    changed = Moved(at(10), FIRST, SECOND)
    delivered = data.draw(st.permutations([*said, changed]))
    as_delivered = deliver(delivered, policies)
    assert as_delivered.of(FIRST) is as_delivered.of(SECOND) is as_delivered.of(NUMBER)
    assert "number_changed" not in as_delivered.reasons(NUMBER)
    in_order = deliver([*said, changed], policies)
    assert as_delivered.reasons(NUMBER) >= in_order.reasons(NUMBER) - {"identity_pending"}


@given(SAME.flatmap(lambda same: two_user_ids(same=same)), POLICIES, st.data())
def test_a_hold_or_a_block_of_who_had_the_number_keeps_it_closed_in_every_order(
    told: tuple[list[Said], list[Said]], policies: Policies, data: st.DataObject
) -> None:
    said, _ = told
    first, *others = said
    begun = Said(first.at, "A", FIRST, NUMBER, first.parent)
    rest = data.draw(st.permutations(others))
    people = deliver([begun, Said(at(-1), "Z", FIRST, NUMBER)], policies)
    if people.of(NUMBER).identity.state in {State.PENDING, State.HELD}:
        people.hold(NUMBER)
        for one in rest:
            people.take(one)
            assert people.reasons(NUMBER) & {"identity_held", "identity_pending"}
    people = deliver([begun, Blocked(NUMBER)], policies)
    for one in rest:
        people.take(one)
        assert "blocked" in people.reasons(NUMBER)
        assert "blocked" in people.reasons(FIRST)


MOVES = [Moved(at(3), "1", "2"), Moved(at(5), "2", "3"), Moved(at(7), "3", "4")]


@given(st.permutations([*MOVES, Blocked("1"), Said(at(0), "A", None, "1")]), st.data())
def test_a_block_follows_the_person_from_number_to_number_in_every_order(
    delivered: list[Any], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(MOVES), max_size=3))
    people = deliver([*delivered, *again])
    assert all("blocked" in people.reasons(number) for number in "1234")


@given(st.permutations([Moved(at(3), "1", "2"), Moved(at(5), "3", "1"), Blocked("1")]))
def test_a_block_does_not_follow_whoever_left_a_number_before(delivered: list[Any]) -> None:
    """The person at 1 went to 2, and another came from 3: what is asked of 1 is not of 3."""
    assert "blocked" not in deliver(delivered).reasons("3")


OWNED = [
    Said(at(0), "A", FIRST, NUMBER),
    Moved(at(2), FIRST, NEW_NUMBER),
    Said(at(4), "B", SECOND, NUMBER),
    Said(at(5), "B", SECOND, NUMBER),
]


@given(st.permutations(OWNED), POLICIES)
def test_who_left_a_number_is_asked_about_under_it_until_a_person_acknowledges_the_new_owner(
    delivered: list[Any], policies: Policies
) -> None:
    people = deliver(delivered, policies)
    assert people.reasons(NUMBER) == {"identity_pending", "number_changed"}
    decision = Decision(Verb.ACKNOWLEDGE, "B", CRM)
    TakeDecision("shop", NUMBER, decision).apply(people.uow)
    assert people.reasons(NUMBER) == set()
    for one in delivered:
        people.take(one)
    assert people.reasons(NUMBER) == set(), "told again it says nothing new"
