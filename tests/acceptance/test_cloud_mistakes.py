"""What goes wrong in other receivers of the Cloud API, by their public issue trackers."""

import asyncio
import json
from typing import Any

import pytest

from tests.acceptance.conftest import (
    APP_ENDPOINT,
    HASH_A,
    HASH_B,
    HASH_C,
    SHEENA,
    USER_ID,
    CloudInstallation,
    Json,
    OpenShop,
    Spawn,
    signed,
    until,
)
from tests.acceptance.webhooks import (
    contact,
    envelope,
    mismatch,
    status,
    system,
    text,
    told,
    value,
    wrote,
)

COUNT = 50


def wa_ids(count: int) -> list[str]:
    return [str(16505550000 + number) for number in range(count)]


def raw_of(webhook: Json) -> bytes:
    return json.dumps(webhook).encode()


async def events_of(shop: CloudInstallation, user: str = SHEENA) -> list[str]:
    return [entry["event"] for entry in await shop.audit(user)]


# "Only the first element of a batch is handled"


async def test_every_entry_change_contact_message_and_status_of_a_batch_is_handled(
    shop: CloudInstallation,
) -> None:
    users = wa_ids(16)
    batches = [
        value(
            [contact(HASH_A, wa_id=user) for user in users[start : start + 4]],
            [text(wa_id=user) for user in users[start : start + 4]],
        )
        for start in (0, 4)
    ]
    sent = [status("sent", id_=f"wamid.{u}", hash_=HASH_B, recipient_id=u) for u in users[8:12]]
    first, second = envelope(*batches), envelope(value(statuses=sent))
    later = [value([contact(HASH_C, wa_id=user)], [text(wa_id=user)]) for user in users[12:]]
    third = envelope(*later)
    entries = [each["entry"][0] | {"id": str(n)} for n, each in enumerate((first, second, third))]
    await shop.come({**first, "entry": entries})
    hashes = [(await shop.identity(user))["hash"] for user in users]
    assert hashes == [HASH_A] * 8 + [HASH_B] * 4 + [HASH_C] * 4


async def test_a_batch_that_meta_gathers_is_handled_to_the_last(open_shop: OpenShop) -> None:
    shop = await open_shop(meta={"batch": 40, "per_change": 7})
    for user in wa_ids(40):
        shop.meta.write(user, "Hello")
    await shop.meta.settled()
    assert len(shop.meta.callbacks) == 1
    for user in wa_ids(40):
        assert (await shop.gate(user))["identity_key_hash"] == shop.meta.users[user].hash


# "One bad element aborts the rest of the batch"

BAD: dict[str, Any] = {
    "no object": 7,
    "null": None,
    "an unusable user": {"wa_id": "../etc", "identity_key_hash": HASH_A},
    "an unusable hash": {"wa_id": "16505559999", "identity_key_hash": "a\x00b"},
    "a hash that is no text": {"wa_id": "16505559999", "identity_key_hash": [1]},
    "a hash of nobody": {"identity_key_hash": HASH_A},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_one_bad_contact_leaves_its_neighbours_in_effect(
    shop: CloudInstallation, bad: Any
) -> None:
    before, after, beside = wa_ids(3)
    contacts = [contact(HASH_A, wa_id=before), bad, contact(HASH_B, wa_id=after)]
    webhook = envelope(
        value(contacts, [text(wa_id=before), text(wa_id=after)]),
        value([contact(HASH_C, wa_id=beside)], [text(wa_id=beside)]),
    )
    assert await shop.deliver_signed(raw_of(webhook)) == 200
    shown = [(await shop.identity(user)).get("hash") for user in (before, after, beside)]
    assert shown == [HASH_A, HASH_B, HASH_C]
    [entry] = await shop.quarantined()
    assert (entry["account"], "contacts" in entry["reason"]) == ("shop", True)
    assert HASH_A not in entry["reason"]


@pytest.mark.parametrize(
    "bad",
    [7, None, [], {"from": "../etc"}, {"type": "system"}, {"type": "system", "system": "x"}],
    ids=str,
)
async def test_one_bad_message_leaves_its_neighbours_in_effect(
    shop: CloudInstallation, bad: Any
) -> None:
    before, after = wa_ids(2)
    contacts = [contact(HASH_A, wa_id=before), contact(HASH_B, wa_id=after)]
    webhook = envelope(value(contacts, [text(wa_id=before), bad, text(wa_id=after)]))
    assert await shop.deliver_signed(raw_of(webhook)) == 200
    assert [await shop.state(user) for user in (before, after)] == ["acknowledged"] * 2
    [entry] = await shop.quarantined()
    assert "messages[1]" in entry["reason"]


@pytest.mark.parametrize("bad", [7, None, {"recipient_id": [], "status": "sent"}], ids=str)
async def test_one_bad_status_leaves_its_neighbours_in_effect(
    shop: CloudInstallation, bad: Any
) -> None:
    before, after = wa_ids(2)
    good = [status("sent", hash_=HASH_A, recipient_id=user) for user in (before, after)]
    await shop.come(told(good[0], bad, good[1]))
    assert [await shop.state(user) for user in (before, after)] == ["acknowledged"] * 2


@pytest.mark.parametrize("bad", [7, None, "x", []], ids=str)
@pytest.mark.parametrize("place", ["entry", "changes", "value"])
async def test_a_bad_part_of_the_envelope_leaves_the_others_in_effect(
    shop: CloudInstallation, place: str, bad: Any
) -> None:
    webhook = wrote(HASH_A)
    if place == "entry":
        webhook["entry"].insert(0, bad)
    elif place == "changes":
        webhook["entry"][0]["changes"].insert(0, bad)
    else:
        webhook["entry"][0]["changes"].insert(0, {"field": "messages", "value": bad})
    assert await shop.deliver_signed(raw_of(webhook)) == 200
    assert await shop.state(SHEENA) == "acknowledged"
    assert len(await shop.quarantined()) == 1


# "A crash on system messages without `contacts`"


async def test_system_messages_come_without_contacts(shop: CloudInstallation) -> None:
    await shop.come(
        system(0, type="user_changed_number", wa_id="12195555358"),
        system(1, type="user_changed_number", new_wa_id="12195555359"),
        system(2, None, type="user_changed_user_id", user_id=USER_ID, previous_user_id="US.1"),
        system(3, type="customer_changed_number", customer=SHEENA, wa_id="12195555360"),
        system(4, type="customer_identity_changed", customer=SHEENA, identity=HASH_A),
        system(5, type="a_type_of_tomorrow"),
    )
    assert await shop.quarantined() == []
    assert (await shop.identity(SHEENA))["hash"] == HASH_A
    assert await shop.reasons("US.1") == ["number_changed"]


# "Answering 200 before storing, so a crash loses the event"


@pytest.mark.slow
async def test_what_got_a_200_is_there_after_a_kill_right_behind_it(
    prepare_shop: OpenShop, spawn: Spawn
) -> None:
    made = await prepare_shop()
    child = await spawn(made.tree)
    child.account = "shop"
    for number, user in enumerate(wa_ids(5)):
        raw = raw_of(wrote(HASH_A, wa_id=user))
        assert await child.post(raw, path=APP_ENDPOINT, headers=signed(raw)) == 200
        await child.kill()
        await child.start()
        assert (await child.identity(user))["hash"] == HASH_A
        _, kept = await child.api("GET", f"/journal/{number + 1}")
        assert (kept["state"], kept["body"].encode()) == ("applied", raw)


@pytest.mark.slow
async def test_what_got_no_200_because_of_a_kill_is_sent_again_and_counts_once(
    prepare_shop: OpenShop, spawn: Spawn
) -> None:
    made = await prepare_shop()
    child = await spawn(made.tree)
    child.account = "shop"
    made.meta.webhook_url = child.base + APP_ENDPOINT
    users = wa_ids(60)
    for user in users[:30]:
        made.meta.write(user, "Hello")
    await until(lambda: made.meta.webhooks.delivery.answers["200"] > 3)
    for user in users[30:45]:
        made.meta.write(user, "Hello")
    await asyncio.sleep(0.003)
    await child.kill()
    for user in users[45:]:
        made.meta.write(user, "Hello")
    assert any(callback.state == "pending" for callback in made.meta.callbacks)
    await child.start()
    made.meta.webhook_url = child.base + APP_ENDPOINT
    await made.meta.settled(30)
    for user in users:
        identity = await child.identity(user)
        assert identity["hash"] == made.meta.users[user].hash
        assert [entry["event"] for entry in identity["audit"]] == ["first_use"]


# "Always answering 200, so that the sender's retry is useless"


@pytest.mark.usefixtures("impatient")
async def test_what_can_not_be_stored_gets_503_so_that_meta_sends_it_again(
    shop: CloudInstallation,
) -> None:
    async with shop.locked():
        user = shop.meta.write(SHEENA, "Hello")
        await until(lambda: shop.meta.webhooks.delivery.answers["503"] >= 2)
        assert shop.meta.webhooks.delivery.answers["200"] == 0
    await shop.meta.settled()
    assert shop.meta.webhooks.delivery.answers["200"] == 1
    assert (await shop.identity(SHEENA))["hash"] == user.hash
    _, listed = await shop.api("GET", "/journal")
    assert len(listed["items"]) == 1


@pytest.mark.usefixtures("impatient")
async def test_the_503_says_when_to_come_again(shop: CloudInstallation) -> None:
    raw = raw_of(wrote(HASH_A))
    async with (
        shop.locked(),
        shop.http.post(shop.base + APP_ENDPOINT, data=raw, headers=signed(raw)) as response,
    ):
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0


# "A seen-set that two near-simultaneous duplicates slip through"


async def test_many_duplicates_at_once_are_one_identity_and_one_change(
    shop: CloudInstallation,
) -> None:
    raw = raw_of(wrote(HASH_A, wa_id=SHEENA, user_id=USER_ID))
    assert await asyncio.gather(*(shop.deliver_signed(raw) for _ in range(COUNT))) == [200] * COUNT
    assert await events_of(shop) == ["first_use"]
    raw = raw_of(wrote(HASH_B, 60, wa_id=SHEENA, user_id=USER_ID))
    assert await asyncio.gather(*(shop.deliver_signed(raw) for _ in range(COUNT))) == [200] * COUNT
    assert (await events_of(shop))[1:] == ["superseded", "changed"]
    identity = await shop.identity(SHEENA)
    assert (identity["hash"], identity["state"]) == (HASH_B, "pending")
    assert [entry["hash"] for entry in identity["history"]] == [HASH_A]
    _, listed = await shop.api("GET", "/identities")
    assert len(listed["items"]) == 1


async def test_many_duplicates_of_a_137000_at_once_are_one_change(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A))
    raw = raw_of(told(mismatch(recipient_id=SHEENA)))
    assert await asyncio.gather(*(shop.deliver_signed(raw) for _ in range(COUNT))) == [200] * COUNT
    assert (await events_of(shop))[1:] == ["superseded", "changed"]
    assert len((await shop.identity(SHEENA))["history"]) == 1


async def test_messages_and_statuses_of_the_same_hash_at_once_are_one_change(
    shop: CloudInstallation,
) -> None:
    users = {"wa_id": SHEENA, "user_id": USER_ID}
    webhooks = [raw_of(wrote(HASH_A, after, **users)) for after in range(COUNT)]
    webhooks += [
        raw_of(told(status("sent", after, hash_=HASH_A, recipient_user_id=USER_ID)))
        for after in range(COUNT)
    ]
    assert set(await asyncio.gather(*map(shop.deliver_signed, webhooks))) == {200}
    assert await events_of(shop) == ["first_use"]


# "A message is marked as seen before it is stored"


@pytest.mark.usefixtures("impatient")
async def test_what_was_not_stored_is_new_when_it_comes_again(shop: CloudInstallation) -> None:
    raw = raw_of(wrote(HASH_A))
    async with shop.locked():
        assert await shop.deliver_signed(raw) == 503
        assert await shop.identity(SHEENA) == {}
    assert await shop.deliver_signed(raw) == 200
    assert await shop.state(SHEENA) == "acknowledged"
    raw = raw_of(told(mismatch(recipient_id=SHEENA)))
    async with shop.locked():
        assert await shop.deliver_signed(raw) == 503
    assert await shop.state(SHEENA) == "acknowledged"
    assert await shop.deliver_signed(raw) == 200
    assert await shop.state(SHEENA) == "pending"


# "A signature is checked over re-serialised JSON"


async def test_the_signature_is_that_of_the_raw_bytes_however_meta_escapes_them(
    shop: CloudInstallation,
) -> None:
    shop.meta.set_user(SHEENA, name="René 😀 </script>")
    shop.meta.write(SHEENA, "a/b ü 漢")
    await shop.meta.settled()
    [callback] = shop.meta.callbacks
    assert rb"\/" in callback.body
    assert rb"\u" in callback.body
    assert callback.body.isascii()
    assert await shop.state(SHEENA) == "acknowledged"
    again = json.dumps(json.loads(callback.body)).encode()
    headers = signed(callback.body)
    assert await shop.post(again, path=APP_ENDPOINT, headers=headers) == 401


# "Signature checks on the unsigned GET"


async def test_the_handshake_needs_no_signature(shop: CloudInstallation) -> None:
    shop.meta.webhook_url = None
    await shop.meta.register(shop.base + APP_ENDPOINT, "a-verify-token")
    shop.meta.write(SHEENA, "Hello")
    await shop.meta.settled()
    assert await shop.state(SHEENA) == "acknowledged"


# "Strict models that reject a new `type` or a new key"


async def test_new_types_and_new_keys_are_let_pass_wherever_they_are(
    shop: CloudInstallation,
) -> None:
    def with_keys(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: with_keys(each) for key, each in found.items()} | {"of_tomorrow": [{}, 1]}
        return [*map(with_keys, found)] if isinstance(found, list) else found

    message = text(wa_id=SHEENA) | {"type": "hologram", "hologram": {"depth": 3}}
    webhook = with_keys(envelope(value([contact(HASH_A, wa_id=SHEENA)], [message])))
    webhook["entry"][0]["changes"] += [
        {"field": "of_tomorrow", "value": {"a": 1}},
        {"field": "account_update", "value": {"event": "VERIFIED_ACCOUNT"}},
        {"field": "messages", "value": {**value(), "reactions_of_tomorrow": []}},
    ]
    await shop.come(webhook, told(status("beamed", recipient_id=SHEENA)))
    assert await shop.quarantined() == []
    assert (await shop.identity(SHEENA))["hash"] == HASH_A


# "A late retry with an old hash rolls the state back"


async def test_a_late_retry_with_an_old_hash_does_not_roll_the_state_back(
    shop: CloudInstallation,
) -> None:
    first = wrote(HASH_A)
    await shop.come(first, wrote(HASH_B, 60))
    assert (await shop.acknowledge(HASH_B, SHEENA))[0] == 200
    before = await shop.identity(SHEENA)
    old_status = told(status("sent", 30, hash_=HASH_A, recipient_id=SHEENA))
    await shop.come(first, old_status, first)
    after = await shop.identity(SHEENA)
    assert (after["hash"], after["state"]) == (HASH_B, "acknowledged")
    assert [entry["hash"] for entry in after["history"]] == [HASH_A]
    assert after["audit"] == before["audit"]
    assert (await shop.gate(SHEENA))["identity_key_hash"] == HASH_B


async def test_a_hash_from_before_the_trusted_one_that_comes_a_day_late_is_history(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_B, 60))
    await shop.come(wrote(HASH_A, -86_400))
    identity = await shop.identity(SHEENA)
    # it was trusted for being the first, which it turned out not to be
    assert (identity["hash"], identity["state"]) == (HASH_B, "pending")
    assert [entry["hash"] for entry in identity["history"]] == [HASH_A]


async def test_webhooks_in_reverse_end_where_those_in_order_do(shop: CloudInstallation) -> None:
    shop.meta.fault("callback", reorder=3)
    for hash_, after in ((HASH_A, 0), (HASH_B, 60), (HASH_C, 120)):
        shop.meta.send_callback(wrote(hash_, after))
    await shop.meta.settled()
    identity = await shop.identity(SHEENA)
    assert (identity["hash"], identity["state"]) == (HASH_C, "pending")
    assert [entry["hash"] for entry in identity["history"]] == [HASH_B, HASH_A]
