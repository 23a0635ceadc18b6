"""The control routes: what a person or a program makes the simulator do."""

from typing import Any

import aiohttp
import pytest

from service.simulator import Simulator
from service.simulator.control import is_loopback
from tests.simulator.conftest import WA_ID, Business, Webhook


async def act(
    business: Business, method: str, path: str, body: Any = None, expected: int = 200
) -> Any:
    async with business.session.request(method, f"/control{path}", json=body) as answer:
        assert answer.status == expected, await answer.text()
        return await answer.json()


async def test_the_state_shows_users_calls_puts_messages_and_callbacks(
    sim: Simulator, business: Business
) -> None:
    changed = await act(business, "POST", f"/users/{WA_ID}/change")
    await business.send()
    await business.acknowledge(changed["hash"])
    await business.send()
    await sim.settled()
    state = await act(business, "GET", "/state")
    assert state["users"][WA_ID]["hash"] == changed["hash"]
    assert state["users"][WA_ID]["acknowledged"] is True
    assert state["calls"] == {"login": 1, "messages": 2, "identity_put": 1}
    (put,) = state["puts"]
    assert (put["wa_id"], put["hash"]) == (WA_ID, changed["hash"])
    assert (put["outcome"], put["status"]) == ("acknowledged", 200)
    assert put["request_id"]
    assert state["logins"] == {"succeeded": 1, "refused": 0, "tokens": 1}
    assert [(each["accepted"], each["code"]) for each in state["messages"]] == [
        (False, 1028),
        (True, None),
    ]
    assert state["callbacks"]["delivered"] == 3
    assert state["callbacks"]["pending"] == []


async def test_a_user_is_set_changed_acknowledged_and_forgotten(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    user = {"hash": "UKD6Y/5SqDU=", "acknowledged": False, "created_timestamp": 5}
    assert await act(business, "PUT", f"/users/{WA_ID}", user) == {"wa_id": WA_ID, **user}
    await act(business, "POST", f"/users/{WA_ID}/acknowledge")
    assert sim.users[WA_ID].acknowledged
    given = {"hash": "abc", "at_ms": 1602535356332, "notify": False}
    await act(business, "POST", f"/users/{WA_ID}/change", given)
    assert sim.users[WA_ID].created_timestamp == 1602535356332
    await act(business, "DELETE", f"/users/{WA_ID}")
    await act(business, "DELETE", f"/users/{WA_ID}", expected=404)
    await sim.settled()
    assert webhook.raw == []


async def test_users_write_and_move_and_any_body_is_called_back(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    await act(business, "POST", f"/users/{WA_ID}/write", {"text": "Hello", "name": "Kerry"})
    await sim.settled()
    await act(business, "POST", f"/users/{WA_ID}/number", {"new": "16315550009"})
    await sim.settled()
    async with business.session.post(
        "/control/callbacks?wa_id=1", data=b"not json", headers={"Content-Type": "text/odd"}
    ) as answer:
        assert answer.status == 200
    await sim.settled()
    assert webhook.headers[-1]["Content-Type"] == "text/odd"
    assert webhook.raw[-1] == b"not json"
    assert b"Kerry" in webhook.raw[0]
    assert b"16315550009" in webhook.raw[1]


async def test_errors_are_reported_in_metas_json(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    media = {"code": 400, "title": "Media download error"}
    await act(business, "POST", "/errors", {**media, "details": "Failed to download the media."})
    await sim.settled()
    sim.report_error(**media)
    await sim.settled()
    assert webhook.bodies == [
        {"errors": [{**media, "details": "Failed to download the media."}]},
        {"errors": [media]},
    ]


async def test_faults_are_switched_on_listed_and_off(sim: Simulator, business: Business) -> None:
    made = await act(business, "POST", "/faults", {"operation": "health", "status": 503})
    await act(business, "POST", "/faults", {"operation": "login", "hang": True, "times": 2})
    listed = await act(business, "GET", "/faults")
    assert listed["faults"] == [
        {"id": made["id"], "left": None, "operation": "health", "status": 503},
        {"id": 2, "left": 2, "operation": "login", "hang": "Infinity", "times": 2},
    ]
    assert (await act(business, "GET", "/state"))["faults"] == listed["faults"]
    await act(business, "DELETE", f"/faults/{made['id']}")
    await act(business, "DELETE", f"/faults/{made['id']}", expected=404)
    await act(business, "DELETE", "/faults")
    assert len(sim.faults) == 0


async def test_settings_and_behaviour_are_changed(sim: Simulator, business: Business) -> None:
    shown = await act(
        business,
        "PATCH",
        "/settings",
        {
            "show_security_notifications": False,
            "webhook_url": "http://127.0.0.1:1/",
            "blocked_send": "fail",
            "refusal_status": 403,
        },
    )
    assert shown["show_security_notifications"] is False
    assert sim.webhook_url == "http://127.0.0.1:1/"
    assert (sim.options.blocked_send, sim.options.refusal_status) == ("fail", 403)
    for wrong in ({"colour": "red"}, {"refusal_status": 7}, {"callback_persist": "perhaps"}):
        assert (await act(business, "PATCH", "/settings", wrong, expected=400))["error"]


@pytest.mark.parametrize("sim", [{"retry_base_seconds": 600}], indirect=True)
async def test_pending_callbacks_can_be_tried_at_once(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    webhook.statuses = [500]
    sim.change_settings(max_callback_backoff_delay_ms=900_000)
    sim.change_identity(WA_ID)
    while not sim.delivery.counts["failed_attempts"]:
        await act(business, "GET", "/state")
    assert (await act(business, "POST", "/callbacks/retry"))["pending"] == 1
    await sim.settled()
    assert len(webhook.raw) == 2


async def test_contacts_health_tokens_and_password_are_set(
    sim: Simulator, business: Business
) -> None:
    await business.login()
    await act(business, "PUT", "/contacts", {"unknown": ["1"], "wa_ids": {"2": "3"}})
    await act(business, "PUT", "/contacts", {"failing": ["4"], "stuck": ["5"]})
    assert (sim.contacts.unknown, sim.contacts.failing) == ({"1"}, {"4"})
    shown = (await act(business, "GET", "/state"))["contacts"]
    assert (shown["stuck"], shown["counts"]["requests"]) == (["5"], 0)
    await act(business, "PATCH", "/settings", {"version": "v2.43.1", "contacts_per_callback": 10})
    assert sim.contacts.find("4").wa_id == "4"
    await act(business, "PUT", "/health", {"gateway_status": "connecting"})
    assert sim.health == {"gateway_status": "connecting"}
    assert (await act(business, "POST", "/tokens/expire"))["expired"] == 1
    await act(business, "PUT", "/password", {"password": "new"})
    assert (await business.login("new")).status == 200


async def test_a_reset_forgets_everything(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.change_settings(webhook_url="http://127.0.0.1:1/", refusal_status=403)
    sim.change_password("new")
    sim.fault("any", status=500)
    sim.change_identity(WA_ID)
    await act(business, "POST", "/reset")
    state = await act(business, "GET", "/state")
    assert (state["users"], state["faults"], state["calls"]) == ({}, [], {})
    assert state["callbacks"]["pending"] == []
    assert sim.options.refusal_status == 400
    assert (await business.login()).status == 200
    sim.webhook_url = webhook.url
    sim.change_identity(WA_ID)
    await sim.settled()
    assert len(webhook.raw) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/users/{WA_ID}/change", {"colour": "red"}),
        ("POST", f"/users/{WA_ID}/change", []),
        ("POST", f"/users/{WA_ID}/write", {}),
        ("POST", "/faults", {"operation": "nothing", "status": 500}),
        ("POST", "/faults", {}),
        ("POST", "/faults", {"operation": "login"}),
    ],
)
async def test_a_mistake_gets_400_and_says_what_is_wrong(
    business: Business, method: str, path: str, body: Any
) -> None:
    assert (await act(business, method, path, body, expected=400))["error"]


async def test_a_body_that_is_no_json_gets_400(business: Business) -> None:
    answer = await business.session.post("/control/faults", data=b"{")
    assert answer.status == 400


async def test_control_routes_need_no_login_and_are_no_calls(
    sim: Simulator, business: Business
) -> None:
    await act(business, "GET", "/state")
    await act(business, "GET", "/nothing", expected=404)
    assert len(sim.calls) == 0


async def test_control_routes_answer_this_machine_alone(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback(None)
    monkeypatch.setattr("service.simulator.control.is_loopback", lambda _: False)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sim.base_url}/control/state") as answer,
    ):
        assert answer.status == 403
