"""Who is who on the Cloud API: users with a number, a user id, or both."""

from collections.abc import Callable

import pytest

from service.store.database import wall_clock
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    HOUR_AGO,
    SHEENA,
    USER_ID,
    CloudInstallation,
    Json,
    OpenShop,
    hour_ago,
    rfc3339,
)
from tests.acceptance.webhooks import mismatch, status, system, told, wrote

OTHER_ID, NEW_NUMBER = "US.20000000000000000002", "12195555358"
PARENT = "US.ENT.11815799212886844830"
AN_HOUR_AGO = HOUR_AGO / 1000


async def listed(shop: CloudInstallation) -> list[Json]:
    _, answer = await shop.api("GET", "/identities?account=shop")
    return list(answer["items"])


async def events(shop: CloudInstallation, user: str) -> list[str]:
    return [entry["event"] for entry in await shop.audit(user)]


async def test_a_number_that_gets_a_user_id_stays_the_same_user(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA))
    await shop.come(wrote(HASH_A, 60, wa_id=SHEENA, user_id=USER_ID))
    [identity] = await listed(shop)
    assert (identity["wa_id"], identity["user_id"]) == (SHEENA, USER_ID)
    await shop.come(wrote(HASH_A, 120, user_id=USER_ID))
    assert await events(shop, SHEENA) == ["first_use"]


async def test_the_whole_audit_trail_names_users_as_they_are_called_now(
    shop: CloudInstallation,
) -> None:
    async def names() -> list[tuple[str | None, str | None]]:
        _, trail = await shop.api("GET", "/audit?account=shop")
        whose = [(entry["wa_id"], entry["user_id"]) for entry in trail["items"]]
        return [named for named in whose if named != (None, None)]

    await shop.come(wrote(HASH_A, user_id=USER_ID))
    assert set(await names()) == {(None, USER_ID)}
    await shop.come(wrote(HASH_A, 60, wa_id=SHEENA))
    assert set(await names()) == {(None, USER_ID), (SHEENA, None)}
    await shop.come(wrote(HASH_A, 120, wa_id=SHEENA, user_id=USER_ID))
    assert set(await names()) == {(SHEENA, USER_ID)}


async def test_a_hash_is_compared_whichever_name_it_comes_under(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(wrote(HASH_B, 60, user_id=USER_ID))
    assert await shop.state(SHEENA) == "pending"
    await shop.acknowledge(HASH_B, USER_ID)
    assert await shop.state(SHEENA) == "acknowledged"
    await shop.come(told(status("sent", 120, hash_=HASH_C, recipient_id=SHEENA)))
    assert (await shop.identity(USER_ID))["hash"] == HASH_C


def block_path(user: str) -> str:
    return f"/accounts/shop/recipients/{user}/block"


async def block(shop: CloudInstallation, user: str) -> None:
    status, _ = await shop.api("PUT", block_path(user), {"reason": "asked us to stop"})
    assert status == 200


TRUSTING_TOO_MUCH: Json = {"accounts": {"shop": {"policy": {"mode": "auto"}}}}
"""Policy acknowledges everything that it may."""


async def test_a_number_that_changed_hands_leads_to_who_has_it_now_and_inherits_nothing(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(wrote(HASH_B, 60, wa_id=SHEENA, user_id=OTHER_ID))
    before, now = await shop.identity(USER_ID), await shop.identity(SHEENA)
    assert (before["wa_id"], before["hash"], before["history"]) == (None, HASH_A, [])
    assert (now["wa_id"], now["user_id"]) == (SHEENA, OTHER_ID)
    assert (now["hash"], now["history"]) == (HASH_B, [])
    assert "alias_moved" in await events(shop, USER_ID)
    assert (await shop.gate(SHEENA))["identity_key_hash"] is None
    assert (await shop.gate(USER_ID))["identity_key_hash"] == HASH_A


async def test_a_number_in_other_hands_is_never_trusted_for_the_first_hash(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(wrote(HASH_B, 60, wa_id=SHEENA, user_id=OTHER_ID))
    for alias in (SHEENA, OTHER_ID):
        assert await shop.reasons(alias) == ["identity_pending"]
        assert "first_use" not in await events(shop, alias)
    status, _ = await shop.acknowledge(HASH_B, SHEENA)
    assert status == 200
    assert (await shop.gate(SHEENA))["identity_key_hash"] == HASH_B
    assert await shop.reasons(OTHER_ID) == []


async def test_policy_decides_about_a_number_in_other_hands_as_about_a_change(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(**TRUSTING_TOO_MUCH)
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(wrote(HASH_B, 60, wa_id=SHEENA, user_id=OTHER_ID))
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (HASH_B, "acknowledged")
    assert shown["decided_by"] == {"kind": "policy", "name": "default"}


@pytest.mark.parametrize("by", ["message", "status"])
async def test_a_number_in_other_hands_is_closed_before_its_hash_is_known(
    shop: CloudInstallation, by: str
) -> None:
    names = {"recipient_id": SHEENA, "recipient_user_id": OTHER_ID}
    unhashed = {
        "message": wrote(None, 60, wa_id=SHEENA, user_id=OTHER_ID),
        "status": told(status("delivered", 60, **names)),
    }
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID), unhashed[by])
    shown = await shop.identity(SHEENA)
    assert (shown["user_id"], shown["hash"], shown["state"]) == (OTHER_ID, None, "pending")
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    await shop.come(wrote(HASH_B, 120, user_id=OTHER_ID))
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"], shown["history"]) == (HASH_B, "pending", [])


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1)])
async def test_a_number_in_other_hands_ends_the_same_in_every_order_of_delivery(
    shop: CloudInstallation, order: tuple[int, ...]
) -> None:
    webhooks = [
        wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID),
        wrote(HASH_B, 60, wa_id=SHEENA, user_id=OTHER_ID),
        wrote(HASH_B, 90, user_id=OTHER_ID),
    ]
    await shop.come(*(webhooks[number] for number in order), *webhooks)
    now, before = await shop.identity(SHEENA), await shop.identity(USER_ID)
    assert (now["user_id"], now["hash"], now["state"]) == (OTHER_ID, HASH_B, "pending")
    assert (before["wa_id"], before["hash"], before["state"]) == (None, HASH_A, "acknowledged")
    relations = [link["relation"] for one in (before, now) for link in one["linked"]]
    assert relations == ["next_owner", "former_owner"]


async def test_a_block_by_hand_holds_for_who_has_the_number_now_and_stays_where_it_was(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await block(shop, SHEENA)
    webhook = wrote(HASH_B, 60, wa_id=SHEENA, user_id=OTHER_ID)
    await shop.come(webhook)
    await shop.acknowledge(HASH_B, SHEENA)
    assert await shop.reasons(SHEENA) == await shop.reasons(OTHER_ID) == ["blocked"]
    assert await shop.reasons(USER_ID) == ["blocked"]
    [copied] = [entry for entry in await shop.audit(SHEENA) if entry["event"] == "blocked"]
    assert copied["reason"] == "asked us to stop"
    assert "copied" in copied["note"]
    # Each ends by itself, and what is delivered once more brings it back for nobody.
    assert (await shop.api("DELETE", block_path(SHEENA)))[0] == 200
    await shop.come(webhook, wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    assert await shop.reasons(SHEENA) == []
    assert await shop.reasons(USER_ID) == ["blocked"]


def same_hash() -> list[Json]:
    return [wrote(HASH_A, 60, wa_id=SHEENA, user_id=OTHER_ID)]


def same_hash_told_later() -> list[Json]:
    unhashed = told(status("sent", 60, recipient_id=SHEENA, recipient_user_id=OTHER_ID))
    return [unhashed, wrote(HASH_A, 90, user_id=OTHER_ID)]


def same_parent() -> list[Json]:
    return [wrote(HASH_A, 60, wa_id=SHEENA, user_id=OTHER_ID, parent_user_id=PARENT)]


def same_parent_without_the_number() -> list[Json]:
    return [wrote(HASH_A, 60, user_id=OTHER_ID, parent_user_id=PARENT)]


def previous_user_id() -> list[Json]:
    about = {"type": "user_changed_user_id", "previous_user_id": USER_ID, "user_id": OTHER_ID}
    changed = system(30, None, **about)
    return [changed, wrote(None, 60, wa_id=SHEENA, user_id=OTHER_ID)]


def previous_user_id_told_later() -> list[Json]:
    return list(reversed(previous_user_id()))


ONE_PERSON = pytest.mark.parametrize(
    "says_so",
    [
        same_hash, same_hash_told_later, same_parent, same_parent_without_the_number,
        previous_user_id, previous_user_id_told_later,
    ],
)  # fmt: skip


@ONE_PERSON
async def test_a_number_with_another_user_id_may_still_be_one_person_who_stays_trusted(
    shop: CloudInstallation, says_so: Callable[[], list[Json]]
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID, parent_user_id=PARENT))
    await shop.come(*says_so(), *says_so())
    [identity] = await listed(shop)
    assert (identity["wa_id"], identity["user_id"]) == (SHEENA, OTHER_ID)
    for alias in (SHEENA, USER_ID, OTHER_ID):
        whole = await shop.identity(alias)
        assert (whole["hash"], whole["state"]) == (HASH_A, "acknowledged")
        assert (whole["history"], whole["linked"]) == ([], [])
        assert (await shop.gate(alias))["identity_key_hash"] == HASH_A
    await shop.come(wrote(HASH_B, 120, wa_id=SHEENA, user_id=OTHER_ID))
    assert await shop.state(USER_ID) == "pending"


@ONE_PERSON
async def test_a_hold_and_a_block_hold_for_the_same_person_under_another_user_id(
    shop: CloudInstallation, says_so: Callable[[], list[Json]]
) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID, "parent_user_id": PARENT}
    await shop.come(wrote(HASH_C, -60, **names), wrote(HASH_A, **names))
    await shop.hold(HASH_A, SHEENA)
    await block(shop, SHEENA)
    await shop.come(*says_so())
    for alias in (SHEENA, USER_ID, OTHER_ID):
        assert sorted(await shop.reasons(alias)) == ["blocked", "identity_held"]
    assert (await shop.api("DELETE", block_path(USER_ID)))[0] == 200
    assert await shop.reasons(OTHER_ID) == ["identity_held"]


def shows_the_hash() -> Json:
    return wrote(HASH_A, 120, wa_id=SHEENA, user_id=OTHER_ID)


def shows_the_hash_without_the_number() -> Json:
    return wrote(HASH_A, 120, user_id=OTHER_ID)


def shows_the_parent() -> Json:
    return wrote(None, 120, user_id=OTHER_ID, parent_user_id=PARENT)


def is_told_to_follow() -> Json:
    about = {"type": "user_changed_user_id", "previous_user_id": USER_ID, "user_id": OTHER_ID}
    return system(120, None, **about)


TURNS_OUT_TO_BE_ONE = pytest.mark.parametrize(
    "says_so",
    [shows_the_hash, shows_the_hash_without_the_number, shows_the_parent, is_told_to_follow],
)


@TURNS_OUT_TO_BE_ONE
async def test_a_hold_of_who_came_with_a_number_stays_closed_when_both_turn_out_to_be_one(
    shop: CloudInstallation, says_so: Callable[[], Json]
) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID, "parent_user_id": PARENT}
    await shop.come(wrote(HASH_A, **names), wrote(None, 60, wa_id=SHEENA, user_id=OTHER_ID))
    assert (await shop.hold(None, OTHER_ID))[1]["state"] == "held"
    await shop.come(says_so())
    for alias in (SHEENA, USER_ID, OTHER_ID):
        assert await shop.reasons(alias) in (["identity_held"], ["identity_pending"])
    await shop.come(wrote(HASH_A, 180, wa_id=SHEENA, user_id=OTHER_ID))
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    assert (await shop.acknowledge(HASH_A, SHEENA))[1]["state"] == "acknowledged"


@TURNS_OUT_TO_BE_ONE
@pytest.mark.parametrize("heard", ["a refusal", "a hash that can't be read"])
async def test_another_hash_of_who_came_with_a_number_stays_known_when_both_turn_out_to_be_one(
    shop: CloudInstallation, says_so: Callable[[], Json], heard: str
) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID, "parent_user_id": PARENT}
    await shop.come(wrote(HASH_A, **names), wrote(None, 60, wa_id=SHEENA, user_id=OTHER_ID))
    refused = told(mismatch(90, "wamid.refused", recipient_user_id=OTHER_ID))
    unreadable = wrote("x" * 1025, 60, wa_id=SHEENA, user_id=OTHER_ID)
    await shop.come(refused if heard == "a refusal" else unreadable)
    await shop.come(says_so())
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    assert await shop.reasons(USER_ID) == await shop.reasons(OTHER_ID) == ["identity_pending"]


async def test_a_user_id_may_change_again_and_again_and_each_leads_to_the_person(
    shop: CloudInstallation,
) -> None:
    user_ids = [f"US.{number}" for number in range(5)]
    for number, user_id in enumerate(user_ids):
        await shop.come(wrote(HASH_A, 60 * number, user_id=user_id))
    await shop.come(wrote(HASH_A, -60, wa_id=SHEENA, user_id=user_ids[0]))
    for user_id in (user_ids[2], user_ids[1], user_ids[4], user_ids[3]):
        await shop.come(wrote(HASH_A, 600, wa_id=SHEENA, user_id=user_id))
    assert len(await listed(shop)) == 1
    await shop.stop()
    await shop.start()
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (HASH_A, "acknowledged")
    assert all([await shop.identity(user_id) == shown for user_id in user_ids])


async def test_a_block_holds_for_the_new_number_and_the_new_user_id_of_the_same_person(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await block(shop, SHEENA)
    about = {"type": "user_changed_number", "wa_id": NEW_NUMBER, "user_id": OTHER_ID}
    await shop.come(system(60, previous_user_id=USER_ID, **about))
    assert await shop.reasons(NEW_NUMBER) == await shop.reasons(OTHER_ID) == ["blocked"]
    assert sorted(await shop.reasons(SHEENA)) == ["blocked", "number_changed"]
    hidden = {"type": "user_changed_user_id", "previous_user_id": OTHER_ID, "user_id": "US.3"}
    await shop.come(system(90, None, **hidden))
    assert await shop.reasons("US.3") == ["blocked"]


@pytest.mark.parametrize("late", [False, True])
async def test_a_new_owner_of_a_number_that_was_left_waits_for_a_person_whatever_policy_says(
    open_shop: OpenShop, late: bool
) -> None:
    shop = await open_shop(**TRUSTING_TOO_MUCH)
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    about = {"type": "user_changed_number", "wa_id": NEW_NUMBER, "user_id": "US.3"}
    moved = system(60, previous_user_id=USER_ID, **about)
    owner = wrote(HASH_B, 120, wa_id=SHEENA, user_id=OTHER_ID)
    await shop.come(*((owner, moved) if late else (moved, owner)))
    assert sorted(await shop.reasons(SHEENA)) == ["identity_pending", "number_changed"]
    [reason] = [r for r in (await shop.gate(SHEENA))["reasons"] if r["code"] == "number_changed"]
    assert reason["wa_id"] == NEW_NUMBER
    await shop.acknowledge(HASH_B, SHEENA)
    assert await shop.reasons(SHEENA) == []
    assert await shop.reasons(USER_ID) == ["number_changed"]
    await shop.come(moved, owner, wrote(HASH_C, 180, wa_id=SHEENA, user_id=OTHER_ID))
    assert await shop.state(SHEENA) == "acknowledged", "policy decides again"


@pytest.mark.parametrize("late", [False, True])
async def test_without_user_ids_too_a_new_owner_of_a_number_waits_for_a_person(
    open_shop: OpenShop, late: bool
) -> None:
    shop = await open_shop(**TRUSTING_TOO_MUCH)
    moved = system(60, type="user_changed_number", wa_id=NEW_NUMBER)
    owner = wrote(HASH_B, 120, wa_id=SHEENA)
    await shop.come(*((owner, moved) if late else (moved, owner)))
    assert sorted(await shop.reasons(SHEENA)) == ["identity_pending", "number_changed"]
    await shop.acknowledge(HASH_B, SHEENA)
    assert await shop.reasons(SHEENA) == []
    await shop.come(moved, owner)
    assert await shop.reasons(SHEENA) == []


async def test_a_callback_that_says_that_somebody_came_to_the_old_number_ends_nothing(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA), wrote(HASH_B, 10, wa_id=SHEENA))
    assert (await shop.acknowledge(HASH_B, SHEENA))[1]["state"] == "acknowledged"
    await shop.come(system(60, type="user_changed_number", wa_id=NEW_NUMBER))
    assert await shop.reasons(SHEENA) == ["number_changed"]
    for after, stranger in ((90, "16505550009"), (120, NEW_NUMBER)):
        await shop.come(system(after, stranger, type="user_changed_number", wa_id=SHEENA))
        assert await shop.reasons(SHEENA) == ["number_changed"]


async def test_a_hold_stays_where_it_was_and_who_has_the_number_now_waits_for_a_person(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(**TRUSTING_TOO_MUCH)
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(told(mismatch(recipient_user_id=USER_ID)))
    await shop.hold(None, SHEENA)
    await shop.come(wrote(HASH_C, 120, wa_id=SHEENA, user_id=OTHER_ID))
    assert await shop.reasons(USER_ID) == ["identity_held"]
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    said = [entry["reason"] for entry in await shop.audit(SHEENA)]
    assert any(reason and "held" in reason for reason in said)
    await shop.acknowledge(HASH_C, SHEENA)
    assert await shop.reasons(SHEENA) == []
    assert await shop.reasons(USER_ID) == ["identity_held"]


async def test_a_late_delivery_does_not_give_a_number_back(shop: CloudInstallation) -> None:
    late = wrote(HASH_A, 30, wa_id=SHEENA, user_id=USER_ID)
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(wrote(HASH_B, 60, wa_id=SHEENA, user_id=OTHER_ID))
    await shop.come(late)
    assert (await shop.identity(SHEENA))["user_id"] == OTHER_ID
    assert (await shop.identity(USER_ID))["wa_id"] is None


@pytest.mark.parametrize(
    ("first", "second"), [((HASH_A, 0), (HASH_B, 60)), ((HASH_B, 60), (HASH_A, 0))]
)
async def test_two_who_turn_out_to_be_one_are_merged_and_what_was_seen_last_is_the_latest(
    shop: CloudInstallation, first: tuple[str, int], second: tuple[str, int]
) -> None:
    await shop.come(wrote(*first, wa_id=SHEENA), wrote(*second, user_id=USER_ID))
    assert len(await listed(shop)) == 2
    await shop.come(wrote(None, 90, wa_id=SHEENA, user_id=USER_ID))
    [identity] = await listed(shop)
    assert (identity["wa_id"], identity["user_id"]) == (SHEENA, USER_ID)
    for alias in (SHEENA, USER_ID):
        whole = await shop.identity(alias)
        assert whole["hash"] == HASH_B
        assert [entry["hash"] for entry in whole["history"]] == [HASH_A]
        assert "merged" in [entry["event"] for entry in whole["audit"]]
        # it was trusted for being the first, and there was one before
        assert whole["state"] == "pending"


async def test_a_merger_keeps_a_persons_block_and_hold(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA), wrote(HASH_B, 60, wa_id=SHEENA))
    await shop.hold(HASH_B, SHEENA)
    path = f"/accounts/shop/recipients/{SHEENA}/block"
    await shop.api("PUT", path, {"reason": "asked us to stop"})
    await shop.come(wrote(HASH_C, 120, user_id=USER_ID))
    await shop.come(wrote(None, 180, wa_id=SHEENA, user_id=USER_ID))
    assert sorted(await shop.reasons(USER_ID)) == ["blocked", "identity_pending"]
    assert await shop.reasons(SHEENA) == await shop.reasons(USER_ID)


async def test_a_hold_after_an_acknowledgement_under_another_name_waits_for_a_person(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_C, 30, user_id=USER_ID), wrote(HASH_B, 35, user_id=USER_ID))
    assert (await shop.acknowledge(HASH_B, USER_ID))[1]["state"] == "acknowledged"
    await shop.come(wrote(HASH_C, wa_id=SHEENA), wrote(HASH_A, 10, wa_id=SHEENA))
    assert (await shop.hold(HASH_A, SHEENA))[0] == 200
    await shop.come(wrote(HASH_B, 40, wa_id=SHEENA, user_id=USER_ID))
    assert await shop.reasons(SHEENA) == await shop.reasons(USER_ID) == ["identity_pending"]
    await shop.come(wrote(HASH_A, 60, user_id=USER_ID))
    assert await shop.state(SHEENA) == "pending"


async def test_an_acknowledgement_after_a_hold_under_another_name_stands(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop()
    await shop.come(wrote(HASH_C, wa_id=SHEENA), wrote(HASH_A, 10, wa_id=SHEENA))
    assert (await shop.hold(HASH_A, SHEENA))[0] == 200
    await shop.come(wrote(HASH_C, 30, user_id=USER_ID), wrote(HASH_B, 35, user_id=USER_ID))
    shop.pass_time(1)
    assert (await shop.acknowledge(HASH_B, USER_ID))[1]["state"] == "acknowledged"
    await shop.come(wrote(HASH_B, 40, wa_id=SHEENA, user_id=USER_ID))
    assert await shop.reasons(SHEENA) == await shop.reasons(USER_ID) == []


async def test_an_approval_under_one_name_acknowledges_nothing_that_waits_after_a_hold(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA), wrote(HASH_B, 10, wa_id=SHEENA))
    assert (await shop.hold(HASH_B, SHEENA))[0] == 200
    await shop.come(wrote(HASH_C, user_id=OTHER_ID))
    await shop.come(wrote("x" * 1025, 90, user_id=OTHER_ID))
    assert (await shop.acknowledge(None, OTHER_ID))[1]["state"] == "awaiting_hash"
    await shop.come(wrote("Hk4N0b0dy5aw", 120, wa_id=SHEENA))
    await shop.come(wrote(None, 150, wa_id=SHEENA, user_id=OTHER_ID))
    assert await shop.reasons(SHEENA) == await shop.reasons(OTHER_ID) == ["identity_pending"]


async def test_what_a_person_acknowledged_before_the_hash_went_and_came_again_is_decided_anew(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA), wrote(HASH_B, 10, wa_id=SHEENA))
    assert (await shop.acknowledge(HASH_B, SHEENA))[1]["state"] == "acknowledged"
    now = wall_clock() / 1000 - AN_HOUR_AGO
    await shop.come(wrote(HASH_C, now + 60, user_id=USER_ID))
    await shop.come(wrote(HASH_B, now + 120, wa_id=SHEENA))
    await shop.come(wrote(None, now + 150, wa_id=SHEENA, user_id=USER_ID))
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (HASH_B, "pending")
    assert await shop.reasons(USER_ID) == ["identity_pending"]


async def test_no_hash_is_lost_where_two_names_were_seen_at_the_same_time(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote("AAAA", wa_id=SHEENA), wrote("BBBB", user_id=USER_ID))
    await shop.come(wrote(None, 10, wa_id=SHEENA, user_id=USER_ID))
    whole = await shop.identity(SHEENA)
    assert {whole["hash"], *(entry["hash"] for entry in whole["history"])} == {"AAAA", "BBBB"}
    assert whole["state"] == "pending"


async def test_a_merger_outlives_a_restart(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA), wrote(HASH_A, 60, user_id=USER_ID))
    await shop.come(wrote(None, 90, wa_id=SHEENA, user_id=USER_ID))
    before = await shop.identity(SHEENA)
    assert before["state"] == "acknowledged"
    await shop.stop()
    await shop.start()
    assert await shop.identity(SHEENA) == before == await shop.identity(USER_ID)
    await shop.come(wrote(HASH_B, 120, user_id=USER_ID))
    assert await shop.state(SHEENA) == "pending"


async def test_a_changed_number_brings_another_user_id_and_both_old_names_lead_to_the_old_user(
    shop: CloudInstallation,
) -> None:
    user = shop.meta.write(SHEENA, "Hello", at=AN_HOUR_AGO)
    await shop.meta.settled()
    old_id, old_hash = user.user_id, user.hash
    shop.meta.change_number(SHEENA, NEW_NUMBER, at=AN_HOUR_AGO + 60)
    await shop.meta.settled()
    new = shop.meta.users[NEW_NUMBER]
    assert new.user_id != old_id
    for alias in (SHEENA, old_id):
        identity = await shop.identity(alias)
        assert (identity["hash"], identity["state"]) == (old_hash, "acknowledged")
        [link] = identity["linked"]
        assert (link["relation"], link["since"]) == ("successor", rfc3339(hour_ago(60)))
        assert (link["wa_id"], link["user_id"]) == (NEW_NUMBER, None)
        assert await shop.reasons(alias) == ["number_changed"]
    shop.meta.write(NEW_NUMBER, "It's me", at=AN_HOUR_AGO + 120)
    await shop.meta.settled()
    for alias in (NEW_NUMBER, new.user_id):
        identity = await shop.identity(alias)
        assert (identity["hash"], identity["state"]) == (new.hash, "acknowledged")
        assert [link["relation"] for link in identity["linked"]] == ["predecessor"]
        assert (await shop.gate(alias))["identity_key_hash"] == new.hash


async def test_a_changed_number_with_previous_user_id_alone_finds_the_old_user(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, user_id=USER_ID))
    about = {"type": "user_changed_number", "wa_id": NEW_NUMBER, "user_id": OTHER_ID}
    await shop.come(system(60, None, previous_user_id=USER_ID, **about))
    assert await shop.reasons(USER_ID) == ["number_changed"]
    assert await shop.reasons(NEW_NUMBER) == await shop.reasons(OTHER_ID) == []
    assert (await shop.gate(NEW_NUMBER))["user_id"] == OTHER_ID
    assert (await shop.gate(USER_ID))["reasons"][0]["wa_id"] == NEW_NUMBER


async def test_what_was_scheduled_waits_for_a_person_once_the_number_changed(
    open_shop: OpenShop,
) -> None:
    policy = {"mode": "auto", "delay_seconds": 600}
    shop = await open_shop(accounts={"shop": {"policy": policy}})
    await shop.come(wrote(HASH_A), wrote(HASH_B, 60))
    assert await shop.state(SHEENA) == "scheduled"
    await shop.come(system(90, type="user_changed_number", wa_id=NEW_NUMBER))
    assert await shop.state(SHEENA) == "pending"
    shop.pass_time(700)
    assert await shop.state(SHEENA) == "pending"


async def test_a_changed_user_id_is_no_changed_key_but_a_link(shop: CloudInstallation) -> None:
    shop.meta.set_user(USER_ID, hidden=True)
    user = shop.meta.write(USER_ID, "Hello", at=AN_HOUR_AGO)
    await shop.meta.settled()
    old_hash = user.hash
    shop.meta.change_user_id(USER_ID, at=AN_HOUR_AGO + 60)
    await shop.meta.settled()
    old = await shop.identity(USER_ID)
    assert (old["hash"], old["state"], old["history"]) == (old_hash, "acknowledged", [])
    [link] = old["linked"]
    assert (link["user_id"], link["relation"]) == (user.user_id, "successor")
    assert await shop.reasons(USER_ID) == ["number_changed"]
    assert await shop.identity(user.user_id) == {}
    shop.meta.write(user.user_id, "It's me", at=AN_HOUR_AGO + 120)
    await shop.meta.settled()
    assert (await shop.gate(user.user_id))["identity_key_hash"] == user.hash


async def test_a_user_who_hides_the_number_is_still_found_by_it(shop: CloudInstallation) -> None:
    user = shop.meta.write(SHEENA, "Hello", at=AN_HOUR_AGO)
    shop.meta.set_user(SHEENA, hidden=True)
    new = shop.meta.reinstall(SHEENA)
    shop.meta.write(SHEENA, "It's me", at=AN_HOUR_AGO + 60)
    await shop.meta.settled()
    for alias in (SHEENA, user.user_id):
        identity = await shop.identity(alias)
        assert (identity["hash"], identity["state"]) == (new, "pending")


async def test_an_old_alias_still_leads_to_its_user_for_what_is_delivered_late(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    await shop.come(wrote(HASH_A, 120, wa_id=NEW_NUMBER, user_id=USER_ID))
    identity = await shop.identity(SHEENA)
    assert (identity["wa_id"], identity["user_id"]) == (NEW_NUMBER, USER_ID)
    await shop.come(wrote(HASH_A, 60, wa_id=SHEENA), wrote(HASH_B, -60, wa_id=SHEENA))
    whole = await shop.identity(USER_ID)
    assert (whole["hash"], [entry["hash"] for entry in whole["history"]]) == (HASH_A, [HASH_B])
    assert len(await listed(shop)) == 1


async def test_a_status_alone_makes_nobody_of_a_stranger(shop: CloudInstallation) -> None:
    names = {"recipient_id": SHEENA, "recipient_user_id": USER_ID}
    await shop.come(told(status("delivered", **names)), told(mismatch(**names)))
    assert await listed(shop) == []
    assert (await shop.gate(SHEENA))["known"] is False


async def test_users_without_user_ids_as_before_spring_2026_are_known_by_number(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(meta={"user_ids": False})
    shop.meta.write(SHEENA, "Hello")
    await shop.meta.settled()
    identity = await shop.identity(SHEENA)
    assert (identity["wa_id"], identity["user_id"]) == (SHEENA, None)
    shop.meta.change_number(SHEENA, NEW_NUMBER, spelling="customer")
    await shop.meta.settled()
    assert (await shop.gate(SHEENA))["reasons"][0]["wa_id"] == NEW_NUMBER


@pytest.mark.parametrize("spelling", ["customer", "sibling"])
async def test_the_older_spellings_of_a_changed_identity_are_understood(
    shop: CloudInstallation, spelling: str
) -> None:
    await shop.come(wrote(HASH_A))
    new = shop.meta.reinstall(SHEENA)
    shop.meta.announce_identity(SHEENA, spelling="sibling" if spelling == "sibling" else "customer")
    await shop.meta.settled()
    identity = await shop.identity(SHEENA)
    assert (identity["hash"], identity["state"]) == (new, "pending")
