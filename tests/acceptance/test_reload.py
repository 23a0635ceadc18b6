"""SIGHUP: the configuration is read again, and takes effect as a whole or not at all."""

import asyncio
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.settings import load
from service.simulator import certificate
from tests.acceptance.conftest import (
    ACCESS_TOKEN,
    APP_SECRET,
    HASH_A,
    HASH_B,
    OTHER_ID,
    TOKEN,
    WA_ID,
    Child,
    CloudInstallation,
    Install,
    Installation,
    Json,
    Spawn,
    Start,
    digest_of,
    hour_ago,
    merge,
    notice,
    tree_for,
    until,
)

OTHER_TOKEN = "another-token-that-only-tests-know"
Captured = pytest.CaptureFixture[str]


def key(name: str, role: str = "admin") -> Json:
    return {"role": role, "sha256": digest_of(name)}


KEYS = {"api": {"keys": {"old": key("the-old-key")}}}


async def reload(made: Installation, *overs: Json, **over: Any) -> bool:
    """Change the configuration, and have it read again."""
    for each in (*overs, over):
        made.tree = merge(made.tree, each)
    assert made.service is not None
    file = made.written()
    return await made.service.reload(lambda: load(file, {}))


async def refused(made: Installation, capsys: Captured, *overs: Json) -> str:
    """Try a configuration that is not to be gone by; give the one line that says why."""
    before = made.tree
    capsys.readouterr()
    assert not await reload(made, *overs)
    made.tree = before
    [line] = [x for x in capsys.readouterr().out.splitlines() if "not reloaded" in x]
    assert "the former one stays in force" in line
    return line


async def test_a_sighup_has_the_real_command_read_its_file_again(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    tree = merge(tree_for(await simulate(), tmp_path), KEYS)
    child = await spawn(tree)
    child.key = "the-old-key"
    assert (await child.api("GET", "/status"))[0] == 200
    new = {"api": {"keys": {"old": None, "new": key("the-new-key")}}}
    child.write(merge(tree, new))
    child.signal(signal.SIGHUP)
    await line(child, "configuration reloaded")
    assert (await child.api("GET", "/status"))[0] == 401
    assert (await child.api("GET", "/status", key="the-new-key"))[0] == 200

    child.config.write_text("[server]\nprot = 1\n")
    child.signal(signal.SIGHUP)
    said = await line(child, "configuration not reloaded")
    assert "server.prot: unknown key" in said
    assert (await child.api("GET", "/status", key="the-new-key"))[0] == 200
    await child.deliver(notice(WA_ID, HASH_A, hour_ago()))
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0


async def line(child: Child, wanted: str) -> str:
    """Wait for a line of the log, which is the only one of its kind."""

    def found() -> list[str]:
        return [line for line in child.lines if wanted in line]

    [said] = await until(found, what=wanted)
    return str(said)


async def test_a_webhook_token_is_changed_without_a_restart(manual: Installation) -> None:
    assert await reload(manual, accounts={"main": {"webhook_token": OTHER_TOKEN}})
    body = notice(WA_ID, HASH_A, hour_ago())
    assert await manual.post(body) == 404
    assert await manual.post(body, path=f"/webhooks/main/{OTHER_TOKEN}") == 200


async def test_the_secret_of_an_app_is_changed_without_a_restart(shop: CloudInstallation) -> None:
    new = "fedcba9876543210" * 2
    assert await shop.deliver_signed(b"{}", new) == 401
    secrets = {"app_secret": new, "app_secret_previous": APP_SECRET}
    assert await reload(shop, apps={"meta": secrets})
    assert await shop.deliver_signed(b"{}", new) == 200
    assert await shop.deliver_signed(b"{}", APP_SECRET) == 200
    assert await reload(shop, apps={"meta": {"app_secret_previous": None}})
    assert await shop.deliver_signed(b"{}", APP_SECRET) == 401


async def test_an_access_token_is_changed_without_a_restart(shop: CloudInstallation) -> None:
    shop.meta.change_settings(access_token="another-access-token")
    inspector = shop.leading.inspectors["shop"]
    await inspector.look()
    assert await login(shop) == "refused"
    assert await reload(shop, accounts={"shop": {"access_token": "another-access-token"}})
    await inspector.look()
    assert await login(shop) == "ok"
    assert ACCESS_TOKEN != "another-access-token"


async def login(made: Installation, account: str = "shop") -> str:
    _, shown = await made.api("GET", f"/accounts/{account}")
    return str(shown["login"]["state"])


async def test_a_clients_new_password_ends_the_pause_of_a_refused_login(auto: Installation) -> None:
    auto.sim.change_password("another-password")
    await auto.change()

    async def is_refused() -> bool:
        return await login(auto, "main") == "refused"

    await until(is_refused)
    assert await reload(auto, accounts={"main": {"password": "another-password"}})
    await auto.becomes("acknowledged")


async def test_policies_decide_about_what_comes_after_and_the_change_is_in_the_audit_trail(
    manual: Installation,
) -> None:
    await manual.change(WA_ID, HASH_A, hour_ago())
    assert await manual.state() == "pending"
    assert await reload(manual, policy={"mode": "auto"})
    await manual.change(OTHER_ID, HASH_B, hour_ago())
    await manual.becomes("acknowledged", OTHER_ID)
    assert await manual.state() == "pending"
    _, audit = await manual.api("GET", "/audit?event=policy_changed")
    assert [entry["account"] for entry in audit["items"]] == ["main"]


async def test_the_rules_of_the_gate_are_changed_without_a_restart(manual: Installation) -> None:
    assert await manual.reasons() == []
    assert await reload(manual, accounts={"main": {"gate": {"unknown_sendable": False}}})
    assert await manual.reasons() == ["contact_unknown"]


async def test_a_declared_webhook_url_is_gone_by_at_the_next_look(install: Install) -> None:
    made = await install(server={"public_url": "https://hooks.example.com"})
    bot = "https://bot.example.com/hook"
    made.sim.webhook_url = bot
    inspector = made.leading.inspectors["main"]
    await inspector.look()
    assert [issue.code for issue in inspector.found] == ["webhook_url"]
    assert await reload(made, accounts={"main": {"webhook_url": bot}})
    await inspector.look()
    assert inspector.found == []


async def test_a_renewed_certificate_is_shown_to_new_connections(
    install: Install, tmp_path: Path
) -> None:
    first, second = (certificate.ensure(tmp_path / name) for name in ("first", "second"))
    pair = tmp_path / "tls.pem", tmp_path / "tls.key"

    def put(files: certificate.Files) -> None:
        pair[0].write_bytes(files.cert.read_bytes())
        pair[1].write_bytes(files.key.read_bytes())

    put(first)
    server = {"tls_cert_file": str(pair[0]), "tls_key_file": str(pair[1])}
    made = await install(server=server)
    live = made.base + "/health/live"

    async def trusts(files: certificate.Files) -> bool:
        tls = ssl.create_default_context(cafile=files.ca)
        try:
            async with made.http.get(live, ssl=tls) as response:
                return response.status == 200
        except aiohttp.ClientConnectorCertificateError:
            return False

    assert (await trusts(first), await trusts(second)) == (True, False)
    put(second)
    assert (await trusts(first), await trusts(second)) == (True, False)
    assert await reload(made)
    assert (await trusts(first), await trusts(second)) == (False, True)
    pair[1].write_text("no key")
    assert not await reload(made)
    assert await trusts(second)


MORE = {
    "base_url": "https://client.example.com",
    "username": "ackgate",
    "password": "x",
    "webhook_token": OTHER_TOKEN,
}
WRONG: dict[str, tuple[Json, str]] = {
    "an unknown key": ({"policy": {"mod": "auto"}}, "policy.mod: unknown key"),
    "a key that is needed": (
        {"accounts": {"main": {"webhook_token": None}}},
        "accounts.main.webhook_token: missing",
    ),
    "another port": ({"server": {"port": 1}}, "server.port: can't change while the service runs"),
    "another address of the client": (
        {"accounts": {"main": {"base_url": "https://client.example.com"}}},
        "accounts.main.base_url: can't change",
    ),
    "another database": ({"database": {"url": "sqlite:///other.db"}}, "database.url"),
    "an account more": ({"accounts": {"more": MORE}}, "accounts.more: can't change"),
    "an app more": (
        {"apps": {"meta": {"app_secret": "s", "verify_token": "v"}}},
        "apps.meta: can't change",
    ),
    "no key any more": ({"api": None}, "api.keys: can't change"),
}


@pytest.mark.parametrize(("over", "said"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_or_needs_a_restart_leaves_the_former_one_in_force_as_a_whole(
    install: Install, capsys: Captured, over: Json, said: str
) -> None:
    made = await install(**KEYS)
    made.key = "the-old-key"
    together = {"policy": {"mode": "auto"}, "accounts": {"main": {"webhook_token": OTHER_TOKEN}}}
    line = await refused(made, capsys, together, over)
    assert said in line
    assert OTHER_TOKEN not in line
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    assert await made.state() == "pending"
    _, audit = await made.api("GET", "/audit?event=policy_changed")
    assert audit["items"] == []


@pytest.mark.slow
async def test_a_database_that_can_not_be_written_leaves_the_former_one_in_force(
    manual: Installation, capsys: Captured
) -> None:
    async with manual.locked():
        policy = {"mode": "auto"}  # which is noted in the database
        over = {"policy": policy, "accounts": {"main": {"webhook_token": OTHER_TOKEN}}}
        line = await refused(manual, capsys, over)
    assert "database" in line or "PostgreSQL" in line
    await manual.deliver(notice(WA_ID, HASH_A, hour_ago()))


async def test_what_arrives_while_it_is_read_again_is_admitted_by_one_of_the_two(
    manual: Installation,
) -> None:
    async def deliver(until_: Callable[[], bool]) -> set[int]:
        statuses = set()
        while not until_():
            for token in (TOKEN, OTHER_TOKEN):
                body = notice(WA_ID, HASH_A, hour_ago())
                statuses.add(await manual.post(body, path=f"/webhooks/main/{token}"))
        return statuses

    done = asyncio.Event()
    senders = [asyncio.create_task(deliver(done.is_set)) for _ in range(4)]
    for token in (OTHER_TOKEN, TOKEN) * 5:
        assert await reload(manual, accounts={"main": {"webhook_token": token}})
    done.set()
    for statuses in await asyncio.gather(*senders):
        assert statuses <= {200, 404}
