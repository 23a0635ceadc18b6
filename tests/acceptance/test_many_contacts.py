"""Twenty thousand numbers, in mixed spellings, while callbacks go astray."""

import asyncio
from collections import Counter

import pytest

from service.whatsapp.http import BusyError, RateLimiter
from tests.acceptance.conftest import Install, Installation, Json, until

COUNT = 20_000
EACH = 1000
SPELLINGS = ("+1{0}{1}{2}", "+1 ({0}) {1}-{2}", "{0}-{1}-{2}", "1 {0} {1} {2}", "{0}{1}{2}")
PATH = "/accounts/main/contacts"


def spelled(number: int) -> str:
    """Write one of so many numbers; every tenth is another spelling of the one before."""
    digits = f"{number - (number % 10 == 9):07}"
    return SPELLINGS[number % 5].format("631", digits[:3], digits[3:])


def wa_id_of(number: int) -> str:
    return f"1631{number - (number % 10 == 9):07}"


FIRST = 2_000_000
NUMBERS = range(FIRST, FIRST + COUNT)


@pytest.fixture
async def service(install: Install) -> Installation:
    contacts = {"free_checks": COUNT, "answer_seconds": 3.0, "max_attempts": 3}
    main = {"phone_number": "+16315550100", "contacts": contacts}
    options = {"contacts_per_callback": 50, "contact_check_seconds": 0.2}
    return await install(accounts={"main": main}, sim_options=options)


async def listed(service: Installation) -> list[Json]:
    found: list[Json] = []
    cursor = ""
    while True:
        status, page = await service.api("GET", f"{PATH}?limit=1000{cursor}")
        assert status == 200
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_twenty_thousand_numbers_all_end_although_callbacks_go_astray(
    service: Installation,
) -> None:
    sim = service.sim
    unknown = {wa_id_of(n) for n in NUMBERS if n % 100 == 7}
    failing = {wa_id_of(n) for n in NUMBERS if n % 500 == 3}
    stuck = {wa_id_of(n) for n in NUMBERS if n % 5000 == 11}
    moved = {wa_id_of(n): f"52{wa_id_of(n)}" for n in NUMBERS if n % 1000 == 21}
    sim.set_contacts(unknown=unknown, failing=failing, stuck=stuck, wa_ids=moved)
    sim.fault("callback_contacts", lose=True, rate=0.2)
    sim.fault("callback_contacts", repeat=3, rate=0.2)
    sim.fault("callback_contacts", reorder=5, rate=0.2)
    sim.fault("callback_contacts", jitter=2.0, rate=0.5)
    texts = [spelled(n) for n in NUMBERS]
    for start in range(0, COUNT, EACH):
        status, answer = await service.api(
            "POST", PATH, {"contacts": texts[start : start + EACH], "blocking": "no_wait"}
        )
        assert status == 200, answer
        assert [item["input"] for item in answer["items"]] == texts[start : start + EACH]

    async def all_ended() -> bool:
        _, shown = await service.api("GET", "/metrics")
        return 'ackgate_contact_checks_open{account="main"} 0.0' in shown

    await until(all_ended, 180)
    found = {item["input"]: item for item in await listed(service)}
    assert set(found) == set(texts)
    for number, text in zip(NUMBERS, texts, strict=True):
        item, wa_id = found[text], wa_id_of(number)
        assert not item["checking"]
        assert item["canonical"] == wa_id
        if wa_id in stuck or wa_id in failing:
            assert (item["status"], item["wa_id"]) == ("failed", None), number
        elif wa_id in unknown:
            assert (item["status"], item["wa_id"]) == ("invalid", None), number
        else:
            assert (item["status"], item["wa_id"]) == ("valid", moved.get(wa_id, wa_id)), number
    counts = Counter(sim.contacts.counts)
    assert counts["limited"] == 0
    assert counts["requests"] >= COUNT / 100
    _, shown = await service.api("GET", "/metrics")
    assert f'ackgate_contact_budget_checks{{account="main"}} {COUNT * 0.9}' in shown


@pytest.mark.slow
async def test_the_rate_limit_of_the_client_is_never_exceeded(service: Installation) -> None:
    service.sim.options.contact_check_seconds = 0

    async def one(number: int) -> int:
        body = {"contacts": [spelled(number)], "blocking": "wait"}
        return (await service.api("POST", PATH, body))[0]

    numbers = [n for n in range(FIRST, FIRST + 170) if n % 10 != 9]
    assert Counter(await asyncio.gather(*map(one, numbers))) == {200: len(numbers)}
    assert service.sim.contacts.counts["limited"] == 0
    assert service.sim.contacts.counts["requests"] == len(numbers)


async def test_who_would_wait_too_long_for_a_permit_is_told_so() -> None:
    rate = RateLimiter(per_second=10, burst=2, first=1, clock=lambda: 0.0)
    await rate.take(0)
    with pytest.raises(BusyError) as caught:
        await rate.take(0.05)
    assert caught.value.seconds == pytest.approx(0.1)


async def test_each_of_several_replicas_takes_its_part_of_the_rate() -> None:
    rate = RateLimiter(per_second=10, burst=4, first=1, clock=lambda: 0.0)
    rate.share(2)
    await rate.take(0)
    with pytest.raises(BusyError) as caught:
        await rate.take(0.05)
    assert caught.value.seconds == pytest.approx(0.2)
    rate.share(1)
    with pytest.raises(BusyError) as caught:
        await rate.take(0.05)
    assert caught.value.seconds == pytest.approx(0.1)
