"""The main job: a callback in, the hash kept, the acknowledgement out."""

import asyncio
import json
import re
import stat
from pathlib import Path

import pytest

from tests.acceptance.conftest import (
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    Spawn,
    Start,
    notice,
    rows_of,
    tree_for,
    until,
    wrote,
)

PAYLOADS = Path(__file__).parents[1] / "payloads" / "onprem"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REFUSED = 1028


def payload(name: str) -> bytes:
    return (PAYLOADS / f"{name}.json").read_bytes()


async def test_policy_acknowledges_a_change_and_the_next_message_goes_through(
    auto: Installation,
) -> None:
    assert await auto.send() is None
    auto.sim.fault("identity_put", latency=0.3, times=1)
    hash_ = auto.sim.change_identity(WA_ID)
    assert await auto.send() == REFUSED
    await auto.sim.settled()
    assert await auto.reasons() == ["identity_acknowledging"]
    shown = await auto.becomes("acknowledged", hash_=hash_)
    assert await auto.send() is None
    assert shown["decided_by"] == {"kind": "policy", "name": "default"}
    assert auto.puts() == ["acknowledged"]
    assert (await auto.gate())["sendable"] is True


async def test_a_person_acknowledges_a_change_and_the_next_message_goes_through(
    manual: Installation,
) -> None:
    hash_ = manual.sim.change_identity(WA_ID)
    await manual.sim.settled()
    assert await manual.send() == REFUSED
    assert await manual.reasons() == ["identity_pending"]
    status, shown = await manual.acknowledge(hash_)
    assert (status, shown["state"] in {"acknowledging", "acknowledged"}) == (202, True)
    await manual.becomes("acknowledged")
    assert await manual.send() is None
    assert manual.puts() == ["acknowledged"]


async def test_policy_acknowledges_after_a_delay_and_not_before(install: Install) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 600})
    await made.change()
    shown = await made.identity()
    assert (shown["state"], shown["blocking"], shown["decided_by"]) == ("scheduled", True, None)
    assert shown["due_at"] is not None
    [reason] = (await made.gate())["reasons"]
    assert reason["code"] == "identity_scheduled"
    made.pass_time(590)
    assert await made.state() == "scheduled"
    assert made.puts() == []
    made.pass_time(11)
    shown = await made.becomes("acknowledged")
    assert (shown["due_at"], made.puts()) == (None, ["acknowledged"])


async def test_a_short_delay_passes_by_itself(install: Install) -> None:
    made = await install(policy={"mode": "auto", "delay_seconds": 0.4})
    await made.change()
    assert await made.state() == "scheduled"
    await made.becomes("acknowledged")


async def test_the_first_rule_that_names_a_user_decides(install: Install) -> None:
    rules = [
        {"name": "vip", "wa_ids": [WA_ID], "mode": "manual"},
        {"name": "friends", "wa_id_prefixes": ["1631555"], "mode": "auto"},
    ]
    made = await install(
        policy={"rules": rules, "mode": "manual"},
        accounts={
            "main": {
                "policy": {"rules": [{"name": "own", "wa_ids": ["99"], "mode": "auto"}]},
            }
        },
    )
    for wa_id in (WA_ID, OTHER_ID, "49170", "99"):
        await made.change(wa_id)
    decided = {w: (await made.becomes("acknowledged", w))["decided_by"] for w in (OTHER_ID, "99")}
    assert decided == {
        OTHER_ID: {"kind": "policy", "name": "friends"},
        "99": {"kind": "policy", "name": "own"},
    }
    assert [await made.state(w) for w in (WA_ID, "49170")] == ["pending", "pending"]


async def test_an_account_overrides_the_policy_key_by_key(install: Install) -> None:
    made = await install(
        policy={"mode": "manual", "delay_seconds": 600},
        accounts={"main": {"policy": {"mode": "auto"}}},
    )
    await made.change()
    assert await made.state() == "scheduled"


async def test_an_identity_has_every_field_of_the_contract(manual: Installation) -> None:
    hash_ = await manual.change()
    await manual.acknowledge(hash_, query="?wait=5")
    shown = await manual.identity()
    assert set(shown) == {
        *("account", "wa_id", "user_id", "hash", "state", "blocking", "changed_at"),
        *("received_at", "updated_at", "due_at", "decided_by", "decided_at"),
        *("acknowledged_at", "attempts", "last_error", "linked", "history", "audit"),
    }
    assert (shown["account"], shown["wa_id"], shown["user_id"]) == ("main", WA_ID, None)
    for name in ("changed_at", "received_at", "updated_at", "decided_at", "acknowledged_at"):
        assert RFC3339.fullmatch(shown[name]), name
    for entry in shown["audit"]:
        assert {"at", "event", "hash", "by", "reason", "note", "evidence"} <= set(entry)
    await manual.change()
    [former] = (await manual.identity())["history"]
    assert set(former) == {
        *("hash", "outcome", "changed_at", "received_at", "decided_by", "decided_at"),
        "acknowledged_at",
    }


async def test_the_same_notification_fifty_times_at_once_is_one_change_and_one_put(
    auto: Installation,
) -> None:
    hash_ = auto.sim.change_identity(WA_ID, notify=False)
    body = notice(WA_ID, hash_, auto.sim.users[WA_ID].created_timestamp)
    assert await asyncio.gather(*(auto.post(body) for _ in range(50))) == [200] * 50
    await auto.becomes("acknowledged")
    _, listed = await auto.api("GET", "/identities")
    assert len(listed["items"]) == 1
    assert len(await auto.audit(event="changed")) == 1
    assert (await auto.identity())["history"] == []
    assert auto.puts() == ["acknowledged"]
    _, kept = await auto.api("GET", "/journal")
    assert len(kept["items"]) == 50


async def test_a_200_means_that_the_gate_is_closed_already(manual: Installation) -> None:
    for number in range(30):
        wa_id = f"16315554{number:03}"
        await manual.change(wa_id)
        assert (await manual.gate(wa_id))["sendable"] is False


async def test_callbacks_at_once_for_many_users_are_all_in_effect(auto: Installation) -> None:
    hashes = {f"1631556{n:04}": auto.sim.change_identity(f"1631556{n:04}") for n in range(200)}
    await auto.sim.settled()
    await until(lambda: all(auto.sim.users[wa_id].acknowledged for wa_id in hashes))
    await until(lambda: _all_acknowledged(auto, 200))
    assert len(auto.sim.puts) == 200


async def _all_acknowledged(made: Installation, count: int) -> bool:
    _, status = await made.api("GET", "/status")
    return bool(status["counts"]["acknowledged"] == count)


async def test_callbacks_that_are_repeated_and_lost_on_the_way_end_right(
    auto: Installation,
) -> None:
    auto.sim.fault("callback_identity", repeat=4, times=1)
    auto.sim.fault("callback_identity", lose=True, times=1)
    auto.sim.change_identity(WA_ID)
    lost = auto.sim.change_identity(OTHER_ID)
    await auto.sim.settled()
    await auto.becomes("acknowledged")
    assert await auto.identity(OTHER_ID) == {}
    auto.sim.write(OTHER_ID, "hello")
    await auto.becomes("acknowledged", OTHER_ID, lost)
    assert len(auto.sim.puts) == 2


async def test_what_the_client_could_not_deliver_it_delivers_after_the_start(
    auto: Installation,
) -> None:
    await auto.stop()
    hash_ = auto.sim.change_identity(WA_ID)
    await until(lambda: auto.sim.callbacks[0].attempts > 0)
    await auto.start()
    await auto.becomes("acknowledged", hash_=hash_)


# Every payload of the wire page


async def test_payload_identity_changed(manual: Installation) -> None:
    await manual.deliver(payload("identity-changed"))
    shown = await manual.identity()
    assert (shown["hash"], shown["state"]) == ("Rc/eg9Rl0JA=", "pending")
    assert shown["changed_at"] == "2020-10-12T20:42:36.332Z"
    assert await manual.reasons() == ["identity_pending"]


async def test_payload_message_with_identity_speaks_of_who_sent_it(manual: Installation) -> None:
    manual.sim.set_user(WA_ID, hash="Sjvjlx8G6Z0=")
    await manual.deliver(payload("message-with-identity"))
    shown = await manual.becomes("acknowledged")
    assert (shown["hash"], shown["decided_by"]) == ("Sjvjlx8G6Z0=", {"kind": "client"})
    assert shown["changed_at"] == "2020-10-12T19:51:40.000Z"
    assert manual.gets() == 1
    card = await manual.gate("16315551234")
    assert card["known"] is False
    assert (await manual.gate())["known"] is True


async def test_payload_number_changed(manual: Installation) -> None:
    await manual.deliver(payload("number-changed"))
    [reason] = (await manual.gate("16315558889"))["reasons"]
    assert (reason["code"], reason["wa_id"]) == ("number_changed", "16315558890")
    assert reason["since"] == "2019-11-18T12:28:22.213Z"
    assert (await manual.gate("16315558890"))["sendable"] is True


async def test_payload_status_blocked(manual: Installation) -> None:
    manual.sim.set_user(WA_ID, hash="Rc/eg9Rl0JA=", acknowledged=False, created_timestamp=1)
    manual.sim.fault("identity_get", latency=0.2, times=1)
    await manual.deliver(payload("status-blocked"))
    assert await manual.reasons() == ["send_blocked"]
    shown = await manual.becomes("pending")
    assert shown["hash"] == "Rc/eg9Rl0JA="
    assert await manual.reasons() == ["identity_pending"]


async def test_payload_contact_check(manual: Installation) -> None:
    await manual.deliver(payload("contact-check"))
    _, listed = await manual.api("GET", "/accounts/main/contacts")
    shown = [(c["input"], c["status"], c["wa_id"]) for c in listed["items"]]
    assert shown == [
        ("+1 631 555 1001", "valid", "16315551001"),
        ("6315551002", "invalid", None),
    ]
    body = {"recipients": ["+1 631 555 1001", "6315551002"]}
    _, looked = await manual.api("POST", "/accounts/main/recipients/lookup", body)
    assert [item["sendable"] for item in looked["items"]] == [True, False]


async def test_payload_text_makes_a_user_known(manual: Installation) -> None:
    await manual.deliver(payload("text"))
    answer = await manual.gate("79944065555")
    assert (answer["known"], answer["sendable"], answer["warnings"]) == (True, True, [])
    assert await manual.identity("79944065555") == {}


@pytest.mark.parametrize("name", ["status-delivered", "error"])
async def test_payload_without_anything_for_us_is_kept_and_does_nothing(
    manual: Installation, name: str
) -> None:
    await manual.deliver(payload(name))
    _, listed = await manual.api("GET", "/journal")
    [entry] = listed["items"]
    assert (entry["state"], entry["account"]) == ("applied", "main")
    _, whole = await manual.api("GET", f"/journal/{entry['id']}")
    assert whole["body"].encode() == payload(name)
    _, identities = await manual.api("GET", "/identities")
    assert identities["items"] == []
    assert (await manual.gate("16315555555"))["known"] is False


def test_every_payload_has_a_test() -> None:
    names = {file.stem.replace("-", "_") for file in PAYLOADS.glob("*.json")}
    assert names == {
        *("contact_check", "error", "identity_changed", "message_with_identity"),
        *("number_changed", "status_blocked", "status_delivered", "text"),
    }


async def test_all_payloads_in_one_body_are_in_effect_together(manual: Installation) -> None:
    body: dict[str, list[object]] = {}
    for file in sorted(PAYLOADS.glob("*.json")):
        for key, elements in json.loads(file.read_bytes()).items():
            body.setdefault(key, []).extend(elements)
    await manual.deliver(body)
    assert (await manual.identity())["hash"] == "Rc/eg9Rl0JA="
    assert (await manual.gate("79944065555"))["known"] is True
    assert (await manual.gate("16315558889"))["sendable"] is False
    assert await manual.quarantined() == []


# The real command


async def test_the_command_does_the_main_job_and_keeps_it_over_a_restart(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    tree = tree_for(sim, tmp_path) | {"policy": {"mode": "auto"}}
    child = await spawn(tree)
    sim.webhook_url = f"{child.base}/webhooks/main/a-token-that-only-tests-know"
    hash_ = sim.change_identity(WA_ID)
    await sim.settled()
    shown = await child.becomes("acknowledged", hash_=hash_)
    await child.deliver(wrote(OTHER_ID, "xyz", 1_602_532_300_000))
    await child.kill()
    await child.start()
    assert await child.identity() == shown
    assert (await child.gate(OTHER_ID))["known"] is True
    assert [call.outcome for call in sim.puts if call.wa_id == WA_ID] == ["acknowledged"]


@pytest.mark.sqlite
async def test_the_files_of_the_command_s_database_are_its_user_s_alone(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    child = await spawn(tree_for(await simulate(), tmp_path))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("ackgate.db*")}
    assert modes == {0o600}
    assert await rows_of(child.database_url, "PRAGMA journal_mode") == [("wal",)]
