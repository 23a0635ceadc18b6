"""A user has another number: who is blocked then, and when the old number may be written to again.

The same on the Cloud API stands in `test_cloud_users.py`.
"""

import pytest

from service.simulator.onprem import bodies as callback_bodies
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
    until,
)

THIRD_ID, FOURTH_ID = "16315553603", "16315553604"
AUTO: Json = {"mode": "auto", "max_changes": 100}


def moved(old: str = WA_ID, new: str = OTHER_ID, after: float = 0) -> Json:
    """Write that a user has another number, so many seconds after an hour ago."""
    return callback_bodies.number_changed(old, new, hour_ago(after))


def path(wa_id: str) -> str:
    return f"/accounts/main/recipients/{wa_id}/block"


async def block(made: Installation, wa_id: str = WA_ID) -> None:
    status, _ = await made.api("PUT", path(wa_id), {"reason": "asked us to stop"})
    assert status == 200


async def new_owner(made: Installation, hash_: str = HASH_B, after: float = 60) -> None:
    """Let somebody else have the old number, whose identity the client has not acknowledged."""
    await made.change(WA_ID, hash_, hour_ago(after))


async def test_a_block_by_hand_holds_for_the_new_number_and_stays_at_the_old_one(
    manual: Installation,
) -> None:
    await manual.acknowledged(WA_ID, HASH_A)
    await block(manual)
    await manual.deliver(moved())
    assert await manual.reasons(OTHER_ID) == ["blocked"]
    assert sorted(await manual.reasons(WA_ID)) == ["blocked", "number_changed"]
    [reason] = (await manual.gate(OTHER_ID))["reasons"]
    assert reason["detail"] == "asked us to stop"
    _, listed = await manual.api("GET", "/audit?event=blocked")
    assert [entry["wa_id"] for entry in listed["items"]] == [WA_ID, OTHER_ID]


async def test_a_copied_block_is_ended_for_each_number_and_no_redelivery_brings_it_back(
    manual: Installation,
) -> None:
    await block(manual)
    await manual.deliver(moved())
    assert (await manual.api("DELETE", path(OTHER_ID)))[0] == 200
    await manual.deliver(moved())
    assert await manual.reasons(OTHER_ID) == []
    assert "blocked" in await manual.reasons(WA_ID)


async def test_a_block_put_on_the_old_number_after_the_move_holds_for_the_new_one_too(
    manual: Installation,
) -> None:
    await manual.deliver(moved())
    await block(manual)
    assert await manual.reasons(OTHER_ID) == ["blocked"]


async def test_a_block_of_who_has_the_old_number_for_sure_is_not_of_who_left_it(
    manual: Installation,
) -> None:
    await manual.deliver(moved())
    await new_owner(manual)
    await manual.acknowledge(HASH_B, query="?wait=10")
    await block(manual)
    assert await manual.reasons(WA_ID) == ["blocked"]
    assert await manual.reasons(OTHER_ID) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
async def test_a_block_follows_the_person_over_several_moves_in_every_order_of_delivery(
    manual: Installation, order: tuple[int, ...]
) -> None:
    moves = [moved(), moved(OTHER_ID, THIRD_ID, 60), moved(THIRD_ID, FOURTH_ID, 120)]
    await block(manual)
    await manual.deliver(*(moves[number] for number in order))
    for wa_id in (WA_ID, OTHER_ID, THIRD_ID, FOURTH_ID):
        assert "blocked" in await manual.reasons(wa_id)


async def test_a_block_that_ends_later_is_not_replaced_by_a_copy_that_ends_sooner(
    manual: Installation,
) -> None:
    await manual.api("PUT", path(OTHER_ID), {"reason": "fraud"})
    body = {"reason": "on holiday", "until": "2099-01-01T00:00:00Z"}
    await manual.api("PUT", path(WA_ID), body)
    await manual.deliver(moved())
    [reason] = (await manual.gate(OTHER_ID))["reasons"]
    assert (reason["detail"], "until" in reason) == ("fraud", False)


@pytest.mark.parametrize("delay", [0, 3600])
async def test_no_policy_acknowledges_a_new_owner_of_a_number_that_was_left(
    install: Install, delay: float
) -> None:
    made = await install(policy={**AUTO, "delay_seconds": delay})
    await made.deliver(moved())
    await new_owner(made)
    shown = await made.identity()
    assert (shown["hash"], shown["state"], shown["due_at"]) == (HASH_B, "pending", None)
    made.pass_time(7200)
    assert sorted(await made.reasons()) == ["identity_pending", "number_changed"]
    assert made.puts() == []
    said = [entry["reason"] for entry in await made.audit(event="changed")]
    assert said == ["the user has another number now"]


async def test_a_person_who_acknowledges_the_new_owner_ends_that_the_number_had_changed(
    install: Install,
) -> None:
    made = await install(policy=AUTO)
    await made.deliver(moved())
    await new_owner(made)
    status, answer = await made.acknowledge(HASH_B, query="?wait=10")
    assert (status, answer["state"]) == (200, "acknowledged")
    assert await made.reasons() == []
    assert (await made.gate())["sendable"] is True
    assert [link["relation"] for link in answer["linked"]] == ["successor"]
    # It is over for good: neither what is told again nor another change brings it back.
    await made.deliver(moved())
    assert await made.reasons() == []
    await made.change(WA_ID, HASH_C, hour_ago(120))
    await made.becomes("acknowledged", hash_=HASH_C)
    assert await made.reasons() == []


async def test_a_later_move_stands_again(manual: Installation) -> None:
    await manual.deliver(moved())
    await new_owner(manual)
    await manual.acknowledge(HASH_B, query="?wait=10")
    await manual.deliver(moved(WA_ID, THIRD_ID, 120))
    [reason] = (await manual.gate())["reasons"]
    assert (reason["code"], reason["wa_id"]) == ("number_changed", THIRD_ID)


async def test_the_clients_own_answer_ends_that_the_number_had_changed(install: Install) -> None:
    made = await install(policy=AUTO)
    await made.deliver(moved())
    await new_owner(made)
    made.sim.acknowledge_elsewhere(WA_ID)
    status, answer = await made.refresh()
    assert (status, answer["state"]) == (200, "acknowledged")
    assert answer["decided_by"] == {"kind": "client"}
    assert await made.reasons() == []


async def test_an_identity_from_before_the_move_ends_nothing(manual: Installation) -> None:
    await manual.change(WA_ID, HASH_A, hour_ago(-60))
    await manual.deliver(moved())
    await manual.acknowledge(HASH_A, query="?wait=10")
    assert (await manual.refresh())[0] == 200
    assert await manual.state() == "acknowledged"
    assert await manual.reasons() == ["number_changed"]


async def test_what_policy_acknowledged_before_the_move_was_heard_of_needs_a_persons_word(
    install: Install,
) -> None:
    made = await install(policy=AUTO)
    await new_owner(made)
    await made.becomes("acknowledged", hash_=HASH_B)
    await made.deliver(moved())
    assert await made.reasons() == ["number_changed"]
    assert (await made.refresh())[0] == 200
    assert await made.reasons() == ["number_changed"], "the client says what policy told it"
    status, answer = await made.acknowledge(HASH_B)
    assert (status, answer["state"]) == (200, "acknowledged")
    assert answer["decided_by"]["kind"] != "policy"
    assert await made.reasons() == []


async def test_what_policy_was_about_to_acknowledge_waits_once_the_number_changed(
    install: Install,
) -> None:
    made = await install(policy={**AUTO, "delay_seconds": 3600})
    await new_owner(made)
    assert await made.state() == "scheduled"
    await made.deliver(moved())
    made.pass_time(3700)
    assert sorted(await made.reasons()) == ["identity_pending", "number_changed"]
    assert made.puts() == []


@pytest.mark.parametrize("back_from", [THIRD_ID, OTHER_ID])
async def test_a_callback_that_says_that_somebody_came_to_the_old_number_ends_nothing(
    manual: Installation, back_from: str
) -> None:
    await manual.acknowledged(WA_ID, HASH_A)
    await manual.deliver(moved())
    assert await manual.reasons() == ["number_changed"]
    await manual.deliver(moved(back_from, WA_ID, 60))
    assert await manual.reasons() == ["number_changed"]
    # The client is asked, and answers what was known before the move.
    await manual.deliver(blocked(WA_ID))

    async def asked() -> bool:
        return "send_blocked" not in await manual.reasons()

    await until(asked)
    assert (await manual.refresh())[0] == 200
    assert (await manual.identity())["hash"] == HASH_A
    assert await manual.reasons() == ["number_changed"]


async def test_a_block_follows_a_long_chain_of_moves_and_costs_nobody_beside_it_anything(
    manual: Installation,
) -> None:
    await manual.acknowledged(FOURTH_ID, HASH_A)
    numbers = [str(4470000000000 + number) for number in range(1300)]
    hops = [moved(numbers[n], numbers[n + 1], n) for n in range(len(numbers) - 1)]
    chain = [message for hop in hops[1:] for message in hop["messages"]]
    await manual.deliver({"messages": chain})
    assert (await manual.api("PUT", path(numbers[0]), {"reason": "asked us to stop"}))[0] == 200
    beside = notice(FOURTH_ID, HASH_B, hour_ago())
    await manual.deliver({"messages": [*hops[0]["messages"], *beside["messages"]]})
    assert await manual.quarantined() == []
    assert await manual.reasons(FOURTH_ID) == ["identity_pending"]
    for number in (numbers[1], numbers[-1]):
        assert "blocked" in await manual.reasons(number)
