"""Every payload of the Cloud API that Meta documents, sent as Meta sends it: signed."""

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import APP_ENDPOINT, SHEENA, USER_ID, CloudInstallation, signed

FOLDER = Path(__file__).parents[1] / "payloads" / "cloud"
PAYLOADS = sorted(path.stem for path in FOLDER.glob("*.json"))
NEW_NUMBER = "12195555358"
HASH = "DF2lS5v2W6x="
WROTE_AT, MOVED_AT = "2025-06-08T20:59:43.000Z", "2025-06-18T17:55:42.000Z"


def raw_of(payload: str) -> bytes:
    return (FOLDER / f"{payload}.json").read_bytes()


async def come(shop: CloudInstallation, name: str) -> None:
    """Let a payload come as it stands in its file, signed by Meta's stand-in."""
    await shop.come(raw_of(name))


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_every_payload_is_taken_and_all_of_it_is_understood(
    shop: CloudInstallation, payload: str
) -> None:
    raw = raw_of(payload)
    assert await shop.post(raw, path=APP_ENDPOINT, headers=signed(raw)) == 200
    _, listed = await shop.api("GET", "/journal")
    [entry] = listed["items"]
    assert (entry["account"], entry["state"]) == ("shop", "applied")
    _, kept = await shop.api("GET", await shop.entry())
    assert kept["body"].encode() == raw


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_every_payload_delivered_again_changes_nothing(
    shop: CloudInstallation, payload: str
) -> None:
    raw = raw_of(payload)
    await shop.come(raw)
    alias = USER_ID if "user-id" in payload else SHEENA
    _, audit = await shop.api("GET", "/audit")
    before = await shop.identity(alias), (await shop.gate(alias)) | {"as_of": None}
    await shop.come(raw, raw)
    assert (await shop.identity(alias), (await shop.gate(alias)) | {"as_of": None}) == before
    assert (await shop.api("GET", "/audit"))[1] == audit


async def test_message_with_hash_is_trusted_at_first_use(shop: CloudInstallation) -> None:
    await come(shop, "message-with-hash")
    identity = await shop.identity(SHEENA)
    assert (identity["wa_id"], identity["user_id"]) == (SHEENA, None)
    assert (identity["hash"], identity["state"]) == (HASH, "acknowledged")
    assert (identity["blocking"], identity["changed_at"]) == (False, WROTE_AT)
    assert identity["decided_by"] == {"kind": "policy", "name": "trust_first_use"}
    assert [entry["event"] for entry in identity["audit"]] == ["first_use"]
    gate = await shop.gate(SHEENA)
    assert (gate["known"], gate["sendable"], gate["identity_key_hash"]) == (True, True, HASH)


async def test_message_user_id_only_makes_a_user_without_a_number(
    shop: CloudInstallation,
) -> None:
    await come(shop, "message-user-id-only")
    gate = await shop.gate(USER_ID)
    assert (gate["wa_id"], gate["user_id"]) == (None, USER_ID)
    assert (gate["known"], gate["sendable"], gate["identity_key_hash"]) == (True, True, None)
    assert await shop.identity(USER_ID) == {}, "no hash was told, so there is no identity"


async def test_a_user_without_a_number_has_an_identity_with_wa_id_null(
    shop: CloudInstallation,
) -> None:
    webhook = json.loads(raw_of("message-user-id-only"))
    value = webhook["entry"][0]["changes"][0]["value"]
    value["contacts"][0]["identity_key_hash"] = HASH
    await shop.come(webhook)
    identity = await shop.identity(USER_ID)
    assert (identity["wa_id"], identity["user_id"], identity["hash"]) == (None, USER_ID, HASH)
    assert (identity["state"], identity["changed_at"]) == ("acknowledged", WROTE_AT)
    _, listed = await shop.api("GET", "/identities?account=shop")
    assert [(item["wa_id"], item["user_id"]) for item in listed["items"]] == [(None, USER_ID)]
    assert (await shop.gate(USER_ID))["identity_key_hash"] == HASH


async def test_number_changed_links_the_numbers_and_the_old_one_is_not_to_be_written_to(
    shop: CloudInstallation,
) -> None:
    await come(shop, "message-with-hash")
    await come(shop, "number-changed")
    old = await shop.identity(SHEENA)
    new = {"wa_id": NEW_NUMBER, "user_id": None, "relation": "successor", "since": MOVED_AT}
    assert (old["linked"], old["state"]) == ([new], "acknowledged")
    gate = await shop.gate(SHEENA)
    assert (gate["sendable"], gate["identity_key_hash"]) == (False, None)
    [reason] = gate["reasons"]
    assert (reason["code"], reason["since"]) == ("number_changed", MOVED_AT)
    assert reason["wa_id"] == NEW_NUMBER


async def test_the_new_number_inherits_nothing_and_its_first_hash_is_trusted(
    shop: CloudInstallation,
) -> None:
    await come(shop, "message-with-hash")
    await come(shop, "number-changed")
    assert await shop.identity(NEW_NUMBER) == {}
    assert (await shop.gate(NEW_NUMBER))["identity_key_hash"] is None
    webhook = raw_of("message-with-hash").decode()
    await shop.come(webhook.replace(SHEENA, NEW_NUMBER).replace(HASH, "another").encode())
    new = await shop.identity(NEW_NUMBER)
    assert (new["hash"], new["state"]) == ("another", "acknowledged")
    old = {"wa_id": SHEENA, "user_id": None, "relation": "predecessor", "since": MOVED_AT}
    assert new["linked"] == [old]
    assert (await shop.identity(SHEENA))["hash"] == HASH


async def test_number_changed_of_a_stranger_is_known_by_both_numbers(
    shop: CloudInstallation,
) -> None:
    await come(shop, "number-changed")
    assert await shop.reasons(SHEENA) == ["number_changed"]
    assert await shop.reasons(NEW_NUMBER) == []
    assert await shop.identity(SHEENA) == {}
