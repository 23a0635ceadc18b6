"""Health, application settings, and the certificate."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from service.simulator import Simulator, certificate
from service.simulator.onprem.state import RateLimit
from tests.simulator.conftest import WA_ID, Business, Webhook, options

CA = "/v1/certificates/webhooks/ca"


async def test_health_is_connected_until_it_is_set_otherwise(
    sim: Simulator, business: Business
) -> None:
    status, body = await business.call("GET", "/v1/health")
    assert (status, body["health"]) == (200, {"gateway_status": "connected"})
    containers = {"host:wacore": {"gateway_status": "disconnected", "role": "coreapp"}}
    sim.set_health(containers)
    assert (await business.call("GET", "/v1/health"))[1]["health"] == containers


async def test_health_is_answered_ten_times_a_minute(business: Business) -> None:
    statuses = [(await business.call("GET", "/v1/health"))[0] for _ in range(11)]
    assert statuses == [200] * 10 + [429]


def test_a_rate_limit_refills_up_to_its_burst() -> None:
    now = 0.0
    limit = RateLimit(20, 60, lambda: now)
    assert [limit.allows() for _ in range(61)] == [True] * 60 + [False]
    now = 0.5
    assert sum(limit.allows() for _ in range(20)) == 10
    now = 100
    assert sum(limit.allows() for _ in range(100)) == 60


@pytest.mark.parametrize(
    "sim",
    [
        {
            "show_security_notifications": False,
            "retry_base_seconds": 3,
            "retry_cap_seconds": 900,
        }
    ],
    indirect=True,
)
async def test_settings_are_shown_with_the_clients_defaults(
    sim: Simulator, business: Business
) -> None:
    _, body = await business.call("GET", "/v1/settings/application")
    assert body["settings"]["application"] == {
        "show_security_notifications": False,
        "notify_user_change_number": True,
        "callback_persist": True,
        "callback_backoff_delay_ms": 3000,
        "max_callback_backoff_delay_ms": 900000,
        "webhooks": {"url": sim.webhook_url, "max_concurrent_requests": 6},
    }


async def test_a_patch_changes_a_part_and_leaves_the_rest(
    sim: Simulator, business: Business
) -> None:
    url = sim.webhook_url
    change = {"webhooks": {"max_concurrent_requests": 18}, "pass_through": False}
    assert (await business.call("PATCH", "/v1/settings/application", change))[0] == 200
    assert sim.settings.webhooks.max_concurrent_requests == 18
    assert sim.webhook_url == url
    assert sim.settings.show_security_notifications is True
    _, body = await business.call("GET", "/v1/settings/application")
    assert body["settings"]["application"]["pass_through"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"webhooks": {"max_concurrent_requests": 7}},
        {"webhooks": "https://example.com"},
        {"show_security_notifications": "perhaps"},
        {"callback_backoff_delay_ms": 0},
    ],
)
async def test_a_setting_that_can_not_be_gets_400_and_changes_nothing(
    sim: Simulator, business: Business, change: object
) -> None:
    before = sim.settings.model_dump()
    status, body = await business.call("PATCH", "/v1/settings/application", change)
    assert (status, body["errors"][0]["code"]) == (400, 1009)
    assert sim.settings.model_dump() == before


@pytest.mark.parametrize(("kind", "code"), [("text/plain", 1009), ("application/json", 1025)])
async def test_an_authority_that_is_none_gets_400(business: Business, kind: str, code: int) -> None:
    await business.login()
    async with business.session.post(
        "/v1/certificates/webhooks/ca",
        data="no PEM",
        headers={"Authorization": f"Bearer {business.token}", "Content-Type": kind},
    ) as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"][0]["code"] == code


@pytest.mark.parametrize("sim", [{"tls": True}], indirect=True)
async def test_the_certificate_verifies_strictly_by_its_ca_file(
    sim: Simulator, business: Business
) -> None:
    hash_ = sim.change_identity(WA_ID)
    assert sim.base_url.startswith("https://127.0.0.1:")
    assert await business.acknowledge(hash_) == (200, {})
    strict = ssl.create_default_context(cafile=sim.ca_file)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("127.0.0.1", "localhost", "::1"):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", sim.port, ssl=strict, server_hostname=name
        )
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("sim", [{"tls": True}], indirect=True)
async def test_who_does_not_trust_the_ca_file_is_not_connected(sim: Simulator) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{sim.base_url}/v1/health")


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    files = certificate.ensure(tmp_path / "deep" / "var")
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "simulator-ca.pem",
        "simulator-cert.pem",
        "simulator-key.pem",
    ]


def test_the_certificate_is_made_once_and_anew_when_it_is_about_to_expire(tmp_path: Path) -> None:
    files = certificate.ensure(tmp_path)
    first = files.cert.read_bytes()
    assert certificate.ensure(tmp_path).cert.read_bytes() == first
    nearly_over = datetime.now(UTC) - certificate.VALIDITY + timedelta(hours=23)
    certificate.make(files, nearly_over)
    old = files.cert.read_bytes()
    assert certificate.ensure(tmp_path).cert.read_bytes() not in (first, old)
    renewed = files.cert.read_bytes()
    certificate.make(certificate.Files(tmp_path), datetime.now(UTC) - timedelta(days=80))
    assert certificate.ensure(tmp_path).cert.read_bytes() != renewed


@pytest.mark.parametrize("spoil", ["ca", "cert", "key"])
def test_files_that_do_not_belong_together_are_made_anew(tmp_path: Path, spoil: str) -> None:
    files = certificate.ensure(tmp_path / "one")
    other = certificate.ensure(tmp_path / "other")
    path: Path = getattr(files, spoil)
    path.write_bytes(getattr(other, spoil).read_bytes())
    certificate.server_context(certificate.ensure(tmp_path / "one"))
    path.write_text("broken")
    certificate.server_context(certificate.ensure(tmp_path / "one"))


async def test_a_taken_port_is_an_error_and_leaves_nothing_behind(
    sim: Simulator, tmp_path: Path
) -> None:
    second = Simulator(options(tmp_path, port=sim.port))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()


async def test_an_ipv6_address_is_written_with_brackets(tmp_path: Path) -> None:
    assert Simulator(options(tmp_path, host="::1", port=9)).base_url == "http://[::1]:9"


async def test_a_reset_of_the_settings_brings_a_new_clients_back(business: Business) -> None:
    assert (await business.call("DELETE", "/v1/settings/application"))[0] == 200
    _, body = await business.call("GET", "/v1/settings/application")
    assert body["settings"]["application"] == {
        "show_security_notifications": False,
        "notify_user_change_number": True,
        "callback_persist": True,
        "callback_backoff_delay_ms": 3000,
        "max_callback_backoff_delay_ms": 900000,
        "webhooks": {"url": None, "max_concurrent_requests": 6},
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/settings/application"),
        ("PATCH", "/v1/settings/application"),
        ("DELETE", "/v1/settings/application"),
        ("GET", CA),
        ("POST", CA),
        ("DELETE", CA),
    ],
)
async def test_settings_and_certificates_are_for_an_admin_alone(
    sim: Simulator, business: Business, method: str, path: str
) -> None:
    sim.change_settings(admin=False)
    before = sim.settings.model_dump()
    status, body = await business.call(method, path, {"callback_persist": False})
    assert (status, body["errors"][0]["code"]) == (403, 1005)
    assert sim.settings.model_dump() == before
    assert (await business.call("GET", "/v1/health"))[0] == 200


async def upload(business: Business, pem: str) -> int:
    headers = {"Authorization": f"Bearer {business.token}", "Content-Type": "text/plain"}
    async with business.session.post(CA, data=pem, headers=headers) as answer:
        return answer.status


async def test_the_webhooks_authority_is_shown_as_it_was_uploaded_and_taken_back(
    sim: Simulator, business: Business, tmp_path: Path
) -> None:
    assert (await business.call("GET", CA))[0] == 404
    assert (await business.call("DELETE", CA))[0] == 404
    pem = certificate.ensure(tmp_path).ca.read_text()
    assert await upload(business, pem) == 200
    headers = {"Authorization": f"Bearer {business.token}"}
    async with business.session.get(CA, headers=headers) as answer:
        assert (answer.content_type, await answer.text()) == ("text/plain", pem)
    assert sim.webhook_ca == pem
    assert (await business.call("DELETE", CA))[0] == 200
    assert sim.webhook_ca is None
    assert (await business.call("GET", CA))[0] == 404


@pytest.mark.parametrize("pem", ["", "\n"])
async def test_an_empty_authority_changes_nothing(
    sim: Simulator, business: Business, pem: str
) -> None:
    await business.login()
    assert await upload(business, pem) == 400
    assert sim.webhook_ca is None


@pytest.mark.parametrize("sim", [{"restart_seconds": 0.2}], indirect=True)
async def test_the_coreapps_restart_after_an_upload_and_are_not_ready_meanwhile(
    sim: Simulator, business: Business, webhook: Webhook, tmp_path: Path
) -> None:
    await business.login()
    assert await upload(business, certificate.ensure(tmp_path).ca.read_text()) == 200
    sim.change_identity(WA_ID)
    status, body = await business.send()
    assert (status, body["errors"][0]["code"]) == (503, 1011)
    _, body = await business.call("GET", "/v1/health")
    assert body["health"] == {"gateway_status": "connecting"}
    assert (await business.call("GET", "/v1/settings/application"))[0] == 200
    assert webhook.raw == []
    await sim.settled()
    assert len(webhook.raw) == 1
    assert (await business.call("GET", "/v1/health"))[1]["health"]["gateway_status"] == "connected"
    assert (await business.identity())["acknowledged"] is False


@pytest.mark.parametrize("is_kept", [True, False])
async def test_pending_callbacks_outlive_a_restart_only_when_they_are_kept_on_disk(
    sim: Simulator, business: Business, webhook: Webhook, tmp_path: Path, is_kept: bool
) -> None:
    webhook.statuses = [500] * 100
    await business.call("PATCH", "/v1/settings/application", {"callback_persist": is_kept})
    sim.change_identity(WA_ID)
    while not sim.delivery.counts["failed_attempts"]:
        await asyncio.sleep(0.01)
    assert await upload(business, certificate.ensure(tmp_path).ca.read_text()) == 200
    await sim.stop()
    webhook.statuses = []
    before = len(webhook.raw)
    await sim.start()
    await sim.settled()
    assert len(webhook.raw) - before == (1 if is_kept else 0)
    assert sim.delivery.counts["lost"] == (0 if is_kept else 1)
