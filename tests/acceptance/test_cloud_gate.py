"""The gate on the Cloud API: whom to write to, by any name, and which hash to send along."""

import pytest

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    SHEENA,
    USER_ID,
    WA_ID,
    CloudInstallation,
    Json,
    OpenShop,
    hour_ago,
    notice,
    until,
)
from tests.acceptance.webhooks import mismatch, system, told, wrote

PARENT_ID = "US.ENT.11815799212886844830"
NAMES = {"wa_id": SHEENA, "user_id": USER_ID, "parent_user_id": PARENT_ID}


async def lookup(shop: CloudInstallation, *recipients: str) -> list[Json]:
    path = f"/accounts/{shop.account}/recipients/lookup"
    status, answer = await shop.api("POST", path, {"recipients": list(recipients)})
    assert status == 200, answer
    return list(answer["items"])


def without_time(answer: Json) -> Json:
    return {key: value for key, value in answer.items() if key not in {"as_of", "input"}}


async def test_a_user_is_found_by_each_name_with_the_hash_to_send_along(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, **NAMES))
    expected = {
        "account": "shop",
        "wa_id": SHEENA,
        "known": True,
        "sendable": True,
        "reasons": [],
        "warnings": [],
        "user_id": USER_ID,
        "identity_key_hash": HASH_A,
    }
    for alias in NAMES.values():
        assert without_time(await shop.gate(alias)) == expected
    items = await lookup(shop, *NAMES.values())
    assert [item["input"] for item in items] == [*NAMES.values()]
    assert [without_time(item) for item in items] == [expected] * 3


async def test_no_hash_is_given_while_anything_blocks(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, **NAMES), wrote(HASH_B, 60, **NAMES))
    for answer in (await shop.gate(USER_ID), *await lookup(shop, SHEENA, USER_ID)):
        assert (answer["sendable"], answer["identity_key_hash"]) == (False, None)
        assert [reason["code"] for reason in answer["reasons"]] == ["identity_pending"]
    await shop.hold(HASH_B, SHEENA)
    assert (await shop.gate(SHEENA))["identity_key_hash"] is None
    await shop.acknowledge(HASH_B, SHEENA)
    assert (await shop.gate(SHEENA))["identity_key_hash"] == HASH_B


async def test_no_hash_is_given_while_a_person_blocks(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, **NAMES))
    path = f"/accounts/shop/recipients/{USER_ID}/block"
    status, answer = await shop.api("PUT", path, {"reason": "asked us to stop"})
    assert (status, answer["sendable"], answer["identity_key_hash"]) == (200, False, None)
    assert await shop.reasons(SHEENA) == ["blocked"]
    status, answer = await shop.api("DELETE", path)
    assert (status, answer["sendable"], answer["identity_key_hash"]) == (200, True, HASH_A)


async def test_no_hash_is_given_while_awaiting_one_though_it_is_sendable(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, **NAMES))
    await shop.come(told(mismatch(recipient_user_id=USER_ID)))  # of a time after the trust
    await shop.acknowledge(None, SHEENA)
    for answer in (await shop.gate(USER_ID), *await lookup(shop, SHEENA)):
        assert (answer["sendable"], answer["identity_key_hash"]) == (True, None)


async def test_a_hash_that_waits_for_a_person_is_never_given_even_where_it_only_warns(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(accounts={"shop": {"gate": {"warn": ["identity_pending"]}}})
    await shop.come(wrote(HASH_A), wrote(HASH_B, 60))
    answer = await shop.gate(SHEENA)
    assert [warning["code"] for warning in answer["warnings"]] == ["identity_pending"]
    assert (answer["sendable"], answer["identity_key_hash"]) == (True, None)


async def test_a_stranger_is_sendable_without_a_hash(shop: CloudInstallation) -> None:
    names = [("16310000000", None), (None, "US.404")]
    for wa_id, user_id in names:
        answer = await shop.gate(wa_id or user_id or "")
        assert (answer["known"], answer["sendable"]) == (False, True)
        assert (answer["wa_id"], answer["user_id"]) == (wa_id, user_id)
        assert answer["identity_key_hash"] is None
        assert [warning["code"] for warning in answer["warnings"]] == ["contact_unknown"]
    items = await lookup(shop, "16310000000", "US.404")
    assert [(item["wa_id"], item["user_id"]) for item in items] == names


async def test_a_changed_user_id_names_the_new_one_to_write_to(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A, user_id=USER_ID))
    changed = {"type": "user_changed_user_id", "previous_user_id": USER_ID, "user_id": "US.2"}
    await shop.come(system(60, None, **changed))
    answer = await shop.gate(USER_ID)
    [reason] = answer["reasons"]
    assert (reason["code"], reason["user_id"]) == ("number_changed", "US.2")
    assert (answer["sendable"], answer["identity_key_hash"]) == (False, None)


async def test_a_lookup_over_both_kinds_keeps_each_to_its_own(shop: CloudInstallation) -> None:
    await shop.deliver(notice(WA_ID, HASH_A, hour_ago()))
    await shop.come(wrote(HASH_B, wa_id=WA_ID))
    [item] = await lookup(shop, WA_ID)
    assert (item["sendable"], item["identity_key_hash"]) == (True, HASH_B)
    main = shop.of("main")
    answer = await main.gate(WA_ID)
    assert (answer["sendable"], "identity_key_hash" in answer) == (False, False)
    [item] = await lookup(main, WA_ID)
    assert "identity_key_hash" not in item


async def test_a_lookup_takes_what_is_no_name_for_an_error_of_its_own(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A, **NAMES))
    first, second, third = await lookup(shop, "n/a", USER_ID, "+1 650 555 1234")
    assert first["error"]["title"] == "Unprocessable Entity"
    assert second["identity_key_hash"] == HASH_A
    assert third["input"] == "+1 650 555 1234"


async def test_who_is_scheduled_is_given_the_hash_once_it_is_due(open_shop: OpenShop) -> None:
    policy = {"mode": "auto", "delay_seconds": 600}
    shop = await open_shop(accounts={"shop": {"policy": policy}})
    await shop.come(wrote(HASH_A), wrote(HASH_B, 60))
    assert (await shop.gate(SHEENA))["identity_key_hash"] is None
    shop.pass_time(601)

    async def given() -> bool:
        return bool((await shop.gate(SHEENA))["identity_key_hash"] == HASH_B)

    await until(given)


@pytest.mark.parametrize("trusted", [True, False])
async def test_what_the_gate_gives_is_what_meta_accepts(open_shop: OpenShop, trusted: bool) -> None:
    shop = await open_shop(accounts={"shop": {"trust_first_use": trusted}})
    shop.meta.write(SHEENA, "Hello")
    await shop.meta.settled()
    if not trusted:
        assert await shop.reasons(SHEENA) == ["identity_pending"]
        await shop.acknowledge(shop.meta.users[SHEENA].hash, SHEENA)
    given = (await shop.gate(SHEENA))["identity_key_hash"]
    assert (await shop.send_along(given)).outcome == "delivered"
    shop.meta.reinstall(SHEENA)
    assert (await shop.send_along(given)).outcome == "mismatch"
    assert await shop.reasons(SHEENA) == ["identity_pending"]
