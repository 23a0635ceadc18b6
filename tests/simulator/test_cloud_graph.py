"""The Graph API: tokens, errors, numbers, settings, subscriptions, messages and their statuses."""

import asyncio
import base64
from typing import Any

import aiohttp
import pytest

from service.simulator import Number, Simulator
from service.simulator.cloud.cloud import Cloud
from tests.simulator.conftest import (
    NUMBER,
    SHEENA,
    TOKEN,
    VERIFY_TOKEN,
    WABA,
    Business,
    Endpoint,
    Graph,
)

USER_ID = "US.13491208655302741918"
OTHER = Number(phone_number_id="200000000000001", display_phone_number="15550000001")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN} x"]
)
async def test_a_wrong_or_missing_token_gets_graphs_error(
    cloud: Cloud, graph: Graph, authorization: str
) -> None:
    status, body = await graph.call("GET", f"/{NUMBER}", Authorization=authorization)
    assert status == 401
    error = body["error"]
    assert (error["type"], error["code"]) == ("OAuthException", 190)
    assert error["message"]
    assert error["fbtrace_id"]
    assert cloud.calls["number"] == 1


@pytest.mark.parametrize("version", ["v25.0", "v19.0", "v26.1"])
async def test_every_version_is_spoken(graph: Graph, version: str) -> None:
    graph.version = version
    assert (await graph.send())[0] == 200


async def test_an_unknown_id_or_path_gets_graphs_error(graph: Graph) -> None:
    for method, path in (
        ("GET", "/999"),
        ("POST", "/999/messages"),
        ("GET", f"/{WABA}"),
        ("GET", f"/{NUMBER}/subscribed_apps"),
    ):
        status, body = await graph.call(method, path)
        assert (status, body["error"]["code"], body["error"]["error_subcode"]) == (400, 100, 33)
    status, body = await graph.call("GET", f"/{NUMBER}/nothing")
    assert (status, body["error"]["code"]) == (400, 2500)
    assert f"/{NUMBER}/nothing" in body["error"]["message"]


async def test_both_apis_are_spoken_side_by_side(
    graph_sim: Simulator, graph: Graph, endpoint: Endpoint
) -> None:
    async with aiohttp.ClientSession(graph_sim.base_url) as session:
        business = Business(graph_sim, session)
        assert (await business.send())[0] == 200
    assert (await graph.send())[0] == 200
    await graph_sim.cloud.settled()
    assert graph_sim.calls["messages"] == graph_sim.cloud.calls["messages"] == 1
    assert {status["recipient_id"] for status in endpoint.status_updates} == {SHEENA}
    assert list(graph_sim.users) != [SHEENA]


async def test_a_message_to_a_number_is_accepted_and_delivered(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    user = cloud.set_user(SHEENA, name="Sheena Nelson", username="@sheena", hidden=True)
    status, body = await graph.send(to="+1 (650) 555-1234")
    (message,) = body["messages"]
    assert status == 200
    assert body == {
        "messaging_product": "whatsapp",
        "contacts": [{"input": "+1 (650) 555-1234", "wa_id": SHEENA}],
        "messages": [{"id": message["id"]}],
    }
    raw = base64.b64decode(message["id"].removeprefix("wamid."))
    assert raw.startswith(b"\x1c\x18\x0b" + SHEENA.encode() + b"\x15\x02\x00\x11\x18\x14")
    await cloud.settled()
    sent, delivered = endpoint.values
    assert [value["statuses"][0]["status"] for value in (sent, delivered)] == ["sent", "delivered"]
    profile = {"name": "Sheena Nelson"}
    contact = {"profile": profile, "wa_id": SHEENA, "user_id": user.user_id}
    assert sent["contacts"] == [contact]
    assert delivered["contacts"] == [{**contact, "profile": {**profile, "username": "@sheena"}}]
    (status,) = sent["statuses"]
    assert status.pop("timestamp").isdigit()
    assert status.pop("pricing")["pricing_model"] == "PMP"
    assert status == {
        "id": message["id"],
        "status": "sent",
        "recipient_id": SHEENA,
        "recipient_user_id": user.user_id,
    }


async def test_a_message_to_a_user_id_names_no_number_that_may_not_be_shown(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    user = cloud.set_user(
        SHEENA, user_id=USER_ID, parent_user_id="US.ENT.1", username="@sheena", hidden=True
    )
    _, body = await graph.send(recipient=USER_ID)
    assert body["contacts"] == [{"input": USER_ID, "user_id": USER_ID}]
    _, body = await graph.send(recipient="US.ENT.1")
    assert body["contacts"] == [{"input": "US.ENT.1", "user_id": "US.ENT.1"}]
    await cloud.settled()
    assert len(endpoint.status_updates) == 4
    for status in endpoint.status_updates:
        assert "recipient_id" not in status
        assert status["recipient_user_id"] == user.user_id
        assert status["recipient_parent_user_id"] == "US.ENT.1"


async def test_the_number_goes_before_the_user_id(cloud: Cloud, graph: Graph) -> None:
    _, body = await graph.send(to=SHEENA, recipient=USER_ID)
    assert body["contacts"] == [{"input": SHEENA, "wa_id": SHEENA, "user_id": USER_ID}]
    assert cloud.messages[0].to == SHEENA


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": SHEENA, "messaging_product": "messenger"},
        {"type": "text"},
        {"to": ""},
        {"to": 16505551234},
        {"to": "Sheena"},
        {"to": "+"},
        {"to": SHEENA, "type": "image"},
        {"to": SHEENA, "type": 5},
        {"to": SHEENA, "text": "Hello"},
        {"to": SHEENA, "recipient_identity_key_hash": 5},
        {"recipient": ""},
    ],
)
async def test_a_message_that_can_not_be_read_is_refused(
    cloud: Cloud, graph: Graph, wrong: dict[str, Any]
) -> None:
    status, body = await graph.send(**wrong)
    assert (status, body["error"]["code"]) == (400, 100)
    assert body["error"]["error_data"]["messaging_product"] == "whatsapp"
    assert cloud.counts == {"refused": 1}
    assert not cloud.messages


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"'])
async def test_a_body_that_is_no_object_is_refused(graph: Graph, raw: bytes) -> None:
    async with graph.session.post(
        f"/v25.0/{NUMBER}/messages", data=raw, headers={"Authorization": f"Bearer {TOKEN}"}
    ) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == 100


async def test_a_message_that_nobody_can_get_fails_without_contacts(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    cloud.set_user(SHEENA)
    cloud.change_number(SHEENA, "12195555358")
    assert (await graph.send(to=SHEENA))[0] == 200
    assert (await graph.send(recipient=USER_ID))[0] == 200
    await cloud.settled()
    number, user_id = sorted(
        endpoint.status_updates, key=lambda status: "recipient_id" not in status
    )
    assert {status["errors"][0]["code"] for status in (number, user_id)} == {131026}
    assert (number["recipient_id"], user_id["recipient_user_id"]) == (SHEENA, USER_ID)
    assert not any("contacts" in value for value in endpoint.values)
    assert cloud.counts == {"accepted": 2, "undeliverable": 2}
    cloud.set_user(SHEENA)
    await graph.send(to=SHEENA)
    assert cloud.counts["delivered"] == 1


async def test_statuses_repeat_the_businesss_own_data_and_end_where_told(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    cloud.change_settings(statuses=["sent", "delivered", "read"])
    await graph.send(to=SHEENA, biz_opaque_callback_data="invoice 5")
    await cloud.settled()
    assert sorted(status["status"] for status in endpoint.status_updates) == [
        "delivered",
        "read",
        "sent",
    ]
    status = {status["biz_opaque_callback_data"] for status in endpoint.status_updates}
    assert status == {"invoice 5"}
    assert sum("pricing" in status for status in endpoint.status_updates) == 2


async def test_the_right_hash_is_delivered_and_the_wrong_one_fails_with_137000(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    user = cloud.set_user(SHEENA)
    assert await graph.check(is_on=True) == (200, {"success": True})
    first = user.hash
    await graph.send(first)
    cloud.reinstall(SHEENA)
    status, body = await graph.send(first)
    assert status == 200
    await cloud.settled()
    assert cloud.counts == {"accepted": 2, "delivered": 1, "mismatch": 1}
    (failed,) = (value for value in endpoint.values if "contacts" not in value)
    (status,) = failed["statuses"]
    assert status["id"] == body["messages"][0]["id"]
    assert (status["status"], status["recipient_id"]) == ("failed", SHEENA)
    assert not {"recipient_user_id", "recipient_identity_key_hash"} & status.keys()
    (error,) = status["errors"]
    assert error["code"] == 137000
    assert {"title", "message", "error_data", "href"} < error.keys()


async def test_a_failure_can_bring_the_new_hash(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    cloud.change_settings(failed_with_hash=True, identity_check=True)
    hash_ = cloud.reinstall(USER_ID)
    await graph.send("another", recipient=USER_ID)
    await cloud.settled()
    (status,) = endpoint.status_updates
    assert status["recipient_identity_key_hash"] == hash_
    assert status["recipient_user_id"] == USER_ID
    assert "recipient_id" not in status


async def test_a_failure_can_have_contacts(cloud: Cloud, graph: Graph, endpoint: Endpoint) -> None:
    cloud.change_settings(failed_with_contacts=True, identity_check=True)
    user = cloud.set_user(SHEENA, hidden=True)
    await graph.send("another")
    await graph.send("another", recipient=user.user_id)
    await graph.send("another", recipient=USER_ID)
    await cloud.settled()
    contacts = [value["contacts"][0] for value in endpoint.values if "contacts" in value]
    assert sorted(contact.get("wa_id", "") for contact in contacts) == ["", SHEENA]
    assert {contact["user_id"] for contact in contacts} == {user.user_id}


async def test_a_message_without_a_hash_is_delivered_and_its_statuses_bring_it(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    await graph.check(is_on=True)
    hash_ = cloud.reinstall(SHEENA)
    await graph.send()
    await graph.send(hash_)
    await cloud.settled()
    without, along = cloud.messages
    brought = {
        status["id"]: status.get("recipient_identity_key_hash")
        for status in endpoint.status_updates
    }
    assert brought == {without.id: hash_, along.id: None}


@pytest.mark.parametrize("graph_sim", [{"numbers": (Number(), OTHER)}], indirect=True)
async def test_hashes_are_told_and_checked_while_the_numbers_own_check_is_on(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    await graph.check(is_on=True, number=OTHER.phone_number_id)
    for number in (NUMBER, OTHER.phone_number_id):
        cloud.write(SHEENA, "Hello", number=number)
        await graph.send("another hash", number=number)
    await cloud.settled()
    contacts = {
        value["metadata"]["phone_number_id"]: value["contacts"][0].get("identity_key_hash")
        for value in endpoint.values
        if "messages" in value
    }
    assert contacts == {NUMBER: None, OTHER.phone_number_id: cloud.users[SHEENA].hash}
    assert [message.outcome for message in cloud.messages] == ["delivered", "mismatch"]
    await graph.check(is_on=False, number=OTHER.phone_number_id)
    await graph.send("another hash", number=OTHER.phone_number_id)
    assert cloud.messages[-1].outcome == "delivered"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {
            "user_identity_change": {"enable_identity_key_check": True},
            "storage_configuration": {"status": "DEFAULT"},
        },
        {"user_identity_change": {"enable_identity_key_check": "true"}},
        {"user_identity_change": {}},
        {"user_identity_change": True},
        {"colour": "red"},
    ],
)
async def test_one_setting_is_changed_a_call(
    cloud: Cloud, graph: Graph, wrong: dict[str, Any]
) -> None:
    status, body = await graph.call("POST", f"/{NUMBER}/settings", wrong)
    assert (status, body["error"]["code"]) == (400, 100)
    assert cloud.business.numbers[NUMBER].identity_check is False


async def test_the_identity_check_can_not_be_read_back(graph: Graph) -> None:
    await graph.check(is_on=True)
    assert await graph.call("GET", f"/{NUMBER}/settings") == (
        200,
        {"storage_configuration": {"status": "DEFAULT"}},
    )


async def test_other_settings_are_taken(cloud: Cloud, graph: Graph) -> None:
    body = {"calling": {"status": "ENABLED"}}
    assert await graph.call("POST", f"/{NUMBER}/settings", body) == (200, {"success": True})
    assert cloud.business.numbers[NUMBER].identity_check is False


async def test_a_number_is_described_by_the_fields_asked_for(
    graph: Graph, endpoint: Endpoint
) -> None:
    fields = "display_phone_number,verified_name,webhook_configuration"
    assert await graph.call("GET", f"/{NUMBER}?fields={fields}") == (
        200,
        {
            "display_phone_number": "15550783881",
            "verified_name": "Lucky Shrub",
            "webhook_configuration": {"application": endpoint.url},
            "id": NUMBER,
        },
    )
    _, usual = await graph.call("GET", f"/{NUMBER}/")
    assert {"id", "verified_name", "display_phone_number", "quality_rating"} < usual.keys()
    assert await graph.call("GET", f"/{NUMBER}?fields=country_code") == (200, {"id": NUMBER})
    status, body = await graph.call("GET", f"/{NUMBER}?fields=colour")
    assert (status, body["error"]["code"]) == (400, 100)
    assert "(colour)" in body["error"]["message"]


@pytest.mark.parametrize("graph_sim", [{"numbers": (Number(), OTHER)}], indirect=True)
async def test_an_account_lists_its_numbers(graph: Graph) -> None:
    _, body = await graph.call("GET", f"/{WABA}/phone_numbers")
    assert [number["id"] for number in body["data"]] == [NUMBER, OTHER.phone_number_id]


async def test_a_webhook_of_a_number_is_set_after_its_handshake_and_taken_away(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    own = {"override_callback_uri": f"{endpoint.url}-2", "verify_token": VERIFY_TOKEN}
    path = f"/{NUMBER}?fields=webhook_configuration"
    assert (await graph.call("POST", f"/{NUMBER}", {"webhook_configuration": own}))[0] == 200
    assert (await graph.call("GET", path))[1]["webhook_configuration"] == {
        "phone_number": f"{endpoint.url}-2",
        "application": endpoint.url,
    }
    assert len(endpoint.handshakes) == 1
    gone = {"webhook_configuration": {"override_callback_uri": ""}}
    assert await graph.call("POST", f"/{NUMBER}", gone) == (200, {"success": True})
    assert cloud.business.numbers[NUMBER].webhook_url is None
    assert len(endpoint.handshakes) == 1


@pytest.mark.parametrize(
    "wrong", ["token", "path", "moved", "nobody", "challenge", "no url", "too long"]
)
async def test_a_webhook_that_does_not_shake_hands_right_is_not_set(
    cloud: Cloud, graph: Graph, endpoint: Endpoint, graph_sim: Simulator, wrong: str
) -> None:
    uri = {
        "path": endpoint.url.replace("/webhooks/", "/elsewhere/"),
        "moved": f"{endpoint.url}/moved",
        "nobody": "http://127.0.0.1:1/",
        "challenge": f"{graph_sim.base_url}/control/cloud/state",
        "no url": "ftp://example.com/",
        "too long": f"{endpoint.url}/{'x' * 200}",
    }.get(wrong, endpoint.url)
    token = "wrong" if wrong == "token" else VERIFY_TOKEN
    own = {"override_callback_uri": uri, "verify_token": token}
    for path, body in (
        (f"/{NUMBER}", {"webhook_configuration": own}),
        (f"/{WABA}/subscribed_apps", own),
    ):
        status, answer = await graph.call("POST", path, body)
        assert (status, answer["error"]["code"]) == (400, 2200)
        assert "verification failed" in answer["error"]["message"]
    assert cloud.business.numbers[NUMBER].webhook_url is None
    assert cloud.business.accounts[WABA].webhook_url is None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"webhook_configuration": {}},
        {"webhook_configuration": "https://example.com"},
        {"webhook_configuration": {"override_callback_uri": "https://example.com"}},
        {"webhook_configuration": {"override_callback_uri": 5, "verify_token": "x"}},
    ],
)
async def test_a_webhook_without_url_or_token_is_refused(
    graph: Graph, wrong: dict[str, Any]
) -> None:
    status, body = await graph.call("POST", f"/{NUMBER}", wrong)
    assert (status, body["error"]["code"]) == (400, 100)


@pytest.mark.parametrize("graph_sim", [{"subscribed": False}], indirect=True)
async def test_an_app_is_subscribed_and_unsubscribed(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    path = f"/{WABA}/subscribed_apps"
    assert await graph.call("GET", path) == (200, {"data": []})
    assert await graph.call("POST", path) == (200, {"success": True})
    _, body = await graph.call("GET", path)
    (app,) = body["data"]
    assert app["whatsapp_business_api_data"]["id"] == cloud.options.app_id
    assert "override_callback_uri" not in app
    own = {"override_callback_uri": f"{endpoint.url}-2", "verify_token": VERIFY_TOKEN}
    assert await graph.call("POST", path, own) == (200, {"success": True})
    _, body = await graph.call("GET", path)
    assert body["data"][0]["override_callback_uri"] == f"{endpoint.url}-2"
    assert await graph.call("DELETE", path) == (200, {"success": True})
    assert await graph.call("GET", path) == (200, {"data": []})


@pytest.mark.parametrize(("status", "code"), [(401, 190), (403, 1), (429, 4), (500, 2), (503, 2)])
async def test_a_fault_answers_in_graphs_own_json(
    cloud: Cloud, graph: Graph, status: int, code: int
) -> None:
    cloud.fault("messages", status=status, times=1)
    answered, body = await graph.send()
    assert (answered, body["error"]["code"]) == (status, code)
    assert not cloud.messages
    assert (await graph.send())[0] == 200


async def test_faults_take_effect_hang_drop_and_apply_to_one_user_alone(
    cloud: Cloud, graph: Graph
) -> None:
    cloud.fault("messages", status=500, effect=True, times=1, wa_id=SHEENA)
    assert (await graph.send(to="15550000009"))[0] == 200
    assert (await graph.send(to=f"+{SHEENA}"))[0] == 500
    assert cloud.counts["accepted"] == 2
    cloud.fault("settings", drop="after", times=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await graph.check(is_on=True)
    assert cloud.business.numbers[NUMBER].identity_check is True
    cloud.fault("any", hang=True, times=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(graph.send(), 0.1)
    cloud.fault("number", body="null", status=200, times=1)
    assert await graph.call("GET", f"/{NUMBER}") == (200, None)
    cloud.fault("subscribed_apps", status=202, times=1)
    assert await graph.call("GET", f"/{WABA}/subscribed_apps") == (202, {})


async def test_what_was_done_is_counted_and_kept(cloud: Cloud, graph: Graph) -> None:
    await graph.send("a hash")
    (call,) = cloud.calls.of("messages")
    assert (call.wa_id, call.hash, call.outcome, call.status) == (
        SHEENA,
        "a hash",
        "accepted",
        200,
    )
    (message,) = cloud.messages
    assert (message.to, message.hash, message.outcome) == (SHEENA, "a hash", "delivered")
    await cloud.settled()
    assert cloud.webhooks.delivery.answers == {"200": 2}
