"""What a person decides, in each state of an identity."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.acceptance.conftest import (
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    hour_ago,
    notice,
    until,
)

KEY = {"kind": "key", "name": "local"}
POLICY = {"kind": "policy", "name": "default"}


async def pending(install: Install) -> Installation:
    made = await install()
    await made.change()
    return made


async def scheduled(install: Install) -> Installation:
    made = await install(policy={"mode": "auto", "delay_seconds": 3600})
    await made.change()
    return made


async def held(install: Install) -> Installation:
    made = await pending(install)
    assert (await made.hold(made.sim.users[WA_ID].hash))[0] == 200
    return made


async def failed(install: Install) -> Installation:
    made = await install()
    made.sim.fault("identity_put", status=404, times=1)
    made.sim.fault("identity_get", status=404, times=1)
    hash_ = await made.change()
    status, shown = await made.acknowledge(hash_, query="?wait=5")
    assert (status, shown["state"], shown["attempts"]) == (200, "failed", 1)
    return made


async def between_tries(install: Install) -> Installation:
    made = await install(policy={"mode": "auto"})
    made.sim.fault("identity_put", status=503, times=1)
    await made.change()
    await until(lambda: made.puts() == ["no_effect"])
    await until(lambda: _tried(made))
    return made


async def _tried(made: Installation) -> bool:
    return bool((await made.identity())["attempts"] == 1)


async def under_way(install: Install) -> Installation:
    made = await install(policy={"mode": "auto"})
    made.sim.fault("identity_put", hang=30, times=1)
    await made.change()
    await made.put_under_way()
    return made


async def acknowledged(install: Install) -> Installation:
    made = await install(policy={"mode": "auto"})
    await made.change()
    await made.becomes("acknowledged")
    return made


Begin = Callable[[Install], Awaitable[Installation]]
BEGINS: dict[str, Begin] = {
    "pending": pending,
    "scheduled": scheduled,
    "held": held,
    "failed": failed,
}


@pytest.mark.parametrize("begin", BEGINS.values(), ids=BEGINS)
async def test_acknowledging_begins_the_put_and_names_who_decided(
    install: Install, begin: Begin
) -> None:
    made = await begin(install)
    made.sim.fault("identity_put", latency=0.2, times=1)
    before = await made.identity()
    assert before["blocking"] is True
    status, shown = await made.acknowledge(before["hash"])
    assert (status, shown["state"], shown["blocking"]) == (202, "acknowledging", True)
    assert (shown["attempts"], shown["last_error"], shown["due_at"]) == (0, None, None)
    assert shown["decided_by"] == KEY
    assert shown["decided_at"] is not None
    assert await made.reasons() == ["identity_acknowledging"]
    done = await made.becomes("acknowledged")
    assert (done["attempts"], done["blocking"], done["decided_by"]) == (1, False, KEY)
    assert done["acknowledged_at"] is not None
    assert made.sim.users[WA_ID].acknowledged is True
    assert await made.reasons() == []


@pytest.mark.parametrize("begin", BEGINS.values(), ids=BEGINS)
async def test_holding_keeps_the_block_and_sends_nothing(install: Install, begin: Begin) -> None:
    made = await begin(install)
    puts = len(made.sim.puts)
    status, shown = await made.hold((await made.identity())["hash"])
    assert (status, shown["state"], shown["blocking"]) == (200, "held", True)
    assert (shown["decided_by"], shown["due_at"]) == (KEY, None)
    made.pass_time(7200)
    assert await made.state() == "held"
    assert await made.reasons() == ["identity_held"]
    assert len(made.sim.puts) == puts


@pytest.mark.parametrize("begin", [between_tries, under_way])
async def test_acknowledging_what_is_being_acknowledged_changes_nothing(
    install: Install, begin: Begin
) -> None:
    made = await begin(install)
    before = await made.identity()
    status, shown = await made.acknowledge(before["hash"], note="me too")
    assert (status, shown["state"]) == (202, "acknowledging")
    assert shown["decided_by"] == POLICY
    assert (shown["decided_at"], shown["attempts"]) == (before["decided_at"], before["attempts"])
    assert [e["by"] for e in await made.audit(event="decided")] == [POLICY]


async def test_holding_between_two_tries_ends_them(install: Install) -> None:
    made = await between_tries(install)
    status, shown = await made.hold((await made.identity())["hash"])
    assert (status, shown["state"], shown["decided_by"]) == (200, "held", KEY)
    made.pass_time(600)
    assert await made.state() == "held"
    assert made.puts() == ["no_effect"]
    assert made.sim.users[WA_ID].acknowledged is False


async def test_holding_after_a_try_that_took_effect_unseen_shows_it_acknowledged(
    install: Install,
) -> None:
    made = await install(policy={"mode": "auto"})
    made.sim.fault("identity_put", drop="after", times=1)
    made.sim.fault("identity_get", status=500, times=1)
    hash_ = await made.change()
    await until(lambda: _tried(made))
    assert (await made.hold(hash_))[0] == 200
    shown = await made.becomes("acknowledged")
    assert shown["decided_by"] == {"kind": "client"}


async def test_holding_while_a_put_is_under_way_is_too_late(install: Install) -> None:
    made = await under_way(install)
    status, problem = await made.hold((await made.identity())["hash"])
    assert status == 409
    assert problem["identity"]["state"] == "acknowledging"
    assert await made.state() == "acknowledging"


async def test_acknowledging_what_is_acknowledged_answers_200_and_changes_nothing(
    install: Install,
) -> None:
    made = await acknowledged(install)
    before = await made.identity()
    status, shown = await made.acknowledge(before["hash"], query="?wait=5")
    assert (status, shown["state"], shown["decided_by"]) == (200, "acknowledged", POLICY)
    assert await made.identity() == before
    assert made.puts() == ["acknowledged"]


async def test_holding_what_is_acknowledged_is_refused(install: Install) -> None:
    made = await acknowledged(install)
    before = await made.identity()
    status, problem = await made.hold(before["hash"])
    assert (status, problem["status"]) == (409, 409)
    assert problem["identity"]["state"] == "acknowledged"
    assert await made.identity() == before


async def test_acknowledging_twice_is_one_decision_and_one_put(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", latency=0.2, times=1)
    first, second = await asyncio.gather(
        manual.acknowledge(hash_, on_behalf_of="anna"),
        manual.acknowledge(hash_, on_behalf_of="anna"),
    )
    assert {first[0], second[0]} == {202}
    shown = await manual.becomes("acknowledged")
    assert shown["decided_by"] == KEY | {"on_behalf_of": "anna"}
    assert manual.puts() == ["acknowledged"]
    assert len(await manual.audit(event="decided")) == 1
    assert (await manual.acknowledge(hash_))[0] == 200


async def test_holding_twice_is_held_and_leaves_an_entry_for_each_decision(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    assert [(await manual.hold(hash_))[0] for _ in range(2)] == [200, 200]
    assert await manual.state() == "held"
    assert len(await manual.audit(event="held")) == 2


@pytest.mark.parametrize("verb", ["acknowledge", "hold"])
async def test_who_saw_another_hash_gets_409_with_the_current_identity(
    manual: Installation, verb: str
) -> None:
    seen = await manual.change()
    now = await manual.change()
    before = await manual.identity()
    for hash_ in (seen, "never heard of"):
        status, problem = await manual.decide(verb, hash_)
        assert (status, problem["type"], problem["status"]) == (
            409,
            "/docs/problems#another_hash",
            409,
        )
        assert {"title", "detail"} <= problem.keys()
        assert problem["identity"]["hash"] == now
        assert now not in problem["detail"]
    assert await manual.identity() == before
    assert manual.puts() == []


@pytest.mark.parametrize("verb", ["acknowledge", "hold"])
async def test_a_decision_about_a_user_without_identity_is_404(
    manual: Installation, verb: str
) -> None:
    await manual.change()
    for wa_id in (OTHER_ID, "%2F..%2F", "a%00b", "%F0%9F%98%80"):
        status, problem = await manual.decide(verb, "Rc/eg9Rl0JA=", wa_id)
        assert (status, problem["status"]) == (404, 404)
        assert "identity" not in problem
    path = f"/accounts/nobody/identities/{WA_ID}/{verb}"
    assert (await manual.api("POST", path, {"hash": "x"}))[0] == 404


async def test_a_decision_leaves_an_entry_with_all_that_it_rests_on(manual: Installation) -> None:
    hash_ = await manual.change()
    evidence = {"method": "video call", "reference": "ticket 4711"}
    said: dict[str, Any] = {
        "note": "I know her voice ✓",
        "evidence": evidence,
        "on_behalf_of": "anna",
    }
    assert (await manual.hold(hash_, note="not yet", on_behalf_of="bert"))[0] == 200
    status, shown = await manual.acknowledge(hash_, query="?wait=5", **said)
    anna = KEY | {"on_behalf_of": "anna"}
    assert (status, shown["decided_by"]) == (200, anna)
    trail = await manual.audit()
    assert [entry["event"] for entry in trail] == ["changed", "held", "decided", "acknowledged"]
    assert all(entry["hash"] == hash_ for entry in trail)
    _, hold, decided, done = trail
    assert (hold["by"], hold["note"]) == (KEY | {"on_behalf_of": "bert"}, "not yet")
    assert (decided["by"], decided["note"], decided["evidence"]) == (
        anna,
        said["note"],
        evidence,
    )
    assert done["by"] == anna


async def test_a_decision_carries_over_to_no_other_hash(manual: Installation) -> None:
    first = await manual.acknowledged()
    second = await manual.change()
    shown = await manual.identity()
    assert (shown["hash"], shown["state"]) == (second, "pending")
    assert (shown["decided_by"], shown["decided_at"], shown["acknowledged_at"]) == (None,) * 3
    [former] = shown["history"]
    assert (former["hash"], former["outcome"]) == (first, "superseded")
    assert former["decided_by"] == KEY
    assert former["acknowledged_at"] is not None


async def test_waiting_answers_as_soon_as_it_is_acknowledged(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", latency=0.1, times=1)
    began = time.monotonic()
    status, shown = await manual.acknowledge(hash_, query="?wait=30")
    assert (status, shown["state"]) == (200, "acknowledged")
    assert time.monotonic() - began < 5


async def test_waiting_answers_202_when_the_time_is_up(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", hang=20, times=1)
    began = time.monotonic()
    status, shown = await manual.acknowledge(hash_, query="?wait=0.3")
    assert (status, shown["state"]) == (202, "acknowledging")
    assert 0.25 < time.monotonic() - began < 5


async def test_waiting_answers_409_when_another_hash_came_meanwhile(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", hang=20, times=1)
    waiting = asyncio.create_task(manual.acknowledge(hash_, query="?wait=30"))
    await manual.put_under_way()
    now = await manual.change()
    status, problem = await waiting
    assert (status, problem["identity"]["hash"]) == (409, now)
    assert problem["identity"]["state"] == "pending"


async def test_several_wait_for_one_acknowledgement(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", latency=0.2, times=1)
    answers = await asyncio.gather(*(manual.acknowledge(hash_, query="?wait=20") for _ in range(5)))
    assert [(status, shown["state"]) for status, shown in answers] == [(200, "acknowledged")] * 5
    assert manual.puts() == ["acknowledged"]


async def test_waiting_ends_when_somebody_holds_meanwhile(manual: Installation) -> None:
    hash_ = await manual.change()
    manual.sim.fault("identity_put", status=503, times=1)
    waiting = asyncio.create_task(manual.acknowledge(hash_, query="?wait=30"))
    await until(lambda: _tried(manual))
    assert (await manual.hold(hash_))[0] == 200
    status, shown = await waiting
    assert (status, shown["state"]) == (202, "held")


WRONG: list[tuple[Any, str]] = [
    ({}, "hash"),
    ({"hash": None}, "hash"),
    ({"hash": 5}, "hash"),
    ({"hash": ""}, "hash"),
    ({"hash": "x" * 1025}, "hash"),
    ({"hash": "x", "note": 5}, "note"),
    ({"hash": "x", "note": "a\0b"}, "note"),
    ({"hash": "x", "evidence": "a call"}, "evidence"),
    ({"hash": "x", "evidence": {"method": "call"}}, "evidence.reference"),
    ({"hash": "x", "on_behalf_of": ""}, "on_behalf_of"),
    ([], "body"),
    ("x", "body"),
]


@pytest.mark.parametrize(("body", "field"), WRONG)
@pytest.mark.parametrize("verb", ["acknowledge", "hold"])
async def test_a_field_that_is_not_valid_is_named(
    manual: Installation, verb: str, body: Any, field: str
) -> None:
    path = f"/accounts/main/identities/{WA_ID}/{verb}"
    status, problem = await manual.api("POST", path, body)
    assert (status, problem["status"]) == (422, 422)
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan", "inf", ""])
async def test_a_wait_that_is_no_number_of_seconds_is_named(
    manual: Installation, wait: str
) -> None:
    hash_ = await manual.change()
    status, problem = await manual.acknowledge(hash_, query=f"?wait={wait}")
    assert (status, problem["errors"][0]["field"]) == (422, "wait")
    assert await manual.state() == "pending"


async def test_a_hash_of_lone_surrogates_is_refused_and_harms_nobody(manual: Installation) -> None:
    hash_ = await manual.change()
    path = f"/accounts/main/identities/{WA_ID}/acknowledge"
    for body in (
        b'{"hash": "\\ud800"}',
        b'{"hash": "x", "note": "\\ud800"}',
        b'{"hash": "x", "on_behalf_of": "\\udfff"}',
    ):
        status, problem = await manual.api("POST", path, body)
        assert status in {409, 422}, problem
    assert (await manual.acknowledge(hash_))[0] == 202


async def test_a_note_of_lone_surrogates_is_refused_for_the_right_hash(
    manual: Installation,
) -> None:
    hash_ = await manual.change()
    path = f"/accounts/main/identities/{WA_ID}/acknowledge"
    body = b'{"hash": "%s", "note": "\\ud800"}' % hash_.encode()
    status, problem = await manual.api("POST", path, body)
    assert (status, problem["errors"][0]["field"]) == (422, "note")
    assert await manual.state() == "pending"


async def test_a_changed_configuration_frees_nothing_that_is_pending(
    manual: Installation,
) -> None:
    await manual.change(at_ms=hour_ago())
    await manual.stop()
    await manual.start(policy={"mode": "auto"})
    manual.pass_time(7200)
    assert await manual.state() == "pending"
    assert manual.puts() == []
    _, trail = await manual.api("GET", "/audit?event=policy_changed")
    assert [entry["account"] for entry in trail["items"]] == ["main"]
    await manual.deliver(notice(WA_ID, manual.sim.users[WA_ID].hash, hour_ago()))
    assert await manual.state() == "pending"
