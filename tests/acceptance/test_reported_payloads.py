"""Payloads that are in no older page, or that others reported: each is read for what it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import (
    APP_ENDPOINT,
    HASH_A,
    HASH_B,
    HASH_C,
    NUMBER,
    SHEENA,
    STRANGE_NUMBER,
    TOKEN,
    WA_ID,
    CloudInstallation,
    Installation,
    Json,
    OpenShop,
    hour_ago,
    notice,
    signed,
    until,
)
from tests.acceptance.webhooks import contact, envelope, mismatch, system, text, value, wrote

FOLDER = Path(__file__).parents[1] / "payloads" / "reported"
HASH, BUSINESS, NEW_NUMBER = "DF2lS5v2W6x=", "15550783881", "12195555358"
CONTENTS = ("contacts", "messages", "statuses")


def raw_of(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def standby(webhook: Json, *, number_inside: bool = False) -> Json:
    """Let a webhook be of a conversation that another app has."""
    for change in webhook["entry"][0]["changes"]:
        inside = change["value"]
        moved = (*CONTENTS, "metadata") if number_inside else CONTENTS
        inner = {key: inside.pop(key) for key in moved if key in inside}
        change["field"], inside["standby"] = "standby", inner
    return webhook


async def metric(made: Installation, line: str) -> float:
    _, text_ = await made.api("GET", "/metrics")
    found = [told for told in text_.splitlines() if told.startswith(line)]
    return sum(float(told.rpartition(" ")[2]) for told in found)


# On-Premises: statuses whose recipient is inside their message


async def test_a_480_whose_recipient_is_inside_its_message_closes_the_gate(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    asked = manual.gets()
    manual.sim.fault("identity_get", latency=0.2, times=1)
    await manual.deliver(raw_of("onprem-status-blocked"))
    assert await manual.reasons() == ["send_blocked"]

    async def clear() -> bool:
        return await manual.reasons() == []

    await until(clear)
    assert manual.gets() == asked + 1
    assert await manual.quarantined() == []


async def test_a_status_whose_recipient_is_inside_its_message_is_counted(
    manual: Installation,
) -> None:
    sent = json.loads(raw_of("onprem-status-delivered"))
    sent["statuses"][0]["status"] = "sent"
    await manual.deliver(raw_of("onprem-status-delivered"), sent)
    assert await manual.quarantined() == []
    assert await metric(manual, 'ackgate_contact_budget_messages{account="main"}') == 1


# Conversations of the Cloud API that another app has


@pytest.mark.parametrize("number_inside", [False, True], ids=["number beside", "number inside"])
class TestStandby:
    async def test_a_hash_counts(self, shop: CloudInstallation, number_inside: bool) -> None:
        for after, hash_ in ((0, HASH_A), (60, HASH_B)):
            await shop.come(standby(wrote(hash_, after), number_inside=number_inside))
        shown = await shop.identity(SHEENA)
        assert (shown["hash"], shown["state"]) == (HASH_B, "pending")
        assert await shop.quarantined() == []

    async def test_a_137000_counts(self, shop: CloudInstallation, number_inside: bool) -> None:
        await shop.come(wrote(HASH_A))
        refused = envelope(value(statuses=[mismatch(recipient_id=SHEENA)]))
        await shop.come(standby(refused, number_inside=number_inside))
        shown = await shop.identity(SHEENA)
        assert (shown["hash"], shown["state"]) == (None, "pending")

    async def test_a_number_change_counts(
        self, shop: CloudInstallation, number_inside: bool
    ) -> None:
        await shop.come(wrote(HASH_A))
        moved = system(60, type="user_changed_number", wa_id=NEW_NUMBER)
        await shop.come(standby(moved, number_inside=number_inside))
        assert await shop.reasons(SHEENA) == ["number_changed"]

    async def test_it_is_of_the_account_whose_number_it_names(
        self, shop: CloudInstallation, number_inside: bool
    ) -> None:
        webhook = standby(wrote(HASH_A, number=STRANGE_NUMBER), number_inside=number_inside)
        await shop.come(webhook)
        assert await shop.identity(SHEENA) == {}
        [entry] = await shop.quarantined()
        assert STRANGE_NUMBER in entry["reason"]


async def test_a_standby_payload_is_in_effect_and_delivered_again_changes_nothing(
    shop: CloudInstallation,
) -> None:
    raw = raw_of("standby-message-with-hash")
    await shop.come(raw)
    first = await shop.identity(SHEENA)
    assert (first["hash"], first["state"]) == (HASH, "acknowledged")
    await shop.come(raw)
    assert await shop.identity(SHEENA) == first
    assert await shop.quarantined() == []


async def test_a_user_who_writes_to_another_app_is_known(shop: CloudInstallation) -> None:
    await shop.come(standby(wrote()))
    assert (await shop.gate(SHEENA))["known"] is True


@pytest.mark.parametrize("field", ["standby", "messages", "smb_message_echoes"])
@pytest.mark.parametrize("nested", [False, True])
async def test_what_the_business_itself_wrote_makes_it_no_user(
    shop: CloudInstallation, field: str, nested: bool
) -> None:
    echo = text(0, wa_id=BUSINESS) | {"to": SHEENA, "identity": {"hash": HASH_C}}
    told: Json = {"message_echoes": [echo]}
    webhook = envelope(value() | ({"standby": told} if nested else told))
    webhook["entry"][0]["changes"][0]["field"] = field
    await shop.come(webhook, raw_of("standby-echo"))
    for user in (BUSINESS, SHEENA):
        assert await shop.identity(user) == {}
        assert (await shop.gate(user))["known"] is False
    assert await shop.quarantined() == []


async def test_a_hash_of_the_contact_beside_an_echo_counts(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A))
    echo = text(60, wa_id=BUSINESS) | {"to": SHEENA}
    inner = {"contacts": [contact(HASH_B, wa_id=SHEENA)], "message_echoes": [echo]}
    webhook = envelope(value() | {"standby": inner})
    webhook["entry"][0]["changes"][0]["field"] = "standby"
    await shop.come(webhook)
    assert (await shop.identity(SHEENA))["hash"] == HASH_B


async def test_who_has_the_conversation_is_kept_and_changes_nothing(
    shop: CloudInstallation,
) -> None:
    raw = raw_of("messaging-handovers")
    await shop.come(raw)
    assert await shop.quarantined() == []
    _, kept = await shop.api("GET", await shop.entry())
    assert (kept["state"], kept["body"].encode()) == ("applied", raw)
    assert (await shop.gate(SHEENA))["known"] is False


# At the wrong endpoint


@pytest.mark.parametrize("key", ["object", "entry"])
async def test_a_webhook_of_the_cloud_api_at_an_on_premises_account_is_quarantined(
    manual: Installation, key: str
) -> None:
    webhook = wrote(HASH_A)
    elements = notice(WA_ID, HASH_B, hour_ago(0))
    body: Any = {key: webhook[key]} | elements
    for sent in (webhook, body):
        assert await manual.post(sent) == 200
    entries = await manual.quarantined()
    assert [entry["account"] for entry in entries] == ["main", "main"]
    assert all("Cloud API" in entry["reason"] for entry in entries)
    for user in (SHEENA, WA_ID):
        assert await manual.identity(user) == {}
        assert (await manual.gate(user))["known"] is False


async def test_a_callback_of_a_client_at_the_endpoint_of_an_app_is_quarantined(
    shop: CloudInstallation,
) -> None:
    raw = json.dumps(notice(WA_ID, HASH_A, hour_ago(0))).encode()
    assert await shop.post(raw, path=APP_ENDPOINT, headers=signed(raw)) == 200
    [entry] = await shop.quarantined()
    assert "entry: missing" in entry["reason"]
    for account in ("shop", "main"):
        assert await shop.identity(WA_ID, account) == {}


async def test_each_at_its_own_endpoint_is_in_effect(shop: CloudInstallation) -> None:
    await shop.come(wrote(HASH_A))
    own = f"/webhooks/main/{TOKEN}"
    assert await shop.post(notice(WA_ID, HASH_B, hour_ago(0)), path=own) == 200
    assert (await shop.identity(SHEENA))["hash"] == HASH_A
    assert (await shop.identity(WA_ID, "main"))["hash"] == HASH_B
    assert await shop.quarantined() == []


# The sample of Meta's dashboard


async def test_the_sample_of_the_dashboard_is_kept_and_raises_no_issue(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(inspector={"every_seconds": 0.05})
    raw = raw_of("dashboard-sample")
    await shop.come(raw)
    _, kept = await shop.api("GET", await shop.entry())
    assert (kept["state"], kept["body"].encode()) == ("applied", raw)
    looked = shop.meta.calls.counts["number"]
    await until(lambda: shop.meta.calls.counts["number"] > looked + 2)
    _, issues = await shop.api("GET", "/issues")
    assert "unknown_number" not in [issue["code"] for issue in issues["items"]]
    assert await metric(shop, "ackgate_unknown_numbers_total") == 0


async def test_an_account_with_the_number_of_the_sample_is_told_of_it(open_shop: OpenShop) -> None:
    sample = json.loads(raw_of("dashboard-sample"))
    sample["entry"][0]["changes"][0]["value"]["metadata"]["phone_number_id"] = NUMBER
    shop = await open_shop()
    await shop.come(sample)
    assert (await shop.gate("16315551181"))["known"] is True
