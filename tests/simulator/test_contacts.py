"""Contact checks over the wire."""

import asyncio
from typing import Any

import pytest

from service.simulator import Simulator
from service.simulator.contact_checks import international
from tests.simulator.conftest import Business, Webhook


async def check(business: Business, *contacts: str, **others: Any) -> Any:
    status, body = await business.call(
        "POST", "/v1/contacts", {"contacts": list(contacts), **others}
    )
    assert status == 200
    return body["contacts"]


async def test_a_check_that_waits_answers_every_number_in_its_order(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.set_contacts(unknown={"16315551002"}, failing={"+1 631 555 1003"})
    assert await check(
        business,
        "16315551000",
        "+1 (631) 555-1004",
        "6315551002",
        "+163155588",
        "+1 631 555 1003",
        blocking="wait",
    ) == [
        {"input": "16315551000", "status": "valid", "wa_id": "16315551000"},
        {"input": "+1 (631) 555-1004", "status": "valid", "wa_id": "16315551004"},
        {"input": "6315551002", "status": "invalid"},
        {"input": "+163155588", "status": "failed"},
        {"input": "+1 631 555 1003", "status": "failed"},
    ]
    await sim.settled()
    assert webhook.raw == []


async def test_a_check_that_does_not_wait_is_answered_later_with_the_pending_alone(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    await check(business, "+1 631 555 1000", blocking="wait")
    sim.set_contacts(unknown={"16315551002"})
    assert await check(business, "+1 631 555 1001", "+1 631 555 1000", "6315551002") == [
        {"input": "+1 631 555 1001", "status": "processing"},
        {"input": "+1 631 555 1000", "status": "valid", "wa_id": "16315551000"},
        {"input": "6315551002", "status": "processing"},
    ]
    await sim.settled()
    assert webhook.bodies == [
        {
            "contacts": [
                {"input": "+1 631 555 1001", "status": "valid", "wa_id": "16315551001"},
                {"input": "6315551002", "status": "invalid"},
            ]
        }
    ]


async def test_results_are_cached_unless_a_check_is_forced(business: Business) -> None:
    await check(business, "+16315551001", blocking="wait")
    (cached,) = await check(business, "+16315551001")
    assert cached["status"] == "valid"
    (forced,) = await check(business, "+16315551001", force_check=True)
    assert forced["status"] == "processing"


@pytest.mark.parametrize("sim", [{"contact_cache_seconds": 0}], indirect=True)
async def test_a_cached_result_grows_stale(business: Business) -> None:
    await check(business, "+16315551001", blocking="wait")
    (again,) = await check(business, "+16315551001")
    assert again["status"] == "processing"


@pytest.mark.parametrize(
    ("text", "registered", "digits"),
    [
        ("+1 (516) 283-7151", "+919820098200", "15162837151"),
        ("+54 9 11 5612-1008", "+919820098200", "5491156121008"),
        ("9820098201", "+919820098200", "919820098201"),
        ("1 (516) 283-7151", "+919820098200", None),
        ("6315551002", "+16315550100", "16315551002"),
        ("16315551000", "+16315550100", "16315551000"),
        ("hello", "+16315550100", None),
        ("", "+16315550100", None),
    ],
)
def test_a_number_without_a_plus_sign_is_of_the_registered_country(
    text: str, registered: str, digits: str | None
) -> None:
    assert international(text, registered) == digits


@pytest.mark.parametrize("sim", [{"phone_number": "+525550000000"}], indirect=True)
async def test_a_wa_id_may_differ_from_the_number(sim: Simulator, business: Business) -> None:
    sim.set_contacts(wa_ids={"+1 631 555 1001": "999"})
    results = await check(
        business, "5566295500", "+55 11 98765-4321", "+1 631 555 1001", blocking="wait"
    )
    assert [each["wa_id"] for each in results] == ["5215566295500", "551187654321", "999"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 1008),
        ({"contacts": []}, 1009),
        ({"contacts": "+1"}, 1009),
        ({"contacts": ["+1", 5]}, 1009),
        ({"contacts": ["+1"], "blocking": "maybe"}, 1009),
        ({"contacts": ["+1"], "force_check": "yes"}, 1009),
    ],
)
async def test_a_check_that_makes_no_sense_gets_400(
    business: Business, body: object, code: int
) -> None:
    status, answer = await business.call("POST", "/v1/contacts", body)
    assert (status, answer["errors"][0]["code"]) == (400, code)


@pytest.mark.parametrize(
    "sim", [{"contacts_burst": 3, "contacts_per_second": 0.001}], indirect=True
)
async def test_more_checks_than_the_burst_get_429_with_code_1015(business: Business) -> None:
    await business.login()
    answers = await asyncio.gather(
        *(business.call("POST", "/v1/contacts", {"contacts": ["+16315551001"]}) for _ in range(4))
    )
    assert sorted(status for status, _ in answers) == [200, 200, 200, 429]
    assert max(answers, key=lambda each: each[0])[1]["errors"][0]["code"] == 1015
