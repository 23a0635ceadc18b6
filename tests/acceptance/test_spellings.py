"""However a recipient is called, the gate is no more open than for the user's own name.

What only asks finds a user by every spelling; what decides, holds or blocks names the user.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    CloudInstallation,
    Install,
    Installation,
    Json,
    OpenShop,
    Spawn,
    hour_ago,
    notice,
    until,
)
from tests.acceptance.conftest import wrote as message
from tests.acceptance.webhooks import wrote

US_NUMBER = "16315550241"
US_SPELLINGS = ["+16315550241", "+1 631-555-0241", "0016315550241", "16315550241"]
OTHERS = [
    ("551196555036", "5511996555036"),
    ("551185550361", "5511985550361"),
    ("525566295500", "5215566295500"),
    ("541156121008", "5491156121008"),
]
DAY = 86_400


async def ask(made: Installation, *recipients: str) -> list[Json]:
    body = {"recipients": list(recipients)}
    status, found = await made.api("POST", f"/accounts/{made.account}/recipients/lookup", body)
    assert status == 200, found
    return list(found["items"])


async def ask_one(made: Installation, text: str) -> Json:
    return await made.gate(quote(text, safe=""))


def codes(answer: Json, key: str = "reasons") -> list[str]:
    return [reason["code"] for reason in answer[key]]


async def pending(made: Installation, wa_id: str) -> str:
    """Let the identity of a user have changed, at the account of either kind."""
    if isinstance(made, CloudInstallation):
        await made.come(wrote(HASH_A, wa_id=wa_id), wrote(HASH_B, 60, wa_id=wa_id))
    else:
        await made.deliver(notice(wa_id, HASH_B, hour_ago()))
    return HASH_B


async def known(made: Installation, wa_id: str) -> None:
    """Let a user have written, with an identity that nothing is to be said against."""
    if isinstance(made, CloudInstallation):
        await made.come(wrote(HASH_A, wa_id=wa_id))
    else:
        made.sim.set_user(wa_id, hash=HASH_A, acknowledged=True)
        assert (await made.refresh(wa_id))[0] == 200


async def block(made: Installation, wa_id: str) -> None:
    path = f"/accounts/{made.account}/recipients/{quote(wa_id, safe='')}/block"
    status, answer = await made.api("PUT", path, {"reason": "asked us to stop"})
    assert status == 200, answer


async def held(made: Installation, wa_id: str) -> None:
    status, answer = await made.hold(await pending(made, wa_id), wa_id)
    assert (status, answer["state"]) == (200, "held")


CLOSED = {"identity_pending": pending, "identity_held": held, "blocked": block}
Close = Callable[[Installation, str], Awaitable[Any]]


@pytest.fixture(params=["onprem", "cloud"])
async def either(
    request: pytest.FixtureRequest, install: Install, open_shop: OpenShop
) -> Installation:
    """An installation that is asked about an account of either kind."""
    return await (install() if request.param == "onprem" else open_shop())


@pytest.mark.parametrize("reason", CLOSED)
async def test_a_number_that_was_never_checked_is_found_by_its_own_digits(
    either: Installation, reason: str
) -> None:
    await CLOSED[reason](either, US_NUMBER)
    answers = [await ask_one(either, text) for text in US_SPELLINGS]
    for answer in (*answers, *await ask(either, *US_SPELLINGS)):
        assert (answer["wa_id"], answer["sendable"]) == (US_NUMBER, False)
        assert [(r["code"], r["of"]) for r in answer["reasons"]] == [(reason, US_NUMBER)]


async def test_a_plus_sign_in_a_path_may_stand_as_it_is(either: Installation) -> None:
    await pending(either, US_NUMBER)
    assert (await either.gate("+16315550241"))["sendable"] is False
    assert (await either.identity("+16315550241"))["wa_id"] == US_NUMBER


async def test_the_commands_find_a_number_in_any_spelling(
    manual: Installation, spawn: Spawn
) -> None:
    await pending(manual, US_NUMBER)
    await manual.stop()
    child = await spawn(manual.tree)
    closed = await _run(child.base, "gate", "main", "+1 631-555-0241", "--json", expect=1)
    assert (closed["wa_id"], closed["sendable"]) == (US_NUMBER, False)
    shown = await _run(child.base, "identities", "show", "main", "+16315550241", "--json")
    assert shown["wa_id"] == US_NUMBER
    decided = ("acknowledge", "main", "+1 631 555 0241", "--hash", HASH_B, "--json")
    assert (await _run(child.base, *decided))["wa_id"] == US_NUMBER


async def _run(base: str, *words: str, expect: int = 0) -> Json:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *words),
        env={**os.environ, "ACKGATE_URL": base},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == expect
    return dict(json.loads(printed))


async def test_bare_digits_are_found_by_what_a_check_of_the_number_told(
    manual: Installation,
) -> None:
    number, told = "+55 11 95555-0361", "551155550361"
    manual.sim.set_contacts(wa_ids={number: told})
    check = {"contacts": [number], "blocking": "wait"}
    status, found = await manual.api("POST", "/accounts/main/contacts", check)
    assert (status, found["items"][0]["wa_id"]) == (200, told)
    await pending(manual, told)
    for answer in await ask(manual, number, "5511955550361", "+5511955550361"):
        assert (answer["wa_id"], codes(answer)) == (told, ["identity_pending"])


@pytest.mark.parametrize("pair", [pair for o in OTHERS for pair in (o, o[::-1])], ids="-".join)
async def test_a_user_found_by_whatsapp_s_other_spelling_alone_is_named_with_a_warning(
    either: Installation, pair: tuple[str, str]
) -> None:
    own, other = pair
    await known(either, own)
    for answer in await ask(either, other, f"+{other}", f"00{other}"):
        assert (answer["wa_id"], answer["known"], answer["sendable"]) == (own, True, True)
        assert answer.get("identity_key_hash", HASH_A) == HASH_A
        [warning] = answer["warnings"]
        assert (warning["code"], warning["of"], warning["wa_id"]) == ("other_spelling", own, own)
    [named] = await ask(either, own)
    assert named["warnings"] == []


@pytest.mark.parametrize(("own", "other"), OTHERS)
async def test_what_is_said_of_a_user_closes_the_gate_by_the_other_spelling_too(
    either: Installation, own: str, other: str
) -> None:
    await pending(either, other)
    for answer in await ask(either, own, f"+{own}"):
        assert [(r["code"], r["of"]) for r in answer["reasons"]] == [("identity_pending", other)]
        assert answer.get("identity_key_hash") is None
    await known(either, own)
    [answer] = await ask(either, own)
    assert (answer["wa_id"], answer["sendable"]) == (own, False)
    assert answer.get("identity_key_hash") is None


async def test_where_the_unknown_are_not_written_to_another_spelling_does_not_make_known(
    open_shop: OpenShop,
) -> None:
    gate = {"gate": {"unknown_sendable": False}}
    made = await open_shop(accounts={"shop": gate, "main": gate})
    own, other = OTHERS[0]
    for one in (made, made.of("main")):
        if one.account == "shop":
            await made.come(wrote(HASH_A, wa_id=own))
        else:
            made.sim.set_user(own, hash=HASH_A, acknowledged=True)
            assert (await one.refresh(own))[0] == 200
        [answer] = await ask(one, other)
        [reason] = answer["reasons"]
        assert (reason["code"], reason["wa_id"]) == ("contact_unknown", own)
        assert "wa_id" in reason["clears_when"]
        [named] = await ask(one, reason["wa_id"])
        assert (named["sendable"], named["known"]) == (True, True)


async def test_a_check_that_ended_failed_makes_nobody_known(install: Install) -> None:
    made = await install(accounts={"main": {"gate": {"unknown_sendable": False}}})
    texts = ("+1 631 555 7001", "junk text")
    for text in texts:
        await made.deliver({"contacts": [{"input": text, "status": "failed"}]})
    for answer in await ask(made, *texts):
        assert (answer["known"], codes(answer)) == (False, ["contact_unknown"])


async def test_a_check_that_fails_leaves_what_was_known_before(manual: Installation) -> None:
    for status, sendable in (("valid", True), ("invalid", False)):
        number = f"+1 631 555 70{sendable:02}"
        await manual.deliver({"contacts": [{"input": number, "status": status}]})
        body = {"contacts": [{"input": number, "status": "failed"}]}
        await manual.deliver(body)
        [answer] = await ask(manual, number)
        assert (answer["known"], answer["sendable"]) == (True, sendable)


async def test_what_nobody_asked_for_gives_no_other_wa_id_while_an_answer_is_fresh(
    manual: Installation,
) -> None:
    number, stranger = "+1 631-555-0241", "447700900123"
    check = {"contacts": [number], "blocking": "wait"}
    assert (await manual.api("POST", "/accounts/main/contacts", check))[0] == 200
    unasked = {"contacts": [{"input": number, "status": "valid", "wa_id": stranger}]}
    elsewhere = {
        "contacts": [{"input": "+16315550241", "status": "valid", "wa_id": stranger}],
        "meta": {"n": 1},
    }
    await manual.deliver(unasked, elsewhere)
    assert {answer["wa_id"] for answer in await ask(manual, number)} == {US_NUMBER}
    await manual.deliver({"contacts": [{"input": number, "status": "invalid"}]})
    [answer] = await ask(manual, number)
    assert codes(answer) == ["contact_invalid"]
    await manual.deliver(unasked | {"meta": {"n": 2}})
    assert codes((await ask(manual, number))[0]) == ["contact_invalid"]
    manual.pass_time(7 * DAY + 60)
    await manual.deliver(unasked | {"meta": {"n": 3}})
    [answer] = await ask(manual, number)
    assert (answer["wa_id"], codes(answer)) == (stranger, [])
    await pending(manual, US_NUMBER)  # what the number's own digits say counts always
    [answer] = await ask(manual, number)
    assert [(r["code"], r["of"]) for r in answer["reasons"]] == [("identity_pending", US_NUMBER)]


# Decisions and blocks


async def test_a_person_decides_by_the_number_s_own_digits(either: Installation) -> None:
    hash_ = await pending(either, US_NUMBER)
    status, answer = await either.hold(hash_, "+1%20631-555-0241")
    assert (status, answer["wa_id"], answer["state"]) == (200, US_NUMBER, "held")
    status, answer = await either.acknowledge(hash_, "0016315550241")
    assert (status, answer["wa_id"]) in {(202, US_NUMBER), (200, US_NUMBER)}


async def test_the_compatible_route_finds_a_number_in_any_spelling(either: Installation) -> None:
    hash_ = await pending(either, US_NUMBER)
    path = f"/compat/{either.account}/v1/contacts/+16315550241/identity"
    url = f"{either.base}{path}"
    async with either.http.get(url) as response:
        assert (await response.json())["contacts"]["hash"] == hash_
    if isinstance(either, CloudInstallation):
        async with either.http.put(url, json={"hash": hash_}) as response:
            assert response.status == 200


async def test_where_a_number_may_be_several_users_a_decision_is_409_with_the_candidates(
    manual: Installation,
) -> None:
    own, told = "5511955550361", "551155550361"
    await pending(manual, own)
    await pending(manual, told)
    await manual.deliver({"contacts": [{"input": f"+{own}", "status": "valid", "wa_id": told}]})
    spelled = quote(f"+{own}", safe="")
    for verb in ("acknowledge", "hold"):
        status, problem = await manual.decide(verb, HASH_B, spelled)
        assert (status, sorted(problem["candidates"])) == (409, sorted([own, told]))
    path = f"/accounts/main/recipients/{spelled}/block"
    status, problem = await manual.api("PUT", path, {"reason": "x"})
    assert (status, sorted(problem["candidates"])) == (409, sorted([own, told]))
    for candidate in problem["candidates"]:
        status, answer = await manual.hold(HASH_B, candidate)
        assert (status, answer["wa_id"]) == (200, candidate)
    [answer] = await ask(manual, f"+{own}")
    assert {reason["of"] for reason in answer["reasons"]} == {own, told}


@pytest.mark.parametrize(("own", "other"), OTHERS)
async def test_where_another_spelling_alone_is_known_a_decision_is_404_and_names_it(
    either: Installation, own: str, other: str
) -> None:
    hash_ = await pending(either, own)
    for verb in ("acknowledge", "hold"):
        status, problem = await either.decide(verb, hash_, f"+{other}")
        assert (status, problem["other_spelling"]) == (404, own)
    path = f"/accounts/{either.account}/recipients/{other}/block"
    status, problem = await either.api("PUT", path, {"reason": "x"})
    assert (status, problem["other_spelling"]) == (404, own)
    assert await either.state(own) == "pending"
    assert (await either.identity(other))["wa_id"] == own  # to look is enough of a name


async def test_a_block_of_a_number_never_heard_of_holds_for_every_spelling(
    either: Installation,
) -> None:
    await block(either, "+1 631-555-0241")
    for answer in await ask(either, *US_SPELLINGS):
        assert codes(answer) == ["blocked"]
    path = f"/accounts/{either.account}/recipients/{US_NUMBER}/block"
    status, answer = await either.api("DELETE", path)
    assert (status, answer["sendable"]) == (200, True)


async def test_a_number_without_a_country_is_not_blocked_but_refused(
    either: Installation,
) -> None:
    path = f"/accounts/{either.account}/recipients/{quote('(631) 555-0241', safe='')}/block"
    status, problem = await either.api("PUT", path, {"reason": "x"})
    assert (status, problem["errors"][0]["field"]) == (422, "user")


async def test_the_client_is_asked_by_the_number_s_own_digits(manual: Installation) -> None:
    manual.sim.set_user(US_NUMBER, hash=HASH_A, acknowledged=True)
    status, answer = await manual.refresh("+1%20631-555-0241")
    assert (status, answer["wa_id"], answer["state"]) == (200, US_NUMBER, "acknowledged")


# What clears a reason


async def test_what_is_said_to_clear_a_warning_clears_it(either: Installation) -> None:
    """Each in turn: unknown, found by another spelling, stale."""
    own, other = OTHERS[0]
    [unknown] = (await ask(either, f"+{own}"))[0]["warnings"]
    assert (unknown["code"], unknown["clears_when"].split()[-2:]) == (
        "contact_unknown",
        ["user", "writes"],
    )
    await _write(either, own)
    [answer] = await ask(either, f"+{own}")
    assert (answer["known"], answer["warnings"]) == (True, [])
    [warning] = (await ask(either, other))[0]["warnings"]
    assert warning["clears_when"] == "you ask by the wa_id that is named"
    assert (await ask(either, warning["wa_id"]))[0]["warnings"] == []


async def _write(made: Installation, wa_id: str) -> None:
    if isinstance(made, CloudInstallation):
        await made.come(wrote(wa_id=wa_id))
        return
    body = message(wa_id, HASH_A, hour_ago())
    del body["messages"][0]["identity"]
    await made.deliver(body)


@pytest.mark.parametrize("cures", ["the number is checked again", "the user writes"])
async def test_a_stale_contact_is_cleared_by_either_cure_that_it_names(
    manual: Installation, cures: str
) -> None:
    number = "+16315550241"
    check = {"contacts": [number], "blocking": "wait"}
    assert (await manual.api("POST", "/accounts/main/contacts", check))[0] == 200
    manual.pass_time(7 * DAY + 60)
    [warning] = (await ask(manual, number))[0]["warnings"]
    assert (warning["code"], cures in warning["clears_when"]) == ("contact_stale", True)
    if cures == "the user writes":
        assert manual.service is not None
        assert manual.service.context is not None
        now = manual.service.context.ledger.clock()
        body = message(US_NUMBER, HASH_A, hour_ago(), said_ms=now)
        del body["messages"][0]["identity"]
        await manual.deliver(body)
    else:
        assert (await manual.api("POST", "/accounts/main/contacts", check))[0] == 200

    async def cleared() -> bool:
        return (await ask(manual, number))[0]["warnings"] == []

    await until(cleared)


async def test_an_invalid_number_is_cleared_by_a_check_that_finds_it_valid(
    manual: Installation,
) -> None:
    number = "+16315550241"
    manual.sim.set_contacts(unknown={number})
    check = {"contacts": [number], "blocking": "wait", "force_check": True}
    assert (await manual.api("POST", "/accounts/main/contacts", check))[0] == 200
    [reason] = (await ask(manual, number))[0]["reasons"]
    assert reason["clears_when"] == "a contact check finds the number valid"
    manual.sim.set_contacts(unknown=set())
    assert (await manual.api("POST", "/accounts/main/contacts", check))[0] == 200
    assert (await ask(manual, number))[0]["sendable"] is True


# Every spelling

_numbers = count()
separators = st.sampled_from(["", "", "", " ", "-", ".", "/", "\u00a0", "\u2011", "(", ")"])
prefixes = st.sampled_from(["", "+", "00", "tel:+", "\uff0b", " +", "(+)", "\u202a+"])
OTHER = {other: own for one, two in OTHERS for own, other in ((one, two), (two, one))}


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Draw a wa_id that no example before had, and spellings of it."""
    kind = draw(st.integers(0, 6))
    serial = f"{next(_numbers):05}"
    plain = [f"163155{serial}", f"4915112{serial}", f"39061{serial}"]
    pairs = [
        (f"55119{area}{serial}"[:2] + f"11{area}12{serial}", f"55119{area}12{serial}")
        for area in "69"
    ] + [(f"5255{serial}629", f"52155{serial}629"), (f"5411{serial}100", f"54911{serial}100")]
    if kind < len(plain):
        own = other = plain[kind]
    else:
        own, other = draw(st.permutations(pairs[kind - len(plain)]))
    spelled = []
    for _ in range(draw(st.integers(1, 6))):
        digits = draw(st.sampled_from([own, other]))
        parts = [digit + draw(separators) for digit in digits]
        spelled.append(draw(prefixes) + "".join(parts))
    return own, spelled


def unasked() -> st.SearchStrategy[list[tuple[int, str, str]]]:
    """Draw results of checks that nobody asked for: of which spelling, and what they say."""
    status = st.sampled_from(["valid", "invalid", "processing", "failed"])
    told = st.sampled_from(["", "447700900123", "own"])
    return st.lists(st.tuples(st.integers(0, 5), status, told), max_size=3)


@pytest.mark.parametrize("reason", CLOSED)
@settings(
    max_examples=settings().max_examples // 4,  # each asks a service on its sockets
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(number=numbers(), results=unasked())
async def test_no_spelling_is_more_open_than_the_user_s_own_wa_id(
    either: Installation,
    reason: str,
    number: tuple[str, list[str]],
    results: list[tuple[int, str, str]],
) -> None:
    own, spelled = number
    await CLOSED[reason](either, own)
    if not isinstance(either, CloudInstallation):
        for place, status, told in results:
            wa_id = {"wa_id": told.replace("own", own)} if told else {}
            element = {"input": spelled[place % len(spelled)], "status": status} | wa_id
            await either.deliver({"contacts": [element]})
    for text, answer in zip(spelled, await ask(either, *spelled), strict=True):
        assert answer["sendable"] is False, text
        assert (reason, own) in [(r["code"], r["of"]) for r in answer["reasons"]], text
        assert answer.get("identity_key_hash") is None


# What an attacker, or a neighbour, may not bring about


async def test_a_national_number_is_not_answered_for_by_a_stranger_with_the_same_digits(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(accounts={"shop": {"phone_number": "+15550783881"}})
    norwegian, american = "4795551234", "14795551234"
    await known(shop, norwegian)
    await known(shop, american)
    [answer] = await ask(shop, "(479) 555-1234")
    assert (answer["wa_id"], codes(answer, "warnings")) == (american, ["other_spelling"])
    await pending(shop, american)
    for answer in await ask(shop, "(479) 555-1234", "479-555-1234", norwegian):
        assert [(r["code"], r["of"]) for r in answer["reasons"]] == [("identity_pending", american)]
    status, problem = await shop.hold(HASH_B, quote("(479) 555-1234", safe=""))
    assert (status, problem["other_spelling"]) == (404, american)
    assert norwegian in problem["candidates"]


@pytest.mark.parametrize("text", ["us.13491208655302741918", "Us.13491208655302741918"])
async def test_a_user_id_in_small_letters_is_no_way_round_it(
    shop: CloudInstallation, text: str
) -> None:
    names = {"user_id": "US.13491208655302741918"}
    await shop.come(wrote(HASH_A, **names), wrote(HASH_B, 60, **names))
    assert codes(await ask_one(shop, text)) == ["identity_pending"]


async def test_a_message_from_the_misspelt_number_opens_nothing(either: Installation) -> None:
    own, misspelt = "442079460018", "4402079460018"
    await pending(either, own)
    await _write(either, misspelt)
    await block(either, misspelt)
    path = f"/accounts/{either.account}/recipients/{misspelt}/block"
    assert (await either.api("DELETE", path))[0] == 200
    for answer in await ask(either, misspelt, f"+{misspelt}", "+44 (0)20 7946 0018"):
        assert ("identity_pending", own) in [(r["code"], r["of"]) for r in answer["reasons"]]


async def test_what_others_ask_at_the_same_time_changes_no_answer(manual: Installation) -> None:
    number, first, second = "+1 631 555 0241", US_NUMBER, "447700900123"
    await pending(manual, second)
    for spelled, wa_id in ((number, second), ("+1-631-555-0241", first)):
        body = {"contacts": [{"input": spelled, "status": "valid", "wa_id": wa_id}]}
        await manual.deliver(body)
    texts = (US_NUMBER, f"+{US_NUMBER}", "2125550299", "+1 (212) 555-0299")
    for text in texts:
        [alone] = await ask(manual, text)
        together = await ask(manual, *texts, text)
        assert codes(together[-1]) == codes(alone)


async def test_a_result_that_nobody_asked_for_leads_no_block_astray(manual: Installation) -> None:
    stranger = "447700900123"
    await known(manual, stranger)
    for number in ("+1 631-555-0241", "16315550242"):
        unasked = {"contacts": [{"input": number, "status": "valid", "wa_id": stranger}]}
        await manual.deliver(unasked)
        await block(manual, number)
        own = number.replace("-", "").replace(" ", "").removeprefix("+")
        for answer in await ask(manual, number, own):
            assert ("blocked", own) in [(r["code"], r["of"]) for r in answer["reasons"]]
    assert "blocked" not in await manual.reasons(stranger)


async def test_a_block_of_a_number_with_a_zero_too_many_holds_for_the_number(
    either: Installation,
) -> None:
    await block(either, "+44 (0)20 7946 0958")
    for answer in await ask(either, "442079460958", "+442079460958", "+44 (0)20 7946 0958"):
        assert [(r["code"], r["of"]) for r in answer["reasons"]] == [("blocked", "442079460958")]


@pytest.mark.parametrize("text", ["015123456789", "0151-23456789", "0151.23456789"])
async def test_a_number_that_lacks_its_country_is_not_blocked_as_if_it_were_a_wa_id(
    install: Install, text: str
) -> None:
    made = await install(accounts={"main": {"phone_number": "+4930123456"}})
    status, problem = await made.api(
        "PUT", f"/accounts/main/recipients/{text}/block", {"reason": "x"}
    )
    assert (status, problem["errors"][0]["field"]) == (422, "user")


async def test_whoever_is_called_just_so_is_shown_whatever_an_unasked_result_tells(
    manual: Installation,
) -> None:
    stranger = "447700900123"
    await pending(manual, US_NUMBER)
    await pending(manual, stranger)
    unasked = {"contacts": [{"input": US_NUMBER, "status": "valid", "wa_id": stranger}]}
    await manual.deliver(unasked)
    assert (await manual.identity(US_NUMBER))["wa_id"] == US_NUMBER
    answer = await manual.gate(US_NUMBER)
    assert answer["wa_id"] == US_NUMBER
    assert {reason["of"] for reason in answer["reasons"]} == {US_NUMBER, stranger}


async def test_a_check_that_failed_leads_to_nobody(manual: Installation) -> None:
    stranger = "447700900123"
    await known(manual, stranger)
    body = {"contacts": [{"input": "+1 631 555 0299", "status": "failed", "wa_id": stranger}]}
    await manual.deliver(body)
    [answer] = await ask(manual, "+1 631 555 0299")
    assert (answer["known"], answer["wa_id"]) == (False, None)
