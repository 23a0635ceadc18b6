"""The states of an identity on the Cloud API: what makes them, and what a person decides there."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    HOUR_AGO,
    OTHER_NUMBER,
    SHEENA,
    USER_ID,
    WA_ID,
    CloudInstallation,
    Json,
    OpenShop,
    hour_ago,
    notice,
    rfc3339,
)
from tests.acceptance.webhooks import contact, mismatch, status, told, wrote

NOBODYS_ID = "wamid.T1BBUVVF"
"""The id of a message that tells nobody for whom it was."""
AUTO: Json = {"mode": "auto", "max_changes": 100}
DELAYED: Json = {"mode": "auto", "delay_seconds": 3600, "max_changes": 100}


async def shown(shop: CloudInstallation, user: str = SHEENA) -> tuple[Any, ...]:
    """Give the state and the hash of a user, and the hash that the gate has a sender send along."""
    identity, gate = await shop.identity(user), await shop.gate(user)
    return identity["state"], identity["hash"], gate["sendable"], gate["identity_key_hash"]


async def trusted(shop: CloudInstallation, hash_: str = HASH_A) -> None:
    shop.meta.set_user(SHEENA, user_id=USER_ID)
    await shop.come(wrote(hash_, wa_id=SHEENA, user_id=USER_ID))
    assert await shown(shop) == ("acknowledged", hash_, True, hash_)


async def unknown_hash(shop: CloudInstallation) -> None:
    """Let a trusted hash have been refused, and the new one not be told."""
    await trusted(shop)
    await shop.come(told(mismatch(recipient_id=SHEENA)))
    assert await shown(shop) == ("pending", None, False, None)


class TestTheFirstHash:
    @pytest.mark.parametrize("policy", [{"mode": "manual"}, DELAYED, AUTO], ids=str)
    async def test_is_trusted_whatever_the_policy_is(
        self, open_shop: OpenShop, policy: Json
    ) -> None:
        shop = await open_shop(accounts={"shop": {"policy": policy}})
        await trusted(shop)
        by = {"kind": "policy", "name": "trust_first_use"}
        assert (await shop.identity(SHEENA))["decided_by"] == by

    async def test_that_is_not_trusted_waits_for_a_person_where_policy_says_so(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"trust_first_use": False}})
        await shop.come(wrote(HASH_A))
        assert await shown(shop) == ("pending", HASH_A, False, None)
        assert await shop.reasons(SHEENA) == ["identity_pending"]
        assert [entry["event"] for entry in await shop.audit(SHEENA)] == ["changed"]
        status_, identity = await shop.acknowledge(HASH_A, SHEENA)
        assert (status_, identity["state"]) == (200, "acknowledged")
        assert identity["decided_by"] == {"kind": "key", "name": "local"}
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)

    async def test_that_is_not_trusted_is_acknowledged_at_once_by_an_automatic_policy(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"trust_first_use": False, "policy": AUTO}})
        await shop.come(wrote(HASH_A))
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)
        identity = await shop.identity(SHEENA)
        assert identity["decided_by"] == {"kind": "policy", "name": "default"}
        events = [entry["event"] for entry in identity["audit"]]
        assert events == ["changed", "decided", "acknowledged"]

    async def test_that_is_scheduled_comes_due_without_any_client(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"trust_first_use": False, "policy": DELAYED}})
        await shop.come(wrote(HASH_A))
        assert await shown(shop) == ("scheduled", HASH_A, False, None)
        assert await shop.reasons(SHEENA) == ["identity_scheduled"]
        shop.pass_time(3599)
        assert await shop.state(SHEENA) == "scheduled"
        shop.pass_time(2)
        await shop.becomes("acknowledged", SHEENA)
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)
        assert {call.method for call in shop.meta.calls.of("number")} <= {"GET"}
        assert not shop.sim.puts

    async def test_that_was_scheduled_comes_due_after_a_restart(self, open_shop: OpenShop) -> None:
        policy = {**DELAYED, "delay_seconds": 0.5}
        shop = await open_shop(accounts={"shop": {"trust_first_use": False, "policy": policy}})
        await shop.come(wrote(HASH_A))
        await shop.stop()
        await shop.start()
        await shop.becomes("acknowledged", SHEENA)

    async def test_may_be_told_by_the_status_of_a_message_that_was_sent_without(
        self, shop: CloudInstallation
    ) -> None:
        message = await shop.send_along()
        assert message.outcome == "delivered"
        hash_ = shop.meta.users[SHEENA].hash
        assert await shown(shop) == ("acknowledged", hash_, True, hash_)


class TestAChangedHash:
    async def test_in_a_message_waits_for_a_person(self, shop: CloudInstallation) -> None:
        await trusted(shop)
        await shop.come(wrote(HASH_B, 60))
        assert await shown(shop) == ("pending", HASH_B, False, None)
        identity = await shop.identity(SHEENA)
        assert identity["changed_at"] == rfc3339(hour_ago(60))
        [before] = identity["history"]
        assert (before["hash"], before["outcome"]) == (HASH_A, "superseded")
        assert before["decided_by"] == {"kind": "policy", "name": "trust_first_use"}

    @pytest.mark.parametrize("state", ["sent", "delivered", "read"])
    async def test_in_a_status_waits_for_a_person(
        self, shop: CloudInstallation, state: str
    ) -> None:
        await trusted(shop)
        await shop.come(told(status(state, 60, hash_=HASH_B, recipient_user_id=USER_ID)))
        assert await shown(shop) == ("pending", HASH_B, False, None)

    async def test_of_a_reinstalled_app_is_seen_as_soon_as_the_user_writes(
        self, shop: CloudInstallation
    ) -> None:
        at = HOUR_AGO / 1000
        shop.meta.write(SHEENA, "Hello", at=at)
        new = shop.meta.reinstall(SHEENA)
        await shop.meta.settled()
        assert await shop.state(SHEENA) == "acknowledged"
        shop.meta.write(SHEENA, "It's me", at=at + 60)
        await shop.meta.settled()
        assert await shown(shop) == ("pending", new, False, None)

    async def test_is_acknowledged_at_once_by_an_automatic_policy(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"policy": AUTO}})
        await trusted(shop)
        await shop.come(wrote(HASH_B, 60))
        assert await shown(shop) == ("acknowledged", HASH_B, True, HASH_B)

    async def test_too_often_waits_for_a_person_though_the_policy_is_automatic(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"policy": {**AUTO, "max_changes": 2}}})
        await shop.come(wrote(HASH_A), wrote(HASH_B, 60))
        assert await shop.state(SHEENA) == "acknowledged"
        await shop.come(wrote(HASH_C, 120))
        assert await shop.state(SHEENA) == "pending"
        assert "guard, more than 2 changes" in (await shop.audit(SHEENA, "changed"))[-1]["reason"]

    async def test_in_a_137000_waits_for_a_person(self, shop: CloudInstallation) -> None:
        await trusted(shop)
        await shop.come(told(mismatch(hash_=HASH_B, recipient_id=SHEENA)))
        assert await shown(shop) == ("pending", HASH_B, False, None)

    async def test_in_the_same_second_as_the_trusted_one_is_for_a_person_to_tell(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"policy": AUTO}})
        await trusted(shop)
        await shop.come(wrote(HASH_B, 0))
        assert await shown(shop) == ("pending", HASH_B, False, None)
        [before] = (await shop.identity(SHEENA))["history"]
        assert before["outcome"] == "disputed"

    async def test_is_decided_only_by_who_saw_it(self, shop: CloudInstallation) -> None:
        await trusted(shop)
        await shop.come(wrote(HASH_B, 60))
        for hash_ in (HASH_A, HASH_C, None):
            status_, problem = await shop.acknowledge(hash_, SHEENA)
            assert (status_, problem["identity"]["hash"]) == (409, HASH_B)
        assert await shop.state(SHEENA) == "pending"

    async def test_is_acknowledged_at_once_with_all_that_was_said_of_it(
        self, shop: CloudInstallation
    ) -> None:
        await trusted(shop)
        await shop.come(wrote(HASH_B, 60))
        evidence = {"method": "called back", "reference": "T-17"}
        status_, identity = await shop.acknowledge(
            HASH_B, SHEENA, note="she has a new phone", evidence=evidence, on_behalf_of="Ana"
        )
        assert (status_, identity["state"], identity["blocking"]) == (200, "acknowledged", False)
        assert await shown(shop) == ("acknowledged", HASH_B, True, HASH_B)
        [decided] = await shop.audit(SHEENA, "decided")
        assert (decided["note"], decided["evidence"]) == ("she has a new phone", evidence)
        assert decided["by"] == {"kind": "key", "name": "local", "on_behalf_of": "Ana"}
        assert (await shop.acknowledge(HASH_B, SHEENA))[0] == 200
        assert len(await shop.audit(SHEENA, "decided")) == 1

    async def test_that_is_held_stays_so_and_the_next_waits_for_a_person_too(
        self, open_shop: OpenShop
    ) -> None:
        shop = await open_shop(accounts={"shop": {"policy": {"mode": "manual"}}})
        await trusted(shop)
        await shop.come(wrote(HASH_B, 60))
        status_, identity = await shop.hold(HASH_B, SHEENA)
        assert (status_, identity["state"]) == (200, "held")
        assert await shop.reasons(SHEENA) == ["identity_held"]
        await shop.stop()
        await shop.start(accounts={"shop": {"policy": AUTO}})
        await shop.come(wrote(HASH_C, 120))
        assert await shown(shop) == ("pending", HASH_C, False, None)

    async def test_that_is_acknowledged_can_not_be_held(self, shop: CloudInstallation) -> None:
        await trusted(shop)
        assert (await shop.hold(HASH_A, SHEENA))[0] == 409


async def noted(shop: CloudInstallation) -> None:
    """Let a user be trusted, to whom a message went whose id tells nobody."""
    await trusted(shop)
    await shop.come(told(status("sent", id_=NOBODYS_ID, recipient_user_id=USER_ID)))


class TestA137000WithoutAHash:
    @pytest.mark.parametrize(
        "names",
        [
            {"recipient_id": SHEENA},
            {"recipient_user_id": USER_ID},
            {"recipient_id": "", "recipient_user_id": USER_ID},
            {"recipient_id": SHEENA, "recipient_user_id": USER_ID},
            {},
            {"recipient_id": ""},
        ],
        ids=["wa_id", "user id", "wa_id empty", "both", "message id alone", "nothing but empty"],
    )
    async def test_makes_the_hash_unknown_however_its_user_is_named(
        self, shop: CloudInstallation, names: dict[str, str]
    ) -> None:
        await noted(shop)
        await shop.come(told(mismatch(id_=NOBODYS_ID, **names)))
        assert await shown(shop) == ("pending", None, False, None)
        identity = await shop.identity(SHEENA)
        assert [entry["hash"] for entry in identity["history"]] == [HASH_A]
        assert await shop.quarantined() == []

    async def test_is_of_the_user_whom_the_message_id_itself_names(
        self, shop: CloudInstallation
    ) -> None:
        await shop.send_along()
        hash_ = shop.meta.users[SHEENA].hash
        assert await shown(shop) == ("acknowledged", hash_, True, hash_)
        shop.meta.reinstall(SHEENA)
        message = await shop.send_along(hash_)
        assert message.outcome == "mismatch"
        assert await shown(shop) == ("pending", None, False, None)

    async def test_of_a_message_that_nobody_knows_is_kept_and_changes_nothing(
        self, shop: CloudInstallation
    ) -> None:
        await trusted(shop)
        await shop.come(told(mismatch(id_="wamid.Tk9CT0RZ")))
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)

    async def test_waits_for_a_person_whatever_the_policy_is(self, open_shop: OpenShop) -> None:
        shop = await open_shop(accounts={"shop": {"policy": AUTO}})
        await unknown_hash(shop)
        assert await shop.reasons(SHEENA) == ["identity_pending"]

    async def test_repeated_changes_nothing(self, shop: CloudInstallation) -> None:
        await trusted(shop)
        webhook = told(mismatch(id_="wamid.1", recipient_id=SHEENA))
        await shop.come(webhook)
        before = await shop.identity(SHEENA)
        await shop.come(webhook, told(mismatch(id_="wamid.2", recipient_user_id=USER_ID)))
        assert await shop.identity(SHEENA) == before
        assert (await shop.acknowledge(None, SHEENA))[0] == 200
        await shop.come(webhook)
        assert await shown(shop) == ("awaiting_hash", None, True, None)
        await shop.come(wrote(HASH_B, 60))
        assert await shown(shop) == ("acknowledged", HASH_B, True, HASH_B)
        await shop.come(webhook)
        assert await shown(shop) == ("acknowledged", HASH_B, True, HASH_B)

    async def test_from_before_the_acknowledgement_changes_nothing(
        self, shop: CloudInstallation
    ) -> None:
        await trusted(shop)
        await shop.come(told(mismatch(120, recipient_id=SHEENA)))
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)

    @pytest.mark.parametrize("verb", ["hold", None])
    async def test_says_nothing_new_where_nothing_is_trusted(
        self, shop: CloudInstallation, verb: str | None
    ) -> None:
        await trusted(shop)
        await shop.come(wrote(HASH_B, 60))
        if verb:
            await shop.decide(verb, HASH_B, SHEENA)
        before = await shop.identity(SHEENA)
        await shop.come(told(mismatch(recipient_id=SHEENA)))
        assert await shop.identity(SHEENA) == before

    async def test_other_failures_say_nothing_of_the_hash(self, shop: CloudInstallation) -> None:
        await trusted(shop)
        for code in (131026, 480, "137000x"):
            failed = mismatch(recipient_id=SHEENA)
            failed["errors"][0]["code"] = code
            await shop.come(told(failed))
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)


class TestAHashThatNobodyKnows:
    async def test_approved_lets_one_message_through_without(self, shop: CloudInstallation) -> None:
        await unknown_hash(shop)
        status_, identity = await shop.acknowledge(None, SHEENA, note="called back")
        assert (status_, identity["state"], identity["hash"]) == (200, "awaiting_hash", None)
        assert identity["blocking"] is False
        assert identity["decided_by"] == {"kind": "key", "name": "local"}
        assert await shown(shop) == ("awaiting_hash", None, True, None)
        assert await shop.reasons(SHEENA) == []
        _, listed = await shop.api("GET", "/identities?state=awaiting_hash")
        assert [item["wa_id"] for item in listed["items"]] == [SHEENA]

    async def test_that_was_approved_is_trusted_when_it_comes_and_the_decider_stays(
        self, shop: CloudInstallation
    ) -> None:
        await unknown_hash(shop)
        await shop.acknowledge(None, SHEENA, on_behalf_of="Ana")
        decided_at = (await shop.identity(SHEENA))["decided_at"]
        await shop.send_along()
        new = shop.meta.users[SHEENA].hash
        assert await shown(shop) == ("acknowledged", new, True, new)
        identity = await shop.identity(SHEENA)
        by = {"kind": "key", "name": "local", "on_behalf_of": "Ana"}
        assert (identity["decided_by"], identity["decided_at"]) == (by, decided_at)
        assert [entry["hash"] for entry in identity["history"]] == [HASH_A]

    async def test_may_be_told_by_a_message_of_the_user(self, shop: CloudInstallation) -> None:
        await unknown_hash(shop)
        await shop.acknowledge(None, SHEENA)
        shop.meta.set_user(SHEENA, user_id=USER_ID, hash=HASH_B)
        shop.meta.write(SHEENA, "Hello")
        await shop.meta.settled()
        assert await shown(shop) == ("acknowledged", HASH_B, True, HASH_B)

    @pytest.mark.parametrize(
        ("policy", "state"),
        [({"mode": "manual"}, "pending"), (DELAYED, "scheduled"), (AUTO, "acknowledged")],
        ids=str,
    )
    async def test_that_comes_before_anybody_decided_is_decided_by_policy(
        self, open_shop: OpenShop, policy: Json, state: str
    ) -> None:
        shop = await open_shop(accounts={"shop": {"policy": policy}})
        await unknown_hash(shop)
        await shop.send_along()
        identity = await shop.identity(SHEENA)
        assert identity["state"] == state
        assert identity["hash"] == shop.meta.users[SHEENA].hash
        assert [entry["hash"] for entry in identity["history"]] == [HASH_A]

    async def test_is_not_decided_by_naming_another(self, shop: CloudInstallation) -> None:
        await unknown_hash(shop)
        for verb in ("acknowledge", "hold"):
            status_, problem = await shop.decide(verb, HASH_A, SHEENA)
            assert (status_, problem["identity"]["hash"]) == (409, None)
        await shop.acknowledge(None, SHEENA)
        status_, problem = await shop.acknowledge(HASH_B, SHEENA)
        assert (status_, problem["identity"]["state"]) == (409, "awaiting_hash")

    async def test_may_be_held_before_and_after_it_was_approved(
        self, shop: CloudInstallation
    ) -> None:
        await unknown_hash(shop)
        assert (await shop.hold(None, SHEENA))[0] == 200
        assert await shown(shop) == ("held", None, False, None)
        assert (await shop.acknowledge(None, SHEENA))[0] == 200
        assert await shown(shop) == ("awaiting_hash", None, True, None)
        assert (await shop.acknowledge(None, SHEENA))[1]["state"] == "awaiting_hash"
        assert (await shop.hold(None, SHEENA))[0] == 200
        assert await shown(shop) == ("held", None, False, None)

    async def test_is_not_told_by_a_late_delivery_of_the_old_one(
        self, shop: CloudInstallation
    ) -> None:
        await unknown_hash(shop)
        await shop.acknowledge(None, SHEENA)
        await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
        assert await shown(shop) == ("awaiting_hash", None, True, None)

    async def test_outlives_a_restart(self, shop: CloudInstallation) -> None:
        await unknown_hash(shop)
        await shop.stop()
        await shop.start()
        assert await shown(shop) == ("pending", None, False, None)
        await shop.acknowledge(None, SHEENA)
        await shop.stop()
        await shop.start()
        assert await shown(shop) == ("awaiting_hash", None, True, None)
        await shop.come(wrote(HASH_B, 60))
        assert await shown(shop) == ("acknowledged", HASH_B, True, HASH_B)

    async def test_a_wait_for_the_decision_ends_at_once(self, shop: CloudInstallation) -> None:
        await unknown_hash(shop)
        status_, identity = await shop.acknowledge(None, SHEENA, query="?wait=60")
        assert (status_, identity["state"]) == (200, "awaiting_hash")

    async def test_opens_the_gate_for_who_waits_at_it(self, shop: CloudInstallation) -> None:
        await unknown_hash(shop)
        path = f"/accounts/shop/recipients/{SHEENA}?wait=30"
        waiting = asyncio.create_task(shop.api("GET", path))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await shop.acknowledge(None, SHEENA)
        _, answer = await waiting
        assert (answer["sendable"], answer["identity_key_hash"]) == (True, None)


class TestWhatIsOfAClient:
    async def test_refresh_and_contact_checks_are_not_there_on_the_cloud_api(
        self, shop: CloudInstallation
    ) -> None:
        await trusted(shop)
        assert (await shop.refresh(SHEENA))[0] == 404
        checks = {"contacts": ["+16505551234"]}
        assert (await shop.api("POST", "/accounts/shop/contacts", checks))[0] == 404
        assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)

    @pytest.mark.parametrize("verb", ["acknowledge", "hold"])
    async def test_a_client_always_tells_the_hash_so_null_is_not_valid_there(
        self, shop: CloudInstallation, verb: str
    ) -> None:
        main = shop.of("main")
        await shop.deliver(notice(WA_ID, HASH_A, hour_ago()))
        status_, problem = await main.decide(verb, None, WA_ID)
        assert status_ == 422
        assert [error["field"] for error in problem["errors"]] == ["hash"]
        assert await main.state(WA_ID) == "pending"

    async def test_a_480_of_a_client_says_nothing_on_the_cloud_api(
        self, shop: CloudInstallation
    ) -> None:
        await trusted(shop)
        failed = status("failed", recipient_id=SHEENA) | {"errors": [{"code": 480}]}
        await shop.come(told(failed))
        assert await shop.reasons(SHEENA) == []


async def test_a_user_of_one_number_is_another_of_the_next(shop: CloudInstallation) -> None:
    await trusted(shop)
    outlet = shop.of("outlet")
    assert await outlet.identity(SHEENA) == {}
    await shop.come(wrote(HASH_B, 60, number=OTHER_NUMBER))
    assert (await outlet.identity(SHEENA))["state"] == "acknowledged"
    assert await shown(shop) == ("acknowledged", HASH_A, True, HASH_A)


async def test_contacts_of_a_failed_status_are_no_news(shop: CloudInstallation) -> None:
    await trusted(shop)
    webhook = told(mismatch(recipient_id=SHEENA), contacts=[contact(wa_id=SHEENA, user_id=USER_ID)])
    await shop.come(webhook)
    assert await shown(shop) == ("pending", None, False, None)
