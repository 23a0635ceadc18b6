"""A person blocks a user, with no identity change at hand: at once, and until it ends."""

import asyncio
import time
from typing import Any

import pytest

from tests.acceptance.conftest import (
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    digest_of,
    rfc3339,
    until,
)

STRANGER = "16310000000"


def path(wa_id: str) -> str:
    return f"/accounts/main/recipients/{wa_id}/block"


async def block(made: Installation, wa_id: str = WA_ID, **body: Any) -> tuple[int, Any]:
    return await made.api("PUT", path(wa_id), {"reason": "asked us to stop", **body})


async def end(made: Installation, wa_id: str = WA_ID) -> tuple[int, Any]:
    return await made.api("DELETE", path(wa_id))


async def entries(made: Installation, wa_id: str) -> list[tuple[str, Any, Any]]:
    _, listed = await made.api("GET", "/audit?account=main&limit=1000")
    mine = [entry for entry in listed["items"] if entry["wa_id"] == wa_id]
    return [(entry["event"], entry["by"], entry["reason"]) for entry in mine]


def soon(seconds: float) -> str:
    return rfc3339(round(1000 * (time.time() + seconds)))


async def test_a_person_blocks_and_unblocks_a_user_and_the_gate_says_so_at_once(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    status, answer = await block(manual)
    assert (status, answer["sendable"]) == (200, False)
    [reason] = (await manual.gate())["reasons"]
    assert (reason["code"], reason["detail"]) == ("blocked", "asked us to stop")
    assert reason["since"]
    assert reason["clears_when"]
    assert "until" not in reason
    status, answer = await end(manual)
    assert (status, answer["sendable"]) == (200, True)
    assert await manual.reasons() == []


async def test_a_user_never_heard_of_can_be_blocked_and_stays_unknown(
    manual: Installation,
) -> None:
    assert (await block(manual, STRANGER))[0] == 200
    answer = await manual.gate(STRANGER)
    assert (answer["known"], answer["sendable"]) == (False, False)
    assert [reason["code"] for reason in answer["reasons"]] == ["blocked"]
    assert [warning["code"] for warning in answer["warnings"]] == ["contact_unknown"]
    assert (await manual.api("GET", f"/accounts/main/identities/{STRANGER}"))[0] == 404
    assert (await end(manual, STRANGER))[0] == 200
    answer = await manual.gate(STRANGER)
    assert (answer["known"], answer["sendable"]) == (False, True)


async def test_who_was_blocked_before_ever_heard_of_stays_blocked_when_the_identity_comes(
    manual: Installation,
) -> None:
    await block(manual)
    await manual.acknowledged()
    assert await manual.reasons() == ["blocked"]


async def test_a_lookup_tells_of_a_block_too(manual: Installation) -> None:
    await block(manual)
    body = {"recipients": [OTHER_ID, WA_ID]}
    _, found = await manual.api("POST", "/accounts/main/recipients/lookup", body)
    assert [item["sendable"] for item in found["items"]] == [True, False]


async def test_every_block_and_its_end_leave_one_audit_entry_with_who_and_why(
    install: Install,
) -> None:
    key = {"sha256": digest_of("the key of the desk"), "role": "operator"}
    made = await install(api={"keys": {"desk": key}})
    made.key = "the key of the desk"
    by = {"kind": "key", "name": "desk"}
    for wa_id in (WA_ID, STRANGER):
        await block(made, wa_id)
        await block(made, wa_id)
        await end(made, wa_id)
        assert (await end(made, wa_id))[0] == 404
        assert await entries(made, wa_id) == [
            ("blocked", by, "asked us to stop"),
            ("unblocked", by, None),
        ]


async def test_blocking_needs_the_role_of_an_operator(install: Install) -> None:
    roles = ("gate", "reader", "operator")
    keys = {role: {"sha256": digest_of(f"key of {role}"), "role": role} for role in roles}
    made = await install(api={"keys": keys})
    body = {"reason": "x"}
    for role, status in (("gate", 403), ("reader", 403), ("operator", 200)):
        put = await made.api("PUT", path(WA_ID), body, key=f"key of {role}")
        assert put[0] == status
    for role, status in (("gate", 403), ("reader", 403), ("operator", 200)):
        assert (await made.api("DELETE", path(WA_ID), key=f"key of {role}"))[0] == status


async def test_a_block_with_an_end_says_so_and_ends_by_itself(manual: Installation) -> None:
    ends = soon(3600)
    assert (await block(manual, until=ends))[0] == 200
    [reason] = (await manual.gate())["reasons"]
    assert reason["until"] == ends
    manual.pass_time(3601)
    assert await manual.reasons() == []
    assert (await end(manual))[0] == 404
    _, listed = await manual.api("GET", "/audit?event=blocked")
    assert [entry["note"] for entry in listed["items"]] == [f"until {ends}"]


async def test_a_block_can_be_made_longer_and_lasts_since_the_first(manual: Installation) -> None:
    _, first = await block(manual, until=soon(60))
    manual.pass_time(30)
    _, second = await block(manual, reason="fraud")
    [before], [after] = first["reasons"], second["reasons"]
    assert (after["since"], after["detail"], "until" in after) == (before["since"], "fraud", False)
    manual.pass_time(60)
    assert await manual.reasons() == ["blocked"]


async def test_a_block_outlives_a_restart(manual: Installation) -> None:
    await block(manual)
    await manual.stop()
    await manual.start()
    assert await manual.reasons() == ["blocked"]


@pytest.mark.parametrize(
    ("wa_id", "body", "field"),
    [
        (WA_ID, {}, "reason"),
        (WA_ID, {"reason": ""}, "reason"),
        (WA_ID, {"reason": "x" * 2001}, "reason"),
        (WA_ID, {"reason": "\x00"}, "reason"),
        (WA_ID, {"reason": "x", "until": "tomorrow"}, "until"),
        (WA_ID, {"reason": "x", "until": "2020-01-01T00:00:00Z"}, "until"),
        (WA_ID, {"reason": "x", "until": "2030-01-01T00:00:00"}, "until"),
        (WA_ID, {"reason": "x", "until": "0001-01-01T00:00:00+14:00"}, "until"),
        (WA_ID, {"reason": "x", "for": 1}, "for"),
        ("call%20me", {"reason": "x"}, "user"),
        ("nowhere", {"reason": ""}, "reason"),
    ],
    ids=str,
)
async def test_a_block_that_is_not_valid_names_the_field(
    manual: Installation, wa_id: str, body: Any, field: str
) -> None:
    status, problem = await manual.api("PUT", path(wa_id), body)
    assert (status, problem["errors"][0]["field"]) == (422, field)
    assert (await manual.api("GET", "/audit?event=blocked"))[1]["items"] == []


async def test_another_account_has_no_such_block_and_an_unknown_one_is_404(
    manual: Installation,
) -> None:
    unknown = f"/accounts/nobody/recipients/{WA_ID}/block"
    assert (await manual.api("PUT", unknown, {"reason": "x"}))[0] == 404
    assert (await manual.api("DELETE", unknown))[0] == 404
    assert (await end(manual))[0] == 404


# Waiting


async def asked(made: Installation, wa_id: str = WA_ID, seconds: float = 60) -> Any:
    status, answer = await made.api("GET", f"/accounts/main/recipients/{wa_id}?wait={seconds}")
    assert status == 200
    return answer


async def waiting(made: Installation) -> None:
    """Wait until somebody waits for a user to change."""
    assert made.service is not None
    context = made.service.context
    assert context is not None
    await until(lambda: context.changes._waiting)


async def test_who_waits_is_answered_when_a_person_ends_the_block(manual: Installation) -> None:
    await block(manual)
    waiter = asyncio.create_task(asked(manual))
    await waiting(manual)
    assert not waiter.done()
    await end(manual)
    assert (await asyncio.wait_for(waiter, 10))["sendable"] is True


async def test_who_waits_for_a_user_never_heard_of_is_answered_too(manual: Installation) -> None:
    await block(manual, STRANGER)
    waiters = [asyncio.create_task(asked(manual, STRANGER)) for _ in range(5)]
    await waiting(manual)
    await end(manual, STRANGER)
    answers = await asyncio.wait_for(asyncio.gather(*waiters), 10)
    assert [answer["sendable"] for answer in answers] == [True] * 5


async def test_who_waits_is_answered_when_the_block_ends_by_itself(manual: Installation) -> None:
    await block(manual, until=soon(1.2))
    assert await manual.reasons() == ["blocked"]
    answer = await asyncio.wait_for(asked(manual), 20)
    assert (answer["sendable"], answer["reasons"]) == (True, [])


async def test_when_the_time_is_up_who_waits_is_told_why_not(manual: Installation) -> None:
    await block(manual)
    answer = await asked(manual, seconds=0.05)
    assert [reason["code"] for reason in answer["reasons"]] == ["blocked"]


async def test_who_may_be_written_to_is_answered_without_a_wait(manual: Installation) -> None:
    answer = await asyncio.wait_for(asked(manual, STRANGER), 10)
    assert answer["sendable"] is True


async def test_who_waits_is_answered_when_the_identity_is_acknowledged(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    waiter = asyncio.create_task(asked(manual))
    await waiting(manual)
    await manual.acknowledge(hash_)
    assert (await asyncio.wait_for(waiter, 10))["sendable"] is True


async def test_who_waits_learns_of_a_contact_that_turns_out_valid(install: Install) -> None:
    made = await install(accounts={"main": {"gate": {"unknown_sendable": False}}})
    waiter = asyncio.create_task(asked(made, "16315551001"))
    await waiting_a_while()
    assert not waiter.done()
    element = {"input": "+1 631 555 1001", "status": "valid", "wa_id": "16315551001"}
    await made.deliver({"contacts": [element]})
    assert (await asyncio.wait_for(waiter, 10))["known"] is True


async def waiting_a_while() -> None:
    await asyncio.sleep(0.2)


async def test_who_waits_is_answered_when_the_service_stops(manual: Installation) -> None:
    await block(manual)
    waiter = asyncio.create_task(asked(manual))
    await waiting(manual)
    await manual.stop()
    assert (await asyncio.wait_for(waiter, 10))["sendable"] is False


@pytest.mark.parametrize("wait", ["-1", "61", "x", "nan"])
async def test_a_wait_is_at_most_a_minute(manual: Installation, wait: str) -> None:
    status, problem = await manual.api("GET", f"/accounts/main/recipients/{WA_ID}?wait={wait}")
    assert (status, problem["errors"][0]["field"]) == (422, "wait")
