"""`ackgate doctor`: one page, each red line with its cure; its own callback has no effect."""

import asyncio
import json
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from service.simulator import certificate
from service.store.operating import operated
from tests.acceptance.commands import invoke
from tests.acceptance.conftest import (
    HASH_A,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    hour_ago,
    merge,
    notice,
    until,
)
from tools.processes import free_port

Json = dict[str, Any]
Found = dict[tuple[str, str | None], Json]


async def doctor(made: Installation, *words: str, expect: int = 0) -> Result:
    command = ["doctor", "--config", str(made.written()), *words]
    result = await asyncio.to_thread(invoke, command)
    assert result.exit_code == expect, (result.output, result.exception)
    assert TOKEN not in result.output
    assert "Traceback" not in result.output
    return result


async def examine(made: Installation, expect: int = 0) -> Found:
    said = (await doctor(made, "--json", expect=expect)).stdout
    # The service runs in this process, and may log a line of its own meanwhile.
    document = json.loads(said[said.index("{") :])
    for check in document["checks"]:
        assert set(check) == {"check", "account", "status", "detail", "cure"}
        assert (check["cure"] is None) == (check["status"] == "pass"), check
    statuses = [check["status"] for check in document["checks"]]
    assert document["status"] == max(statuses, key=["pass", "warn", "fail"].index)
    return {(check["check"], check["account"]): check for check in document["checks"]}


async def started(made: Installation) -> Installation:
    """Start the service, and let it log what it logs at the start."""
    await made.start()
    await until(lambda: made.sim.calls.counts["settings"] and made.sim.calls.counts["health"])
    return made


@pytest.fixture
async def whole(prepare: Install, tmp_path: Path) -> Installation:
    """An installation whose webhook speaks TLS at its public URL, and where nothing is wrong."""
    files, port = certificate.ensure(tmp_path / "tls"), free_port()
    server = {
        "port": port,
        "tls_cert_file": str(files.cert),
        "tls_key_file": str(files.key),
        "public_url": f"https://localhost:{port}",
        "public_ca_file": str(files.ca),
    }
    made = await prepare(server=server)
    made.tls = ssl.create_default_context(cafile=files.ca)
    await started(made)
    made.sim.webhook_url = f"https://localhost:{port}/webhooks/main/{TOKEN}"
    made.sim.trust_webhook(files.ca.read_text())
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    return made


async def test_a_sound_installation_is_told_sound_in_every_point(whole: Installation) -> None:
    found = await examine(whole)
    assert {key: check["status"] for key, check in found.items()} == dict.fromkeys(
        [
            ("database", None),
            *([("disk", None)] if whole.is_on_a_file else []),
            ("webhook", "main"),
            ("webhook certificate", "main"),
            ("client certificate", "main"),
            ("login", "main"),
            ("settings", "main"),
            ("gateway", "main"),
            ("clock", "main"),
            ("last callback", "main"),
        ],
        "pass",
    )
    assert "in the journal" in found["webhook", "main"]["detail"]
    assert "days" in found["webhook certificate", "main"]["detail"]
    assert "minutes ago" in found["last callback", "main"]["detail"]


async def test_people_see_a_page(whole: Installation) -> None:
    page = (await doctor(whole)).stdout
    for name in ("database", "webhook certificate", "login", "settings", "clock"):
        assert name in page


async def test_its_callback_is_kept_as_synthetic_counted_apart_and_has_no_effect(
    whole: Installation,
) -> None:
    _, account = await whole.api("GET", "/accounts/main")
    identity = await whole.identity()
    await doctor(whole)
    _, listed = await whole.api("GET", "/journal?state=synthetic")
    [entry] = listed["items"]
    assert entry["state"] == "synthetic"
    assert entry["reason"] is None
    _, shown = await whole.api("GET", f"/journal/{entry['id']}")
    assert "ackgate-doctor" in shown["body"]
    assert await whole.quarantined() == []
    _, text = await whole.api("GET", "/metrics")
    assert 'ackgate_callbacks_total{account="main",result="synthetic"} 1.0' in text
    assert 'ackgate_callbacks_total{account="main",result="applied"} 1.0' in text
    _, after = await whole.api("GET", "/accounts/main")
    assert after["last_callback_at"] == account["last_callback_at"]
    assert await whole.identity() == identity
    status, replayed = await whole.api("POST", f"/journal/{entry['id']}/replay")
    assert (status, replayed["state"]) == (200, "synthetic")


async def test_wrong_settings_are_red_lines_with_their_cure(whole: Installation) -> None:
    whole.sim.settings.show_security_notifications = False
    check = (await examine(whole, expect=1))["settings", "main"]
    assert check["status"] == "fail"
    assert "ackgate accounts setup main" in check["cure"]
    result = await doctor(whole, expect=1)
    assert re.search(r"ackgate: 1 of \d+ checks failed\n$", result.stderr)


async def test_settings_that_may_not_be_read_are_told_and_are_no_failure(
    whole: Installation,
) -> None:
    whole.sim.change_settings(admin=False)
    found = await examine(whole)
    assert found["settings", "main"]["status"] == "warn"
    assert found["login", "main"]["status"] == "pass"
    assert found["clock", "main"]["status"] == "pass"


async def test_a_refused_login_and_a_client_that_is_away_are_told_apart(
    whole: Installation,
) -> None:
    whole.tree = merge(whole.tree, {"accounts": {"main": {"password": "wrong"}}})
    login = (await examine(whole, expect=1))["login", "main"]
    assert "refused" in login["detail"]
    assert "password" in login["cure"]
    await whole.sim.stop()
    found = await examine(whole, expect=1)
    assert "base_url" in found["login", "main"]["cure"]
    assert found["client certificate", "main"]["status"] == "fail"


async def test_settings_that_are_not_answered_are_told(whole: Installation) -> None:
    whole.sim.fault("settings", status=500)
    assert "500" in (await examine(whole, expect=1))["settings", "main"]["detail"]


@pytest.mark.parametrize(
    ("health", "status"),
    [({"gateway_status": "disconnected"}, "fail"), ({}, "warn")],
)
async def test_a_client_that_is_not_connected_is_told(
    whole: Installation, health: Json, status: str
) -> None:
    whole.sim.set_health(health)
    found = await examine(whole, expect=int(status == "fail"))
    assert found["gateway", "main"]["status"] == status


async def test_a_service_that_does_not_run_is_told_at_the_endpoint(whole: Installation) -> None:
    await whole.stop()
    webhook = (await examine(whole, expect=1))["webhook", "main"]
    assert "Connect" in webhook["detail"]
    assert "is the service running" in webhook["cure"]


async def test_an_endpoint_that_only_its_public_url_does_not_lead_to_is_told_as_that(
    whole: Installation,
) -> None:
    public = f"https://localhost:{free_port()}"
    whole.tree = merge(whole.tree, {"server": {"public_url": public}})
    webhook = (await examine(whole, expect=1))["webhook", "main"]
    assert public in webhook["detail"]
    assert "in the journal: look at what lies between" in webhook["cure"]


async def test_a_token_that_is_another_is_told(whole: Installation) -> None:
    token = "another-token-than-that-in-use"
    whole.tree = merge(whole.tree, {"accounts": {"main": {"webhook_token": token}}})
    result = await doctor(whole, "--json", expect=1)
    assert token not in result.output
    [webhook] = [c for c in json.loads(result.stdout)["checks"] if c["check"] == "webhook"]
    assert "404" in webhook["detail"]
    assert "token" in webhook["detail"]


async def test_an_endpoint_of_another_installation_is_not_taken_for_ours(
    whole: Installation, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    if not whole.is_on_a_file:
        url = request.getfixturevalue("empty_postgres_url")
    await asyncio.to_thread(operated(url).create)
    whole.tree = merge(whole.tree, {"database": {"url": url}})
    webhook = (await examine(whole, expect=1))["webhook", "main"]
    assert "another installation" in webhook["detail"]


async def test_a_certificate_that_nobody_trusts_is_told_with_its_cure(whole: Installation) -> None:
    whole.tree = merge(whole.tree, {"server": {"public_ca_file": None}})
    found = await examine(whole, expect=1)
    assert "not trusted" in found["webhook certificate", "main"]["detail"]
    assert "server.public_ca_file" in found["webhook certificate", "main"]["cure"]


@pytest.mark.parametrize(("left", "status"), [(10, "warn"), (2, "fail")])
async def test_a_certificate_that_is_about_to_expire_is_told(
    prepare: Install, tmp_path: Path, left: int, status: str
) -> None:
    files, port = certificate.Files(tmp_path / "tls"), free_port()
    files.folder.mkdir()
    certificate.make(files, datetime.now(UTC) - certificate.VALIDITY + timedelta(days=left))
    server = {
        "port": port,
        "tls_cert_file": str(files.cert),
        "tls_key_file": str(files.key),
        "public_url": f"https://localhost:{port}",
        "public_ca_file": str(files.ca),
    }
    made = await prepare(server=server)
    await started(made)
    made.sim.webhook_url = f"https://localhost:{port}/webhooks/main/{TOKEN}"
    made.sim.trust_webhook(files.ca.read_text())
    found = await examine(made, expect=int(status == "fail"))
    assert found["webhook certificate", "main"]["status"] == status
    assert found["last callback", "main"]["status"] == "warn"
    assert "never" in found["last callback", "main"]["detail"]


async def test_a_clock_that_is_wrong_is_told(
    whole: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.whatsapp.onprem.skew_of", lambda *_: -400.0)
    found = await examine(whole, expect=1)
    assert found["clock", "main"]["status"] == "fail"
    assert "400 s behind" in found["clock", "main"]["detail"]
    assert found["settings", "main"]["status"] == "pass"


@pytest.mark.sqlite
async def test_a_database_that_is_not_there_or_damaged_is_told(
    whole: Installation, tmp_path: Path
) -> None:
    await whole.stop()
    broken = tmp_path / "broken.db"
    broken.write_bytes(whole.database.read_bytes()[:8192])
    for file, said in ((tmp_path / "none.db", "no such file"), (broken, "malformed")):
        whole.tree = merge(whole.tree, {"database": {"url": f"sqlite:///{file}"}})
        database = (await examine(whole, expect=1))["database", None]
        assert said in database["detail"]
    assert "ackgate db check" in database["cure"]
    assert "ackgate db restore" in database["cure"]


@pytest.mark.sqlite
async def test_a_database_that_is_gone_is_not_to_be_made_anew_by_a_start(
    whole: Installation,
) -> None:
    await whole.stop()
    whole.database.unlink()
    assert "ackgate db restore" in (await examine(whole, expect=1))["database", None]["cure"]


@pytest.mark.sqlite
async def test_a_disk_that_is_nearly_full_is_told(
    whole: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.doctor.LOW_DISK_BYTES", 2**60)
    assert (await examine(whole, expect=1))["disk", None]["status"] == "fail"


async def test_a_client_that_has_been_silent_for_long_is_told(whole: Installation) -> None:
    await whole.write("UPDATE accounts SET last_callback_at = last_callback_at - 172800000")
    silent = (await examine(whole))["last callback", "main"]
    assert silent["status"] == "warn"
    assert silent["detail"] == "48 hours ago"


async def test_without_a_public_url_the_local_endpoint_is_tried_and_that_is_a_warning(
    prepare: Install,
) -> None:
    made = await started(await prepare(server={"port": free_port()}))
    webhook = (await examine(made))["webhook", "main"]
    assert webhook["status"] == "warn"
    assert "in the journal" in webhook["detail"]
    assert "server.public_url" in webhook["cure"]
    await made.stop()
    assert (await examine(made, expect=1))["webhook", "main"]["status"] == "fail"
    made.tree = merge(made.tree, {"server": {"port": 0}})
    assert (await examine(made))["webhook", "main"]["status"] == "warn"


async def test_where_the_proxy_authenticates_the_client_the_endpoint_is_tried_here(
    prepare: Install,
) -> None:
    main = {"webhook_token": None, "webhook_auth": "proxy"}
    server = {"port": free_port(), "public_url": "https://127.0.0.1:9"}
    made = await started(await prepare(server=server, accounts={"main": main}))
    found = await examine(made, expect=1)
    assert found["webhook", "main"]["status"] == "pass"
    assert "in the journal" in found["webhook", "main"]["detail"]
    await made.stop()
    assert (await examine(made, expect=1))["webhook", "main"]["status"] == "fail"


async def test_a_declared_url_of_a_bot_in_front_is_no_fault(whole: Installation) -> None:
    bot = "https://bot.example.com/hook"
    whole.tree = merge(whole.tree, {"accounts": {"main": {"webhook_url": bot}}})
    assert (await examine(whole, expect=1))["settings", "main"]["status"] == "fail"
    whole.sim.webhook_url = bot
    assert (await examine(whole))["settings", "main"]["status"] == "pass"


async def test_plain_http_in_public_is_told_as_what_the_client_refuses(
    prepare: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.endpoint_checks.TIMEOUT_SECONDS", 0.2)
    made = await started(await prepare())
    made.tree = merge(made.tree, {"server": {"public_url": "http://192.0.2.1:1"}})
    found = await examine(made, expect=1)
    assert "plain http" in found["webhook certificate", "main"]["detail"]
