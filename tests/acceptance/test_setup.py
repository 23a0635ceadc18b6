"""`ackgate accounts setup`: the difference, a yes, the client set as it should be, and a report."""

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from service.cli.setup import setup_of
from service.settings import load
from service.simulator import Simulator, certificate
from service.whatsapp.http import CallError
from tests.acceptance.commands import invoke
from tests.acceptance.conftest import TOKEN, Install, Installation, merge

PUBLIC = "https://hooks.example.com"
ENDPOINT = f"{PUBLIC}/webhooks/main/{TOKEN}"
NEW_CLIENT = {"show_security_notifications": False, "webhook_url": None}

Json = dict[str, Any]


async def setup(
    made: Installation, *words: str, expect: int = 0, typed: str | None = None
) -> Result:
    command = ["accounts", "setup", "main", "--config", str(made.written()), *words]
    result = await asyncio.to_thread(invoke, command, input=typed)
    assert result.exit_code == expect, (result.output, result.exception)
    assert TOKEN not in result.output
    assert "Traceback" not in result.output
    return result


def changes(sim: Simulator) -> list[str]:
    """Give what was changed at the client, by the calls that came in."""
    calls = [*sim.calls.of("settings"), *sim.calls.of("certificates")]
    return [f"{call.method} {call.path}" for call in calls if call.method != "GET"]


@pytest.fixture
async def fresh(prepare: Install) -> Installation:
    """A client as it is when it is new, and a configuration that knows the endpoint's address."""
    return await prepare(sim_options=NEW_CLIENT, server={"public_url": PUBLIC})


async def test_a_new_client_is_set_as_it_should_be_after_a_yes(fresh: Installation) -> None:
    result = await setup(fresh, typed="y\n")
    assert "show_security_notifications" in result.stdout
    assert f"{PUBLIC}/webhooks/main/…" in result.stdout
    assert "main: set show_security_notifications, webhooks.url" in result.stdout
    assert fresh.sim.settings.show_security_notifications is True
    assert fresh.sim.webhook_url == ENDPOINT
    assert changes(fresh.sim) == ["PATCH /v1/settings/application"]


@pytest.mark.parametrize("typed", ["n\n", ""])
async def test_without_a_yes_nothing_is_changed(fresh: Installation, typed: str) -> None:
    result = await setup(fresh, typed=typed, expect=1)
    assert "nothing was changed" in result.stderr
    assert changes(fresh.sim) == []
    assert fresh.sim.webhook_url is None


async def test_a_dry_run_shows_the_difference_changes_nothing_and_exits_with_1(
    fresh: Installation,
) -> None:
    result = await setup(fresh, "--dry-run", "--json", expect=1)
    document = json.loads(result.stdout)
    assert [x["code"] for x in document["differences"]] == [
        "security_notifications_off",
        "webhook_url",
    ]
    assert document["changed"] == []
    assert [x["code"] for x in document["left"]] == ["security_notifications_off", "webhook_url"]
    assert "ackgate accounts setup main" in document["left"][0]["cure"]
    assert changes(fresh.sim) == []


async def test_a_script_says_yes_beforehand_and_reads_json(fresh: Installation) -> None:
    document = json.loads((await setup(fresh, "--yes", "--json")).stdout)
    assert document["account"] == "main"
    assert document["client_version"] == fresh.sim.options.version
    assert document["changed"] == ["show_security_notifications", "webhooks.url"]
    assert document["left"] == []
    difference = document["differences"][1]
    assert difference["is"] is None
    assert difference["should_be"] == f"{PUBLIC}/webhooks/main/…"


async def test_a_client_that_is_set_right_is_left_alone(fresh: Installation) -> None:
    await setup(fresh, "--yes")
    before = changes(fresh.sim)
    result = await setup(fresh)
    assert result.stdout == "nothing is to be set\n"
    assert changes(fresh.sim) == before


async def test_what_else_the_client_is_set_to_stays(fresh: Installation) -> None:
    fresh.sim.settings = fresh.sim.settings.changed(
        {
            "callback_persist": False,
            "sent_status": False,
            "pass_through": True,
            "max_callback_backoff_delay_ms": 3_600_000,
            "notify_user_change_number": False,
        }
    )
    fresh.sim.settings.webhooks.max_concurrent_requests = 18
    await setup(fresh, "--yes")
    told = fresh.sim.settings.model_dump()
    assert told["webhooks"] == {"url": ENDPOINT, "max_concurrent_requests": 18}
    assert told["pass_through"] is True
    assert told["callback_persist"] is True
    assert told["sent_status"] is True
    assert told["notify_user_change_number"] is True
    assert told["max_callback_backoff_delay_ms"] == 900_000


async def test_the_endpoints_authority_is_uploaded_before_the_url_is_set(
    fresh: Installation, tmp_path: Path
) -> None:
    ca = certificate.ensure(tmp_path / "proxy").ca
    fresh.tree = merge(fresh.tree, {"server": {"public_ca_file": str(ca)}})
    result = await setup(fresh, "--yes")
    assert "certificates.webhooks.ca" in result.stdout
    assert "restart" in result.stderr
    assert fresh.sim.webhook_ca == ca.read_text()
    assert fresh.sim.webhook_url == ENDPOINT
    calls = sorted(
        [*fresh.sim.calls.of("settings"), *fresh.sim.calls.of("certificates")], key=lambda c: c.at
    )
    assert [call.method for call in calls if call.method != "GET"] == ["POST", "PATCH"]


async def test_another_authority_gives_way_only_to_one_that_is_configured(
    fresh: Installation, tmp_path: Path
) -> None:
    other = certificate.ensure(tmp_path / "other").ca.read_text()
    fresh.sim.trust_webhook(other)
    await setup(fresh, "--yes")
    assert fresh.sim.webhook_ca == other


async def test_what_can_not_be_set_is_told_and_fails(
    prepare: Install,
) -> None:
    made = await prepare(sim_options={"max_concurrent_requests": 24, "webhook_url": ENDPOINT})
    made.tree = merge(made.tree, {"server": {"max_queue": 10, "public_url": PUBLIC}})
    result = await setup(made, "--yes", expect=1)
    assert "webhook_concurrency" in result.stderr
    assert "server.max_queue" in result.stderr
    assert changes(made.sim) == []


async def test_without_a_public_url_the_webhook_url_is_left_and_told(prepare: Install) -> None:
    made = await prepare(sim_options={"webhook_url": "https://elsewhere.example.com"})
    result = await setup(made, "--yes")
    assert "server.public_url is not set" in result.stderr
    assert made.sim.webhook_url == "https://elsewhere.example.com"


OTHER_SYSTEM = "https://bot.example.com/hook?token=of-the-bot"


async def test_the_webhook_of_another_system_is_taken_with_take_over_alone_and_is_given_back(
    fresh: Installation,
) -> None:
    fresh.sim.webhook_url = OTHER_SYSTEM
    result = await setup(fresh, "--yes", expect=1)
    assert OTHER_SYSTEM in result.stderr
    assert "give --take-over beside --yes" in result.stderr
    assert "accounts.main.webhook_url" in result.stderr
    assert changes(fresh.sim) == []
    document = json.loads((await setup(fresh, "--yes", "--take-over", "--json")).stdout)
    assert fresh.sim.webhook_url == ENDPOINT
    assert document["taken_from"] == OTHER_SYSTEM

    variable, *words = shlex.split(document["give_back"])
    name, _, value = variable.partition("=")
    assert words[:4] == ["ackgate", "accounts", "setup", "main"]
    given = await asyncio.to_thread(invoke, words[1:], env={name: value})
    assert given.exit_code == 0, given.output
    assert fresh.sim.webhook_url == OTHER_SYSTEM


async def test_who_is_asked_is_shown_whose_webhook_it_is_and_how_it_is_given_back(
    fresh: Installation,
) -> None:
    fresh.sim.webhook_url = OTHER_SYSTEM
    result = await setup(fresh, typed="n\n", expect=1)
    assert f"taken from another system: {OTHER_SYSTEM}" in result.stderr
    assert "to give it back: ACKGATE_ACCOUNTS__MAIN__WEBHOOK_URL=" in result.stderr
    assert changes(fresh.sim) == []
    await setup(fresh, typed="y\n")
    assert fresh.sim.webhook_url == ENDPOINT


async def test_an_endpoint_with_an_older_token_of_ours_is_no_other_system(
    fresh: Installation,
) -> None:
    fresh.sim.webhook_url = f"{PUBLIC}/webhooks/main/the-token-before-that"
    result = await setup(fresh, "--yes")
    assert "the-token-before-that" not in result.output
    assert fresh.sim.webhook_url == ENDPOINT


async def test_a_declared_url_of_a_bot_in_front_is_the_right_one(fresh: Installation) -> None:
    declared = {"accounts": {"main": {"webhook_url": OTHER_SYSTEM}}}
    fresh.tree = merge(fresh.tree, declared)
    fresh.sim.webhook_url = OTHER_SYSTEM
    result = await setup(fresh, "--yes")
    assert "webhooks.url" not in result.stdout
    assert fresh.sim.webhook_url == OTHER_SYSTEM
    fresh.sim.webhook_url = ENDPOINT
    result = await setup(fresh, "--yes")
    assert "webhook_url of the account declares another" in " ".join(result.stdout.split())
    assert "of-the-bot" not in result.output
    assert fresh.sim.webhook_url == OTHER_SYSTEM


async def test_a_login_that_is_no_admins_is_told_what_it_takes(fresh: Installation) -> None:
    fresh.sim.change_settings(admin=False)
    line = (await setup(fresh, "--yes", expect=1)).stderr
    assert "403" in line
    assert "ACKGATE_ACCOUNTS__MAIN__USERNAME" in line
    assert changes(fresh.sim) == []


async def test_a_change_that_the_client_refuses_is_told(fresh: Installation) -> None:
    refusing = {"operation": "settings", "status": 400}
    await setup(fresh, "--dry-run", expect=1)
    fresh.sim.fault(**refusing)
    line = (await setup(fresh, "--yes", expect=1)).stderr
    assert "answered with 400" in line


@pytest.mark.parametrize("body", ["<html>Welcome</html>", '{"errors": [{"code": 1000}]}'])
async def test_a_200_that_is_no_answer_of_the_clients_is_not_taken_at_its_word(
    fresh: Installation, body: str
) -> None:
    settings = load(fresh.written(), {})
    async with setup_of(settings, "main") as peer:
        found = await peer.look()
        fresh.sim.fault("settings", body=body)
        with pytest.raises(CallError, match="PATCH settings was answered with 200 and"):
            await peer.fix(found)
    assert fresh.sim.settings.show_security_notifications is False
    assert "GET settings was answered with 200 and" in (await setup(fresh, expect=1)).stderr


async def test_a_change_that_does_not_last_is_found_by_looking_again(fresh: Installation) -> None:
    body = json.dumps({"settings": {"application": {"webhooks": {"url": ENDPOINT}}}})
    fresh.sim.fault("settings", body=body)
    result = await setup(fresh, "--yes", expect=1)
    assert "not as it should be: security_notifications_off" in result.stderr


async def test_a_client_that_is_away_or_refuses_the_login_is_one_line(
    fresh: Installation,
) -> None:
    fresh.tree = merge(fresh.tree, {"accounts": {"main": {"password": "wrong"}}})
    [line] = (await setup(fresh, expect=1)).stderr.splitlines()
    assert line == "ackgate: main: the login was refused (401)"
    await fresh.sim.stop()
    [line] = (await setup(fresh, expect=1)).stderr.splitlines()
    assert "no connection" in line


async def test_an_account_that_is_not_configured_is_told_with_those_that_are(
    fresh: Installation,
) -> None:
    command = ["accounts", "setup", "other", "--config", str(fresh.written())]
    result = await asyncio.to_thread(invoke, command)
    assert result.exit_code == 1
    assert "which has: main" in result.stderr


async def test_a_running_service_sees_the_issues_go_after_the_setup(install: Install) -> None:
    made = await install(
        sim_options={"show_security_notifications": False},
        server={"public_url": PUBLIC},
        inspector={"every_seconds": 0.05},
    )

    async def count() -> int:
        return len((await made.api("GET", "/issues"))[1]["items"])

    while await count() != 2:
        await asyncio.sleep(0.01)
    await setup(made, "--yes")
    while await count():
        await asyncio.sleep(0.01)
