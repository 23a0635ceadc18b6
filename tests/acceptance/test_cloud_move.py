"""An account moves from an On-Premises client to the Cloud API, its state kept."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import func, select

from service.store import upgrades
from service.store.database import StoreError
from service.store.opening import open_database
from service.store.schema import outbox
from service.store.upgrades import OLDEST_KEY
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    TOKEN,
    CloudInstallation,
    Json,
    OpenShop,
    blocked,
    cloud_account,
    hour_ago,
    notice,
    until,
    vague_notice,
)
from tests.acceptance.webhooks import mismatch, system, told, wrote

PENDING, HELD, ACKNOWLEDGED, ACKNOWLEDGING, BLOCKED, SCHEDULED, FAILED, DISPUTED, CHECKED = (
    str(16315550001 + number) for number in range(9)
)
OF_THE_CLIENT = {"username": None, "password": None, "webhook_token": None, "max_in_flight": None}
RULE: Json = {"name": "slow", "wa_ids": [SCHEDULED], "mode": "auto", "delay_seconds": 3600}
NOBODY_ASKED = "a message had been blocked when the account moved to the Cloud API"


async def before_the_move(prepare_shop: OpenShop) -> CloudInstallation:
    """Start with a client alone; give the installation, asking about the account `main`."""
    made = await prepare_shop(
        apps=None,
        accounts={"shop": None, "outlet": None, "main": {"policy": {"rules": [RULE]}}},
    )
    await made.start()
    made.account = "main"
    return made


async def move(made: CloudInstallation, **more: Any) -> None:
    """Stop, make the account one of the Cloud API under the same name, and start."""
    await made.stop()
    app = {"meta": {"app_secret": "0123456789abcdef" * 2, "verify_token": "a-verify-token"}}
    await made.start(
        apps=app,
        accounts={"main": {**OF_THE_CLIENT, **cloud_account(made.sim), **more}},
        # It looks again: a first look may come before the app has its webhook.
        inspector={"every_seconds": 0.1},
    )


async def work_left(made: CloudInstallation) -> int:
    assert made.service is not None
    assert made.service.context is not None
    query = select(func.count()).select_from(outbox)
    return int(await made.service.context.database.read(lambda c: c.execute(query).scalar() or 0))


async def changed(made: CloudInstallation, user: str, hash_: str = HASH_A) -> None:
    made.sim.change_identity(user, hash_, hour_ago(), notify=False)
    await made.deliver(notice(user, hash_, hour_ago()))


async def in_every_state(made: CloudInstallation) -> None:
    """Let there be a user in every state that a client can leave behind, each with a history."""
    for user in (PENDING, HELD, ACKNOWLEDGING, SCHEDULED, FAILED):
        await made.deliver(notice(user, HASH_C, hour_ago(-60)))
        await changed(made, user)
    for user in (ACKNOWLEDGED, BLOCKED):
        await changed(made, user)
        await made.acknowledge(HASH_A, user, query="?wait=10", note="called back")
    await made.hold(HASH_A, HELD, note="wait")
    made.sim.fault("identity_put", wa_id=ACKNOWLEDGING, status=503)
    await made.acknowledge(HASH_A, ACKNOWLEDGING, on_behalf_of="Ana")
    made.sim.fault("identity_put", wa_id=FAILED, status=400)
    made.sim.fault("identity_get", wa_id=FAILED, status=404)
    await made.acknowledge(HASH_A, FAILED)
    await made.becomes("failed", FAILED)
    made.sim.fault("identity_get", status=503)
    await made.deliver(blocked(BLOCKED))
    await made.deliver(vague_notice(DISPUTED, HASH_A, hour_ago()))
    await made.deliver(vague_notice(DISPUTED, HASH_B, hour_ago()))
    path = f"/accounts/main/recipients/{ACKNOWLEDGED}/block"
    await made.api("PUT", path, {"reason": "asked us to stop"})


USERS = (PENDING, HELD, ACKNOWLEDGED, ACKNOWLEDGING, BLOCKED, SCHEDULED, FAILED, DISPUTED)


@pytest.fixture
async def made(prepare_shop: OpenShop) -> CloudInstallation:
    made = await before_the_move(prepare_shop)
    await in_every_state(made)
    return made


async def test_identities_their_history_and_their_trail_are_readable_as_before(
    made: CloudInstallation,
) -> None:
    before = {user: await made.identity(user) for user in USERS}
    states = {user: identity["state"] for user, identity in before.items()}
    assert [states[user] for user in USERS] == [
        "pending", "held", "acknowledged", "acknowledging",
        "acknowledged", "scheduled", "failed", "pending",
    ]  # fmt: skip
    _, trail = await made.api("GET", "/audit?account=main")
    await move(made)
    for user in USERS:
        after = await made.identity(user)
        assert after["history"] == before[user]["history"]
        assert after["audit"][: len(before[user]["audit"])] == before[user]["audit"]
        assert after["hash"] == before[user]["hash"]
        if user not in (ACKNOWLEDGING, BLOCKED):
            assert after == before[user]
    _, now = await made.api("GET", "/audit?account=main")
    assert now["items"][: len(trail["items"])] == trail["items"]
    _, account = await made.api("GET", "/accounts/main")
    assert account["kind"] == "cloud"


async def test_blocks_by_hand_stay(made: CloudInstallation) -> None:
    await move(made)
    assert await made.reasons(ACKNOWLEDGED) == ["blocked"]
    await made.api("DELETE", f"/accounts/main/recipients/{ACKNOWLEDGED}/block")
    assert (await made.gate(ACKNOWLEDGED))["identity_key_hash"] == HASH_A


async def test_what_was_decided_is_in_effect_and_the_decider_stays(
    made: CloudInstallation,
) -> None:
    before = await made.identity(ACKNOWLEDGING)
    await move(made)
    after = await made.identity(ACKNOWLEDGING)
    assert (after["state"], after["decided_by"]) == ("acknowledged", before["decided_by"])
    assert after["decided_by"]["on_behalf_of"] == "Ana"
    assert (await made.gate(ACKNOWLEDGING))["identity_key_hash"] == HASH_A


async def test_who_was_blocked_by_a_480_waits_for_a_person(made: CloudInstallation) -> None:
    assert await made.reasons(BLOCKED) == ["send_blocked"]
    await move(made)
    after = await made.identity(BLOCKED)
    assert after["state"] == "pending"
    assert (after["audit"][-1]["event"], after["audit"][-1]["reason"]) == ("pending", NOBODY_ASKED)
    assert await made.reasons(BLOCKED) == ["identity_pending"]
    assert (await made.acknowledge(HASH_A, BLOCKED))[0] == 200
    assert (await made.gate(BLOCKED))["identity_key_hash"] == HASH_A


async def test_nothing_waits_for_ever(made: CloudInstallation) -> None:
    await move(made)
    assert await work_left(made) == 1, "what is scheduled comes due by itself"
    made.pass_time(3700)
    await made.becomes("acknowledged", SCHEDULED)
    assert await work_left(made) == 0
    for user in (PENDING, HELD, BLOCKED, FAILED, DISPUTED):
        hash_ = (await made.identity(user))["hash"]
        status, identity = await made.acknowledge(hash_, user)
        assert (status, identity["state"]) == (200, "acknowledged")
    for user in USERS:
        assert await made.reasons(user) == (["blocked"] if user == ACKNOWLEDGED else [])
    _, told_ = await made.api("GET", "/accounts/main")
    assert [kind["waiting"] for kind in told_["backlog"].values()] == [0, 0]

    async def passes() -> bool:
        _, answer = await made.api("GET", "/health/status")
        return bool(answer["status"] == "pass")

    await until(passes)


async def test_the_client_is_not_called_any_more(made: CloudInstallation) -> None:
    await made.stop()
    made.sim.calls.counts.clear()
    await move(made)
    await asyncio.sleep(0.2)
    assert not made.sim.calls.counts
    assert (await made.refresh(PENDING))[0] == 404
    assert (await made.api("POST", "/accounts/main/contacts", {"contacts": ["+1"]}))[0] == 404
    assert await made.post(notice(PENDING, HASH_B, hour_ago(60))) == 404
    assert await made.post({}, path=f"/webhooks/main/{TOKEN}") == 404


async def test_the_first_hash_after_the_move_is_a_change_like_any_by_policy(
    made: CloudInstallation,
) -> None:
    await move(made, policy={"mode": "auto", "max_changes": 100, "rules": []})
    await made.come(wrote(HASH_B, 60, wa_id=ACKNOWLEDGING, user_id="US.1"))
    after = await made.identity(ACKNOWLEDGING)
    assert (after["state"], after["hash"]) == ("acknowledged", HASH_B)
    assert (after["user_id"], after["decided_by"]["name"]) == ("US.1", "default")
    assert after["history"][0]["hash"] == HASH_A
    await made.come(wrote(HASH_B, 60, wa_id=HELD))
    assert await made.state(HELD) == "pending", "after a hold a person decides"


async def test_the_first_hash_after_the_move_waits_for_a_person_where_policy_says_so(
    made: CloudInstallation,
) -> None:
    await move(made)
    await made.come(wrote(HASH_B, 60, wa_id=BLOCKED))
    assert (await made.identity(BLOCKED))["state"] == "pending"
    await made.come(wrote(HASH_B, 60, wa_id=ACKNOWLEDGING))
    assert (await made.identity(ACKNOWLEDGING))["state"] == "pending"


async def test_a_hash_that_is_the_same_on_both_apis_is_no_change(
    made: CloudInstallation,
) -> None:
    await move(made)
    await made.come(wrote(HASH_A, 60, wa_id=ACKNOWLEDGING))
    assert await made.state(ACKNOWLEDGING) == "acknowledged"


async def test_a_137000_after_the_move_makes_the_clients_hash_unknown(
    made: CloudInstallation,
) -> None:
    await move(made)
    await made.come(told(mismatch(recipient_id=ACKNOWLEDGING)))
    after = await made.identity(ACKNOWLEDGING)
    assert (after["state"], after["hash"], after["history"][0]["hash"]) == ("pending", None, HASH_A)


async def test_who_was_never_heard_of_is_trusted_at_first_use(made: CloudInstallation) -> None:
    await move(made)
    await made.come(wrote(HASH_B, wa_id="16319999999"))
    by = {"kind": "policy", "name": "trust_first_use"}
    assert (await made.identity("16319999999"))["decided_by"] == by


async def test_number_changes_of_both_apis_are_links_of_the_same_users(
    made: CloudInstallation,
) -> None:
    await move(made)
    await made.come(system(60, ACKNOWLEDGING, type="user_changed_number", wa_id="16318880000"))
    assert await made.reasons(ACKNOWLEDGING) == ["number_changed"]


async def test_a_second_start_settles_nothing_twice(made: CloudInstallation) -> None:
    await move(made)
    before = {user: await made.identity(user) for user in USERS}
    await made.stop()
    await made.start()
    assert {user: await made.identity(user) for user in USERS} == before


async def test_the_journal_keeps_what_the_client_delivered(made: CloudInstallation) -> None:
    await made.deliver(b"no JSON")
    _, before = await made.api("GET", "/journal?account=main")
    await move(made)
    assert await made.api("GET", "/journal?account=main") == (200, before)
    _, kept = await made.api("GET", await made.entry())
    assert json.loads(kept["body"]) == notice(PENDING, HASH_C, hour_ago(-60))


async def test_a_callback_of_the_client_that_is_replayed_after_the_move_is_not_lost(
    made: CloudInstallation,
) -> None:
    """It can't be read as a webhook of the Cloud API: hence it is to be replayed before."""
    before = await made.identity(PENDING)
    await move(made)
    status, entry = await made.api("POST", f"{await made.entry()}/replay")
    assert (status, entry["state"]) == (200, "quarantined")
    _, kept = await made.api("GET", await made.entry())
    assert json.loads(kept["body"]) == notice(PENDING, HASH_C, hour_ago(-60))
    assert await made.identity(PENDING) == before


async def test_results_of_contact_checks_stay_and_a_check_that_is_open_ends(
    prepare_shop: OpenShop,
) -> None:
    made = await before_the_move(prepare_shop)
    path = "/accounts/main/contacts"
    await made.api("POST", path, {"contacts": ["+16315550009"], "blocking": "wait"})
    made.sim.fault("contacts", status=503)
    await made.api("POST", path, {"contacts": ["+16315550010"]})
    _, before = await made.api("GET", path)
    await move(made)
    _, after = await made.api("GET", path)
    (known, asked), (known_after, asked_after) = before["items"], after["items"]
    assert (known["status"], asked["status"], asked["checking"]) == ("valid", "processing", True)
    assert known_after == known
    assert (asked_after["status"], asked_after["checking"]) == ("failed", False)
    assert (await made.gate(CHECKED))["known"] is True


async def oldest(made: CloudInstallation) -> str:
    [(value,)] = await made.rows("SELECT value FROM installation WHERE key = :key", key=OLDEST_KEY)
    return str(value)


async def test_an_older_release_runs_on_the_database_until_there_is_an_account_of_the_cloud_api(
    prepare_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await before_the_move(prepare_shop)
    assert await oldest(made) == "0001"
    await move(made)
    await made.stop()
    monkeypatch.setattr(upgrades, "latest", lambda: "0004")
    with pytest.raises(StoreError, match="newer database"):
        await open_database(made.database_url)


async def test_the_oldest_release_that_can_run_on_the_database_never_becomes_older(
    prepare_shop: OpenShop,
) -> None:
    made = await before_the_move(prepare_shop)
    await made.stop()
    await made.write("UPDATE installation SET value = '0009' WHERE key = :key", key=OLDEST_KEY)
    await move(made)
    assert await oldest(made) == "0009"


@pytest.mark.parametrize("known_as", ["a user id", "a hash nobody knows", "an awaited hash"])
async def test_an_account_that_was_moved_back_with_users_of_the_cloud_api_does_not_start(
    prepare_shop: OpenShop, known_as: str
) -> None:
    made = await before_the_move(prepare_shop)
    client = made.tree["accounts"]["main"]
    await changed(made, PENDING)
    await move(made)
    if known_as == "a user id":
        await made.come(wrote(HASH_A, user_id="US.13491208655302741918"))
    else:
        await made.acknowledge(HASH_A, PENDING)
        await made.come(told(mismatch(recipient_id=PENDING)))
        if known_as == "an awaited hash":
            await made.acknowledge(None, PENDING)
    await made.stop()
    made.tree["accounts"]["main"] = client
    with pytest.raises(StoreError, match=r"^accounts\.main\.kind: .* only the Cloud API knows"):
        await made.start()


async def test_an_account_that_was_moved_back_before_anything_came_starts(
    prepare_shop: OpenShop,
) -> None:
    made = await before_the_move(prepare_shop)
    client = made.tree["accounts"]["main"]
    await changed(made, PENDING)
    await move(made)
    await made.stop()
    made.tree["accounts"]["main"] = client
    await made.start()
    assert (await made.identity(PENDING))["state"] == "pending"
