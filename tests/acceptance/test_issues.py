"""Wrong settings of a client are found, told with their cure, and never changed unasked."""

from typing import Any

import pytest

from service.workers import erasing, monitoring
from tests.acceptance.conftest import (
    HASH_A,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    digest_of,
    until,
)
from tests.acceptance.sinks import sink
from tests.acceptance.test_reload import reload

PUBLIC = "https://hooks.example.com"
ENDPOINT = f"{PUBLIC}/webhooks/main/{TOKEN}"
OFTEN = {"inspector": {"every_seconds": 0.05}, "server": {"public_url": PUBLIC}}
UNASKED: dict[str, Any] = {"inspector": {"every_seconds": 0}}
"""The client is not asked for its settings: what is wrong with them is no issue."""

Json = dict[str, Any]


async def issues(made: Installation, **how: Any) -> list[Json]:
    status, answer = await made.api("GET", "/issues", **how)
    assert status == 200, answer
    assert answer["next_cursor"] is None
    return list(answer["items"])


async def codes(made: Installation) -> list[str]:
    return [issue["code"] for issue in await issues(made)]


async def become(made: Installation, *wanted: str) -> None:
    async def so() -> bool:
        return await codes(made) == list(wanted)

    await until(so, what=f"issues {wanted}")


async def check_of(made: Installation) -> Json:
    _, status = await made.api("GET", "/health/status")
    return dict(status["checks"]["settings:main"])


async def metric(made: Installation) -> list[str]:
    _, text = await made.api("GET", "/metrics")
    return [line for line in text.splitlines() if line.startswith("ackgate_issues{")]


@pytest.fixture
async def made(install: Install) -> Installation:
    """An installation that looks often, with a client that is set as it should be."""
    installed = await install(**OFTEN)
    installed.sim.webhook_url = ENDPOINT
    asked = installed.sim.calls.counts["settings"]
    await until(lambda: installed.sim.calls.counts["settings"] > asked + 1)
    await become(installed)
    return installed


async def test_a_client_that_is_set_right_has_no_issue_anywhere(made: Installation) -> None:
    assert await check_of(made) == {"status": "pass"}
    assert await metric(made) == []
    _, account = await made.api("GET", "/accounts/main")
    assert account["settings"]["issues"] == []
    assert account["settings"]["client_version"] == made.sim.options.version
    assert account["settings"]["read_at"].endswith("Z")


async def test_a_declared_url_of_a_bot_in_front_is_no_issue_and_any_other_is(
    install: Install,
) -> None:
    bot = "https://bot.example.com/hook"
    installed = await install(**OFTEN, accounts={"main": {"webhook_url": bot}})
    installed.sim.webhook_url = ENDPOINT
    await become(installed, "webhook_url")
    [issue] = await issues(installed)
    assert "webhook_url of the account declares another" in issue["detail"]
    installed.sim.webhook_url = bot
    await become(installed)


async def test_security_notifications_that_are_off_are_found_and_told_everywhere(
    made: Installation,
) -> None:
    made.sim.settings.show_security_notifications = False
    await become(made, "security_notifications_off")
    [issue] = await issues(made)
    assert issue["account"] == "main"
    assert issue["severity"] == "warning"
    assert issue["since"].endswith("Z")
    assert "nothing is blocked" in issue["detail"]
    assert "ackgate accounts setup main" in issue["cure"]
    assert await check_of(made) == {"status": "warn", "detail": "security_notifications_off"}
    _, status = await made.api("GET", "/health/status")
    assert status["status"] == "warn"
    assert await metric(made) == [
        'ackgate_issues{account="main",code="security_notifications_off"} 1.0'
    ]
    made.sim.settings.show_security_notifications = True
    await become(made)
    assert await metric(made) == []


async def test_another_webhook_url_is_found_and_no_token_is_told(made: Installation) -> None:
    made.sim.webhook_url = f"https://elsewhere.example.com/webhooks/main/{TOKEN}"
    await become(made, "webhook_url")
    assert TOKEN not in str(await issues(made))
    assert "https://elsewhere.example.com" in (await issues(made))[0]["detail"]
    made.sim.webhook_url = None
    await become(made, "webhook_url")


async def test_callbacks_that_are_not_kept_by_the_client_are_found(made: Installation) -> None:
    made.sim.settings.callback_persist = False
    await become(made, "callback_persist_off")


async def test_nothing_is_changed_without_being_asked(made: Installation) -> None:
    made.sim.settings.show_security_notifications = False
    made.sim.settings.callback_persist = False
    await become(made, "security_notifications_off", "callback_persist_off")
    asked = made.sim.calls.counts["settings"]
    await until(lambda: made.sim.calls.counts["settings"] > asked + 2)
    methods = {call.method for call in made.sim.calls.of("settings")}
    assert methods == {"GET"}
    assert {call.method for call in made.sim.calls.of("certificates")} == {"GET"}
    assert made.sim.settings.callback_persist is False


async def test_an_issue_stands_since_it_was_first_seen(made: Installation) -> None:
    made.sim.settings.callback_persist = False
    await become(made, "callback_persist_off")
    [first] = await issues(made)
    made.sim.settings.show_security_notifications = False
    await become(made, "security_notifications_off", "callback_persist_off")
    assert (await issues(made))[1]["since"] == first["since"]


async def test_a_login_that_may_not_read_settings_is_told_and_is_no_alarm(
    made: Installation,
) -> None:
    made.sim.settings.callback_persist = False
    await become(made, "callback_persist_off")
    made.sim.change_settings(admin=False)
    await become(made, "settings_unreadable")
    [issue] = await issues(made)
    assert issue["severity"] == "notice"
    check = await check_of(made)
    assert check["status"] == "pass"
    assert "403" in check["detail"]
    assert await metric(made) == []


async def test_a_client_that_does_not_answer_leaves_what_was_found_and_is_an_issue_itself(
    made: Installation,
) -> None:
    made.sim.settings.callback_persist = False
    await become(made, "callback_persist_off")
    await made.sim.stop()
    await become(made, "client_unreachable", "callback_persist_off")
    await made.sim.start()
    made.sim.settings.callback_persist = True
    await become(made)


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"body": "no JSON"}, {"body": '{"settings": []}'}, {"status": 404}]
)
async def test_an_answer_without_settings_proves_nothing(made: Installation, fault: Json) -> None:
    made.sim.settings.callback_persist = False
    await become(made, "callback_persist_off")
    made.sim.fault("settings", **fault)
    made.sim.settings.callback_persist = True
    asked = made.sim.calls.counts["settings"]
    await until(lambda: made.sim.calls.counts["settings"] > asked + 2)
    assert await codes(made) == ["callback_persist_off"]


async def test_a_refused_login_is_an_issue_with_its_cure(install: Install) -> None:
    installed = await install(accounts={"main": {"password": "wrong"}})
    await become(installed, "login_refused")
    assert "password" in (await issues(installed))[0]["cure"]


async def test_each_look_is_one_log_line_when_it_finds_something_new(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = await install(**OFTEN)
    await become(installed, "webhook_url")
    asked = installed.sim.calls.counts["settings"]
    await until(lambda: installed.sim.calls.counts["settings"] > asked + 2)
    out = capsys.readouterr().out
    assert out.count("issue found") == 1
    assert TOKEN not in out


async def test_it_never_looks_where_that_is_not_wanted(install: Install) -> None:
    installed = await install(inspector={"every_seconds": 0})
    await until(lambda: installed.sim.calls.counts["health"])
    assert installed.sim.calls.counts["settings"] == 0
    assert await issues(installed) == []


async def test_it_looks_once_more_soon_where_the_client_did_not_answer_at_the_start(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "AGAIN_SECONDS", 0.05)
    fault = {"operation": "settings", "status": 503, "times": 1}
    installed = await install(sim_options={"faults": (fault,)}, server={"public_url": PUBLIC})
    await become(installed, "webhook_url")
    assert installed.sim.calls.counts["settings"] == 2


async def test_a_webhook_authority_that_the_client_lacks_is_found(
    install: Install, certificates: Any
) -> None:
    ca = str(certificates / "simulator-ca.pem")
    over = {"server": {"public_url": PUBLIC, "public_ca_file": ca}}
    installed = await install(**{**OFTEN, **over})
    installed.sim.webhook_url = ENDPOINT
    await become(installed, "webhook_ca")
    installed.sim.trust_webhook((certificates / "simulator-ca.pem").read_text())
    await become(installed)


async def test_issues_are_for_readers(install: Install) -> None:
    keys = {role: {"role": role, "sha256": digest_of(f"{role}-key")} for role in ("gate", "reader")}
    installed = await install(api={"keys": keys})
    assert (await installed.api("GET", "/issues"))[0] == 401
    assert (await installed.api("GET", "/issues", key="gate-key"))[0] == 403
    assert (await installed.api("GET", "/issues", key="reader-key"))[0] == 200


async def look(made: Installation, name: str) -> list[Json]:
    """Have something looked at now; give what is wrong then."""
    await made.leading.inspectors[name].look()
    return await issues(made)


async def test_identities_that_wait_for_too_long_are_an_issue_until_somebody_decides(
    install: Install,
) -> None:
    made = await install(**UNASKED, alerts={"pending_minutes": 30})
    await made.change(WA_ID, HASH_A, 1_600_000_000_000)  # long ago, and known since now alone
    assert await look(made, "pending:main") == []
    made.pass_time(1801)
    [issue] = await look(made, "pending:main")
    assert (issue["code"], issue["account"]) == ("identities_pending", "main")
    assert issue["detail"] == "1 identity pending for more than 30 minutes"
    assert "--account main --state pending" in issue["cure"]
    assert WA_ID not in str(issue)
    _, health = await made.api("GET", "/health/status")
    assert health["checks"]["pending:main"]["status"] == "warn"
    path = f"/accounts/main/identities/{WA_ID}/hold"
    assert (await made.api("POST", path, {"hash": HASH_A}))[0] == 200
    assert await look(made, "pending:main") == []


async def test_an_erasure_that_does_not_end_is_an_issue(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await install(**UNASKED)
    monkeypatch.setattr(erasing, "SETTLED_WITHIN_SECONDS", 0)
    monkeypatch.setattr(erasing, "is_settled", lambda *_, **__: False)
    path = f"/accounts/main/users/{WA_ID}/erase"
    status, answer, head = await made.call("POST", path)
    assert (status, head["Retry-After"]) == (503, "60")
    assert "the erasure has begun, and the leader finishes it" in answer["detail"]
    assert await look(made, "pending:main") == []
    made.pass_time(3601)
    [issue] = await look(made, "pending:main")
    assert (issue["code"], issue["account"]) == ("erasure_unfinished", "main")
    assert issue["detail"] == "1 erasure has not ended for over an hour"
    assert WA_ID not in str(issue)
    monkeypatch.undo()
    assert (await made.api("POST", path))[0] == 200
    assert await look(made, "pending:main") == []


async def test_a_key_for_an_account_sees_that_its_identities_wait(install: Install) -> None:
    key = {"role": "reader", "sha256": digest_of("k"), "accounts": ["main"]}
    made = await install(**UNASKED, api={"keys": {"desk": key}})
    made.key = "k"
    await made.change()
    made.pass_time(3601)
    assert [issue["code"] for issue in await look(made, "pending:main")] == ["identities_pending"]


async def test_a_relay_is_behind_after_as_long_as_the_configuration_says(
    install: Install,
) -> None:
    async with sink(lambda _: 500) as crm:
        relays = {"crm": {"url": crm.url}}
        made = await install(**UNASKED, relays=relays, alerts={"relay_behind_minutes": 30})
        assert await made.post(b"{}") == 200
        made.pass_time(1790)
        assert await look(made, "relay:crm") == []
        made.pass_time(20)
        [issue] = await look(made, "relay:crm")
        assert (issue["code"], issue["subject"]) == ("relay_behind", "crm")
        assert "by 30 minutes" in issue["detail"]
        assert await reload(made, alerts={"pending_minutes": 10})
        assert [i["code"] for i in await issues(made)] == ["relay_behind"]
        assert await reload(made, alerts={"relay_behind_minutes": 60})
        assert await look(made, "relay:crm") == []


async def test_after_a_start_an_issue_has_passed_once_whoever_finds_it_has_looked(
    install: Install,
) -> None:
    async with sink() as crm:
        made = await install(**UNASKED, relays={"crm": {"url": crm.url}})
        for name, key in (
            ("pending:main", ("main", "identities_pending", "")),
            ("relay:crm", ("", "relay_behind", "crm")),
        ):
            made.leading.inspectors[name].read_at = None
            assert not made.leading.is_settled(key)
            await made.leading.inspectors[name].look()
            assert made.leading.is_settled(key)
        assert made.leading.is_settled(("", "relay_behind", "no_more"))
