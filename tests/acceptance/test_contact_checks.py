"""Contact checks, out and in: asked once, kept, and never forgotten."""

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.acceptance.conftest import Install, Installation, Json, until

GERMAN = "+49 1512 3456789"
MEXICAN = "+52 55 6629 5500"
US = {"phone_number": "+16315550100"}
PATH = "/accounts/main/contacts"

Items = list[Json]


async def ask(service: Installation, *inputs: Any, status: int = 200, **more: Any) -> Any:
    headers = more.pop("headers", None)
    got, answer = await service.api("POST", PATH, {"contacts": [*inputs], **more}, headers=headers)
    assert got == status, answer
    return answer["items"] if status == 200 else answer


async def known(service: Installation, input_: str) -> Json:
    status, listed = await service.api("GET", f"{PATH}?input={quote(input_, safe='')}")
    assert status == 200
    return dict(listed["items"][0]) if listed["items"] else {}


async def becomes(service: Installation, input_: str, wanted: str) -> Json:
    async def found() -> Json | None:
        contact = await known(service, input_)
        return contact if contact.get("status") == wanted and not contact["checking"] else None

    return dict(await until(found, what=f"{input_} {wanted}"))


def calls(service: Installation) -> int:
    return len(service.sim.calls.of("contacts"))


@pytest.fixture
async def service(install: Install) -> Installation:
    return await install(accounts={"main": US})


async def test_a_check_is_answered_with_one_contact_an_input_in_their_order(
    service: Installation,
) -> None:
    service.sim.set_contacts(unknown=["16315551002"])
    items = await ask(service, "+1 (631) 555-1001", "6315551002", "nonsense", blocking="wait")
    assert [(i["input"], i["status"], i["wa_id"]) for i in items] == [
        ("+1 (631) 555-1001", "valid", "16315551001"),
        ("6315551002", "invalid", None),
        ("nonsense", "failed", None),
    ]
    assert [i["canonical"] for i in items] == ["16315551001", "16315551002", None]
    assert await known(service, "6315551002") == items[1]
    assert (await service.gate("16315551001"))["known"]
    assert calls(service) == 1


async def test_what_is_processing_is_resolved_by_the_callback(service: Installation) -> None:
    service.sim.fault("callback_contacts", latency=0.5, times=1)
    [item] = await ask(service, GERMAN)
    assert (item["status"], item["checking"], item["wa_id"]) == ("processing", True, None)
    path = "/accounts/main/recipients/lookup"
    _, gate = await service.api("POST", path, {"recipients": [GERMAN]})
    assert [w["code"] for w in gate["items"][0]["warnings"]] == ["contact_unknown"]
    contact = await becomes(service, GERMAN, "valid")
    assert contact["wa_id"] == "4915123456789"


async def test_a_wa_id_only_ever_comes_from_the_client(service: Installation) -> None:
    service.sim.set_contacts(wa_ids={"525566295500": "5215566295500"})
    [item] = await ask(service, MEXICAN, blocking="wait")
    assert (item["wa_id"], item["canonical"]) == ("5215566295500", "525566295500")


async def test_duplicates_in_a_request_are_each_answered_and_asked_once(
    service: Installation,
) -> None:
    items = await ask(service, GERMAN, MEXICAN, GERMAN, blocking="wait")
    assert [i["input"] for i in items] == [GERMAN, MEXICAN, GERMAN]
    assert items[0] == items[2]
    assert calls(service) == 1


async def test_the_same_input_asked_twice_at_once_is_asked_once(service: Installation) -> None:
    service.sim.fault("contacts", latency=0.3, times=1)
    answers = await asyncio.gather(*(ask(service, GERMAN, blocking="wait") for _ in range(5)))
    assert [items[0]["status"] for items in answers] == ["valid"] * 5
    assert calls(service) == 1


async def test_a_fresh_contact_is_answered_without_a_check(
    service: Installation,
) -> None:
    await ask(service, GERMAN, blocking="wait")
    await ask(service, GERMAN, blocking="wait")
    assert calls(service) == 1
    await ask(service, GERMAN, blocking="wait", force_check=True)
    assert calls(service) == 2


async def test_a_request_of_a_thousand_goes_in_batches(service: Installation) -> None:
    numbers = [f"+1631556{n:04}" for n in range(1000)]
    items = await ask(service, *numbers, blocking="wait")
    assert {i["status"] for i in items} == {"valid"}
    assert [i["input"] for i in items] == numbers
    assert calls(service) == 10


async def test_an_idempotency_key_makes_a_repetition_cost_nothing(service: Installation) -> None:
    key = {"Idempotency-Key": "a-key"}
    first = await ask(service, GERMAN, blocking="wait", force_check=True, headers=key)
    again = await ask(service, GERMAN, blocking="wait", force_check=True, headers=key)
    assert again == first
    assert calls(service) == 1
    await service.stop()
    await service.start()
    assert await ask(service, GERMAN, blocking="wait", force_check=True, headers=key) == first
    problem = await ask(service, MEXICAN, headers=key, status=422)
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    service.pass_time(86_500)
    await ask(service, GERMAN, blocking="wait", force_check=True, headers=key)
    assert calls(service) == 2


async def test_a_client_that_does_not_answer_is_502_or_504(service: Installation) -> None:
    service.sim.fault("contacts", status=500, times=1)
    problem = await ask(service, GERMAN, blocking="wait", status=502)
    assert "500" in problem["detail"]
    service.pass_time(130)
    await becomes(service, GERMAN, "valid")


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"code": 1000}]},
        {
            "contacts": [{"input": "+1 631-555-9876", "status": "valid", "wa_id": "16315559876"}],
            "errors": [{"code": 1000}],
        },
        "Welcome",
        None,
    ],
)
async def test_an_answer_that_is_none_is_502_and_tells_nothing(
    service: Installation, body: Any
) -> None:
    service.sim.fault("contacts", body=json.dumps(body), times=1)
    await ask(service, "+1 631-555-9876", blocking="wait", status=502)
    status, listed = await service.api("GET", "/accounts/main/contacts?input=%2B1%20631-555-9876")
    assert (status, [one["status"] for one in listed["items"]]) == (200, ["processing"])


async def test_a_client_that_takes_too_long_is_504(install: Install) -> None:
    service = await install(accounts={"main": {"timeout_seconds": 0.3}})
    service.sim.fault("contacts", hang=5, times=1)
    await ask(service, GERMAN, blocking="wait", status=504)


async def test_a_client_that_has_too_much_is_429_with_retry_after(service: Installation) -> None:
    service.sim.fault("contacts", status=429, times=1)
    status, answer, headers = await service.call("POST", PATH, {"contacts": [GERMAN]})
    assert (status, answer["reason"]) == (429, "rate")
    assert int(headers["Retry-After"]) >= 1
    service.pass_time(15)
    await becomes(service, GERMAN, "valid")


async def test_a_check_that_stays_unanswered_is_asked_again(service: Installation) -> None:
    service.sim.fault("callback_contacts", lose=True, times=1)
    await ask(service, GERMAN)
    await until(lambda: calls(service) == 1)
    service.pass_time(130)
    await becomes(service, GERMAN, "valid")
    assert calls(service) == 2


async def test_a_check_that_stays_unanswered_is_asked_again_and_then_marked(
    service: Installation,
) -> None:
    service.sim.options.contact_cache_seconds = 0
    service.sim.fault("callback_contacts", lose=True)
    await ask(service, GERMAN)
    for tries in range(1, 5):
        await until(lambda n=tries: calls(service) >= n, what=f"{tries} calls")
        await asyncio.sleep(0.1)
        service.pass_time(4000)
    contact = await becomes(service, GERMAN, "failed")
    assert calls(service) == 4
    assert contact["wa_id"] is None


async def test_what_was_open_is_asked_again_after_a_restart(service: Installation) -> None:
    service.sim.fault("callback_contacts", lose=True, times=1)
    await ask(service, GERMAN)
    await service.stop()
    await service.start()
    service.pass_time(130)
    await becomes(service, GERMAN, "valid")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"contacts": []}, "contacts"),
        ({"contacts": ["1"] * 1001}, "contacts"),
        ({"contacts": [""]}, "contacts.0"),
        ({"contacts": ["\ud800"]}, "contacts.0"),
        ({"contacts": ["1"], "blocking": "maybe"}, "blocking"),
        ({"contacts": ["1"], "opt_in": {"at": "2999-01-01T00:00:00Z", "how": "form"}}, "opt_in.at"),
        ({"contacts": ["1"], "opt_in": {"at": "2020-01-01T00:00:00", "how": "form"}}, "opt_in.at"),
    ],
)
async def test_a_check_that_makes_no_sense_is_422_and_asks_nothing(
    service: Installation, body: Json, field: str
) -> None:
    status, problem = await service.api("POST", PATH, body)
    assert status == 422
    assert any(error["field"].startswith(field) for error in problem["errors"]), problem
    assert calls(service) == 0


def statuses(status: str, *wa_ids: str) -> Json:
    """Write the statuses of messages that the business sent."""
    each = {"id": "gBGGFjFVU2AfAgldhhKwWDGSrTs", "status": status, "timestamp": "1602535356"}
    return {"statuses": [each | {"recipient_id": wa_id} for wa_id in wa_ids]}


def budget(**keys: Any) -> Json:
    return {"main": US | {"contacts": keys}}


async def test_checks_beyond_the_ratio_to_messages_are_refused_with_429_and_the_reason(
    install: Install,
) -> None:
    service = await install(accounts=budget(free_checks=2))
    await ask(service, GERMAN, "+49 (1512) 3456789", MEXICAN, blocking="wait")
    problem = await ask(service, "+16315551001", status=429)
    assert problem["reason"] == "budget"
    assert "2 numbers" in problem["detail"]
    assert calls(service) == 1
    assert await known(service, "+16315551001") == {}
    await ask(service, GERMAN, MEXICAN)


async def test_each_message_that_callbacks_tell_of_lets_another_number_be_checked(
    install: Install,
) -> None:
    service = await install(accounts=budget(free_checks=1))
    await ask(service, GERMAN)
    await ask(service, MEXICAN, status=429)
    await service.deliver(statuses("sent", "4915123456789"))
    await service.deliver(statuses("delivered", "4915123456789"))
    await ask(service, MEXICAN)
    await ask(service, "+16315551001", status=429)
    await service.stop()
    await service.start()
    await service.deliver(statuses("delivered", "4915123456789"))
    await ask(service, "+16315551001")
    await ask(service, "+16315551002", status=429)


async def test_a_forced_check_passes_by_what_is_known_and_weighs_more(install: Install) -> None:
    service = await install(accounts=budget(free_checks=5, force_cost=4))
    await ask(service, GERMAN, blocking="wait")
    await ask(service, GERMAN, force_check=True, blocking="wait")
    problem = await ask(service, GERMAN, force_check=True, status=429)
    assert "(1 forced)" in problem["detail"]


async def test_an_idempotency_key_makes_a_repetition_after_a_failure_cost_nothing(
    install: Install,
) -> None:
    service = await install(accounts=budget(free_checks=2, force_cost=2))
    service.sim.fault("contacts", status=500, times=1)
    key = {"Idempotency-Key": "a-key"}
    await ask(service, GERMAN, blocking="wait", force_check=True, headers=key, status=502)
    [item] = await ask(service, GERMAN, blocking="wait", force_check=True, headers=key)
    assert item["status"] == "valid"


async def test_the_budget_is_warned_about_before_it_is_spent(install: Install) -> None:
    service = await install(accounts=budget(free_checks=5, warn_at=0.5))

    async def check() -> Json:
        _, status = await service.api("GET", "/health/status")
        return dict(status["checks"]["contacts:main"])

    await ask(service, GERMAN, MEXICAN)
    assert await check() == {"status": "pass"}
    await ask(service, "+16315551001")
    assert (await check())["status"] == "warn"
    assert "3 spent on 3 numbers" in (await check())["detail"]
    _, shown = await service.api("GET", "/metrics")
    assert 'ackgate_contact_budget_used_ratio{account="main"} 0.6' in shown


async def test_an_input_may_carry_when_and_how_the_customer_opted_in(
    service: Installation,
) -> None:
    opt_in = {"at": "2026-02-01T00:00:00Z", "how": "shop"}
    await ask(service, {"input": MEXICAN, "opt_in": opt_in}, GERMAN)
    assert (await known(service, MEXICAN))["opt_in"] == opt_in | {"at": "2026-02-01T00:00:00.000Z"}
    assert (await known(service, GERMAN))["opt_in"] is None


async def test_an_account_can_require_an_opt_in(install: Install) -> None:
    service = await install(accounts=budget(require_opt_in=True))
    problem = await ask(service, GERMAN, MEXICAN, status=422)
    assert [e["field"] for e in problem["errors"]] == ["contacts.0.opt_in", "contacts.1.opt_in"]
    opt_in = {"at": "2026-01-31T12:00:00+01:00", "how": "web form 17"}
    own = {"input": MEXICAN, "opt_in": {"at": "2026-02-01T00:00:00Z", "how": "shop"}}
    items = await ask(service, GERMAN, own, opt_in=opt_in)
    assert [i["opt_in"] for i in items] == [
        {"at": "2026-01-31T11:00:00.000Z", "how": "web form 17"},
        {"at": "2026-02-01T00:00:00.000Z", "how": "shop"},
    ]
    await ask(service, "+49-1512-3456789")


async def expire(service: Installation, days: float = 6.6) -> None:
    """Let time pass, and the worker look."""
    assert service.service is not None
    service.pass_time(days * 86_400)


async def test_a_contact_in_use_is_checked_again_before_it_expires(service: Installation) -> None:
    unused, written, writer = "+16315551001", "+16315551002", "+16315551003"
    await ask(service, unused, written, writer, blocking="wait")
    before = {input_: (await known(service, input_))["checked_at"] for input_ in (unused, written)}
    await service.deliver(statuses("delivered", "16315551002"))
    await service.deliver(wrote_text("16315551003"))
    assert service.service is not None
    assert service.service.context is not None
    await service.service.background.counts.write()
    await expire(service)
    await until(lambda: calls(service) == 2)

    async def renewed() -> bool:
        found = [await known(service, input_) for input_ in (written, writer)]
        return all(c["checked_at"] > before[written] and not c["checking"] for c in found)

    await until(renewed)
    assert (await known(service, unused))["checked_at"] == before[unused]
    assert service.sim.contacts.counts["forced"] == 2


def wrote_text(wa_id: str) -> Json:
    message = {"from": wa_id, "id": "x", "text": {"body": "Hi"}, "type": "text"}
    return {"messages": [message | {"timestamp": str(int(time.time()))}]}


async def test_a_contact_that_nobody_writes_to_is_left_alone(
    service: Installation,
) -> None:
    await ask(service, "+16315551001", "+16315551002", blocking="wait")
    await service.deliver(wrote_text("16315551002"))
    await expire(service, 3)
    await asyncio.sleep(0.3)
    assert calls(service) == 1


async def test_of_two_spellings_one_is_renewed(service: Installation) -> None:
    await ask(service, "+16315551001", blocking="wait")
    await ask(service, "(631) 555-1001", blocking="wait")
    await service.deliver(wrote_text("16315551001"))
    await expire(service)
    await until(lambda: calls(service) == 3)
    await asyncio.sleep(0.2)
    assert service.sim.contacts.counts["forced"] == 1


async def test_renewals_stop_where_the_budget_ends(install: Install) -> None:
    service = await install(accounts=budget(free_checks=2))
    await ask(service, "+16315551001", "+16315551002", blocking="wait")
    await service.deliver(wrote_text("16315551001"))
    await expire(service)
    await asyncio.sleep(0.3)
    assert calls(service) == 1
    _, shown = await service.api("GET", "/metrics")
    assert 'ackgate_contact_checks_refused_total{account="main",reason="renewal"} 1.0' in shown


async def test_a_result_that_nobody_asked_for_gets_its_form(service: Installation) -> None:
    check = {"input": "(631) 555-1001", "status": "valid", "wa_id": "16315551001"}
    await service.deliver({"contacts": [check]})
    assert service.service is not None
    await service.service.leader.upkeep.once()
    assert (await known(service, "(631) 555-1001"))["canonical"] == "16315551001"


async def test_a_recheck_finds_who_left(service: Installation) -> None:
    await ask(service, "+16315551001", blocking="wait")
    service.sim.set_contacts(unknown={"16315551001"})
    await service.deliver(wrote_text("16315551001"))
    await expire(service)
    await becomes(service, "+16315551001", "invalid")
    assert await service.reasons("16315551001") == ["contact_invalid"]


async def test_a_check_is_passed_to_the_client_and_its_answer_kept(service: Installation) -> None:
    [item] = await ask(service, GERMAN, blocking="wait")
    assert service.sim.contacts.counts["numbers"] == 1
    assert await known(service, GERMAN) == item
    gate = await service.gate(item["wa_id"])
    assert (gate["known"], gate["sendable"], gate["warnings"]) == (True, True, [])


async def test_blocking_is_passed_on_and_no_wait_by_default(service: Installation) -> None:
    service.sim.fault("callback_contacts", latency=0.5)
    assert [i["status"] for i in await ask(service, GERMAN)] == ["processing"]
    assert [i["status"] for i in await ask(service, MEXICAN, blocking="wait")] == ["valid"]
    assert [i["status"] for i in await ask(service, "+16315551001", blocking="no_wait")] == [
        "processing"
    ]


async def test_a_check_that_waits_brings_the_final_status_of_all(service: Installation) -> None:
    service.sim.set_contacts(unknown={"5215566295500"}, failing={"16315551001"})
    items = await ask(service, GERMAN, MEXICAN, "+16315551001", blocking="wait")
    assert [i["status"] for i in items] == ["valid", "invalid", "failed"]
    assert not any(i["checking"] for i in items)


async def test_an_input_is_passed_on_literally_whatever_its_format(service: Installation) -> None:
    texts = ["+1 (631) 555-1001", "631.555.1002", "tel:+49-1512-3456789", " 001 52 5566295500"]
    items = await ask(service, *texts, blocking="wait")
    assert [i["input"] for i in items] == texts
    assert service.sim.contacts.counts["numbers"] == 4


async def test_a_failed_check_is_kept_as_failed(service: Installation) -> None:
    service.sim.set_contacts(failing={"4915123456789"})
    await ask(service, GERMAN)
    await becomes(service, GERMAN, "failed")
    service.sim.set_contacts(failing=set())
    [item] = await ask(service, GERMAN, blocking="wait")
    assert item["status"] == "valid"


async def test_a_wa_id_beside_processing_is_no_result(install: Install) -> None:
    options = {"processing_wa_id": True, "contact_check_seconds": 60}
    service = await install(accounts={"main": US}, sim_options=options)
    [item] = await ask(service, GERMAN)
    assert (item["status"], item["wa_id"], item["checking"]) == ("processing", None, True)


async def test_a_callback_is_matched_by_its_literal_input(install: Install) -> None:
    options = {"contact_check_seconds": 60}
    service = await install(accounts={"main": US}, sim_options=options)
    await ask(service, GERMAN, "+4915123456789")
    check = {"input": GERMAN, "status": "valid", "wa_id": "4915123456789"}
    await service.deliver({"contacts": [check]})
    assert (await known(service, GERMAN))["status"] == "valid"
    assert (await known(service, "+4915123456789"))["status"] == "processing"


async def test_a_client_that_finds_every_number_valid_is_believed(install: Install) -> None:
    service = await install(accounts={"main": US}, sim_options={"version": "v2.45.1"})
    items = await ask(service, GERMAN, "12345")
    assert [(i["status"], i["wa_id"]) for i in items] == [
        ("valid", "4915123456789"),
        ("valid", "12345"),
    ]
