"""Contact checks, out and in: asked once, kept, and never forgotten."""

import asyncio
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


async def test_a_check_is_passed_on_and_its_answer_kept_in_the_order_of_the_request(
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
    [item] = await ask(service, GERMAN)
    assert (item["status"], item["checking"], item["wa_id"]) == ("processing", True, None)
    contact = await becomes(service, GERMAN, "valid")
    assert contact["wa_id"] == "4915123456789"


async def test_a_wa_id_only_ever_comes_from_the_client(service: Installation) -> None:
    service.sim.set_contacts(wa_ids={"525566295500": "5215566295500"})
    [item] = await ask(service, MEXICAN, blocking="wait")
    assert (item["wa_id"], item["canonical"]) == ("5215566295500", "525566295500")


async def test_the_same_input_twice_in_a_request_is_asked_once_and_answered_twice(
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


async def test_what_is_fresh_is_answered_without_asking_unless_it_is_forced(
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


async def test_a_client_that_does_not_answer_is_502_and_asked_again(service: Installation) -> None:
    service.sim.fault("contacts", status=500, times=1)
    problem = await ask(service, GERMAN, blocking="wait", status=502)
    assert "500" in problem["detail"]
    service.pass_time(130)
    await becomes(service, GERMAN, "valid")


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


async def test_a_check_without_an_answer_is_asked_again(service: Installation) -> None:
    service.sim.fault("callback_contacts", lose=True, times=1)
    await ask(service, GERMAN)
    await until(lambda: calls(service) == 1)
    service.pass_time(130)
    await becomes(service, GERMAN, "valid")
    assert calls(service) == 2


async def test_a_check_that_is_never_answered_ends_failed(service: Installation) -> None:
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
async def test_what_cannot_be_is_422_and_names_the_field(
    service: Installation, body: Json, field: str
) -> None:
    status, problem = await service.api("POST", PATH, body)
    assert status == 422
    assert any(error["field"].startswith(field) for error in problem["errors"]), problem
    assert calls(service) == 0
