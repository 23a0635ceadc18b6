"""A person blocks a user, with no identity change at hand."""

from service.model.decisions import Block, block_user, copy_block, unblock_user
from service.model.policy import Policies, Policy
from service.model.users import Context, User, by_key

NOW = 1_600_000_000_000
BY, ANOTHER = by_key("crm"), by_key("desk")
CONTEXT = Context(NOW, Policies((), Policy("default")), NOW)
LASTING = Block("asked us to stop", NOW, BY)


def user() -> User:
    return User(1, "main", "16315550001", NOW)


def test_a_block_leaves_one_audit_entry_with_who_and_why() -> None:
    known = user()
    assert block_user(known, None, LASTING, CONTEXT, "a note") == LASTING
    [entry] = known.audit
    assert (entry.at, entry.event, entry.by, entry.reason, entry.note) == (
        NOW, "blocked", BY, "asked us to stop", "a note"
    )  # fmt: skip


def test_the_same_block_again_changes_nothing() -> None:
    known = user()
    again = Block("asked us to stop", NOW + 5, ANOTHER)
    assert block_user(known, LASTING, again, CONTEXT) is LASTING
    assert known == user()


def test_another_block_takes_its_place_and_counts_since_the_first() -> None:
    known = user()
    wanted = Block("fraud", NOW + 5, ANOTHER, NOW + 60)
    assert block_user(known, LASTING, wanted, CONTEXT) == Block("fraud", NOW, ANOTHER, NOW + 60)
    assert [entry.event for entry in known.audit] == ["blocked"]


def test_after_one_that_has_ended_a_block_is_new() -> None:
    ended = Block("asked us to stop", NOW - 60, BY, NOW)
    assert block_user(user(), ended, LASTING, CONTEXT) == LASTING
    assert not ended.in_force(NOW)
    assert ended.in_force(NOW - 1)


def test_ending_a_block_leaves_one_audit_entry() -> None:
    known = user()
    assert unblock_user(known, LASTING, ANOTHER, CONTEXT)
    assert [(entry.event, entry.by) for entry in known.audit] == [("unblocked", ANOTHER)]


def test_what_is_not_in_force_can_not_be_ended() -> None:
    known = user()
    assert not unblock_user(known, None, BY, CONTEXT)
    assert not unblock_user(known, Block("x", NOW - 60, BY, NOW), BY, CONTEXT)
    assert known.audit == []


def test_a_block_holds_for_another_unless_that_one_has_a_block_that_ends_no_sooner() -> None:
    longer, shorter = Block("fraud", NOW, BY), Block("x", NOW - 5, BY, NOW + 60)
    ended = Block("x", NOW - 60, BY, NOW)
    assert copy_block(shorter, None, user(), CONTEXT)
    assert copy_block(shorter, ended, user(), CONTEXT)
    assert copy_block(longer, shorter, user(), CONTEXT)
    for block_, known in ((shorter, longer), (longer, LASTING), (ended, None)):
        other = user()
        assert not copy_block(block_, known, other, CONTEXT)
        assert other == user()


def test_a_copied_block_is_on_record_with_who_put_it_and_why() -> None:
    other = user()
    copy_block(LASTING, None, other, CONTEXT)
    [entry] = other.audit
    assert (entry.event, entry.by, entry.reason) == ("blocked", BY, "asked us to stop")
    assert "copied" in (entry.note or "")
