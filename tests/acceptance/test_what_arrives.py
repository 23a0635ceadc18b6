"""What arrives, and what becomes of it: the rules of identities, over real sockets."""

import asyncio
import json
from typing import Any

import pytest

from service.store.database import wall_clock
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    Json,
    blocked,
    hour_ago,
    notice,
    rfc3339,
    until,
    vague_notice,
    wrote,
)

CLIENT = {"kind": "client"}


def outcomes(shown: Json) -> list[tuple[str, str]]:
    """Give the history as hashes and what became of them, the newest first."""
    return [(entry["hash"], entry["outcome"]) for entry in shown["history"]]


def events(shown: Json) -> list[str]:
    return [entry["event"] for entry in shown["audit"]]


async def settled(made: Installation, wa_id: str = WA_ID) -> None:
    """Wait until no question about a user is open."""

    async def idle() -> bool:
        _, account = await made.api("GET", "/accounts/main")
        return bool(account["backlog"]["ask"]["waiting"] == 0)

    await until(idle, what=f"nothing is asked about {wa_id}")


# The latest hash again, and repeats


async def test_the_latest_hash_again_from_any_source_is_the_same_change(
    manual: Installation,
) -> None:
    at = hour_ago(0.321)
    await manual.deliver(notice(WA_ID, HASH_A, at))
    first = await manual.identity()
    assert first["changed_at"] == rfc3339(at)
    await manual.deliver(
        notice(WA_ID, HASH_A, at),
        vague_notice(WA_ID, HASH_A, at),
        wrote(WA_ID, HASH_A, at),
        wrote(WA_ID, HASH_A, at, acknowledged=False),
        notice(WA_ID, HASH_A, at + 2000),
    )
    again = await manual.identity()
    assert (again["hash"], again["state"], again["changed_at"]) == (
        HASH_A,
        "pending",
        rfc3339(at),
    )
    assert again["history"] == []
    assert events(again) == ["changed"]


async def test_the_more_precise_time_of_the_same_change_is_kept(manual: Installation) -> None:
    at = hour_ago(0.321)
    second = at - at % 1000
    await manual.deliver(vague_notice(WA_ID, HASH_A, at))
    assert (await manual.identity())["changed_at"] == rfc3339(second)
    await manual.deliver(notice(WA_ID, HASH_A, at))
    assert (await manual.identity())["changed_at"] == rfc3339(at)
    await manual.deliver(vague_notice(WA_ID, HASH_A, at))
    shown = await manual.identity()
    assert (shown["changed_at"], events(shown)) == (rfc3339(at), ["changed"])


async def test_a_message_alone_reveals_a_change_whose_notification_was_lost(
    auto: Installation,
) -> None:
    hash_ = auto.sim.change_identity(WA_ID, notify=False)
    auto.sim.write(WA_ID, "It is me")
    await auto.sim.settled()
    await auto.becomes("acknowledged", hash_=hash_)
    assert auto.puts() == ["acknowledged"]


async def test_a_hash_within_its_own_span_in_the_history_is_a_repeat(
    manual: Installation,
) -> None:
    await manual.deliver(notice(WA_ID, HASH_A, hour_ago(0)), notice(WA_ID, HASH_B, hour_ago(10)))
    before = await manual.identity()
    await manual.deliver(
        notice(WA_ID, HASH_A, hour_ago(0)),
        wrote(WA_ID, HASH_A, hour_ago(0)),
        vague_notice(WA_ID, HASH_A, hour_ago(0)),
        notice(WA_ID, HASH_A, hour_ago(0.9)),
    )
    assert await manual.identity() == before


# Later and earlier changes


async def test_a_later_change_supersedes_the_latest_and_cancels_its_work(
    install: Install,
) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600})
    first = await made.change()
    assert await made.state() == "scheduled"
    second = await made.change()
    shown = await made.identity()
    assert (shown["hash"], shown["state"]) == (second, "scheduled")
    assert outcomes(shown) == [(first, "superseded")]
    assert events(shown) == ["changed", "superseded", "changed"]
    made.pass_time(3601)
    await made.becomes("acknowledged", hash_=second)
    assert [call.hash for call in made.sim.puts] == [second]


async def test_a_put_under_way_for_a_superseded_hash_counts_no_more(manual: Installation) -> None:
    first = await manual.change()
    manual.sim.fault("identity_put", latency=0.3, times=1)
    assert (await manual.acknowledge(first))[0] == 202
    await manual.put_under_way()
    second = await manual.change()
    await until(lambda: manual.puts() == ["stale"])
    await until(lambda: manual.gets() == 1)
    manual.pass_time(600)
    shown = await manual.identity()
    assert (shown["hash"], shown["state"], shown["decided_by"]) == (second, "pending", None)
    assert "failed" not in events(shown)


async def test_after_a_hold_the_next_change_waits_for_a_person_whatever_the_policy(
    install: Install,
) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600, "max_changes": 9})
    first = await made.change()
    assert (await made.hold(first))[0] == 200
    second = await made.change()
    shown = await made.identity()
    assert (shown["hash"], shown["state"], shown["decided_by"]) == (second, "pending", None)
    third = await made.change()
    assert (await made.identity())["state"] == "pending"
    assert "held" in (await made.identity())["audit"][-1]["reason"]
    assert (await made.acknowledge(third, query="?wait=5"))[0] == 200
    await made.change()
    assert await made.state() == "scheduled"


async def test_an_earlier_change_is_one_entry_of_the_history_and_nothing_else(
    auto: Installation,
) -> None:
    auto.sim.set_user(WA_ID, hash=HASH_B, acknowledged=False, created_timestamp=hour_ago(10))
    await auto.deliver(notice(WA_ID, HASH_B, hour_ago(10)))
    await auto.becomes("acknowledged")
    before = await auto.identity()
    for _ in range(3):
        await auto.deliver(notice(WA_ID, HASH_A, hour_ago(0)))
    shown = await auto.identity()
    assert outcomes(shown) == [(HASH_A, "superseded")]
    assert (shown["hash"], shown["state"]) == (HASH_B, "acknowledged")
    assert shown["changed_at"] == before["changed_at"]
    assert len(auto.sim.puts) == 1
    assert await auto.reasons() == []
    assert events(shown).count("changed") == 2


async def test_the_hash_that_comes_back_after_another_is_a_new_change(
    manual: Installation,
) -> None:
    a = await manual.acknowledged(hash_=HASH_A)
    at = hour_ago(10)
    manual.sim.set_user(WA_ID, hash=HASH_A, acknowledged=False)
    await manual.deliver(notice(WA_ID, HASH_B, at), notice(WA_ID, a, at + 5000))
    shown = await manual.identity()
    assert (shown["hash"], shown["state"], shown["decided_by"]) == (HASH_A, "pending", None)
    assert outcomes(shown) == [(HASH_B, "superseded"), (HASH_A, "superseded")]
    assert shown["history"][1]["acknowledged_at"] is not None
    assert manual.puts() == ["acknowledged"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_every_order_of_delivery_ends_the_same(
    manual: Installation, order: tuple[int, ...]
) -> None:
    bodies = [
        notice(WA_ID, HASH_A, hour_ago(0)),
        notice(WA_ID, HASH_B, hour_ago(10)),
        notice(WA_ID, HASH_C, hour_ago(20)),
    ]
    await manual.deliver(*(bodies[place] for place in order))
    shown = await manual.identity()
    assert (shown["hash"], shown["state"]) == (HASH_C, "pending")
    assert outcomes(shown) == [(HASH_B, "superseded"), (HASH_A, "superseded")]
    assert shown["changed_at"] == rfc3339(hour_ago(20))


async def test_reordered_callbacks_of_the_client_end_with_the_latest(auto: Installation) -> None:
    auto.sim.fault("callback_identity", reorder=3, times=3)
    hashes = [auto.sim.change_identity(WA_ID) for _ in range(3)]
    await auto.sim.settled()
    shown = await auto.becomes("acknowledged", hash_=hashes[-1])
    assert {entry["hash"] for entry in shown["history"]} == set(hashes[:2])
    assert [call.outcome for call in auto.sim.puts].count("acknowledged") == 1


# Another hash whose time can't be told


async def dispute(made: Installation, latest_there: str, *, acknowledged: bool) -> Json:
    """Let two hashes come within one second, so that only the client can tell which is later."""
    at = hour_ago(0)
    made.sim.set_user(WA_ID, hash=latest_there, acknowledged=acknowledged, created_timestamp=at)
    await made.deliver(vague_notice(WA_ID, HASH_A, at), vague_notice(WA_ID, HASH_B, at))
    await settled(made)
    return await made.identity()


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_of_two_hashes_in_one_second_a_get_says_which_is_the_latest(
    manual: Installation, acknowledged: bool
) -> None:
    shown = await dispute(manual, HASH_A, acknowledged=acknowledged)
    assert manual.gets() == 1
    assert shown["hash"] == HASH_A
    assert outcomes(shown) == [(HASH_B, "disputed")]
    assert shown["state"] == ("acknowledged" if acknowledged else "pending")


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_the_later_arrival_may_be_the_latest_too(
    manual: Installation, acknowledged: bool
) -> None:
    shown = await dispute(manual, HASH_B, acknowledged=acknowledged)
    assert shown["hash"] == HASH_B
    assert outcomes(shown) == [(HASH_A, "disputed")]
    assert shown["state"] == ("acknowledged" if acknowledged else "pending")


async def test_a_dispute_waits_for_a_person_whatever_the_policy(install: Install) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600})
    made.sim.fault("identity_get", status=500)
    shown = await dispute_open(made)
    assert (shown["hash"], shown["state"]) == (HASH_B, "pending")
    assert outcomes(shown) == [(HASH_A, "disputed")]
    made.sim.clear_faults()
    made.pass_time(301)
    await settled(made)
    shown = await made.identity()
    assert (shown["hash"], shown["state"]) == (HASH_A, "pending")
    assert outcomes(shown) == [(HASH_B, "disputed")]
    made.pass_time(7200)
    assert await made.state() == "pending"
    assert made.puts() == []


async def dispute_open(made: Installation) -> Json:
    at = hour_ago(0)
    made.sim.set_user(WA_ID, hash=HASH_A, acknowledged=False, created_timestamp=at)
    await made.deliver(vague_notice(WA_ID, HASH_A, at), vague_notice(WA_ID, HASH_B, at))
    await until(lambda: made.gets() == 1)
    return await made.identity()


async def test_notifications_without_any_time_are_told_by_their_arrival(
    manual: Installation,
) -> None:
    await manual.deliver(vague_notice(WA_ID, HASH_A, None))
    first = await manual.identity()
    assert first["changed_at"] == first["received_at"]
    await asyncio.sleep(0.005)
    await manual.deliver(vague_notice(WA_ID, HASH_B, None))
    shown = await manual.identity()
    assert (shown["hash"], outcomes(shown)) == (HASH_B, [(HASH_A, "superseded")])


async def test_a_time_more_than_five_minutes_ahead_is_not_believed(manual: Installation) -> None:
    ahead = hour_ago(2 * 3600)
    manual.sim.set_user(WA_ID, hash=HASH_A, acknowledged=False, created_timestamp=ahead)
    body = notice(WA_ID, HASH_A, ahead)
    await manual.deliver(body, body)
    shown = await manual.identity()
    assert shown["changed_at"] == shown["received_at"]
    assert events(shown) == ["changed", "clock_skew"]
    await asyncio.sleep(0.005)
    await manual.deliver(vague_notice(WA_ID, HASH_B, None))
    assert (await manual.identity())["hash"] == HASH_B
    await manual.deliver(body)
    shown = await manual.identity()
    assert (shown["hash"], len(shown["history"])) == (HASH_B, 1)


# 480: a message failed


@pytest.mark.parametrize("state", ["pending", "scheduled", "acknowledging", "held", "failed"])
async def test_a_480_while_unacknowledged_says_nothing_new(install: Install, state: str) -> None:
    delay = 3600 if state == "scheduled" else 0
    mode = "auto" if state in {"scheduled", "acknowledging"} else "manual"
    made = await install(policy={"mode": mode, "delay_seconds": delay})
    if state == "acknowledging":
        made.sim.fault("identity_put", hang=30)
    hash_ = await made.change()
    if state == "held":
        await made.hold(hash_)
    if state == "failed":
        made.sim.fault("identity_put", status=404, times=1)
        made.sim.fault("identity_get", status=404, times=1)
        await made.acknowledge(hash_, query="?wait=5")
    before = await made.becomes(state)
    gets = made.gets()
    await made.deliver(blocked(WA_ID))
    assert await made.identity() == before
    assert made.gets() == gets
    assert await made.reasons() == [f"identity_{state}"]


async def test_a_480_without_identity_blocks_until_the_client_has_told_it(
    auto: Installation,
) -> None:
    hash_ = auto.sim.change_identity(WA_ID, notify=False)
    auto.sim.fault("identity_get", latency=0.2, times=1)
    await auto.deliver(blocked(WA_ID))
    assert await auto.reasons() == ["send_blocked"]
    assert await auto.identity() == {}
    shown = await auto.becomes("acknowledged", hash_=hash_)
    assert shown["changed_at"] == rfc3339(auto.sim.users[WA_ID].created_timestamp)
    assert await auto.reasons() == []
    assert auto.gets() == 1


async def test_a_480_without_identity_that_the_client_has_acknowledged_is_cleared(
    manual: Installation,
) -> None:
    manual.sim.set_user(WA_ID, hash=HASH_A)
    await manual.deliver(blocked(WA_ID))
    shown = await manual.becomes("acknowledged")
    assert (shown["hash"], shown["decided_by"]) == (HASH_A, CLIENT)
    assert await manual.reasons() == []


async def test_a_480_of_a_user_whom_the_client_does_not_know_is_cleared(
    manual: Installation,
) -> None:
    await manual.deliver(blocked(WA_ID))
    await until(lambda: manual.gets() == 1)
    await settled(manual)
    assert await manual.reasons() == []
    assert await manual.identity() == {}


async def test_a_480_while_acknowledged_blocks_until_the_client_says_that_it_is(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    manual.sim.fault("identity_get", latency=0.2, times=1)
    await manual.deliver(blocked(WA_ID))
    assert await manual.reasons() == ["send_blocked"]
    assert (await manual.identity())["blocking"] is False
    await settled(manual)
    assert await manual.reasons() == []
    shown = await manual.identity()
    assert (shown["state"], outcomes(shown)) == ("acknowledged", [])
    assert "send_blocked" in events(shown)


async def test_a_480_while_acknowledged_finds_another_hash_to_be_a_change(
    auto: Installation,
) -> None:
    first = await auto.change()
    await auto.becomes("acknowledged")
    second = auto.sim.change_identity(WA_ID, notify=False)
    await auto.deliver(blocked(WA_ID))
    shown = await auto.becomes("acknowledged", hash_=second)
    assert outcomes(shown) == [(first, "superseded")]
    assert await auto.reasons() == []


async def test_a_480_whose_hash_was_acknowledged_and_is_no_more_waits_for_a_person(
    auto: Installation,
) -> None:
    hash_ = await auto.change()
    await auto.becomes("acknowledged")
    auto.sim.users[WA_ID].acknowledged = False
    await auto.deliver(blocked(WA_ID))
    shown = await auto.becomes("pending", hash_=hash_)
    assert (shown["decided_by"], shown["acknowledged_at"]) == (None, None)
    auto.pass_time(600)
    assert await auto.reasons() == ["identity_pending"]
    assert auto.puts() == ["acknowledged"]


async def test_a_480_of_an_acknowledged_user_whom_the_client_forgot_is_cleared(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    del manual.sim.users[WA_ID]
    await manual.deliver(blocked(WA_ID))
    await until(lambda: manual.gets() == 1)
    await settled(manual)
    assert (await manual.state(), await manual.reasons()) == ("acknowledged", [])


async def test_many_480s_are_one_question_repeated_until_it_is_answered(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    manual.sim.fault("identity_get", status=500, times=2)
    await manual.deliver(*(blocked(WA_ID) for _ in range(20)))
    await until(lambda: manual.gets() == 1)
    assert await manual.reasons() == ["send_blocked"]
    manual.pass_time(2)
    await until(lambda: manual.gets() == 2)
    assert await manual.reasons() == ["send_blocked"]
    manual.pass_time(4)
    await settled(manual)
    assert (manual.gets(), await manual.reasons()) == (3, [])


async def test_the_same_480_again_asks_nothing_again(manual: Installation) -> None:
    await manual.acknowledged()
    body = blocked(WA_ID, "gBGGFjFVU2AfAgldhhKwWDGSrTs")
    await manual.deliver(body)
    await settled(manual)
    await manual.deliver(body, body)
    assert await manual.reasons() == []
    assert manual.gets() == 1


async def test_a_480_and_its_notification_may_come_in_either_order(auto: Installation) -> None:
    for wa_id, order in ((WA_ID, 1), (OTHER_ID, -1)):
        hash_ = auto.sim.change_identity(wa_id, notify=False)
        user = auto.sim.users[wa_id]
        bodies = [blocked(wa_id), notice(wa_id, hash_, user.created_timestamp)]
        await auto.deliver(*bodies[::order])
        await auto.becomes("acknowledged", wa_id, hash_)
        await settled(auto, wa_id)
        assert await auto.reasons(wa_id) == []
        assert auto.puts(wa_id) == ["acknowledged"]
        assert len(await auto.audit(wa_id, "changed")) == 1


async def test_a_send_that_the_client_lets_fail_closes_the_gate(install: Install) -> None:
    made = await install(sim_options={"blocked_send": "fail"})
    hash_ = made.sim.change_identity(WA_ID, notify=False)
    assert await made.send() is None
    await made.sim.settled()
    await made.becomes("pending", hash_=hash_)
    assert await made.reasons() == ["identity_pending"]


# What a message claims


async def test_a_message_that_claims_it_acknowledged_only_causes_a_question(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    at = manual.sim.users[WA_ID].created_timestamp
    await manual.deliver(wrote(WA_ID, hash_, at, acknowledged=True))
    await until(lambda: manual.gets() == 1)
    await settled(manual)
    assert await manual.reasons() == ["identity_pending"]
    manual.sim.acknowledge_elsewhere(WA_ID)
    await manual.deliver(wrote(WA_ID, hash_, at, acknowledged=True))
    shown = await manual.becomes("acknowledged")
    assert shown["decided_by"] == CLIENT
    assert manual.puts() == []


async def test_the_first_message_of_a_user_that_claims_it_acknowledged_is_not_believed(
    manual: Installation,
) -> None:
    manual.sim.set_user(WA_ID, hash=HASH_A, acknowledged=False, created_timestamp=hour_ago())
    await manual.deliver(wrote(WA_ID, HASH_A, hour_ago(), acknowledged=True))
    await until(lambda: manual.gets() == 1)
    await settled(manual)
    assert await manual.state() == "pending"


async def test_a_forged_callback_closes_the_gate_until_the_client_has_been_asked(
    manual: Installation,
) -> None:
    hash_ = await manual.acknowledged()
    manual.sim.fault("identity_get", latency=0.2, times=1)
    await manual.deliver(wrote(WA_ID, HASH_C, wall_clock(), acknowledged=True))
    assert await manual.reasons() == ["identity_pending"]
    shown = await manual.becomes("acknowledged", hash_=hash_)
    assert (shown["decided_by"], await manual.reasons()) == (CLIENT, [])
    assert outcomes(shown)[0] == (HASH_C, "superseded")


async def test_what_is_held_is_acknowledged_only_when_the_client_says_so(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    await manual.hold(hash_)
    manual.sim.acknowledge_elsewhere(WA_ID)
    created = manual.sim.users[WA_ID].created_timestamp
    await manual.deliver(wrote(WA_ID, hash_, created, acknowledged=True))
    await manual.becomes("acknowledged")


async def test_a_newer_claim_that_it_is_unacknowledged_causes_a_question(
    manual: Installation,
) -> None:
    hash_ = await manual.acknowledged()
    user = manual.sim.users[WA_ID]
    user.acknowledged = False
    await asyncio.sleep(0.01)
    newer = wrote(WA_ID, hash_, user.created_timestamp, acknowledged=False)
    await manual.deliver(newer)
    shown = await manual.becomes("pending")
    assert manual.gets() == 1
    assert shown["history"] == []


async def test_an_older_claim_that_it_is_unacknowledged_says_nothing(
    manual: Installation,
) -> None:
    hash_ = await manual.acknowledged()
    created = manual.sim.users[WA_ID].created_timestamp
    before = await manual.identity()
    old = wrote(WA_ID, hash_, created, acknowledged=False, said_ms=hour_ago())
    await manual.deliver(old)
    assert await manual.identity() == before
    assert (manual.gets(), await manual.reasons()) == (0, [])


async def test_a_newer_claim_that_the_client_denies_is_cleared(manual: Installation) -> None:
    hash_ = await manual.acknowledged()
    created = manual.sim.users[WA_ID].created_timestamp
    await asyncio.sleep(0.01)
    manual.sim.fault("identity_get", latency=0.2, times=1)
    await manual.deliver(wrote(WA_ID, hash_, created, acknowledged=False))
    assert await manual.reasons() == ["send_blocked"]
    await settled(manual)
    assert (await manual.state(), await manual.reasons()) == ("acknowledged", [])


def stale_answer(made: Installation, hash_: str) -> None:
    """Let the next GET be answered with what was true when it was sent, after a while."""
    user = made.sim.users[WA_ID]
    told = {"hash": hash_, "created_timestamp": user.created_timestamp, "acknowledged": True}
    made.sim.fault("identity_get", latency=0.3, body=json.dumps({"contacts": told}), times=1)


async def test_an_answer_does_not_count_when_the_identity_changed_since_it_was_asked(
    manual: Installation,
) -> None:
    first = await manual.acknowledged()
    stale_answer(manual, first)
    await manual.deliver(blocked(WA_ID))
    await until(lambda: manual.sim.calls.in_flight["identity_get"] == 1)
    second = await manual.change()
    await until(lambda: manual.sim.calls.in_flight["identity_get"] == 0)
    await settled(manual)
    shown = await manual.identity()
    assert (shown["hash"], shown["state"]) == (second, "pending")
    assert outcomes(shown) == [(first, "superseded")]


async def test_an_answer_does_not_clear_a_480_that_came_after_it_was_asked(
    manual: Installation,
) -> None:
    hash_ = await manual.acknowledged()
    stale_answer(manual, hash_)
    await manual.deliver(blocked(WA_ID))
    await until(lambda: manual.sim.calls.in_flight["identity_get"] == 1)
    manual.sim.users[WA_ID].acknowledged = False
    await manual.deliver(blocked(WA_ID))
    shown = await manual.becomes("pending")
    assert (shown["hash"], manual.gets()) == (hash_, 2)


# A number change


async def test_a_number_change_links_both_and_hands_on_nothing(install: Install) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600})
    hash_ = await made.change(WA_ID)
    made.sim.change_number(WA_ID, OTHER_ID)
    await made.sim.settled()
    old = await made.identity(WA_ID)
    assert (old["hash"], old["state"], old["due_at"]) == (hash_, "pending", None)
    [link] = old["linked"]
    assert (link["wa_id"], link["relation"]) == (OTHER_ID, "successor")
    gate = await made.gate(WA_ID)
    moved = [r for r in gate["reasons"] if r["code"] == "number_changed"]
    assert [reason["wa_id"] for reason in moved] == [OTHER_ID]
    assert (await made.identity(OTHER_ID)) == {}
    assert (await made.gate(OTHER_ID))["sendable"] is True
    await made.change(OTHER_ID)
    new = await made.identity(OTHER_ID)
    assert new["state"] == "scheduled"
    assert [(x["wa_id"], x["relation"]) for x in new["linked"]] == [(WA_ID, "predecessor")]
    assert new["history"] == []
    made.pass_time(3601)
    await made.becomes("acknowledged", OTHER_ID)
    assert made.puts(WA_ID) == []
    assert await made.state(WA_ID) == "pending"


async def test_an_acknowledged_user_who_changed_the_number_stays_so_but_is_not_written_to(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    manual.sim.fault("callback_number", repeat=3)
    manual.sim.change_number(WA_ID, OTHER_ID)
    await manual.sim.settled()
    shown = await manual.identity()
    assert (shown["state"], len(shown["linked"])) == ("acknowledged", 1)
    assert await manual.reasons() == ["number_changed"]
    assert len(await manual.audit(event="number_changed")) == 1


# The policy and its guard


async def test_the_guard_lets_the_fourth_change_wait_for_a_person_and_says_why(
    install: Install,
) -> None:
    made = await install(policy={"mode": "auto"})
    for number in range(3):
        hash_ = await made.change(at_ms=hour_ago(100 * number))
        await made.becomes("acknowledged", hash_=hash_)
    fourth = await made.change(at_ms=hour_ago(300))
    shown = await made.identity()
    assert (shown["hash"], shown["state"]) == (fourth, "pending")
    assert "guard" in (await made.audit(event="changed"))[-1]["reason"]
    assert len(made.sim.puts) == 3
    await made.deliver(notice(WA_ID, fourth, hour_ago(300)))
    assert await made.state() == "pending"


async def test_the_guard_counts_distinct_changes_and_not_repeats(install: Install) -> None:
    made = await install(policy={"mode": "auto", "max_changes": 2})
    first = await made.change(at_ms=hour_ago(0))
    for _ in range(5):
        await made.deliver(notice(WA_ID, first, hour_ago(0)))
    await made.becomes("acknowledged")
    second = await made.change(at_ms=hour_ago(10))
    await made.becomes("acknowledged", hash_=second)


async def test_the_guard_looks_at_its_window_alone(install: Install) -> None:
    made = await install(policy={"mode": "auto", "max_changes": 1, "per_seconds": 60})
    await made.change(at_ms=hour_ago(0))
    await made.becomes("acknowledged")
    second = await made.change(at_ms=hour_ago(61))
    await made.becomes("acknowledged", hash_=second)
    await made.change(at_ms=hour_ago(100))
    assert await made.state() == "pending"


async def test_the_guard_counts_an_earlier_change_that_comes_late(install: Install) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600, "max_changes": 1})
    await made.change(at_ms=hour_ago(10))
    assert await made.state() == "scheduled"
    await made.deliver(notice(WA_ID, HASH_A, hour_ago(0)))
    assert await made.state() == "pending"
    made.pass_time(7200)
    assert await made.state() == "pending"
    assert made.puts() == []


async def test_what_is_scheduled_is_asked_about_once_more_when_it_is_due(
    install: Install,
) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600})
    await made.change()
    await made.stop()
    await made.start(policy={"mode": "manual", "delay_seconds": 0})
    assert await made.state() == "scheduled"
    made.pass_time(3601)
    shown = await made.becomes("pending")
    assert (shown["due_at"], shown["decided_by"]) == (None, None)
    assert made.puts() == []


# refresh


async def test_a_refresh_gives_the_identity_as_the_client_has_it(manual: Installation) -> None:
    manual.sim.set_user(WA_ID, hash=HASH_A, acknowledged=False, created_timestamp=hour_ago())
    status, shown = await manual.refresh()
    assert (status, shown["hash"], shown["state"]) == (200, HASH_A, "pending")
    assert shown["changed_at"] == rfc3339(manual.sim.users[WA_ID].created_timestamp)
    manual.sim.acknowledge_elsewhere(WA_ID)
    status, shown = await manual.refresh()
    assert (status, shown["state"], shown["decided_by"]) == (200, "acknowledged", CLIENT)
    assert shown["blocking"] is False


async def test_a_refresh_finds_another_hash_to_be_a_change(auto: Installation) -> None:
    first = await auto.change()
    await auto.becomes("acknowledged")
    second = auto.sim.change_identity(WA_ID, notify=False)
    status, shown = await auto.refresh()
    assert (status, shown["hash"]) == (200, second)
    assert shown["state"] in {"acknowledging", "acknowledged"}
    assert outcomes(await auto.becomes("acknowledged", hash_=second)) == [(first, "superseded")]


async def test_a_refresh_that_finds_what_was_acknowledged_to_be_so_no_more_makes_it_pending(
    auto: Installation,
) -> None:
    await auto.change()
    await auto.becomes("acknowledged")
    auto.sim.users[WA_ID].acknowledged = False
    status, shown = await auto.refresh()
    assert (status, shown["state"]) == (200, "pending")


async def test_a_refresh_of_a_user_whom_the_client_does_not_know_is_404(
    manual: Installation,
) -> None:
    status, problem = await manual.refresh()
    assert (status, problem["status"]) == (404, 404)
    assert await manual.identity() == {}
    await manual.change()
    del manual.sim.users[WA_ID]
    assert (await manual.refresh())[0] == 404
    assert await manual.state() == "pending"


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"status": 500}, 502), ({"drop": "before"}, 502), ({"body": "[]"}, 502), ({"hang": 5}, 504)],
    ids=str,
)
async def test_a_refresh_without_an_answer_is_502_or_504_and_changes_nothing(
    install: Install, fault: Any, status: int
) -> None:
    made = await install(accounts={"main": {"timeout_seconds": 0.5 if "hang" in fault else 10}})
    await made.change()
    before = await made.identity()
    made.sim.fault("identity_get", **fault)
    code, problem = await made.refresh()
    assert (code, problem["status"]) == (status, status)
    assert await made.identity() == before


async def test_a_refresh_whose_login_is_not_answered_in_time_is_504(install: Install) -> None:
    made = await install(accounts={"main": {"timeout_seconds": 0.5}})
    await made.change()
    made.sim.expire_tokens()
    made.sim.fault("login", hang=5)
    assert (await made.refresh())[0] == 504


async def test_texts_full_of_brackets_keep_no_identity_change_from_being_read(
    manual: Installation,
) -> None:
    """Anybody may write them to the business, and the client may send them along."""
    callback = notice(WA_ID, HASH_A, hour_ago())
    text = {"from": OTHER_ID, "id": "x", "timestamp": "1518694235", "type": "text"}
    texts = [{**text, "id": f"x{n}", "text": {"body": "{" * 4_000}} for n in range(100)]
    await manual.deliver({"messages": [*texts, *callback["messages"]]})
    assert await manual.state() == "pending"


async def test_a_refresh_while_the_client_is_away_is_502(manual: Installation) -> None:
    await manual.change()
    await manual.sim.stop()
    assert (await manual.refresh())[0] == 502
    assert await manual.state() == "pending"


# What heals by itself


async def test_an_acknowledgement_made_elsewhere_is_found_by_the_sweep(install: Install) -> None:
    made = await install(reconciler={"sweep_after_seconds": 0.5, "sweep_per_second": 100})
    await made.change()
    made.sim.acknowledge_elsewhere(WA_ID)
    shown = await made.becomes("acknowledged")
    assert shown["decided_by"] == CLIENT
    assert made.puts() == []
