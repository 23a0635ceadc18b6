"""Faults of calls and callbacks on request."""

import asyncio
import time

import aiohttp
import pytest
from pydantic import ValidationError

from service.simulator import Fault, Options, Simulator
from service.simulator.faults import Faults, from_words, parse
from tests.simulator.conftest import WA_ID, Business, Webhook

IDENTITY = f"/v1/contacts/{WA_ID}/identity"


@pytest.mark.parametrize("status", [401, 404, 409, 429, 500, 503, 418])
async def test_a_status_is_answered_instead_of_the_effect_so_often(
    sim: Simulator, business: Business, status: int
) -> None:
    hash_ = sim.change_identity(WA_ID)
    sim.fault("identity_put", status=status, times=2)
    for _ in range(2):
        answered, body = await business.acknowledge(hash_)
        assert answered == status
        assert body["errors"][0]["code"] >= 1000
        assert sim.users[WA_ID].acknowledged is False
    assert await business.acknowledge(hash_) == (200, {})
    assert [(put.outcome, put.faulty, put.status) for put in sim.puts] == [
        ("no_effect", True, status),
        ("no_effect", True, status),
        ("acknowledged", False, 200),
    ]


async def test_a_status_can_be_answered_although_it_took_effect(
    sim: Simulator, business: Business
) -> None:
    hash_ = sim.change_identity(WA_ID)
    sim.fault("identity_put", status=500, effect=True, times=1)
    assert (await business.acknowledge(hash_))[0] == 500
    assert sim.users[WA_ID].acknowledged is True
    assert sim.puts[0].outcome == "acknowledged"


async def test_a_literal_body_is_answered(sim: Simulator, business: Business) -> None:
    hash_ = sim.change_identity(WA_ID)
    sim.fault("identity_put", body="null", effect=True)
    assert await business.acknowledge(hash_) == (200, None)
    sim.fault("identity_get", status=204)
    await business.login()
    bearer = {"Authorization": f"Bearer {business.token}"}
    async with business.session.get(IDENTITY, headers=bearer) as answer:
        assert answer.status == 204


@pytest.mark.parametrize("sim", [{"tls": False}, {"tls": True}], indirect=True)
@pytest.mark.parametrize(("when", "acknowledged"), [("before", False), ("after", True)])
async def test_a_connection_is_dropped_before_or_after_the_effect(
    sim: Simulator, business: Business, when: str, acknowledged: bool
) -> None:
    hash_ = sim.change_identity(WA_ID)
    await business.login()
    sim.fault("identity_put", drop=when, times=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await business.acknowledge(hash_)
    assert sim.users[WA_ID].acknowledged is acknowledged
    assert sim.puts[0].status is None
    assert (await business.identity())["acknowledged"] is acknowledged


@pytest.mark.parametrize("effect", [False, True])
async def test_a_call_hangs_without_an_answer(
    sim: Simulator, business: Business, effect: bool
) -> None:
    hash_ = sim.change_identity(WA_ID)
    await business.login()
    sim.fault("identity_put", hang=True, effect=effect, times=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(business.acknowledge(hash_), 0.1)
    assert sim.users[WA_ID].acknowledged is effect


async def test_a_hanging_call_can_end_with_a_closed_socket(
    sim: Simulator, business: Business
) -> None:
    await business.login()
    sim.fault("any", hang=0.02)
    with pytest.raises(aiohttp.ClientConnectionError):
        await business.call("GET", "/v1/health")


async def test_hanging_calls_do_not_hold_up_a_stop(sim: Simulator, business: Business) -> None:
    await business.login()
    sim.fault("identity_get", hang=True)
    sim.fault("health", latency=60)
    calls = [asyncio.ensure_future(business.call("GET", path)) for path in (IDENTITY, "/v1/health")]
    await asyncio.sleep(0.05)
    assert sim.calls["identity_get"] + sim.calls["health"] == 2
    began = time.monotonic()
    await sim.stop()
    assert time.monotonic() - began < 30
    await asyncio.gather(*calls, return_exceptions=True)


async def test_latency_delays_a_true_answer(sim: Simulator, business: Business) -> None:
    sim.set_user(WA_ID)
    await business.login()
    sim.fault("identity_get", latency=0.05, times=1)
    began = time.monotonic()
    await business.identity()
    assert time.monotonic() - began >= 0.05


async def test_a_fault_can_apply_to_one_user_alone(sim: Simulator, business: Business) -> None:
    sim.set_user(WA_ID)
    sim.set_user("16315550002")
    sim.fault("any", status=503, wa_id="16315550002")
    assert await business.identity()
    assert (await business.call("GET", "/v1/contacts/16315550002/identity"))[0] == 503
    assert (await business.send("16315550002"))[0] == 503
    assert (await business.send(WA_ID))[0] == 200


async def test_a_fault_applies_to_its_operation_alone(sim: Simulator, business: Business) -> None:
    sim.fault("login", status=503, times=1)
    assert (await business.login()).status == 503
    assert (await business.login()).status == 200


async def test_cleared_faults_apply_no_more(sim: Simulator, business: Business) -> None:
    number = sim.fault("any", status=500)
    sim.fault("health", status=404)
    assert sim.faults.remove(number)
    assert not sim.faults.remove(number)
    assert (await business.call("GET", "/v1/health"))[0] == 404
    sim.clear_faults()
    assert len(sim.faults) == 0
    assert (await business.call("GET", "/v1/health"))[0] == 200


@pytest.mark.parametrize(
    "sim", [{"faults": (Fault(operation="login", status=429, times=1),)}], indirect=True
)
async def test_faults_can_be_on_from_the_start(business: Business) -> None:
    assert [(await business.login()).status for _ in range(2)] == [429, 200]


async def test_a_lost_callback_is_never_delivered(sim: Simulator, webhook: Webhook) -> None:
    sim.fault("callback_identity", lose=True, times=1)
    sim.change_identity(WA_ID)
    hash_ = sim.change_identity(WA_ID)
    await sim.settled()
    assert [body["messages"][0]["system"]["identity"] for body in webhook.bodies] == [hash_]
    assert sim.delivery.counts["lost"] == 1


async def test_a_callback_is_repeated_so_often_in_all(sim: Simulator, webhook: Webhook) -> None:
    sim.fault("callback", repeat=5, times=1)
    sim.change_identity(WA_ID)
    await sim.settled()
    assert len(webhook.raw) == 5
    assert len(set(webhook.raw)) == 1


async def test_a_callback_is_delivered_once_more_later(sim: Simulator, webhook: Webhook) -> None:
    sim.fault("callback", again=0.05, times=1)
    sim.send_callback({"number": 0})
    sim.send_callback({"number": 1})
    await sim.settled()
    assert sorted(body["number"] for body in webhook.bodies) == [0, 0, 1]
    assert webhook.bodies[-1] == {"number": 0}


async def test_callbacks_are_held_and_delivered_in_reverse(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.fault("callback", reorder=4)
    for number in range(4):
        assert not webhook.raw
        sim.send_callback({"number": number})
    await sim.settled()
    assert [body["number"] for body in webhook.bodies] == [3, 2, 1, 0]


@pytest.mark.parametrize("release", ["clear", "settle"])
async def test_held_callbacks_come_when_the_fault_is_cleared_or_all_must_settle(
    sim: Simulator, webhook: Webhook, release: str
) -> None:
    sim.fault("callback", reorder=10)
    for number in range(3):
        sim.send_callback({"number": number})
    if release == "clear":
        sim.clear_faults()
    await sim.settled()
    assert [body["number"] for body in webhook.bodies] == [2, 1, 0]


async def test_held_callbacks_outlive_a_stop(sim: Simulator, webhook: Webhook) -> None:
    sim.fault("callback", reorder=3, times=2)
    sim.send_callback({"number": 0})
    sim.send_callback({"number": 1})
    await sim.stop()
    await sim.start()
    await asyncio.sleep(0.02)
    assert not webhook.raw
    await sim.settled()
    assert [body["number"] for body in webhook.bodies] == [1, 0]


async def test_a_failed_one_in_a_reversed_row_does_not_hold_up_the_next(
    sim: Simulator, webhook: Webhook
) -> None:
    webhook.statuses = [500]
    sim.fault("callback", reorder=2)
    sim.send_callback({"number": 0})
    sim.send_callback({"number": 1})
    await sim.settled()
    assert [body["number"] for body in webhook.bodies][:2] == [1, 0]
    assert len(webhook.raw) == 3


async def test_a_callback_can_be_late(sim: Simulator, webhook: Webhook) -> None:
    sim.fault("callback_identity", latency=0.05, times=1)
    sim.change_identity(WA_ID)
    sim.write(WA_ID, "I was first")
    await sim.settled()
    assert [body["messages"][0]["type"] for body in webhook.bodies] == ["text", "system"]


async def test_callback_faults_can_apply_to_one_user_alone(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.fault("callback", lose=True, wa_id=WA_ID)
    sim.write(WA_ID, "lost")
    sim.write("16315550002", "found")
    await sim.settled()
    assert [body["messages"][0]["text"]["body"] for body in webhook.bodies] == ["found"]


def applications(seed: int, fault: Fault, count: int = 1000) -> list[bool]:
    faults = Faults(seed)
    faults.add(fault)
    return [faults.take("login", None) is not None for _ in range(count)]


def test_a_fault_with_a_rate_applies_to_that_share_the_same_ones_for_the_same_seed() -> None:
    fault = Fault(operation="login", status=500, rate=0.3)
    assert 250 < sum(applications(1, fault)) < 350
    assert applications(1, fault) == applications(1, fault) != applications(2, fault)


def test_a_fault_with_a_rate_counts_only_the_times_that_it_applied() -> None:
    assert sum(applications(1, Fault(operation="login", status=500, rate=0.1, times=3))) == 3


def test_a_second_fault_draws_from_a_row_of_its_own() -> None:
    faults = Faults(1)
    for _ in range(2):
        faults.add(Fault(operation="login", status=500, rate=0.5))
    alone = [taken.status for _ in range(100) if (taken := faults.take("login", None))]
    assert 60 < len(alone) < 90


def test_a_jitter_lengthens_the_latency_by_chance() -> None:
    faults = Faults(1)
    faults.add(Fault(operation="callback", latency=1, jitter=2))
    taken = [faults.take("callback_contacts", None) for _ in range(100)]
    waits = [fault.latency for fault in taken if fault]
    assert len(waits) == 100
    assert 1 <= min(waits) < 1.2
    assert 2.8 < max(waits) <= 3


def test_a_fault_is_read_as_the_command_line_writes_it() -> None:
    fault = parse("identity_put:status=500,times=3,effect")
    assert fault == Fault(operation="identity_put", status=500, times=3, effect=True)
    assert parse("any:hang=forever").hang == float("inf")
    assert parse("any:hang=1").hang == Fault(operation="any", hang=1).hang == 1
    assert from_words("messages", ["drop=after"]) == Fault(operation="messages", drop="after")
    assert Fault.model_validate_json(parse("any:hang").model_dump_json()).hang == float("inf")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "nothing:status=500",
        "login",
        "login:times=2",
        "login:status=99",
        "login:drop=during",
        "login:lose",
        "login:rate=0.5",
        "login:status=500,rate=0",
        "login:status=500,rate=1.1",
        "callback:status=500",
        "login:colour=red",
        "login:latency=-1",
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(spec: str) -> None:
    with pytest.raises(ValidationError):
        parse(spec)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError):
        Options(colour="red")
