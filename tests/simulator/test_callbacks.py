"""The callbacks, in the exact JSON of Meta's pages, and how they are delivered."""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.simulator import Simulator, certificate
from service.simulator.onprem import bodies
from tests.simulator.conftest import WA_ID, Business, Webhook, options

META_IDENTITY_ID = (
    "ABGGFjFVU2AfAzVzeXMtMTYzMTU1NTM2MDFAcy53aGF0c2FwcC5uZXQtMTYwMjUzNTM1NjMzMi1pZGVudGl0eQ"
)
META_CHANGE_ID = (
    "ABGGFjFVWIifAzNzeXMtMTYzMTU1NTg4ODlAcy53aGF0c2FwcC5uZXQtMTU3NDA4MDEwMjIxMy1jaGFuZ2U"
)


def test_the_ids_of_system_messages_are_metas_own() -> None:
    assert bodies.system_id(WA_ID, 1602535356332, "identity") == META_IDENTITY_ID
    assert bodies.system_id("16315558889", 1574080102213, "change") == META_CHANGE_ID


def test_the_ids_of_messages_look_like_metas_own_and_differ() -> None:
    assert re.fullmatch(r"ABGGFjFVU2AfAg[o-r][\w-]{13}", bodies.inbound_id(WA_ID))
    assert re.fullmatch(r"gBGGFjFVU2AfAg[k-n][\w-]{12}", bodies.outbound_id(WA_ID))
    assert len({bodies.inbound_id(WA_ID) for _ in range(50)}) == 50


def test_an_id_can_be_made_of_a_wa_id_that_is_no_number() -> None:
    made = bodies.system_id("US.abc", 1, "identity")
    raw = base64.urlsafe_b64decode(made + "=" * (-len(made) % 4))
    assert raw.endswith(b"sys-US.abc@s.whatsapp.net-1-identity")


async def test_an_identity_change_is_reported_in_metas_json(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.change_identity(WA_ID, "Rc/eg9Rl0JA=", 1602535356332)
    await sim.settled()
    assert webhook.bodies == [
        {
            "messages": [
                {
                    "from": WA_ID,
                    "id": META_IDENTITY_ID,
                    "system": {
                        "identity": "Rc/eg9Rl0JA=",
                        "type": "user_identity_changed",
                        "user": WA_ID,
                    },
                    "timestamp": "1602535356",
                    "type": "system",
                }
            ]
        }
    ]
    assert webhook.headers[0]["Content-Type"] == "application/json"


async def test_a_silent_change_is_reported_to_nobody(sim: Simulator, webhook: Webhook) -> None:
    sim.change_identity(WA_ID, notify=False)
    await sim.settled()
    assert webhook.bodies == []


async def test_what_a_user_writes_carries_the_latest_identity(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.set_user(WA_ID, hash="Sjvjlx8G6Z0=", created_timestamp=1602532300000)
    sim.write(WA_ID, "Hi from new number 3601", name="Kerry Fisher")
    await sim.settled()
    (body,) = webhook.bodies
    (message,) = body["messages"]
    assert body["contacts"] == [{"profile": {"name": "Kerry Fisher"}, "wa_id": WA_ID}]
    assert message["identity"] == {
        "acknowledged": True,
        "created_timestamp": 1602532300000,
        "hash": "Sjvjlx8G6Z0=",
    }
    assert message["text"] == {"body": "Hi from new number 3601"}
    assert (message["from"], message["type"]) == (WA_ID, "text")


async def test_a_changed_number_is_reported_from_the_old_one(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.change_number("16315558889", "16315558890")
    await sim.settled()
    (message,) = webhook.bodies[0]["messages"]
    assert message["from"] == "16315558889"
    assert message["system"] == {
        "body": "User A changed from +16315558889 to +16315558890",
        "new_wa_id": "16315558890",
        "type": "user_changed_number",
    }
    assert "16315558890" in sim.users


async def test_a_changed_number_is_reported_to_nobody_when_that_is_off(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.change_settings(notify_user_change_number=False)
    sim.change_number("16315558889", "16315558890")
    await sim.settled()
    assert webhook.bodies == []


async def test_a_callback_of_any_kind_is_delivered_as_it_is(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.send_callback(b"\xff not json", headers={"Content-Type": "text/plain"})
    sim.send_callback({"errors": [{"code": 400}]})
    await sim.settled()
    assert sorted(webhook.raw) == [b'{"errors": [{"code": 400}]}', b"\xff not json"]
    assert sorted(each["Content-Type"] for each in webhook.headers) == [
        "application/json",
        "text/plain",
    ]


@pytest.mark.parametrize("status", [201, 204, 301, 307, 400, 404, 500, 503])
async def test_only_a_200_is_success_and_all_else_is_tried_again(
    sim: Simulator, webhook: Webhook, status: int
) -> None:
    webhook.statuses = [status, status]
    callback = sim.change_identity(WA_ID) and sim.callbacks[0]
    await sim.settled()
    assert len(webhook.raw) == 3
    assert len(set(webhook.raw)) == 1
    assert (callback.state, callback.attempts) == ("delivered", 3)
    assert sim.delivery.counts["failed_attempts"] == 2


def test_the_pause_grows_by_three_seconds_up_to_a_quarter_of_an_hour(tmp_path: Path) -> None:
    defaults = {"retry_base_seconds": 3, "retry_cap_seconds": 900}
    settings = Simulator(options(tmp_path, **defaults)).settings
    assert [settings.retry_seconds(attempts) for attempts in (1, 2, 3)] == [3, 6, 9]
    assert settings.retry_seconds(300) == settings.retry_seconds(5000) == 900


async def test_a_callback_waits_for_a_webhook_that_is_not_there(
    sim: Simulator, webhook: Webhook, unused_tcp_port: int
) -> None:
    sim.webhook_url = f"http://127.0.0.1:{unused_tcp_port}/"
    sim.change_identity(WA_ID)
    with pytest.raises(TimeoutError, match="still pending"):
        await sim.settled(0.05)
    sim.webhook_url = webhook.url
    await sim.settled()
    assert len(webhook.raw) == 1


@pytest.mark.parametrize("sim", [{"retry_base_seconds": 600}], indirect=True)
async def test_a_webhook_url_that_is_set_later_gets_what_is_pending(
    sim: Simulator, webhook: Webhook
) -> None:
    sim.webhook_url = None
    sim.change_identity(WA_ID)
    await sim.delivery.history[0].tried.wait()
    await asyncio.sleep(0)
    sim.webhook_url = webhook.url
    await sim.settled()
    assert len(webhook.raw) == 1


@pytest.mark.parametrize("sim", [{"give_up_seconds": 0.05}], indirect=True)
async def test_a_callback_is_given_up_in_the_end(sim: Simulator, webhook: Webhook) -> None:
    webhook.statuses = [500] * 1000
    sim.change_identity(WA_ID)
    await sim.settled()
    assert sim.delivery.counts["given_up"] == 1


async def test_six_callbacks_are_under_way_at_once_and_no_more(
    sim: Simulator, webhook: Webhook
) -> None:
    webhook.seconds = 0.02
    for _ in range(20):
        sim.change_identity(WA_ID)
    await sim.settled()
    assert webhook.most == 6
    sim.change_settings(webhooks={"max_concurrent_requests": 12})
    for _ in range(24):
        sim.change_identity(WA_ID)
    await sim.settled()
    assert webhook.most == 12


@pytest.mark.parametrize("sim", [{"webhook_timeout_seconds": 0.05}], indirect=True)
async def test_a_webhook_that_is_too_slow_gets_it_again(sim: Simulator, webhook: Webhook) -> None:
    webhook.seconds = 0.2
    sim.change_identity(WA_ID)
    await asyncio.sleep(0.1)
    webhook.seconds = 0
    await sim.settled()
    assert len(webhook.raw) >= 2


async def test_pending_callbacks_and_the_port_outlive_a_stop(
    sim: Simulator, webhook: Webhook, business: Business
) -> None:
    webhook.statuses = [500]
    port = sim.port
    hash_ = sim.change_identity(WA_ID)
    await sim.stop()
    sim.write(WA_ID, "while it is down")
    received = len(webhook.raw)
    await sim.start()
    await sim.settled()
    assert len(webhook.raw) > received
    assert sim.port == port
    assert await business.acknowledge(hash_) == (200, {})


@pytest.fixture
async def secure_webhook(tmp_path: Path, webhook: Webhook) -> AsyncIterator[str]:
    """The webhook behind TLS, with a private authority under `webhook/`."""
    app = web.Application()
    app.router.add_post("/{rest:.*}", webhook.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    files = certificate.ensure(tmp_path / "webhook")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.server_context(files))
    await site.start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_a_webhook_of_a_private_authority_is_trusted_once_that_is_uploaded(
    sim: Simulator, business: Business, webhook: Webhook, secure_webhook: str, tmp_path: Path
) -> None:
    sim.webhook_url = secure_webhook
    sim.change_identity(WA_ID)
    with pytest.raises(TimeoutError, match="Certificate"):
        await sim.settled(0.2)
    await business.login()
    headers = {"Authorization": f"Bearer {business.token}", "Content-Type": "text/plain"}
    async with business.session.post(
        "/v1/certificates/webhooks/ca",
        data=(tmp_path / "webhook" / "simulator-ca.pem").read_bytes(),
        headers=headers,
    ) as answer:
        assert answer.status == 200
    await sim.settled()
    assert len(webhook.raw) == 1


async def test_the_webhooks_authority_can_be_given_at_the_start(
    webhook: Webhook, secure_webhook: str, tmp_path: Path
) -> None:
    ca = tmp_path / "webhook" / "simulator-ca.pem"
    chosen: Any = options(tmp_path, webhook_ca_file=ca, webhook_url=secure_webhook)
    async with Simulator(chosen) as sim:
        assert isinstance(sim.delivery.tls, ssl.SSLContext)
        sim.change_identity(WA_ID)
        await sim.settled()
    assert len(webhook.raw) == 1
