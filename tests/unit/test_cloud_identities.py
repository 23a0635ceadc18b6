"""What arrives from the Cloud API, and what becomes of it; acknowledging is our own decision."""

from typing import Any

import pytest

from service.model.aliases import (
    HELD_BEFORE,
    IN_OTHER_HANDS,
    AliasOwners,
    AliasResolver,
    Resolution,
)
from service.model.decisions import Decision, Result, Verb, decide
from service.model.events import AliasesSeen, HashRefused, IdentitySeen, NumberChanged, SendBlocked
from service.model.identity import come_due
from service.model.merges import link_users
from service.model.outcomes import BLOCKED, migrate_to_cloud
from service.model.policy import Policies, Policy
from service.model.send_blocks import record_refusal, record_send_block
from service.model.sightings import record_sighting
from service.model.timeline import Moment, Precision
from service.model.users import Context, State, User, by_key, by_policy

T = 1_700_000_000_000
NOW = T + 1_000_000
WA_ID, ID, OTHER_ID, PARENT = "16505551234", "US.13491208655302741918", "US.2", "US.ENT.3"
MANUAL, AUTO = Policy("default"), Policy("default", "auto")
DELAYED = Policy("default", "auto", delay_seconds=60)
FIRST_USE = Policy("trust_first_use", "auto")


def context(policy: Policy = MANUAL, now: int = NOW, *, trust: bool = True) -> Context:
    first_use = FIRST_USE if trust else None
    return Context(now, Policies((), policy, local=True, first_use=first_use), now)


def user() -> User:
    return User(1, "shop", WA_ID, NOW)


def second(at: int) -> Moment:
    return Moment(T + at * 1000, Precision.SECOND)


def sight(known: User, hash_: str, at: int, around: Context | None = None) -> None:
    record_sighting(known, IdentitySeen(WA_ID, hash_, second(at)), around or context())


def trusted(hash_: str = "A", at: int = 10) -> User:
    known = user()
    sight(known, hash_, at, context(now=T + at * 1000))
    known.audit.clear()
    return known


def refused(known: User, at: int, message_id: str | None = None) -> None:
    record_refusal(known, HashRefused(WA_ID, second(at), message_id), context())


def acknowledge(known: User, hash_: str | None) -> Result:
    return decide(known, Decision(Verb.ACKNOWLEDGE, hash_, by_key("crm")), context())


def hold(known: User, hash_: str | None) -> Result:
    return decide(known, Decision(Verb.HOLD, hash_, by_key("crm")), context())


def events(known: User) -> list[str]:
    return [entry.event for entry in known.audit]


class TestTheFirstHash:
    def test_is_trusted_by_a_policy_of_its_own(self) -> None:
        known = user()
        sight(known, "A", 10)
        assert known.identity.latest is not None
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.identity.latest.decided_by == by_policy("trust_first_use")
        assert known.identity.latest.acknowledged_at == NOW
        assert events(known) == ["first_use"]

    @pytest.mark.parametrize(
        ("policy", "state"),
        [
            (MANUAL, State.PENDING),
            (AUTO, State.ACKNOWLEDGED),
            (DELAYED, State.SCHEDULED),
        ],
    )
    def test_is_a_change_like_any_where_it_is_not_trusted(
        self, policy: Policy, state: State
    ) -> None:
        known = user()
        sight(known, "A", 10, context(policy, trust=False))
        assert known.identity.state is state
        assert events(known)[0] == "changed"

    def test_is_not_the_first_any_more_once_an_earlier_one_is_heard_of(self) -> None:
        known = trusted("B", 20)
        sight(known, "A", 10)
        assert (known.hash, known.identity.state) == ("B", State.PENDING)
        assert known.identity.latest is not None
        assert (known.identity.latest.decided_by, known.identity.latest.acknowledged_at) == (
            None,
            None,
        )

    def test_that_a_person_has_acknowledged_stays_so_when_an_earlier_one_is_heard_of(self) -> None:
        known = user()
        sight(known, "B", 20, context(trust=False))
        assert acknowledge(known, "B") is Result.TAKEN
        sight(known, "A", 10)
        assert known.identity.state is State.ACKNOWLEDGED


class TestALaterHash:
    def test_waits_for_a_person_and_nobody_is_asked(self) -> None:
        known = trusted()
        sight(known, "B", 20)
        assert (known.hash, known.identity.state) == ("B", State.PENDING)
        assert known.identity.work is None
        assert known.identity.ask is None

    def test_is_acknowledged_at_once_by_a_decision(self) -> None:
        known = trusted()
        sight(known, "B", 20)
        known.audit.clear()
        assert acknowledge(known, "B") is Result.TAKEN
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.identity.work is None
        assert events(known) == ["decided", "acknowledged"]

    def test_is_acknowledged_at_once_by_an_automatic_policy(self) -> None:
        known = trusted()
        sight(known, "B", 20, context(AUTO))
        assert known.identity.state is State.ACKNOWLEDGED

    def test_that_is_scheduled_is_acknowledged_when_it_is_due(self) -> None:
        known = trusted()
        sight(known, "B", 20, context(DELAYED))
        assert known.identity.state is State.SCHEDULED
        assert known.identity.work is not None
        assert come_due(known, context(DELAYED, NOW + 60_000))
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.identity.work is None

    def test_in_the_same_second_as_the_trusted_one_is_for_a_person_to_tell(self) -> None:
        known = trusted("A", 20)
        sight(known, "B", 20, context(AUTO))
        assert known.identity.state is State.PENDING
        assert known.identity.ask is None

    def test_that_is_delivered_late_does_not_roll_the_state_back(self) -> None:
        known = trusted()
        sight(known, "B", 20)
        acknowledge(known, "B")
        sight(known, "A", 10)
        sight(known, "A", 5)
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)


class TestARefusedMessage:
    def test_makes_the_trusted_hash_one_that_nobody_knows(self) -> None:
        known = trusted()
        refused(known, 20)
        assert (known.hash, known.identity.state) == (None, State.PENDING)
        assert known.identity.latest is not None
        assert [(c.hash, c.outcome) for c in known.history] == [("A", "superseded")]
        assert "changed" in events(known)

    def test_waits_for_a_person_whatever_the_policy_is(self) -> None:
        known = trusted()
        record_refusal(known, HashRefused(WA_ID, second(20), None), context(AUTO))
        assert known.identity.state is State.PENDING

    def test_says_nothing_that_is_older_than_the_acknowledgement(self) -> None:
        known = trusted("A", 30)
        refused(known, 20)
        assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)

    def test_counts_in_the_very_second_of_the_acknowledgement(self) -> None:
        known = trusted("A", 30)
        refused(known, 30)
        assert known.identity.state is State.PENDING

    def test_says_nothing_where_nothing_is_trusted(self) -> None:
        known = user()
        refused(known, 20)
        assert known.identity.state is None
        pending = trusted()
        sight(pending, "B", 15)
        refused(pending, 20)
        assert (pending.hash, pending.identity.state) == ("B", State.PENDING)

    def test_says_nothing_twice(self) -> None:
        known = trusted()
        refused(known, 20, "wamid.1")
        sight(known, "B", 30)
        acknowledge(known, "B")
        assert known.identity.latest is not None
        known.identity.latest.acknowledged_at = T
        refused(known, 20, "wamid.1")
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)

    def test_says_nothing_later_when_it_said_nothing_at_first(self) -> None:
        known = trusted()
        sight(known, "B", 15)
        refused(known, 1_500, "wamid.1")
        acknowledge(known, "B")
        refused(known, 1_500, "wamid.1")
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)

    def test_that_tells_the_new_hash_is_a_change_to_it(self) -> None:
        known = trusted()
        record_refusal(known, HashRefused(WA_ID, second(20), None, "B"), context())
        assert (known.hash, known.identity.state) == ("B", State.PENDING)

    def test_that_tells_a_hash_and_is_older_than_the_acknowledgement_says_nothing(self) -> None:
        known = trusted("A", 30)
        record_refusal(known, HashRefused(WA_ID, second(20), None, "B"), context())
        assert (known.hash, known.identity.state, known.history) == ("A", State.ACKNOWLEDGED, [])

    def test_that_tells_the_trusted_hash_says_nothing(self) -> None:
        known = trusted()
        record_refusal(known, HashRefused(WA_ID, second(20), None, "A"), context())
        assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)

    def test_that_tells_the_hash_that_was_awaited_is_what_was_waited_for(self) -> None:
        known = trusted()
        refused(known, 20)
        acknowledge(known, None)
        record_refusal(known, HashRefused(WA_ID, second(30), None, "B"), context())
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)

    def test_is_the_same_change_for_the_guard_as_the_hash_that_follows(self) -> None:
        known = trusted()
        once = Policy("default", "auto", max_changes=2)
        refused(known, 20)
        sight(known, "B", 30, context(once))
        assert known.identity.state is State.ACKNOWLEDGED


class TestAnUnknownHash:
    def unknown(self) -> User:
        known = trusted()
        refused(known, 20)
        known.audit.clear()
        return known

    def test_that_is_approved_lets_a_message_through_until_it_is_told(self) -> None:
        known = self.unknown()
        assert acknowledge(known, None) is Result.TAKEN
        assert (known.hash, known.identity.state) == (None, State.AWAITING_HASH)
        assert events(known) == ["decided"]

    def test_is_not_approved_by_naming_another(self) -> None:
        known = self.unknown()
        assert acknowledge(known, "A") is Result.ANOTHER_HASH
        assert known.identity.state is State.PENDING

    def test_that_was_awaited_is_trusted_and_the_decider_stays(self) -> None:
        known = self.unknown()
        acknowledge(known, None)
        sight(known, "B", 30)
        assert known.identity.latest is not None
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)
        assert known.identity.latest.decided_by == by_key("crm")
        assert known.identity.latest.changed == second(30)
        assert events(known)[-2:] == ["changed", "acknowledged"]
        assert [c.hash for c in known.history] == ["A"]

    def test_may_be_the_old_one_again(self) -> None:
        known = self.unknown()
        acknowledge(known, None)
        sight(known, "A", 30)
        assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)

    def test_is_not_told_by_a_late_delivery_of_the_old_one(self) -> None:
        known = self.unknown()
        acknowledge(known, None)
        sight(known, "A", 10)
        sight(known, "A", 5)
        assert (known.hash, known.identity.state) == (None, State.AWAITING_HASH)

    def test_that_is_told_before_anybody_decided_is_decided_afresh(self) -> None:
        known = self.unknown()
        sight(known, "B", 30)
        assert (known.hash, known.identity.state) == ("B", State.PENDING)
        automatic = self.unknown()
        sight(automatic, "B", 30, context(AUTO))
        assert automatic.identity.state is State.ACKNOWLEDGED

    def test_is_told_by_a_message_from_before_the_refused_one_too(self) -> None:
        known = self.unknown()
        sight(known, "B", 15)
        assert (known.hash, known.identity.state) == ("B", State.PENDING)
        assert known.identity.latest is not None
        assert known.identity.latest.changed == second(15)

    def test_is_not_told_by_the_old_one_sent_before_the_refusal_and_delivered_late(self) -> None:
        for approved in (False, True):
            known = self.unknown()
            if approved:
                acknowledge(known, None)
            sight(known, "A", 15, context(AUTO))
            assert known.hash is None
            assert known.identity.state is (State.AWAITING_HASH if approved else State.PENDING)
            assert [c.hash for c in known.history] == ["A"]

    def test_leaves_an_earlier_hash_to_the_history(self) -> None:
        known = trusted()
        sight(known, "B", 30)
        acknowledge(known, "B")
        refused(known, 1500)
        sight(known, "C", 20)
        assert (known.hash, known.identity.state) == (None, State.PENDING)
        assert [c.hash for c in known.history] == ["A", "C", "B"]

    def test_may_be_held_before_and_after_it_was_approved(self) -> None:
        known = self.unknown()
        assert hold(known, None) is Result.TAKEN
        assert known.identity.state is State.HELD
        acknowledge(known, None)
        assert known.identity.state is State.AWAITING_HASH
        assert acknowledge(known, None) is Result.TAKEN
        assert hold(known, None) is Result.TAKEN
        assert known.identity.state is State.HELD

    def test_that_was_held_waits_for_a_person_when_it_is_told(self) -> None:
        known = self.unknown()
        hold(known, None)
        sight(known, "B", 30, context(AUTO))
        assert known.identity.state is State.PENDING


class TestNames:
    def naming(
        self,
        by_user_id: User | None,
        by_wa_id: User | None,
        at: int = 20,
        *,
        creates: bool = True,
        policy: Policy = MANUAL,
        hash_: str | None = None,
        parent: User | None = None,
    ) -> Resolution | None:
        named = AliasesSeen(ID, WA_ID, PARENT if parent else None, second(at), creates)
        leads = {ID: by_user_id, WA_ID: by_wa_id, OTHER_ID: by_wa_id}
        namer = AliasResolver(named, hash_, leads.get, context(policy))
        known = AliasOwners(by_user_id, by_wa_id, parent)
        return namer.resolve_aliases(known, lambda id_: User(9, "shop", None, NOW, user_id=id_))

    def test_a_wa_id_without_user_id_gets_one(self) -> None:
        known = user()
        naming = self.naming(None, known)
        assert naming is not None
        assert naming.user is known
        assert (known.user_id, known.wa_id) == (ID, WA_ID)

    def test_nobody_is_kept_of_whom_only_a_status_is_known(self) -> None:
        assert self.naming(None, None, creates=False) is None
        naming = self.naming(None, None)
        assert naming is not None
        assert naming.owned == [ID, WA_ID]

    def test_a_wa_id_moves_to_the_user_id_that_has_it_now_who_inherits_nothing(self) -> None:
        before = trusted()
        before.user_id = OTHER_ID
        naming = self.naming(None, before)
        assert naming is not None
        assert naming.user is not before
        assert (naming.user.wa_id, naming.user.hash) == (WA_ID, None)
        assert (before.wa_id, before.hash) == (None, "A")
        assert events(before) == ["alias_moved"]

    def test_a_late_delivery_does_not_move_a_wa_id_back(self) -> None:
        now = user()
        now.user_id, now.named_at = OTHER_ID, second(30).at
        before = User(2, "shop", None, NOW, user_id=ID)
        naming = self.naming(before, now, at=20)
        assert naming is not None
        assert (naming.user, naming.owned) == (before, [ID])
        assert now.wa_id == WA_ID

    def test_who_is_found_under_another_number_keeps_the_old_one_as_an_alias(self) -> None:
        known = User(1, "shop", "16505550000", NOW, user_id=ID, named_at=second(10).at)
        naming = self.naming(known, None)
        assert naming is not None
        assert known.wa_id == WA_ID
        assert naming.owned == [ID, WA_ID]

    def test_two_who_are_one_are_merged_with_their_history_and_work(self) -> None:
        by_number, by_id = trusted("A", 10), User(2, "shop", None, NOW, user_id=ID)
        sight(by_number, "B", 30, context(DELAYED))
        sight(by_id, "A", 20)
        naming = self.naming(by_id, by_number, policy=DELAYED)
        assert naming is not None
        assert naming.merged == [by_number]
        assert (by_id.hash, by_id.identity.state) == ("B", State.SCHEDULED)
        assert [(c.hash, c.seen) for c in by_id.history] == [("A", [second(10), second(20)])]
        assert by_id.identity.work is not None
        assert (by_number.identity.state, by_number.identity.work, by_number.history) == (
            None,
            None,
            [],
        )
        assert by_number.merged_into == 2
        assert "merged" in events(by_id)

    def test_nobody_is_trusted_for_a_first_hash_that_is_another_ones_second(self) -> None:
        by_number, by_id = trusted("A", 10), User(2, "shop", None, NOW, user_id=ID)
        sight(by_number, "B", 20)
        sight(by_id, "B", 30)
        assert (by_number.identity.state, by_id.identity.state) == (
            State.PENDING,
            State.ACKNOWLEDGED,
        )
        self.naming(by_id, by_number)
        assert (by_id.hash, by_id.identity.state) == ("B", State.PENDING)

    def test_a_rule_for_a_number_holds_for_who_turns_out_to_have_it(self) -> None:
        by_number, by_id = trusted("A", 10), User(2, "shop", None, NOW, user_id=ID)
        sight(by_id, "A", 15)
        sight(by_id, "B", 20, context(AUTO))
        assert by_id.identity.state is State.ACKNOWLEDGED
        self.naming(by_id, by_number, policy=MANUAL)
        assert by_id.identity.state is State.PENDING

    def test_what_a_person_decided_about_the_same_hash_holds_for_both(self) -> None:
        by_number, by_id = trusted("A", 10), User(2, "shop", None, NOW, user_id=ID)
        sight(by_number, "B", 20)
        acknowledge(by_number, "B")
        sight(by_id, "A", 15)
        sight(by_id, "B", 30)
        self.naming(by_id, by_number)
        assert by_id.identity.latest is not None
        assert (by_id.hash, by_id.identity.state) == ("B", State.ACKNOWLEDGED)
        assert by_id.identity.latest.decided_by == by_key("crm")

    def test_an_approval_holds_for_who_turns_out_to_have_got_the_hash(self) -> None:
        by_number, by_id = trusted("A", 10), User(2, "shop", None, NOW, user_id=ID)
        refused(by_number, 20)
        acknowledge(by_number, None)
        sight(by_id, "A", 15, context(trust=False))
        sight(by_id, "B", 30, context(trust=False))
        self.naming(by_id, by_number)
        assert by_id.identity.latest is not None
        assert (by_id.hash, by_id.identity.state) == ("B", State.ACKNOWLEDGED)
        assert by_id.identity.latest.decided_by == by_key("crm")
        assert [c.hash for c in by_id.history] == ["A"]

    def test_nobody_is_told_to_write_to_the_number_that_the_user_has(self) -> None:
        by_number = User(1, "shop", WA_ID, NOW)
        by_id = User(2, "shop", None, NOW, user_id=ID)
        link_users(by_id, by_number, NumberChanged(ID, WA_ID, second(10)), context())
        self.naming(by_id, by_number)
        assert (by_id.links, by_id.moved_to) == ([], None)

    def test_a_hold_survives_a_merger(self) -> None:
        by_number, by_id = trusted("A", 10), User(2, "shop", None, NOW, user_id=ID)
        sight(by_number, "B", 20)
        hold(by_number, "B")
        sight(by_id, "C", 30)
        assert by_id.identity.state is State.ACKNOWLEDGED
        self.naming(by_id, by_number)
        assert (by_id.hash, by_id.identity.state) == ("C", State.PENDING)

    def test_a_user_is_not_linked_to_itself(self) -> None:
        known = trusted()
        link_users(known, known, NumberChanged(WA_ID, ID, second(20)), context())
        assert (known.links, known.moved_to) == ([], None)

    def test_a_link_speaks_of_the_number_where_there_is_one(self) -> None:
        old = User(1, "shop", WA_ID, NOW, user_id=ID)
        new = User(2, "shop", None, NOW, user_id=OTHER_ID)
        link_users(old, new, NumberChanged(ID, OTHER_ID, second(10)), context())
        assert [x.alias for x in old.links] == [OTHER_ID]
        assert [x.alias for x in new.links] == [WA_ID]


class TestANumberInOtherHands:
    """A wa_id that was one user id's comes with another."""

    naming = TestNames.naming

    def former(self, hash_: str = "A", at: int = 10) -> User:
        known = trusted(hash_, at)
        known.user_id, known.named_at = OTHER_ID, second(at).at
        return known

    def owner(self, former: User, **more: Any) -> User:
        naming = self.naming(None, former, **more)
        assert naming is not None
        assert naming.user is not former
        return naming.user

    def test_closes_the_gate_before_any_hash_of_the_new_owner_is_known(self) -> None:
        owner = self.owner(self.former())
        assert (owner.hash, owner.identity.state) == (None, State.PENDING)
        assert [entry.reason for entry in owner.audit] == [IN_OTHER_HANDS]

    def test_makes_the_first_hash_a_change_about_which_policy_decides(self) -> None:
        for policy, state in ((MANUAL, State.PENDING), (AUTO, State.ACKNOWLEDGED)):
            owner = self.owner(self.former())
            sight(owner, "B", 20, context(policy))
            assert (owner.hash, owner.identity.state, owner.history) == ("B", state, [])

    @pytest.mark.parametrize("known_before", [True, False])
    def test_waits_for_a_person_where_the_former_was_held(self, known_before: bool) -> None:
        former = self.former()
        sight(former, "C", 15)
        hold(former, "C")
        if known_before:
            owner = User(2, "shop", None, NOW, user_id=ID)
            sight(owner, "B", 12, context(AUTO))
            self.naming(owner, former, policy=AUTO)
        else:
            owner = self.owner(former, policy=AUTO)
            sight(owner, "B", 20, context(AUTO))
        assert (owner.hash, owner.identity.state) == ("B", State.PENDING)
        assert HELD_BEFORE in [entry.reason for entry in owner.audit]
        assert (former.hash, former.identity.state) == ("C", State.HELD)

    def test_takes_back_a_trust_on_first_use_of_who_has_it_now(self) -> None:
        former, owner = self.former(), User(2, "shop", None, NOW, user_id=ID)
        sight(owner, "B", 15)
        assert owner.identity.state is State.ACKNOWLEDGED
        self.naming(owner, former)
        assert (owner.hash, owner.identity.state, owner.history) == ("B", State.PENDING, [])

    def test_leaves_what_a_person_decided_about_the_new_owner(self) -> None:
        former, owner = self.former(), User(2, "shop", None, NOW, user_id=ID)
        sight(owner, "Z", 12)
        sight(owner, "B", 15)
        acknowledge(owner, "B")
        self.naming(owner, former)
        assert owner.identity.state is State.ACKNOWLEDGED

    def test_may_be_told_after_the_new_owner_is_known(self) -> None:
        owner = trusted("B", 30)
        owner.user_id, owner.named_at = OTHER_ID, second(30).at
        naming = self.naming(None, owner, at=20)
        assert naming is not None
        assert naming.owned == [ID]
        assert (owner.wa_id, owner.hash, owner.identity.state) == (WA_ID, "B", State.PENDING)
        acknowledge(owner, "B")
        self.naming(naming.user, owner, at=21)
        assert owner.identity.state is State.ACKNOWLEDGED, "told twice, it is one handover"

    def test_leads_from_the_one_to_the_other(self) -> None:
        former = self.former()
        owner = self.owner(former)
        assert [(x.alias, x.relation) for x in former.links] == [(ID, "next_owner")]
        assert [(x.alias, x.relation) for x in owner.links] == [(OTHER_ID, "former_owner")]
        assert former.moved_to is None
        assert owner.moved_to is None

    def test_that_was_an_old_one_of_the_former_leaves_the_present_one_alone(self) -> None:
        former = self.former()
        former.wa_id, former.named_at = "16505550000", second(90).at
        owner = self.owner(former)
        assert (former.wa_id, owner.wa_id) == ("16505550000", WA_ID)

    def test_is_in_the_same_hands_where_the_hash_is_the_same(self) -> None:
        former = self.former()
        naming = self.naming(None, former, hash_="A")
        assert naming is not None
        assert (naming.user, naming.owned) == (former, [ID, WA_ID])
        assert (former.user_id, former.identity.state) == (ID, State.ACKNOWLEDGED)
        assert events(former) == ["user_id_changed"]

    def test_is_in_the_same_hands_where_the_parent_id_is_the_same(self) -> None:
        former = self.former()
        naming = self.naming(None, former, parent=former)
        assert naming is not None
        assert (naming.user, naming.owned) == (former, [ID, PARENT, WA_ID])
        assert former.user_id == ID

    def test_is_in_the_same_hands_where_a_user_id_is_told_to_follow_the_other(self) -> None:
        former, new = self.former(), User(2, "shop", None, NOW, user_id=ID)
        link_users(former, new, NumberChanged(OTHER_ID, ID, second(12)), context())
        naming = self.naming(new, former)
        assert naming is not None
        assert naming.merged == [former]
        assert (new.hash, new.identity.state, new.links) == ("A", State.ACKNOWLEDGED, [])

    def test_a_user_id_that_was_used_before_the_known_one_is_an_alias_and_no_more(self) -> None:
        known = self.former(at=30)
        naming = self.naming(None, known, at=20, hash_="A")
        assert naming is not None
        assert (naming.user, known.user_id) == (known, OTHER_ID)

    def test_who_left_the_number_is_asked_about_as_long_as_a_person_knows_nothing_better(
        self,
    ) -> None:
        former, new = self.former(), User(3, "shop", "16505550000", NOW)
        link_users(former, new, NumberChanged(OTHER_ID, "16505550000", second(15)), context())
        owner = self.owner(former)
        sight(owner, "B", 20, context(AUTO))
        assert owner.identity.state is State.PENDING
        assert owner.moved_to is not None
        acknowledge(owner, "B")
        assert (owner.identity.state, owner.moved_to) == (State.ACKNOWLEDGED, None)


class TestAnAccountThatMoves:
    """Users as the On-Premises API left them, and what is settled when nobody can be asked."""

    def onprem(self, policy: Policy = MANUAL) -> User:
        known = user()
        record_sighting(
            known, IdentitySeen(WA_ID, "A", second(10)), Context(NOW, Policies((), policy), NOW)
        )
        return known

    def test_what_was_decided_is_in_effect_and_the_decider_stays(self) -> None:
        known = self.onprem(AUTO)
        assert known.identity.state is State.ACKNOWLEDGING
        migrate_to_cloud(known, context())
        assert known.identity.latest is not None
        assert (known.identity.state, known.identity.work) == (State.ACKNOWLEDGED, None)
        assert known.identity.latest.decided_by == by_policy("default")

    def test_what_a_blocked_message_left_open_a_person_decides(self) -> None:
        known = self.onprem(AUTO)
        migrate_to_cloud(known, context())
        record_send_block(known, SendBlocked(WA_ID, second(20), None), context())
        known.audit.clear()
        migrate_to_cloud(known, context())
        assert (known.identity.state, known.identity.blocked_since, known.identity.ask) == (
            State.PENDING,
            None,
            None,
        )
        assert [entry.reason for entry in known.audit] == [BLOCKED]

    def test_nobody_is_blocked_of_whom_no_identity_is_known(self) -> None:
        known = user()
        around = Context(NOW, Policies((), MANUAL), NOW)
        record_send_block(known, SendBlocked(WA_ID, second(20), None), around)
        assert known.identity.ask is not None
        migrate_to_cloud(known, context())
        assert (known.identity.state, known.identity.blocked_since, known.identity.ask) == (
            None,
            None,
            None,
        )

    @pytest.mark.parametrize("policy", [MANUAL, DELAYED])
    def test_what_waits_keeps_waiting(self, policy: Policy) -> None:
        known = self.onprem(policy)
        before = (known.identity.state, known.identity.due_at, known.identity.work)
        migrate_to_cloud(known, context())
        assert (known.identity.state, known.identity.due_at, known.identity.work) == before

    def test_a_hash_known_before_is_not_a_first_one(self) -> None:
        known = self.onprem()
        migrate_to_cloud(known, context())
        sight(known, "B", 30)
        assert (known.hash, known.identity.state) == ("B", State.PENDING)
