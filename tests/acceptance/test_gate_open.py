"""The gate closes with the 200 of a callback, opens with the acknowledgement, and catches up."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.acceptance.conftest import (
    WA_ID,
    Install,
    Installation,
    Json,
    Spawn,
    blocked,
    digest_of,
    notice,
    until,
    wrote,
)


def codes(answer: Json, key: str = "warnings") -> list[str]:
    return [reason["code"] for reason in answer[key]]


async def test_a_message_refused_with_480_shows_as_soon_as_its_callback_got_a_200(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    manual.sim.fault("identity_get", hang=30)
    await manual.deliver(blocked(WA_ID))
    assert await manual.reasons() == ["send_blocked"]


async def test_a_480_whose_identity_changed_meanwhile_clears_with_the_acknowledgement(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    hash_ = manual.sim.change_identity(WA_ID, notify=False)
    assert await manual.send() == 1028
    await manual.deliver(blocked(WA_ID))
    assert await manual.reasons() != []
    await manual.becomes("pending", hash_=hash_)
    assert await manual.reasons() == ["identity_pending"]
    status, answer = await manual.acknowledge(hash_, query="?wait=10")
    # The very next question after the answer of the acknowledgement finds the gate open.
    assert (status, answer["state"], await manual.reasons()) == (200, "acknowledged", [])
    assert await manual.send() is None


async def test_a_sender_s_1028_shows_through_refresh_at_once_and_clears_with_the_acknowledgement(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    hash_ = manual.sim.change_identity(WA_ID, notify=False)
    assert await manual.send() == 1028
    assert await manual.reasons() == []
    status, shown = await manual.refresh()
    assert (status, shown["state"]) == (200, "pending")
    assert await manual.reasons() == ["identity_pending"]
    status, answer = await manual.acknowledge(hash_, query="?wait=10")
    assert (status, answer["state"], await manual.reasons()) == (200, "acknowledged", [])


async def test_who_waits_hears_of_the_acknowledgement_no_later_than_who_acknowledged(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    heard: list[str] = []

    async def wait() -> None:
        await manual.api("GET", f"/accounts/main/recipients/{WA_ID}?wait=60")
        heard.append("gate")

    waiter = asyncio.create_task(wait())
    assert manual.service is not None
    context = manual.service.context
    assert context is not None
    await until(lambda: context.changes._waiting)
    status, _ = await manual.acknowledge(hash_, query="?wait=10")
    assert status == 200
    await asyncio.wait_for(waiter, 1)
    assert heard == ["gate"]


# Questions on connections that stay open

KEYS = {"crm": {"role": "gate", "sha256": digest_of("the key of the crm")}}
PATH = f"/api/v1/accounts/main/recipients/{WA_ID}"
TOO_MANY = 50


@pytest.fixture
async def staying() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(
    session: aiohttp.ClientSession, made: Installation, path: str = PATH, key: str | None = None
) -> tuple[int, Json]:
    headers = {"Authorization": f"Bearer {key or 'the key of the crm'}"}
    async with session.get(URL(made.inside or made.base).join(URL(path)), headers=headers) as got:
        assert got.content_type in {"application/json", "application/problem+json"}
        assert "Date" in got.headers
        return got.status, await got.json(content_type=None)


async def keyed(install: Install, **over: Any) -> Installation:
    made = await install(api={"keys": KEYS}, **over)
    made.key = "the key of the crm"
    return made


async def test_a_question_on_a_connection_that_stays_open_gets_the_same_answer(
    install: Install, staying: aiohttp.ClientSession
) -> None:
    made = await keyed(install)
    await made.change()
    for _ in range(3):
        status, answer = await ask(staying, made)
        routed = await made.gate()
        assert (status, answer | {"as_of": ""}) == (200, routed | {"as_of": ""})
        assert codes(answer, "reasons") == ["identity_pending"]


async def test_many_questions_at_once_are_each_answered_with_their_own(
    install: Install, staying: aiohttp.ClientSession
) -> None:
    made = await keyed(install)
    await made.change()
    many = [WA_ID if n % 2 else f"1631{n:06}" for n in range(TOO_MANY)]
    paths = [PATH.replace(WA_ID, wa_id) for wa_id in many]
    answers = await asyncio.gather(*(ask(staying, made, path) for path in paths))
    assert [answer["wa_id"] for _, answer in answers] == many
    assert [answer["sendable"] for _, answer in answers] == [wa_id != WA_ID for wa_id in many]


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (PATH, "another key", 401),
        (PATH.replace("main", "nobody"), None, 404),
        (PATH.replace(WA_ID, "x" * 141), None, 422),
        (PATH + "/", None, 404),
        (PATH + "?wait=61", None, 422),
        (PATH + "?wait=1", None, 200),
    ],
)
async def test_on_a_connection_that_stays_open_each_check_is_made(
    install: Install, staying: aiohttp.ClientSession, path: str, key: str | None, status: int
) -> None:
    made = await keyed(install)
    answered = await ask(staying, made, path, key)
    assert (answered[0], answered[1].get("status", 200)) == (status, status)


async def test_questions_are_counted_whichever_way_they_take(
    install: Install, staying: aiohttp.ClientSession
) -> None:
    made = await keyed(install)
    for path, key in ((PATH, None), (PATH + "?wait=1", None), (PATH, "another key")):
        await ask(staying, made, path, key)
    _, text = await made.api("GET", "/metrics")
    route = 'ackgate_requests_total{route="GET /api/v1/accounts/{account}/recipients/{user}"'
    assert f'{route},status="200"}} 2.0' in text
    assert f'{route},status="401"}} 1.0' in text


async def test_with_an_address_of_its_own_for_the_api_the_endpoint_answers_no_question(
    install: Install, staying: aiohttp.ClientSession
) -> None:
    made = await keyed(install, server={"internal": {"port": 0}})
    assert (await ask(staying, made))[0] == 200
    async with staying.get(URL(made.base).join(URL(PATH))) as answered:
        assert answered.status == 404


# Which reasons block


async def test_an_account_says_which_reasons_only_warn(install: Install) -> None:
    made = await install(accounts={"main": {"gate": {"warn": ["identity_pending"]}}})
    hash_ = await made.change()
    answer = await made.gate()
    assert (answer["sendable"], codes(answer)) == (True, ["identity_pending"])
    assert answer["warnings"][0]["clears_when"]
    await made.hold(hash_)
    assert await made.reasons() == ["identity_held"]


async def test_an_account_says_which_warnings_block(install: Install) -> None:
    made = await install(accounts={"main": {"gate": {"block": ["account_unreachable"]}}})
    await made.acknowledged()
    await made.sim.stop()
    assert (await made.refresh())[0] == 502
    answer = await made.gate()
    assert (answer["sendable"], codes(answer, "reasons")) == (False, ["account_unreachable"])


async def test_an_account_may_refuse_whom_nobody_ever_heard_of(install: Install) -> None:
    made = await install(accounts={"main": {"gate": {"unknown_sendable": False}}})
    answer = await made.gate()
    assert (answer["known"], answer["sendable"]) == (False, False)
    assert codes(answer, "reasons") == ["contact_unknown"]
    assert (await made.api("PUT", f"/accounts/main/recipients/{WA_ID}/block", {"reason": "x"}))[
        0
    ] == 200
    assert (await made.api("DELETE", f"/accounts/main/recipients/{WA_ID}/block"))[0] == 200
    assert await made.reasons() == ["contact_unknown"]
    await made.deliver(wrote(WA_ID, "Rc/eg9Rl0JA=", int(time.time() * 1000)))
    assert "contact_unknown" not in await made.reasons()


# After a downtime


async def was_alive(made: Installation, seconds_ago: float) -> None:
    """Let the service have died so long ago."""
    at = str(round(1000 * (time.time() - seconds_ago)))
    alive = "UPDATE installation SET value = :at WHERE key = 'alive_at'"
    assert await made.write(alive, at=at) == 1


async def test_a_first_start_has_nothing_to_catch_up_with(manual: Installation) -> None:
    await manual.acknowledged()
    assert (await manual.gate())["warnings"] == []


@pytest.mark.parametrize(
    ("down", "least", "most"), [(1, 5, 30), (3600, 147, 170), (30 * 86_400, 899, 901)]
)
async def test_after_a_downtime_the_gate_warns_until_the_client_s_retries_have_come_through(
    manual: Installation, down: float, least: float, most: float
) -> None:
    await manual.acknowledged()
    await manual.stop()
    await was_alive(manual, down)
    await manual.start()
    answer = await manual.gate()
    assert (answer["sendable"], codes(answer)) == (True, ["catching_up"])
    [warning] = answer["warnings"]
    since, until_ = (datetime.fromisoformat(warning[at]) for at in ("since", "until"))
    lasts = (until_ - since).total_seconds()
    assert least <= lasts <= most
    manual.pass_time(lasts / 2)
    assert codes(await manual.gate()) == ["catching_up"]
    manual.pass_time(lasts)
    assert codes(await manual.gate()) == []


async def test_a_shorter_downtime_does_not_end_the_warning_of_a_longer_one(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    await manual.stop()
    await was_alive(manual, 3600)
    await manual.start()
    [before] = (await manual.gate())["warnings"]
    manual.service.context.ledger.refused += 1
    for _ in range(2):
        await manual.service.background.close()
    assert (await manual.gate())["warnings"] == [before]


async def test_an_account_may_rather_wait_until_it_has_caught_up(install: Install) -> None:
    made = await install(accounts={"main": {"gate": {"block": ["catching_up"]}}})
    await made.acknowledged()
    await made.stop()
    await was_alive(made, 3600)
    await made.start()
    assert await made.reasons() == ["catching_up"]
    _, answer = await made.api("GET", f"/accounts/main/recipients/{WA_ID}?wait=0.05")
    assert answer["sendable"] is False
    made.pass_time(170)
    assert await made.reasons() == []


async def test_what_the_client_delivers_again_after_the_downtime_counts(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    await manual.stop()
    changed = manual.sim.change_identity(WA_ID, notify=False)
    await manual.start()
    assert codes(await manual.gate()) == ["catching_up"]
    user = manual.sim.users[WA_ID]
    await manual.deliver(notice(WA_ID, changed, user.created_timestamp))
    assert await manual.reasons() == ["identity_pending"]


@pytest.mark.slow
async def test_after_a_kill_the_gate_warns_too(prepare: Install, spawn: Spawn) -> None:
    made = await prepare()
    first = await spawn(made.tree)
    assert (await first.gate())["warnings"][-1]["code"] != "catching_up"
    await first.kill()
    second = await spawn(made.tree)
    assert "catching_up" in codes(await second.gate())


# Numbers as the business holds them


async def test_numbers_are_found_in_any_spelling_once_they_were_checked(install: Install) -> None:
    made = await install(accounts={"main": {"phone_number": "+16315550100"}})
    check = {"contacts": ["+1 (631) 555-3601"], "blocking": "wait"}
    status, answer = await made.api("POST", "/accounts/main/contacts", check)
    assert (status, answer["items"][0]["wa_id"]) == (200, WA_ID)
    await made.change()
    spelled = [
        "+1 (631) 555-3601",
        "+16315553601",
        "6315553601",
        "631-555-3601",
        "1 631 555 3601",
        WA_ID,
    ]
    body = {"recipients": spelled}
    status, found = await made.api("POST", "/accounts/main/recipients/lookup", body)
    assert status == 200
    assert [item["input"] for item in found["items"]] == spelled
    assert {item["wa_id"] for item in found["items"]} == {WA_ID}
    assert [codes(item, "reasons") for item in found["items"]] == [["identity_pending"]] * 6


async def test_a_number_never_checked_is_unknown_and_has_no_wa_id(manual: Installation) -> None:
    body = {"recipients": ["+1 631 555 7001"]}
    _, found = await manual.api("POST", "/accounts/main/recipients/lookup", body)
    [item] = found["items"]
    assert (item["wa_id"], item["known"], item["sendable"]) == (None, False, True)
    assert codes(item) == ["contact_unknown"]


async def test_a_wa_id_is_never_taken_for_a_national_number_of_another(install: Install) -> None:
    made = await install(accounts={"main": {"phone_number": "+4930123456"}})
    await made.deliver(
        {"contacts": [{"input": "+4916315553601", "status": "invalid", "wa_id": "4916315553601"}]},
        wrote(WA_ID, "Rc/eg9Rl0JA=", int(time.time() * 1000), acknowledged=True),
    )
    answer = await made.gate()
    assert (answer["wa_id"], "contact_invalid" in codes(answer, "reasons")) == (WA_ID, False)
