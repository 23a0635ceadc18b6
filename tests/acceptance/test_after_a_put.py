"""What becomes of an acknowledgement, whatever the client makes of the PUT."""

import json
import signal
import time
from itertools import pairwise
from typing import Any

import pytest

from service.whatsapp import session
from tests.acceptance.conftest import (
    OTHER_ID,
    WA_ID,
    Child,
    Install,
    Installation,
    Json,
    Spawn,
    Start,
    blocked,
    notice,
    tree_for,
    until,
)


def patience(fault: dict[str, Any]) -> Json:
    """Set a short time-out where the client lets us wait."""
    return {"main": {"timeout_seconds": 0.7}} if "hang" in fault else {}


async def tried(made: Installation, attempts: int = 1) -> Json:
    """Wait until an acknowledgement was tried so often, without an end to it."""

    async def found() -> Json | None:
        shown = await made.identity()
        return shown if shown["attempts"] == attempts else None

    shown: Json = await until(found, what=f"{attempts} tries")
    assert shown["state"] == "acknowledging"
    assert shown["blocking"] is True
    return shown


ERRORS = '{"errors":[{"code":1000,"title":"Generic error"}]}'
PAGE = "<html><title>Welcome</title></html>"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"body": ""},
        {"body": " \n"},
        {"body": "null"},
        {"body": '{"meta":{"version":"2.41.3"},"errors":[]}'},
        {"status": 204},
        {"status": 202},
    ],
    ids=str,
)
async def test_a_2xx_that_says_nothing_else_is_success(auto: Installation, answer: Json) -> None:
    if answer:
        auto.sim.fault("identity_put", effect=True, **answer)
    await auto.change()
    shown = await auto.becomes("acknowledged")
    assert (shown["attempts"], shown["last_error"]) == (1, None)
    assert auto.puts() == ["acknowledged"]
    assert auto.gets() == 0


async def test_after_a_401_it_logs_in_once_and_repeats_the_put(auto: Installation) -> None:
    await auto.change(OTHER_ID)
    await auto.becomes("acknowledged", OTHER_ID)
    logins = auto.sim.calls["login"]
    auto.sim.expire_tokens()
    await auto.change()
    shown = await auto.becomes("acknowledged")
    assert shown["attempts"] == 1
    assert auto.sim.calls["login"] == logins + 1
    assert [call.status for call in auto.sim.puts if call.wa_id == WA_ID] == [401, 200]


async def test_a_401_for_fifty_at_once_is_one_login(auto: Installation) -> None:
    await auto.change(OTHER_ID)
    await auto.becomes("acknowledged", OTHER_ID)
    logins = auto.sim.calls["login"]
    auto.sim.expire_tokens()
    for number in range(50):
        await auto.change(f"16315554{number:03}")
    await until(lambda: sum(call.status == 200 for call in auto.sim.puts) == 51)
    assert auto.sim.calls["login"] == logins + 1


async def test_a_401_that_stays_is_no_login_loop_and_never_failed(auto: Installation) -> None:
    auto.sim.fault("identity_put", status=401)
    await auto.change()
    await tried(auto)
    for attempts in range(2, 7):
        auto.pass_time(301)
        await tried(auto, attempts)
    assert auto.sim.calls["login"] <= 2
    assert len(auto.sim.puts) <= 8
    auto.sim.clear_faults()
    auto.pass_time(301)
    await auto.becomes("acknowledged")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_429_or_503_had_no_effect_and_is_tried_again_without_end(
    auto: Installation, status: int
) -> None:
    auto.sim.fault("identity_put", status=status)
    await auto.change()
    shown = await tried(auto)
    assert str(status) in shown["last_error"]
    for attempts in range(2, 7):
        auto.pass_time(301)
        await tried(auto, attempts)
    assert auto.gets() == 0
    auto.sim.clear_faults()
    auto.pass_time(301)
    shown = await auto.becomes("acknowledged")
    assert (shown["attempts"], shown["last_error"]) == (7, None)


async def test_the_tries_come_about_one_and_two_seconds_apart(auto: Installation) -> None:
    auto.sim.fault("identity_put", status=503, times=2)
    await auto.change()
    await auto.becomes("acknowledged")
    first, second, third = (call.at for call in auto.sim.puts)
    assert 0.75 < second - first < 3
    assert 1.55 < third - second < 6


async def test_a_refused_connection_had_no_effect_and_is_tried_again(auto: Installation) -> None:
    hash_ = await auto.acknowledged()
    await auto.sim.stop()
    changed = await auto.change()
    assert changed != hash_
    shown = await tried(auto)
    assert "connection" in shown["last_error"]
    warnings = (await auto.gate())["warnings"]
    assert "account_unreachable" in [warning["code"] for warning in warnings]
    auto.pass_time(301)
    await tried(auto, 2)
    await auto.sim.start()
    auto.pass_time(301)
    await auto.becomes("acknowledged", hash_=changed)
    assert auto.puts() == ["acknowledged", "acknowledged"]
    assert (await auto.gate())["warnings"] == []


async def test_a_certificate_of_another_authority_has_no_effect_and_is_tried_again(
    install: Install, simulate: Start, tmp_path: Any
) -> None:
    made = await install(policy={"mode": "auto"})
    other = await simulate(var=tmp_path / "other")
    await made.stop()
    await made.start(accounts={"main": {"ca_file": str(other.ca_file)}})
    await made.change()
    await tried(made)
    assert len(made.sim.calls) == len([c for c in made.sim.calls if c.operation != "identity_put"])
    await made.stop()
    await made.start(accounts={"main": {"ca_file": str(made.sim.ca_file)}})
    made.pass_time(301)
    await made.becomes("acknowledged")


Unknown = dict[str, Any]
UNKNOWN: list[Unknown] = [
    {"status": 500},
    {"status": 502},
    {"hang": 5.0},
    {"drop": "before"},
    {"status": 302},
    {"body": ERRORS},
    {"body": PAGE},
    {"status": 202, "body": "no JSON"},
]


@pytest.mark.parametrize("fault", UNKNOWN, ids=str)
async def test_an_unknown_outcome_without_effect_is_found_by_a_get_and_tried_again_without_end(
    install: Install, fault: Unknown
) -> None:
    made = await install(policy={"mode": "auto"}, accounts=patience(fault))
    made.sim.fault("identity_put", times=5 if "hang" not in fault else 2, **fault)
    await made.change()
    await tried(made)
    assert made.gets() == 1
    tries = 4 if "hang" not in fault else 1
    for attempts in range(2, 2 + tries):
        made.pass_time(301)
        await tried(made, attempts)
    made.pass_time(301)
    shown = await made.becomes("acknowledged")
    assert (shown["attempts"], shown["last_error"]) == (tries + 2, None)
    assert made.puts() == ["no_effect"] * (tries + 1) + ["acknowledged"]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "effect": True},
        {"status": 404, "effect": True},
        {"status": 409, "effect": True},
        {"hang": 5.0, "effect": True},
        {"drop": "after"},
        {"body": ERRORS, "effect": True},
        {"body": PAGE, "effect": True},
        {"status": 201, "body": "no JSON", "effect": True},
    ],
    ids=str,
)
async def test_an_unknown_outcome_with_effect_is_found_by_a_get_and_not_repeated(
    install: Install, fault: Unknown
) -> None:
    made = await install(policy={"mode": "auto"}, accounts=patience(fault))
    made.sim.fault("identity_put", times=1, **fault)
    await made.change()
    shown = await made.becomes("acknowledged")
    assert (shown["attempts"], shown["last_error"]) == (1, None)
    assert shown["decided_by"] == {"kind": "policy", "name": "default"}
    assert made.puts() == ["acknowledged"]
    assert made.gets() == 1


async def test_where_the_get_is_not_answered_either_a_get_comes_before_the_next_put(
    auto: Installation,
) -> None:
    auto.sim.fault("identity_put", drop="after", times=1)
    auto.sim.fault("identity_get", status=500, times=2)
    await auto.change()
    await tried(auto)
    auto.pass_time(301)
    await tried(auto, 2)
    assert auto.puts() == ["acknowledged"]
    auto.pass_time(301)
    await auto.becomes("acknowledged")
    assert auto.puts() == ["acknowledged"]
    assert auto.gets() == 3


def denied(hash_: str) -> str:
    """Write the identity as acknowledged, and beside it that this is no answer."""
    identity = {"hash": hash_, "created_timestamp": 1_600_000_000_000, "acknowledged": True}
    return json.dumps({"contacts": identity, "errors": [{"code": 1000}]})


@pytest.mark.parametrize("answer", ["errors", "page", "page with 404"])
async def test_what_is_no_answer_to_a_get_opens_no_gate(manual: Installation, answer: str) -> None:
    hash_ = await manual.acknowledged()
    body = denied(hash_) if answer == "errors" else PAGE
    status = 404 if answer == "page with 404" else 200
    manual.sim.fault("identity_get", status=status, body=body)
    before = manual.gets()
    await manual.deliver(blocked(WA_ID))
    for tries in range(1, 4):
        await until(lambda at_least=before + tries: manual.gets() >= at_least)
        manual.pass_time(301)
    assert await manual.reasons() == ["send_blocked"]
    assert (await manual.refresh())[0] == 502
    assert await manual.reasons() == ["send_blocked"]
    manual.sim.clear_faults()
    assert (await manual.refresh())[0] == 200
    assert await manual.reasons() == []


@pytest.mark.parametrize("answer", ["errors", "page", "page with 404"])
async def test_what_is_no_answer_to_a_get_ends_no_acknowledgement(
    auto: Installation, answer: str
) -> None:
    hash_ = auto.sim.change_identity(WA_ID, notify=False)
    body = denied(hash_) if answer == "errors" else PAGE
    auto.sim.fault("identity_put", status=500)
    auto.sim.fault("identity_get", status=404 if answer == "page with 404" else 200, body=body)
    await auto.deliver(notice(WA_ID, hash_, auto.sim.users[WA_ID].created_timestamp))
    for attempts in range(1, 4):
        await tried(auto, attempts)
        auto.pass_time(301)
    auto.sim.clear_faults()
    auto.pass_time(301)
    await auto.becomes("acknowledged")
    assert auto.puts() == ["no_effect", "acknowledged"]


@pytest.mark.parametrize("status", [409, 404, 400])
async def test_a_refused_hash_that_is_not_the_latest_there_makes_the_other_a_change(
    install: Install, status: int
) -> None:
    made = await install(
        sim_options={"stale_hash_status": status},
        policy={"mode": "manual"},
    )
    stale = await made.change()
    latest = made.sim.change_identity(WA_ID, notify=False)
    code, problem = await made.acknowledge(stale, query="?wait=5")
    assert (code, problem["identity"]["hash"]) == (409, latest)
    shown = await made.identity()
    assert (shown["hash"], shown["state"], shown["decided_by"]) == (latest, "pending", None)
    assert [(e["hash"], e["outcome"]) for e in shown["history"]] == [(stale, "superseded")]
    assert made.puts() == ["stale"]
    assert len(await made.audit(event="changed")) == 2


async def test_with_policy_the_other_hash_is_acknowledged_in_turn(auto: Installation) -> None:
    auto.sim.fault("identity_put", latency=0.2, times=1)
    stale = await auto.change()
    latest = auto.sim.change_identity(WA_ID, notify=False)
    shown = await auto.becomes("acknowledged", hash_=latest)
    assert [e["hash"] for e in shown["history"]] == [stale]
    assert auto.puts() == ["stale", "acknowledged"]


async def test_where_the_get_knows_no_identity_it_failed(auto: Installation) -> None:
    hash_ = await auto.change(OTHER_ID)
    await auto.becomes("acknowledged", OTHER_ID, hash_)
    auto.sim.fault("identity_put", latency=0.1, times=1)
    await auto.change()
    del auto.sim.users[WA_ID]
    shown = await auto.becomes("failed")
    assert (shown["attempts"], shown["blocking"]) == (1, True)
    assert "404" in shown["last_error"]
    assert auto.puts() == ["unknown_user"]
    assert await auto.reasons() == ["identity_failed"]
    auto.pass_time(600)
    assert auto.puts() == ["unknown_user"]
    [entry] = await auto.audit(event="failed")
    assert "404" in entry["reason"]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 418])
async def test_any_other_4xx_is_tried_three_times_at_most_and_then_failed(
    auto: Installation, status: int
) -> None:
    auto.sim.fault("identity_put", status=status)
    await auto.change()
    shown = await tried(auto)
    assert str(status) in shown["last_error"]
    auto.pass_time(301)
    await tried(auto, 2)
    auto.pass_time(301)
    shown = await auto.becomes("failed")
    assert shown["attempts"] == 3
    auto.pass_time(3600)
    assert await auto.state() == "failed"
    assert auto.puts() == ["no_effect"] * 3
    assert auto.gets() == 3


async def test_a_person_begins_anew_after_a_failure_with_attempts_from_0(
    auto: Installation,
) -> None:
    auto.sim.fault("identity_put", status=400, times=5)
    hash_ = await auto.change()
    for attempts in (1, 2):
        await tried(auto, attempts)
        auto.pass_time(301)
    await auto.becomes("failed")
    status, shown = await auto.acknowledge(hash_)
    assert (status, shown["state"], shown["attempts"]) == (202, "acknowledging", 0)
    for attempts in (1, 2):
        await tried(auto, attempts)
        auto.pass_time(301)
    shown = await auto.becomes("acknowledged")
    assert shown["attempts"] == 3


async def test_5xx_in_between_does_not_count_towards_the_three_refusals(
    auto: Installation,
) -> None:
    auto.sim.fault("identity_put", status=400, times=2)
    auto.sim.fault("identity_put", status=500, times=3)
    await auto.change()
    for attempts in range(1, 6):
        await tried(auto, attempts)
        auto.pass_time(301)
    await auto.becomes("acknowledged")


async def test_a_refused_login_pauses_the_account_and_its_work_waits(
    install: Install, simulate: Start
) -> None:
    other = await simulate()
    account = {
        "base_url": other.base_url,
        "username": "ackgate",
        "password": "development-only",
        "ca_file": str(other.ca_file),
        "webhook_token": "the-token-of-another-account",
    }
    made = await install(policy={"mode": "auto"}, accounts={"other": account})
    made.sim.change_password("another one")
    hash_ = await made.change()
    status = await until(lambda: _login_refused(made))
    assert status["retry_in_seconds"] > 50
    logins = made.sim.calls["login"]
    calls = len(made.sim.calls)
    began = time.monotonic()
    for number in range(5):
        await made.change(f"16315554{number:03}")
        other.change_identity(f"16315555{number:03}", notify=False)
    made.pass_time(30)
    await until(lambda: time.monotonic() - began > 1.2)
    assert made.sim.calls["login"] == logins
    assert len(made.sim.calls) == calls
    shown = await made.identity()
    assert (shown["state"], shown["hash"], shown["attempts"]) == ("acknowledging", hash_, 0)
    assert await made.reasons() == ["identity_acknowledging"]
    assert (await made.api("GET", "/health/ready"))[0] == 200
    _, health = await made.api("GET", "/health/status")
    assert (health["status"], health["checks"]["login:main"]["status"]) == ("warn", "warn")
    assert health["checks"]["login:other"]["status"] == "pass"
    assert (await made.refresh())[0] == 502
    assert made.sim.calls["login"] == logins
    made.sim.change_password("development-only")
    await made.stop()
    await made.start()
    await made.becomes("acknowledged")


async def _login_refused(made: Installation) -> Json | None:
    _, account = await made.api("GET", "/accounts/main")
    login: Json = account["login"]
    return login if login["state"] == "refused" else None


async def test_an_account_that_is_paused_holds_up_no_other(
    install: Install, simulate: Start
) -> None:
    other = await simulate(password="of the other")
    account = {
        "base_url": other.base_url,
        "username": "ackgate",
        "password": "wrong",
        "ca_file": str(other.ca_file),
        "webhook_token": "the-token-of-another-account",
    }
    made = await install(policy={"mode": "auto"}, accounts={"other": account})
    await until(lambda: other.calls["login"] == 1)
    await made.change()
    await made.becomes("acknowledged")


@pytest.mark.parametrize("effect", [True, False])
async def test_what_was_under_way_when_it_stopped_is_settled_by_a_get_first(
    auto: Installation, effect: bool
) -> None:
    auto.sim.fault("identity_put", hang=30, effect=effect, times=1)
    await auto.change()
    await auto.put_under_way()
    await auto.stop()
    await auto.start()
    auto.pass_time(11)  # on PostgreSQL the lease of before lasts that long
    await auto.becomes("acknowledged")
    own = [call.operation for call in auto.sim.calls if call.wa_id == WA_ID]
    assert own == ["identity_put", "identity_get", *([] if effect else ["identity_put"])]


async def change_at(child: Child, sim: Any) -> None:
    sim.webhook_url = child.base + "/webhooks/main/a-token-that-only-tests-know"
    sim.change_identity(WA_ID)
    await sim.settled()


@pytest.mark.slow
@pytest.mark.parametrize("effect", [True, False])
async def test_after_a_kill_9_a_put_that_may_have_begun_is_settled_by_a_get_first(
    simulate: Start, spawn: Spawn, tmp_path: Any, effect: bool
) -> None:
    sim = await simulate()
    sim.fault("identity_put", hang=60, effect=effect, times=1)
    child = await spawn(tree_for(sim, tmp_path) | {"policy": {"mode": "auto"}})
    await change_at(child, sim)
    await until(lambda: sim.calls.in_flight["identity_put"] == 1)
    await child.kill()
    await child.start()
    shown = await child.becomes("acknowledged")
    own = [call.operation for call in sim.calls if call.wa_id == WA_ID]
    assert own == ["identity_put", "identity_get", *([] if effect else ["identity_put"])]
    assert shown["decided_by"] == {"kind": "policy", "name": "default"}
    assert sim.users[WA_ID].acknowledged is True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "calls"),
    [
        ("acknowledge.after_lease", ["identity_put"]),
        ("acknowledge.before_begin", ["identity_put"]),
        ("acknowledge.before_put", ["identity_get", "identity_put"]),
        ("acknowledge.after_put", ["identity_put", "identity_get"]),
    ],
)
async def test_after_a_kill_a_get_comes_first_if_a_put_had_begun(
    simulate: Start, spawn: Spawn, tmp_path: Any, point: str, calls: list[str]
) -> None:
    sim = await simulate()
    tree = tree_for(sim, tmp_path) | {"policy": {"mode": "auto"}}
    child = await spawn(tree, env={"ACKGATE_KILL_AT": point})
    sim.webhook_url = child.base + "/webhooks/main/a-token-that-only-tests-know"
    sim.change_identity(WA_ID)
    assert await child.ended() == -signal.SIGKILL
    child.env = {}
    await child.start()
    sim.webhook_url = child.base + "/webhooks/main/a-token-that-only-tests-know"
    await child.becomes("acknowledged")
    assert [call.operation for call in sim.calls if call.wa_id == WA_ID] == calls


# The login


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"drop": "before"},
        {"body": "{}"},
        {"body": "no JSON"},
        {"body": PAGE},
        {"body": '{"users":[{"token":"a-token"}],"errors":[{"code":1000}]}'},
    ],
    ids=str,
)
async def test_a_login_without_an_answer_to_go_by_is_tried_again_and_nothing_failed(
    prepare: Install, fault: Unknown
) -> None:
    made = await prepare(policy={"mode": "auto"})
    made.sim.fault("login", **fault)
    await made.start()
    await made.change()
    for attempts in range(1, 5):
        await tried(made, attempts)
        made.pass_time(301)
    made.sim.clear_faults()
    made.pass_time(301)
    await made.becomes("acknowledged")
    assert made.puts() == ["acknowledged"]


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_refused_login_is_tried_again_after_a_pause_that_grows(
    prepare: Install, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(session, "FIRST_PAUSE_SECONDS", 0.2)
    made = await prepare(policy={"mode": "auto"})
    made.sim.fault("login", status=status, times=3)
    await made.start()
    await made.change()
    shown = await made.becomes("acknowledged")
    assert (shown["attempts"], made.puts()) == (1, ["acknowledged"])
    logins = [call.at for call in made.sim.calls.of("login")]
    pauses = [after - before for before, after in pairwise(logins)]
    assert len(pauses) == 3
    assert [pause > least for pause, least in zip(pauses, (0.19, 0.39, 0.79), strict=True)] == [
        True
    ] * 3


async def test_a_token_is_renewed_before_it_expires(install: Install) -> None:
    made = await install(sim_options={"token_seconds": 4}, policy={"mode": "auto"})
    await made.change()
    await made.becomes("acknowledged")
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 2.1)
    await made.change(OTHER_ID)
    await made.becomes("acknowledged", OTHER_ID)
    assert made.sim.calls["login"] == 2
    assert [call.status for call in made.sim.puts] == [200, 200]


# How the client is called


async def test_no_more_calls_are_under_way_than_allowed(install: Install) -> None:
    made = await install(
        policy={"mode": "auto"},
        accounts={"main": {"max_in_flight": 3}},
    )
    made.sim.fault("identity_put", latency=0.2)
    for number in range(20):
        await made.change(f"16315554{number:03}")
    await until(lambda: len([c for c in made.sim.puts if c.outcome == "acknowledged"]) == 20)
    assert made.sim.calls.most_in_flight["identity_put"] == 3


async def test_a_request_id_goes_from_the_endpoint_to_the_put(auto: Installation) -> None:
    hash_ = auto.sim.change_identity(WA_ID, notify=False)
    body = notice(WA_ID, hash_, auto.sim.users[WA_ID].created_timestamp)
    assert await auto.post(body, headers={"X-Request-ID": "from-the-endpoint"}) == 200
    await auto.becomes("acknowledged")
    assert [call.request_id for call in auto.sim.puts] == ["from-the-endpoint"]


@pytest.mark.parametrize("hash_", ["/+=/", '"\\', "é✓ 漢", "x" * 1024, "%2F", "' OR 1=1 --"])
@pytest.mark.parametrize("wa_id", ["16315553601", "a.b-c_d", "1" * 140])
async def test_any_usable_hash_and_user_go_out_as_they_came(
    auto: Installation, hash_: str, wa_id: str
) -> None:
    await auto.change(wa_id, hash_)
    await auto.becomes("acknowledged", wa_id, hash_)
    assert [(call.wa_id, call.hash) for call in auto.sim.puts] == [(wa_id, hash_)]


async def test_a_certificate_need_not_be_verified_on_this_machine(install: Install) -> None:
    made = await install(
        policy={"mode": "auto"}, accounts={"main": {"verify_tls": False, "ca_file": None}}
    )
    await made.change()
    await made.becomes("acknowledged")
