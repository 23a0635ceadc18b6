"""The gate: may I write to this user now, and if not, why not?"""

from typing import Any

import pytest

from tests.acceptance.conftest import (
    HASH_A,
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
    wrote,
)

LOOKUP = "/accounts/main/recipients/lookup"
DAY = 86_400


def checked(input_: str, status: str, wa_id: str | None = None) -> Json:
    """Write the callback of a contact check."""
    element = {"input": input_, "status": status} | ({"wa_id": wa_id} if wa_id else {})
    return {"contacts": [element], "meta": {"version": "v2.45.1"}}


async def lookup(made: Installation, *recipients: str) -> list[Json]:
    status, answer = await made.api("POST", LOOKUP, {"recipients": list(recipients)})
    assert status == 200, answer
    assert [item["input"] for item in answer["items"]] == list(recipients)
    return list(answer["items"])


def codes(answer: Json, key: str = "reasons") -> list[str]:
    return [reason["code"] for reason in answer[key]]


async def contact(made: Installation, input_: str) -> Json:
    _, listed = await made.api("GET", f"/accounts/main/contacts?input={input_}")
    [found] = listed["items"]
    return dict(found)


async def test_a_user_never_heard_of_may_be_written_to_with_a_warning(
    manual: Installation,
) -> None:
    answer = await manual.gate("49170")
    assert set(answer) >= {
        *("account", "wa_id", "known", "sendable", "reasons", "warnings", "as_of"),
    }
    assert (answer["account"], answer["wa_id"], answer["known"]) == ("main", "49170", False)
    assert (answer["sendable"], answer["reasons"]) == (True, [])
    assert codes(answer, "warnings") == ["contact_unknown"]


async def test_a_reason_says_since_when_and_what_clears_it(manual: Installation) -> None:
    await manual.change()
    answer = await manual.gate()
    [reason] = answer["reasons"]
    shown = await manual.identity()
    assert (reason["code"], reason["since"]) == ("identity_pending", shown["received_at"])
    assert reason["clears_when"]
    assert (answer["known"], answer["sendable"]) == (True, False)


@pytest.mark.parametrize(
    "state", ["pending", "scheduled", "acknowledging", "held", "failed", "acknowledged"]
)
async def test_every_state_but_acknowledged_blocks_under_its_name(
    install: Install, state: str
) -> None:
    made = await install(
        policy={"mode": "auto", "delay_seconds": 600} if state == "scheduled" else {}
    )
    hash_ = await made.change()
    if state == "held":
        await made.hold(hash_)
    if state == "acknowledging":
        made.sim.fault("identity_put", hang=30)
        await made.acknowledge(hash_)
    if state == "failed":
        made.sim.fault("identity_put", status=404, times=1)
        made.sim.fault("identity_get", status=404, times=1)
        await made.acknowledge(hash_, query="?wait=5")
    if state == "acknowledged":
        await made.acknowledge(hash_, query="?wait=5")
    assert await made.state() == state
    assert await made.reasons() == ([] if state == "acknowledged" else [f"identity_{state}"])
    [item] = await lookup(made, WA_ID)
    assert codes(item) == await made.reasons()


async def test_several_reasons_are_all_given(manual: Installation) -> None:
    await manual.change()
    await manual.deliver(checked("+1 631", "invalid", WA_ID))
    manual.sim.change_number(WA_ID, OTHER_ID)
    await manual.sim.settled()
    assert set(await manual.reasons()) == {
        "identity_pending",
        "number_changed",
        "contact_invalid",
    }


async def test_who_changed_the_number_is_to_be_written_to_under_the_new_one(
    manual: Installation,
) -> None:
    manual.sim.change_number(WA_ID, OTHER_ID)
    await manual.sim.settled()
    [reason] = (await manual.gate())["reasons"]
    assert (reason["code"], reason["wa_id"]) == ("number_changed", OTHER_ID)
    assert (await manual.gate(OTHER_ID))["reasons"] == []


async def test_who_came_back_to_the_old_number_is_written_to_there_once_the_client_agrees(
    manual: Installation,
) -> None:
    def moved(old: str, new: str, seconds: float) -> Json:
        system = {"type": "user_changed_number", "new_wa_id": new}
        at = str(hour_ago(seconds) // 1000)
        return {"messages": [{"from": old, "type": "system", "system": system, "timestamp": at}]}

    await manual.deliver(moved(WA_ID, OTHER_ID, 0), moved(OTHER_ID, WA_ID, 60))
    assert await manual.reasons(OTHER_ID) == ["number_changed"]
    assert await manual.reasons(WA_ID) == ["number_changed"]
    manual.sim.set_user(WA_ID, hash=HASH_A, acknowledged=True)
    assert (await manual.refresh())[0] == 200
    assert await manual.reasons(WA_ID) == []


async def test_a_blocked_send_closes_the_gate_until_it_is_answered(manual: Installation) -> None:
    await manual.acknowledged()
    manual.sim.fault("identity_get", status=503)
    await manual.deliver(blocked(WA_ID))
    [reason] = (await manual.gate())["reasons"]
    assert (reason["code"], reason["since"] is not None) == ("send_blocked", True)
    manual.sim.clear_faults()
    manual.pass_time(301)

    async def cleared() -> bool:
        return await manual.reasons() == []

    await until(cleared)


# Contacts


async def test_a_contact_says_what_the_client_last_said_of_an_input(
    manual: Installation,
) -> None:
    await manual.deliver(checked("+1 631 555 1001", "valid", "16315551001"))
    found = await contact(manual, "%2B1%20631%20555%201001")
    assert (found["account"], found["status"], found["wa_id"]) == ("main", "valid", "16315551001")
    fields = {"account", "input", "wa_id", "status", "checked_at", "expires_at"}
    assert set(found) == fields | {"checking", "canonical", "opt_in"}
    for query in ("input=%2B1%20631%20555%201001", "wa_id=16315551001"):
        _, listed = await manual.api("GET", f"/accounts/main/contacts?{query}")
        assert listed == {"items": [found], "next_cursor": None}
    for query in ("input=16315551001", "wa_id=%2B1%20631%20555%201001", "input=x"):
        _, listed = await manual.api("GET", f"/accounts/main/contacts?{query}")
        assert listed["items"] == []
    answer = await manual.gate("16315551001")
    assert (answer["known"], answer["sendable"], answer["warnings"]) == (True, True, [])


async def test_the_newest_arrival_wins_and_a_redelivery_moves_nothing(
    manual: Installation,
) -> None:
    valid, invalid = checked("+1 631", "valid", "1631"), checked("+1 631", "invalid")
    await manual.deliver(valid)
    first = await contact(manual, "%2B1%20631")
    manual.pass_time(60)
    await manual.deliver(valid)
    assert await contact(manual, "%2B1%20631") == first
    await manual.deliver(invalid)
    second = await contact(manual, "%2B1%20631")
    assert (second["status"], second["wa_id"]) == ("invalid", None)
    assert second["checked_at"] > first["checked_at"]
    assert await manual.reasons("1631") == ["contact_invalid"]
    await manual.deliver(valid)
    assert await contact(manual, "%2B1%20631") == second
    manual.pass_time(60)
    await manual.deliver(valid | {"meta": {"version": "another check"}})
    assert (await contact(manual, "%2B1%20631"))["status"] == "valid"
    assert await manual.reasons("1631") == []


@pytest.mark.parametrize("status", ["processing", "failed", "valid", "something_new"])
async def test_only_an_invalid_contact_blocks(manual: Installation, status: str) -> None:
    await manual.deliver(checked("+1 631", status, "1631"))
    [by_input, by_wa_id] = await lookup(manual, "+1 631", "1631")
    assert (by_input["sendable"], by_wa_id["sendable"]) == (True, True)


async def test_seven_days_after_the_check_a_contact_is_stale(manual: Installation) -> None:
    await manual.deliver(checked("+1 631", "valid", "1631"))
    found = await contact(manual, "%2B1%20631")
    manual.pass_time(7 * DAY - 60)
    assert (await manual.gate("1631"))["warnings"] == []
    manual.pass_time(120)
    answer = await manual.gate("1631")
    assert (answer["sendable"], codes(answer, "warnings")) == (True, ["contact_stale"])
    [warning] = answer["warnings"]
    assert warning["since"] == found["expires_at"]
    await manual.deliver(checked("+1 631", "valid", "1631") | {"meta": {}})
    assert (await manual.gate("1631"))["warnings"] == []


async def test_a_user_who_wrote_lately_is_neither_unknown_nor_stale(
    manual: Installation,
) -> None:
    await manual.deliver(checked("+1 631", "valid", "1631"))
    manual.pass_time(8 * DAY)
    assert codes(await manual.gate("1631"), "warnings") == ["contact_stale"]
    assert manual.service is not None
    assert manual.service.context is not None
    now = manual.service.context.ledger.clock()
    await manual.deliver(
        {"messages": [{"from": "1631", "timestamp": str(now // 1000), "type": "text"}]}
    )
    assert (await manual.gate("1631"))["warnings"] == []


async def test_a_user_with_an_identity_is_known(manual: Installation) -> None:
    await manual.change()
    answer = await manual.gate()
    assert (answer["known"], answer["warnings"]) == (True, [])


async def test_an_unreachable_client_is_a_warning_and_blocks_nothing(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    await manual.sim.stop()
    assert (await manual.refresh())[0] == 502
    answer = await manual.gate()
    assert (answer["sendable"], codes(answer, "warnings")) == (True, ["account_unreachable"])
    assert answer["warnings"][0]["since"] is not None


async def test_contacts_are_listed_in_pages(manual: Installation) -> None:
    elements = [{"input": f"+{n}", "status": "valid", "wa_id": f"{n}"} for n in range(25)]
    await manual.deliver({"contacts": elements})
    inputs: list[str] = []
    cursor = ""
    for _ in range(3):
        _, listed = await manual.api("GET", f"/accounts/main/contacts?limit=10{cursor}")
        inputs += [found["input"] for found in listed["items"]]
        cursor = f"&cursor={listed['next_cursor']}"
    # Those of one callback are in any order.
    assert sorted(inputs) == sorted(f"+{n}" for n in range(25))
    assert listed["next_cursor"] is None


async def test_cards_and_checks_in_one_list_are_told_apart(manual: Installation) -> None:
    body = wrote(WA_ID, HASH_A, hour_ago())
    body["contacts"] += [{"input": "+1", "status": "valid", "wa_id": "1"}, {"input": "+2"}]
    body["messages"][0]["contacts"] = [{"name": {"formatted_name": "A card"}}]
    await manual.deliver(body)
    _, listed = await manual.api("GET", "/accounts/main/contacts")
    assert [found["input"] for found in listed["items"]] == ["+1"]
    assert await manual.quarantined() == []


async def test_a_number_is_never_computed_from_another(manual: Installation) -> None:
    await manual.deliver(
        checked("5566295500", "valid", "5215566295500"),
        checked("5511987654321", "valid", "551187654321"),
    )
    items = await lookup(manual, "5566295500", "5511987654321")
    assert [item["wa_id"] for item in items] == ["5215566295500", "551187654321"]


# Lookup


async def test_a_lookup_answers_in_the_order_of_the_request_each_with_its_input(
    manual: Installation,
) -> None:
    await manual.change()
    await manual.deliver(checked("+1 631 555 1001", "valid", OTHER_ID))
    await manual.change(OTHER_ID)
    asked = [OTHER_ID, "unheard", WA_ID, "+1 631 555 1001", WA_ID]
    items = await lookup(manual, *asked)
    assert [item["wa_id"] for item in items] == [OTHER_ID, "unheard", WA_ID, OTHER_ID, WA_ID]
    assert [item["sendable"] for item in items] == [False, True, False, False, False]
    assert [item["known"] for item in items] == [True, False, True, True, True]


async def test_what_can_be_no_recipient_has_an_error_of_its_own_and_spoils_no_other(
    manual: Installation,
) -> None:
    await manual.change()
    odd = ["+1 (631) 555", "a/b", "😀", "..", "\x00", " ", "x" * 256]
    items = await lookup(manual, WA_ID, *odd, "16")
    assert items[0]["sendable"] is False
    assert items[-1]["sendable"] is True
    for item in items[1:-1]:
        assert set(item) == {"input", "error"}
        assert item["error"]["title"]


async def test_a_number_that_was_checked_but_has_no_wa_id_is_answered(
    manual: Installation,
) -> None:
    await manual.deliver(checked("(631) 555", "invalid"))
    [item] = await lookup(manual, "(631) 555")
    assert (item["sendable"], codes(item)) == (False, ["contact_invalid"])
    assert item["known"] is True


async def test_a_lookup_takes_1000_recipients_and_no_more(manual: Installation) -> None:
    await manual.change()
    many = [WA_ID if n % 333 == 0 else f"1631{n:06}" for n in range(1000)]
    items = await lookup(manual, *many)
    assert [item["input"] for item in items] == many
    assert [item["sendable"] for item in items] == [asked != WA_ID for asked in many]
    assert len({item["as_of"] for item in items}) == 1
    body = {"recipients": [*many, "1"]}
    status, problem = await manual.api("POST", LOOKUP, body)
    assert (status, problem["errors"][0]["field"]) == (422, "recipients")
    assert await lookup(manual) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "recipients"),
        ({"recipients": "1"}, "recipients"),
        ({"recipients": [1]}, "recipients.0"),
        ({"recipients": ["1", ""]}, "recipients.1"),
        ({"recipients": ["x" * 257]}, "recipients.0"),
        ({"recipients": ["\ud800"]}, "recipients.0"),
        ([], "body"),
    ],
    ids=str,
)
async def test_a_lookup_that_is_not_valid_names_the_field(
    manual: Installation, body: Any, field: str
) -> None:
    status, problem = await manual.api("POST", LOOKUP, body)
    assert (status, problem["errors"][0]["field"]) == (422, field)


async def test_the_gate_of_one_account_knows_nothing_of_another(
    install: Install,
) -> None:
    made = await install()
    second = made.tree["accounts"]["main"] | {"webhook_token": "the-token-of-another-account"}
    await made.stop()
    await made.start(accounts={"second": second})
    await made.change()
    _, answer = await made.api("GET", f"/accounts/second/recipients/{WA_ID}")
    assert (answer["account"], answer["known"], answer["sendable"]) == ("second", False, True)
    body = notice(WA_ID, "of the second", hour_ago())
    assert await made.post(body, path="/webhooks/second/the-token-of-another-account") == 200
    assert (await made.identity())["hash"] != "of the second"
    assert (await made.identity(account="second"))["hash"] == "of the second"
    assert (await made.identity(account="second"))["changed_at"] == rfc3339(hour_ago())
