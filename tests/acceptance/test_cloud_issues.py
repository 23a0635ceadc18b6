"""What is wrong with Cloud accounts is found, told with its cure, and never changed unasked."""

import asyncio
import json
import os
import re
import sys
from urllib.parse import urlencode

import pytest

from service.model.account_checks import ENOUGH
from service.webhooks.signatures import signed
from service.workers import monitoring
from tests.acceptance.cloud import (
    NUMBER,
    OTHER_NUMBER,
    SECRET,
    SECRETS,
    USER,
    WABA,
    cloud_of,
    endpoint_of,
    posts,
    prepared,
)
from tests.acceptance.conftest import Install, Installation, Json, digest_of, until
from tests.acceptance.webhooks import wrote


async def issues(made: Installation) -> list[Json]:
    status, answer = await made.api("GET", "/issues")
    assert status == 200, answer
    assert not any(secret in str(answer) for secret in SECRETS)
    return list(answer["items"])


async def become(made: Installation, *wanted: str) -> list[Json]:
    async def so() -> bool:
        return [issue["code"] for issue in await issues(made)] == list(wanted)

    await until(so, what=f"issues {wanted}")
    return await issues(made)


async def check_of(made: Installation, name: str) -> Json:
    _, status = await made.api("GET", "/health/status")
    return dict(status["checks"][name])


async def account_of(made: Installation) -> Json:
    status, account = await made.api("GET", "/accounts/shop")
    assert status == 200
    return dict(account)


async def metrics(made: Installation, name: str) -> list[str]:
    _, text = await made.api("GET", "/metrics")
    return [line for line in text.splitlines() if line.startswith(f"{name}{{")]


@pytest.fixture
async def shop(prepare: Install) -> Installation:
    """An installation that looks often, with a number that is set up as it should be."""
    made = await prepared(prepare, options={"identity_check": True})
    cloud_of(made).webhook_url = endpoint_of(made)
    await made.start()
    await until(lambda: cloud_of(made).calls.counts["number"] > 1)
    await become(made)
    return made


async def test_a_number_that_is_set_up_right_has_no_issue_anywhere(shop: Installation) -> None:
    assert await check_of(shop, "settings:shop") == {"status": "pass"}
    assert await check_of(shop, "client:shop") == {"status": "pass"}
    assert await check_of(shop, "login:shop") == {"status": "pass"}
    assert await check_of(shop, "app:meta") == {"status": "pass"}
    assert await metrics(shop, "ackgate_issues") == []
    assert await metrics(shop, "ackgate_account_reachable") == [
        'ackgate_account_reachable{account="shop"} 1.0'
    ]
    assert posts(shop) == []


async def test_the_account_shows_how_token_and_number_are(shop: Installation) -> None:
    account = await account_of(shop)
    assert account["login"]["state"] == "ok"
    assert account["login"]["since"].endswith("Z")
    assert account["login"]["retry_in_seconds"] is None
    assert account["health"] == {
        "quality_rating": "GREEN",
        "reachable": True,
        "unreachable_since": None,
        "last_error": None,
    }
    assert account["settings"]["issues"] == []
    assert account["settings"]["client_version"] is None


async def test_before_the_token_was_used_nothing_is_claimed_of_it(prepare: Install) -> None:
    made = await prepared(prepare, inspector={"every_seconds": 0})
    await made.start()
    account = await account_of(made)
    assert account["login"] == {"state": "none", "since": None, "retry_in_seconds": None}
    assert account["health"]["quality_rating"] is None
    assert await issues(made) == []


async def test_a_token_that_is_refused_is_an_issue_and_passes_once_it_is_taken_again(
    shop: Installation,
) -> None:
    cloud_of(shop).change_settings(access_token="another")
    [issue] = await become(shop, "login_refused")
    assert issue["account"] == "shop"
    assert "the access token is refused" in issue["detail"]
    assert "access_token" in issue["cure"]
    assert (await account_of(shop))["login"]["state"] == "refused"
    assert (await check_of(shop, "login:shop"))["status"] == "warn"
    cloud_of(shop).change_settings(access_token=SECRETS[1])
    await become(shop)
    assert (await account_of(shop))["login"]["state"] == "ok"


async def test_a_cloud_api_that_does_not_answer_is_an_issue(
    shop: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "AGAIN_SECONDS", 0.05)
    cloud_of(shop).fault("number", status=503)
    [issue] = await become(shop, "account_unreachable")
    assert "503" in issue["detail"]
    assert (await account_of(shop))["health"]["reachable"] is False
    assert (await account_of(shop))["login"]["state"] == "ok"
    assert (await check_of(shop, "client:shop"))["status"] == "warn"
    _, verdict = await shop.api("GET", f"/accounts/shop/recipients/{USER}")
    assert verdict["sendable"] is True
    assert "account_unreachable" in [warning["code"] for warning in verdict["warnings"]]
    cloud_of(shop).clear_faults()
    await become(shop)
    _, verdict = await shop.api("GET", f"/accounts/shop/recipients/{USER}")
    assert "account_unreachable" not in [warning["code"] for warning in verdict["warnings"]]


async def test_a_cloud_api_that_is_asked_too_much_is_not_asked_again_soon(
    prepare: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "AGAIN_SECONDS", 0.02)
    made = await prepared(prepare, inspector={"every_seconds": 300})
    cloud_of(made).fault("number", status=429)
    await made.start()
    [issue] = await become(made, "account_unreachable")
    assert "too many calls" in issue["detail"]
    await asyncio.sleep(0.2)
    assert cloud_of(made).calls.counts["number"] == 1


@pytest.mark.parametrize("url", ["https://elsewhere.example.com/secret", None])
async def test_another_webhook_url_than_the_endpoint_is_an_issue(
    shop: Installation, url: str | None
) -> None:
    cloud_of(shop).webhook_url = url
    [issue] = await become(shop, "webhook_url")
    assert "no callback comes here" in issue["detail"]
    assert "secret" not in issue["detail"]
    assert "ackgate accounts setup shop" in issue["cure"]
    assert await check_of(shop, "settings:shop") == {"status": "warn", "detail": "webhook_url"}
    assert await metrics(shop, "ackgate_issues") == [
        'ackgate_issues{account="shop",code="webhook_url"} 1.0'
    ]


async def test_a_url_of_the_number_goes_before_that_of_the_app(shop: Installation) -> None:
    cloud_of(shop).business.number(NUMBER).webhook_url = "https://elsewhere.example.com/"
    await become(shop, "webhook_url")


async def test_an_account_that_no_app_is_subscribed_to_is_an_issue_where_it_is_known(
    prepare: Install,
) -> None:
    made = await prepared(prepare, accounts={"shop": {"waba_id": WABA}})
    cloud_of(made).webhook_url = endpoint_of(made)
    await made.start()
    cloud_of(made).business.accounts[WABA].subscribed = False
    await become(made, "webhook_unsubscribed")


async def test_a_number_that_the_token_may_not_see_is_an_issue(prepare: Install) -> None:
    made = await prepared(prepare, accounts={"shop": {"phone_number_id": "999"}})
    await made.start()
    [issue] = await become(made, "number_unreadable")
    assert "phone_number_id" in issue["cure"]


async def test_behind_a_provider_without_such_settings_they_are_not_read(prepare: Install) -> None:
    account = {"phone_number_id": "999", "check_settings": False}
    made = await prepared(prepare, accounts={"shop": account})
    await made.start()
    keys = made.leading.inspectors["api.keys"]  # which begins to look at the same time
    await until(lambda: keys.read_at is not None)
    assert await issues(made) == []
    assert cloud_of(made).calls.counts["number"] == 0
    assert (await account_of(made))["settings"]["read_at"] is None
    assert await check_of(made, "settings:shop") == {"status": "pass"}
    assert await metrics(made, "ackgate_account_reachable") == []


async def test_a_token_that_lacks_the_permission_is_told_and_is_no_alarm(
    shop: Installation,
) -> None:
    cloud_of(shop).fault("number", status=403)
    [issue] = await become(shop, "settings_unreadable")
    assert issue["severity"] == "notice"
    assert (await check_of(shop, "settings:shop"))["status"] == "pass"
    assert (await account_of(shop))["login"]["state"] == "ok"
    assert await metrics(shop, "ackgate_issues") == []


async def test_messages_that_bring_no_hash_show_that_the_check_is_off_until_one_does(
    shop: Installation,
) -> None:
    line = cloud_of(shop).business.number(NUMBER)
    line.identity_check = False
    for _ in range(ENOUGH - 1):
        cloud_of(shop).write(USER, "Hello")
    await cloud_of(shop).settled()
    assert await issues(shop) == []
    cloud_of(shop).write(USER, "Hello")
    [issue] = await become(shop, "identity_check_off")
    assert issue["account"] == "shop"
    assert f"the last {ENOUGH} messages" in issue["detail"]
    assert "ackgate accounts setup shop" in issue["cure"]
    assert (await account_of(shop))["settings"]["issues"] == ["identity_check_off"]
    line.identity_check = True
    cloud_of(shop).write(USER, "Hello")
    await become(shop)


async def test_callbacks_for_a_number_that_no_account_has_are_an_issue_until_they_are_replayed(
    shop: Installation,
) -> None:
    cloud_of(shop).write(USER, "Hello", number=OTHER_NUMBER)
    [issue] = await become(shop, "unknown_number")
    assert issue["account"] is None
    assert issue["subject"] == OTHER_NUMBER
    assert issue["severity"] == "warning"
    assert (
        issue["detail"] == "1 callback of the app meta for a number that no account has: "
        f"phone_number_id {OTHER_NUMBER}"
    )
    assert "replay" in issue["cure"]
    assert await check_of(shop, "app:meta") == {"status": "warn", "detail": "unknown_number"}
    assert await metrics(shop, "ackgate_issues") == [
        'ackgate_issues{account="",code="unknown_number"} 1.0'
    ]
    await shop.stop()
    outlet = {**shop.tree["accounts"]["shop"], "phone_number_id": OTHER_NUMBER}
    await shop.start(accounts={"outlet": outlet})
    [issue] = await become(shop, "unknown_number")
    [entry] = await shop.quarantined()
    status, replayed = await shop.api("POST", f"/journal/{entry['id']}/replay")
    assert (status, replayed["state"]) == (200, "applied")
    await become(shop)


async def stranger(shop: Installation, number: str) -> None:
    """Let a callback come for a number that no account has."""
    raw = json.dumps(wrote(number=number)).encode()
    headers = signed(SECRETS[0].encode(), raw)
    assert await shop.post(raw, path="/webhooks/meta", headers=headers) == 200


async def dismiss(
    made: Installation, code: str = "unknown_number", **query: str
) -> tuple[int, Json]:
    status, answer = await made.api("DELETE", f"/issues/{code}?{urlencode(query)}".rstrip("?"))
    return status, dict(answer)


async def test_each_unknown_number_is_an_issue_of_its_own(shop: Installation) -> None:
    for number in ("222", "222", "111"):
        await stranger(shop, number)
    first, second = await become(shop, "unknown_number", "unknown_number")
    assert (first["subject"], second["subject"]) == ("111", "222")
    assert first["detail"].startswith("1 callback of the app meta")
    assert second["detail"].startswith("2 callbacks of the app meta")
    assert "--subject 222" in second["cure"]
    assert await check_of(shop, "app:meta") == {"status": "warn", "detail": "unknown_number"}


async def test_an_unknown_number_is_listed_with_the_next_question_and_dismissed_at_once(
    prepare: Install,
) -> None:
    options = {"identity_check": True}
    made = await prepared(prepare, options=options, inspector={"every_seconds": 300})
    cloud_of(made).webhook_url = endpoint_of(made)
    await made.start()
    for _ in range(2):
        await stranger(made, "111")
        assert [issue["subject"] for issue in await issues(made)] == ["111"]
        assert (await dismiss(made, subject="111"))[0] == 200
        assert await issues(made) == []


async def test_an_issue_of_the_past_is_dismissed_until_the_next_such_callback(
    shop: Installation,
) -> None:
    for number in ("111", "222"):
        await stranger(shop, number)
    await become(shop, "unknown_number", "unknown_number")
    status, answer = await dismiss(shop, subject="111")
    assert (status, [issue["subject"] for issue in answer["items"]]) == (200, ["111"])
    assert [issue["subject"] for issue in await issues(shop)] == ["222"]
    assert (await dismiss(shop))[0] == 200
    assert await issues(shop) == []
    assert await check_of(shop, "app:meta") == {"status": "pass"}
    assert await metrics(shop, "ackgate_issues") == []
    assert len(await shop.quarantined()) == 2
    await stranger(shop, "111")
    [issue] = await become(shop, "unknown_number")
    assert (issue["subject"], issue["detail"][:11]) == ("111", "1 callback ")


async def test_a_dismissal_survives_a_restart_and_is_in_the_audit_trail(
    shop: Installation,
) -> None:
    for number in ("111", "222"):
        await stranger(shop, number)
    await become(shop, "unknown_number", "unknown_number")
    assert (await dismiss(shop, subject="111"))[0] == 200
    await shop.stop()
    await shop.start()
    [issue] = await become(shop, "unknown_number")
    assert issue["subject"] == "222"
    _, trail = await shop.api("GET", "/audit?event=issue_dismissed")
    [entry] = trail["items"]
    assert (entry["account"], entry["app"]) == (None, "meta")
    assert (entry["by"], entry["reason"]) == (
        {"kind": "key", "name": "local"},
        "unknown_number 111",
    )


async def test_a_dismissal_leaves_a_line_of_a_decision(
    shop: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    await stranger(shop, "111")
    await become(shop, "unknown_number")
    assert (await dismiss(shop, subject="111"))[0] == 200
    lines = [line for line in capsys.readouterr().out.splitlines() if "dismiss" in line]
    assert len(lines) == 1
    for told in ("decision", "code=unknown_number", "caller=local", "request_id="):
        assert told in lines[0]


async def test_an_issue_whose_cause_is_there_now_can_not_be_dismissed(shop: Installation) -> None:
    cloud_of(shop).webhook_url = None
    await become(shop, "webhook_url")
    status, problem = await dismiss(shop, "webhook_url", account="shop")
    assert (status, problem["title"]) == (409, "Conflict")
    assert "its cause is there now" in problem["detail"]
    cloud_of(shop).change_settings(access_token="another")
    await become(shop, "login_refused", "webhook_url")
    assert (await dismiss(shop, "login_refused"))[0] == 409
    await become(shop, "login_refused", "webhook_url")
    _, trail = await shop.api("GET", "/audit?event=issue_dismissed")
    assert trail["items"] == []


@pytest.mark.parametrize(
    ("code", "query"),
    [
        ("webhook_url", {}),
        ("no_such_code", {}),
        ("unknown_number", {"subject": "999"}),
        ("unknown_number", {"subject": ""}),
        ("unknown_number", {"account": "shop"}),
        ("unknown_number", {"account": "shop", "subject": "111"}),
    ],
)
async def test_an_issue_that_there_is_not_is_404(
    shop: Installation, code: str, query: dict[str, str]
) -> None:
    await stranger(shop, "111")
    await become(shop, "unknown_number")
    status, problem = await dismiss(shop, code, **query)
    assert (status, problem["detail"]) == (404, "there is no such issue")
    await become(shop, "unknown_number")


async def test_a_misspelt_filter_dismisses_nothing(shop: Installation) -> None:
    await stranger(shop, "111")
    await become(shop, "unknown_number")
    status, problem = await dismiss(shop, subjet="222")
    assert (status, [error["field"] for error in problem["errors"]]) == (422, ["subjet"])
    await become(shop, "unknown_number")


async def test_an_account_of_null_is_named_by_nothing(shop: Installation) -> None:
    await stranger(shop, "111")
    await become(shop, "unknown_number")
    assert (await dismiss(shop, account="", subject="111"))[0] == 200
    assert await issues(shop) == []


async def test_dismissing_is_for_operators(prepare: Install) -> None:
    keys = {role: {"role": role, "sha256": digest_of(role)} for role in ("reader", "operator")}
    made = await prepared(prepare, api={"keys": keys})
    await made.start()
    made.key = "operator"
    await stranger(made, "111")
    await until(lambda: _has(made, "unknown_number"))
    assert (await made.api("DELETE", "/issues/unknown_number", key="reader"))[0] == 403
    assert (await made.api("DELETE", "/issues/unknown_number", key="nobody"))[0] == 401
    assert (await made.api("DELETE", "/issues/unknown_number"))[0] == 200
    _, trail = await made.api("GET", "/audit?event=issue_dismissed")
    assert trail["items"][0]["by"] == {"kind": "key", "name": "operator"}


async def _has(made: Installation, code: str) -> bool:
    return code in [issue["code"] for issue in await issues(made)]


async def test_a_check_that_seemed_off_is_dismissed_until_the_next_message_without_a_hash(
    shop: Installation,
) -> None:
    line = cloud_of(shop).business.number(NUMBER)
    line.identity_check = False
    for _ in range(ENOUGH):
        cloud_of(shop).write(USER, "Hello")
    await become(shop, "identity_check_off")
    assert (await dismiss(shop, "identity_check_off", account="shop"))[0] == 200
    assert await issues(shop) == []
    cloud_of(shop).write(USER, "Hello")
    await become(shop, "identity_check_off")


async def test_the_command_lists_issues_and_dismisses_one(shop: Installation) -> None:
    for number in ("111", "222"):
        await stranger(shop, number)
    await become(shop, "unknown_number", "unknown_number")
    code, out = await run(shop, "issues")
    assert code == 0
    assert "111" in out
    assert "222" in out
    code, out = await run(shop, "issues", "dismiss", "unknown_number", "--subject", "111", "--json")
    assert (code, json.loads(out)["items"][0]["subject"]) == (0, "111")
    code, out = await run(shop, "issues", "--json")
    assert [issue["subject"] for issue in json.loads(out)["items"]] == ["222"]
    assert (await run(shop, "issues", "dismiss", "unknown_number", "--account", "shop"))[0] == 1
    assert (await run(shop, "issues", "dismiss", "unknown_number"))[0] == 0
    code, out = await run(shop, "issues")
    assert (code, out) == (0, "")


async def run(made: Installation, *command: str) -> tuple[int, str]:
    """Run a command of ours against the service; give its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *command),
        env={**os.environ, "ACKGATE_URL": made.base, "ACKGATE_KEY": str(made.key)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_what_else_is_quarantined_is_no_such_issue(shop: Installation) -> None:
    raw = b"no JSON"
    headers = signed(SECRETS[0].encode(), raw)
    assert await shop.post(raw, path="/webhooks/meta", headers=headers) == 200
    assert await shop.quarantined()
    looked = cloud_of(shop).calls.counts["number"]
    await until(lambda: cloud_of(shop).calls.counts["number"] > looked + 2)
    assert await issues(shop) == []


async def test_no_secret_comes_into_a_log_line(
    shop: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud_of(shop).webhook_url = None
    cloud_of(shop).change_settings(access_token="another")
    await become(shop, "login_refused")
    _, text = await shop.api("GET", "/metrics")
    written = capsys.readouterr()
    assert not any(secret in written.out + written.err + text for secret in SECRETS)


async def post_signed(made: Installation, secret: str | None, body: bytes = b"{}") -> int:
    headers = {} if secret is None else signed(secret.encode(), body)
    return await made.post(body, path="/webhooks/meta", headers=headers)


async def test_ten_wrong_signatures_are_an_issue_with_its_cure_until_a_right_one_comes(
    shop: Installation,
) -> None:
    for _ in range(9):
        assert await post_signed(shop, "another-secret") == 401
    assert await issues(shop) == []
    assert await post_signed(shop, None) == 401
    [issue] = await issues(shop)
    assert (issue["code"], issue["account"], issue["subject"]) == ("wrong_signatures", None, "meta")
    assert issue["severity"] == "warning"
    assert "10 callbacks of the app meta" in issue["detail"]
    assert "apps.meta.app_secret" in issue["cure"]
    assert await check_of(shop, "app:meta") == {"status": "warn", "detail": "wrong_signatures"}
    assert await metrics(shop, "ackgate_issues") == [
        'ackgate_issues{account="",code="wrong_signatures"} 1.0'
    ]
    assert await post_signed(shop, SECRET) == 200
    assert await issues(shop) == []
    assert await check_of(shop, "app:meta") == {"status": "pass"}


async def test_wrong_signatures_that_strangers_sent_are_dismissed_until_there_are_ten_again(
    shop: Installation,
) -> None:
    for _ in range(10):
        await post_signed(shop, "another-secret")
    status, dismissed = await shop.api("DELETE", "/issues/wrong_signatures?subject=meta")
    assert (status, len(dismissed["items"])) == (200, 1)
    for _ in range(9):
        await post_signed(shop, "another-secret")
    assert await issues(shop) == []
    await post_signed(shop, "another-secret")
    await become(shop, "wrong_signatures")


async def test_wrong_signatures_are_one_line_a_minute_in_the_log(
    shop: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        await post_signed(shop, "another-secret")
    shop.pass_time(60)
    await post_signed(shop, "another-secret")
    lines = [line for line in capsys.readouterr().out.splitlines() if "wrong signatures" in line]
    assert [re.findall("callbacks=[0-9]+", line) for line in lines] == [
        ["callbacks=1"],
        ["callbacks=3"],
    ]
    assert all("app=meta" in line for line in lines)
