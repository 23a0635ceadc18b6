"""Contact checks over the wire."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from service.simulator import Simulator
from service.simulator.onprem.contact_checks import international, is_always_valid
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


@pytest.mark.parametrize("sim", [{"contact_check_seconds": 0.2}], indirect=True)
async def test_only_the_first_check_of_a_number_that_waits_takes_as_long_as_the_check(
    sim: Simulator, business: Business
) -> None:
    await business.login()
    began = time.monotonic()
    await check(business, "+16315551001", "+16315551002", blocking="wait")
    assert time.monotonic() - began >= 0.2
    sim.change_settings(contact_check_seconds=600)
    await check(business, "+16315551001", blocking="wait")


async def test_nothing_is_reported_when_a_user_joins_or_leaves(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    await check(business, "+16315551001", blocking="wait")
    for unknown in ({"16315551001"}, set[str]()):
        sim.set_contacts(unknown=unknown)
        await sim.settled()
    assert webhook.raw == []


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
        ("0 98200-98201", "+919820098200", "919820098201"),
        ("(631) 555-1002", "+16315550100", "16315551002"),
        ("1.631.555.1002", "+16315550100", "16315551002"),
        ("011 15 5612-1008", "+5491156121000", "5491156121008"),
        ("+44 (0)20 7946 0018", "+16315550100", "442079460018"),
        ("+1 800 FLOWERS", "+919820098200", "18003569377"),
        ("(+1) 631 555 1002 ext. 7", "+919820098200", "16315551002"),
        ("tel:+1-631-555-1002", "+919820098200", "16315551002"),
        ("\uff0b\uff11 631 555 1002", "+919820098200", "16315551002"),
        ("00 44 20 7946 0018", "+919820098200", None),
        ("011 44 20 7946 0018", "+16315550100", None),
        ("442079460018", "+16315550100", None),
        ("555 1002", "+16315550100", None),
        ("+1 555 1002", "+16315550100", None),
        ("+", "+16315550100", None),
        ("+1" * 200, "+16315550100", None),
        ("hello", "+16315550100", None),
        ("", "+16315550100", None),
    ],
)
def test_any_dialable_format_is_read_and_is_of_the_registered_country_without_a_plus_sign(
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


class Clock:
    """A time that moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()
DAY = 24 * 3600


@pytest.mark.parametrize("sim", [{"clock": CLOCK}], indirect=True)
async def test_a_result_stays_as_it_was_found_for_seven_days_unless_a_check_is_forced(
    sim: Simulator, business: Business
) -> None:
    await check(business, "+16315551001", "+16315551002", blocking="wait")
    sim.set_contacts(unknown={"16315551001", "16315551002"})
    CLOCK.now += 7 * DAY - 1
    await business.login()
    (cached,) = await check(business, "+16315551001")
    assert cached == {"input": "+16315551001", "status": "valid", "wa_id": "16315551001"}
    (forced,) = await check(business, "+16315551001", blocking="wait", force_check=True)
    assert forced == {"input": "+16315551001", "status": "invalid"}
    CLOCK.now += 1
    assert [each["status"] for each in await check(business, "+16315551001", "+16315551002")] == [
        "invalid",
        "processing",
    ]


async def test_one_number_in_two_spellings_is_two_inputs_and_one_result_in_the_cache(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    spellings = ("+1 631 555 1001", "(631) 555-1001")
    assert await check(business, *spellings) == [
        {"input": text, "status": "processing"} for text in spellings
    ]
    await sim.settled()
    results = [{"input": text, "status": "valid", "wa_id": "16315551001"} for text in spellings]
    assert webhook.bodies == [{"contacts": results}]
    (third,) = await check(business, "631-555-1001")
    assert third == {"input": "631-555-1001", "status": "valid", "wa_id": "16315551001"}


async def test_duplicates_are_answered_each_in_its_place_and_called_back_once(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    texts = ["+16315551001", "+16315551002", "+16315551001"]
    answers = await check(business, *texts)
    assert [each["input"] for each in answers] == texts
    await sim.settled()
    (body,) = webhook.bodies
    assert [each["input"] for each in body["contacts"]] == texts[:2]
    assert (sim.contacts.counts["numbers"], sim.contacts.counts["looked_up"]) == (3, 2)


@pytest.mark.parametrize("sim", [{"contact_check_seconds": 0.1}], indirect=True)
async def test_a_number_that_is_being_checked_is_processing_for_whoever_asks_again(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    for _ in range(2):
        (again,) = await check(business, "+16315551001")
        assert again["status"] == "processing"
    await sim.settled()
    assert len(webhook.raw) == 2
    (known,) = await check(business, "+16315551001")
    assert known["status"] == "valid"


async def test_a_failed_check_is_called_back_and_not_cached(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.set_contacts(failing={"16315551001"})
    await check(business, "+16315551001")
    await sim.settled()
    assert webhook.bodies == [{"contacts": [{"input": "+16315551001", "status": "failed"}]}]
    sim.set_contacts(failing=set())
    (again,) = await check(business, "+16315551001", blocking="wait")
    assert again["status"] == "valid"


async def test_a_check_that_is_stuck_is_never_answered_and_fails_who_waits(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.set_contacts(stuck={"16315551001"})
    for _ in range(2):
        statuses = [
            each["status"] for each in await check(business, "+16315551001", "+16315551002")
        ]
        await sim.settled()
    assert statuses == ["processing", "valid"]
    (waited,) = await check(business, "+16315551001", blocking="wait")
    assert waited == {"input": "+16315551001", "status": "failed"}
    assert [each["input"] for body in webhook.bodies for each in body["contacts"]] == [
        "+16315551002"
    ]


@pytest.mark.parametrize("sim", [{"contacts_per_callback": 1}], indirect=True)
async def test_a_fault_can_apply_to_the_result_of_one_user_alone(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.fault("callback_contacts", lose=True, wa_id="16315551001")
    await check(business, "+16315551001", "+16315551002")
    await sim.settled()
    (body,) = webhook.bodies
    assert body["contacts"][0]["input"] == "+16315551002"


@pytest.mark.parametrize("sim", [{"processing_wa_id": True}], indirect=True)
async def test_what_is_processing_can_have_its_wa_id_as_in_metas_example(
    business: Business,
) -> None:
    assert await check(business, "+1 631 555 1001", "hello") == [
        {"input": "+1 631 555 1001", "status": "processing", "wa_id": "16315551001"},
        {"input": "hello", "status": "processing"},
    ]


@pytest.mark.parametrize("sim", [{"contacts_per_callback": 2}], indirect=True)
async def test_the_results_of_a_request_can_come_in_several_callbacks(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    texts = [f"+1631555100{number}" for number in range(5)]
    await check(business, *texts)
    await sim.settled()
    parts = sorted([each["input"] for each in body["contacts"]] for body in webhook.bodies)
    assert parts == [texts[:2], texts[2:4], texts[4:]]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v2.41.3", False),
        ("v2.42.99", False),
        ("v2.43", True),
        ("v2.43.1", True),
        ("v2.45.1", True),
        ("v3.0", True),
        ("v2.5", False),
    ],
)
def test_from_v2_43_on_every_answer_is_valid(version: str, expected: bool) -> None:
    assert is_always_valid(version) is expected


@pytest.mark.parametrize("sim", [{"version": "v2.43.1"}], indirect=True)
@pytest.mark.parametrize("blocking", ["wait", "no_wait"])
async def test_a_client_from_v2_43_on_finds_every_number_valid_at_once(
    sim: Simulator, business: Business, webhook: Webhook, blocking: str
) -> None:
    sim.set_contacts(unknown={"16315551001"}, failing={"16315551002"}, stuck={"16315551003"})
    texts = ["+16315551001", "6315551002", "+1 631 555 1003", "+163155588", "525566295500", "hello"]
    assert await check(business, *texts, blocking=blocking) == [
        {"input": "+16315551001", "status": "valid", "wa_id": "16315551001"},
        {"input": "6315551002", "status": "valid", "wa_id": "16315551002"},
        {"input": "+1 631 555 1003", "status": "valid", "wa_id": "16315551003"},
        {"input": "+163155588", "status": "valid", "wa_id": "163155588"},
        {"input": "525566295500", "status": "valid", "wa_id": "525566295500"},
        {"input": "hello", "status": "failed"},
    ]
    await sim.settled()
    assert webhook.raw == []


LIMITS = Clock()


@pytest.mark.parametrize("sim", [{"clock": LIMITS, "tls": False}], indirect=True)
async def test_twenty_requests_a_second_with_a_burst_of_sixty_are_heard_and_all_are_counted(
    sim: Simulator, business: Business
) -> None:
    async def statuses(count: int) -> Counter[int]:
        one = {"contacts": ["+16315551001", "+16315551002"]}
        return Counter(
            [(await business.call("POST", "/v1/contacts", one))[0] for _ in range(count)]
        )

    assert await statuses(63) == {200: 60, 429: 3}
    LIMITS.now += 1
    assert await statuses(21) == {200: 20, 429: 1}
    async with business.session.get("/control/contacts") as answer:
        counts = await answer.json()
    assert counts == {
        "requests": 84,
        "limited": 4,
        "numbers": 160,
        "looked_up": sim.contacts.counts["looked_up"],
        "forced": 0,
    }
    async with business.session.get("/control/state") as answer:
        assert (await answer.json())["contacts"]["counts"] == counts


async def test_what_the_cache_answers_is_a_number_but_no_look_up(
    sim: Simulator, business: Business
) -> None:
    await check(business, "+16315551001", blocking="wait")
    await check(business, "+16315551001", blocking="wait")
    await check(business, "+16315551001", blocking="wait", force_check=True)
    counts = sim.contacts.counts
    assert (counts["numbers"], counts["looked_up"], counts["forced"]) == (3, 2, 1)


async def test_a_result_whose_callback_was_lost_is_in_the_clients_cache(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.fault("callback_contacts", lose=True)
    await check(business, "+16315551001")
    while not sim.contacts.known(["+16315551001"], forced=False):
        await asyncio.sleep(0.01)
    (again,) = await check(business, "+16315551001")
    assert again["status"] == "valid"
    assert webhook.raw == []


@pytest.mark.parametrize("sim", [{"contact_check_seconds": 0.1}], indirect=True)
async def test_contact_callbacks_are_repeated_reordered_and_late(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.fault("callback_contacts", repeat=2, times=1)
    sim.fault("callback_contacts", reorder=4, times=4)
    sim.fault("callback_contacts", latency=0.2, times=1)
    began = time.monotonic()
    for number in range(6):
        await check(business, f"+1631555100{number}")
    await sim.settled()
    assert time.monotonic() - began >= 0.3
    last = [body["contacts"][0]["input"][-1] for body in webhook.bodies]
    assert last[:2] == ["0", "0"]
    assert last[-1] == "5"
    assert [each for each in last if each in "1234"] == ["4", "3", "2", "1"]


async def test_a_long_row_of_reordered_callbacks_takes_no_longer_than_one(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.change_settings(contact_check_seconds=0.3)
    sim.fault("callback_contacts", reorder=10)
    began = time.monotonic()
    for number in range(10):
        await check(business, f"+1631555100{number}")
    await sim.settled()
    assert len(webhook.raw) == 10
    assert time.monotonic() - began < 10 * 0.3


SPELLINGS = ("+1{0}{1}{2}", "({0}) {1}-{2}", "{0}-{1}-{2}", "+1 {0} {1} {2}", "1{0}{1}{2}")
ONE_BY_ONE = {"contacts_per_callback": 10, "tls": False, "contact_check_seconds": 0}


def spelled(count: int) -> Iterator[str]:
    for number in range(count):
        spelling = SPELLINGS[number % len(SPELLINGS)]
        yield spelling.format(631, 500 + number // 10_000, f"{number % 10_000:04}")


@pytest.mark.slow
@pytest.mark.parametrize("sim", [ONE_BY_ONE], indirect=True)
async def test_twenty_thousand_numbers_are_all_answered_although_callbacks_go_astray(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    """Asked again, the client's cache has what a lost callback would have reported."""
    numbers = list(spelled(20_000))
    users = {f"1631{500 + number // 10_000}{number % 10_000:04}" for number in range(20_000)}
    sim.set_contacts(unknown=set(islice(sorted(users), 0, None, 7)), wa_ids={"16315010001": "7"})
    sim.fault("callback_contacts", lose=True, rate=0.1)
    sim.fault("callback_contacts", repeat=2, rate=0.1)
    sim.fault("callback_contacts", reorder=3, rate=0.2)
    sim.fault("callback_contacts", jitter=0.5)
    for start in range(0, len(numbers), 1000):
        await check(business, *numbers[start : start + 1000])
    await sim.settled(60)
    found = {each["input"]: each for body in webhook.bodies for each in body["contacts"]}
    assert 15_000 < len(found) < 20_000
    left = [number for number in numbers if number not in found]
    for start in range(0, len(left), 1000):
        answers = await check(business, *left[start : start + 1000])
        found |= {each["input"]: each for each in answers}
    assert found == {number: sim.contacts.find(number).as_json(number) for number in numbers}
    assert Counter(each["status"] for each in found.values()) == {"valid": 17_142, "invalid": 2_858}
    assert found[next(islice(numbers, 10_001, None))]["wa_id"] == "7"
    assert sim.contacts.counts["limited"] == 0
    assert sim.contacts.counts["looked_up"] == 20_000
    assert sim.delivery.counts["lost"] > 100
