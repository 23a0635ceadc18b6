"""Who is erased is nowhere any more, and is not let in by that."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from service.store.schema import metadata
from service.workers import erasing as workers
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    NUMBER,
    OTHER_ID,
    OTHER_NUMBER,
    WA_ID,
    CloudInstallation,
    Installation,
    Json,
    OpenShop,
    digest_of,
    hour_ago,
    notice,
    until,
    wrote,
)
from tests.acceptance.consoling import Browser
from tests.acceptance.sinks import sink

GONE = "16315550771"
MOVED = "16315550662"
GONE_HASH = "U2VudGluZWw="
SENTINELS = (GONE, GONE_HASH, "A Vanishing", "vanishing text", "vanishing note", "555-0771")
SPELLED = ("555.0771", "BEGIN:VCARD")
"""What callbacks alone have: other spellings of the number, and a card with one."""


def said(text: str, wa_id: str = GONE, name: str = "A Vanishing Name") -> Json:
    message = {"from": wa_id, "id": f"m-{text}", "timestamp": "1749416383", "type": "text"}
    contact = {"wa_id": wa_id, "profile": {"name": name}}
    return {"contacts": [contact], "messages": [message | {"text": {"body": text}}]}


def together(*bodies: Json) -> Json:
    parts = ("contacts", "messages")
    return {part: [one for body in bodies for one in body.get(part, [])] for part in parts}


async def erase(service: Installation, user: str = GONE) -> Json:
    path = f"/accounts/{service.account}/users/{user}/erase"
    status, answer = await service.api("POST", path)
    assert status == 200, answer
    return dict(answer)


async def assert_gone(service: Installation, *sentinels: str) -> None:
    """Look at every column of every table, and on SQLite at the bytes of the files."""
    for table in metadata.sorted_tables:
        for row in await service.rows(f"SELECT * FROM {table.name}"):
            shown = " ".join(
                one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in row
            )
            assert not [one for one in sentinels if one in shown], f"{table.name}: {row}"
    if service.is_on_a_file:
        for file in (service.database, Path(f"{service.database}-wal")):
            raw = file.read_bytes() if file.exists() else b""
            assert not [one for one in sentinels if one.encode() in raw], file.name


async def assert_all_is_told(service: Installation) -> None:
    """Export the user: all the sentinels are there, and nothing of the neighbour."""
    await service.settled()
    status, told = await service.api("GET", f"/accounts/main/users/{GONE}/export")
    assert status == 200, told
    written = json.dumps(told, ensure_ascii=False)
    assert not [one for one in SENTINELS if one not in written]
    assert "a neighbour's" not in written
    assert "A Neighbour" not in written
    assert len(told["callbacks"]) >= 6
    assert {entry["event"] for entry in told["audit"]} > {"changed", "held", "blocked", "exported"}
    assert told["block"]["reason"] == "vanishing note"


async def test_nothing_of_an_erased_user_is_left_anywhere(
    manual: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    service = manual
    await service.deliver(said("vanishing text 1"), notice(GONE, GONE_HASH, hour_ago()))
    await service.deliver(notice(GONE, f"{GONE_HASH}2", hour_ago(60)))
    await service.deliver({"contacts": [{"input": "+1 (631) 555-0771", "status": "processing"}]})
    await service.deliver(
        {"contacts": [{"input": "+1 (631) 555-0771", "status": "valid", "wa_id": GONE}]},
        together(said("vanishing text 2"), said("a neighbour's", OTHER_ID, "A Neighbour")),
    )
    await service.post(f"{GONE} is not JSON".encode())
    phones = [{"phone": "+1 (631) 555-0771"}]
    number = "\u202a+1\u00a0(631)\u00a0555\u20110771\u202c"
    vcard = f"BEGIN:VCARD\nFN:A Vanishing Name\nTEL:{number}\nEND:VCARD"
    card = {"from": OTHER_ID, "id": "card", "timestamp": "1749416383", "type": "contacts"}
    await service.deliver(
        {"messages": [card | {"contacts": [{"vcard": vcard, "phones": phones}]}]},
        {"messages": [card | {"id": "told", "text": {"body": "vanishing text: 001 631.555.0771"}}]},
    )
    status, _ = await service.hold(
        f"{GONE_HASH}2",
        GONE,
        note="vanishing note",
        evidence={"method": "vanishing note", "reference": "vanishing note"},
    )
    assert status == 200
    block = f"/accounts/main/recipients/{GONE}/block"
    assert (await service.api("PUT", block, {"reason": "vanishing note"}))[0] == 200
    await service.deliver(wrote(OTHER_ID, HASH_A, hour_ago()))
    moved = {"type": "user_changed_number", "user": MOVED, "new_wa_id": GONE}
    moved["body"] = f"A user changed from {MOVED} to {GONE}"
    system = {"from": MOVED, "id": "moved", "timestamp": "1749416383", "type": "system"}
    await service.deliver({"messages": [system | {"system": moved}]})
    await assert_all_is_told(service)
    answer = await erase(service)
    assert answer["erased"]["callbacks"] >= 5
    assert answer["linked"] == [MOVED]
    await assert_gone(service, *SENTINELS, *SPELLED)
    out = capfd.readouterr()
    assert not [one for one in SENTINELS if one in out.out + out.err]
    neighbour = next(e for e in await service.journal() if e["state"] == "applied")
    _, kept = await service.api("GET", f"/journal/{neighbour['id']}")
    assert "a neighbour's" in kept["body"]
    assert "A Neighbour" in kept["body"]
    assert (await service.identity(OTHER_ID))["hash"] == HASH_A
    assert set(await service.reasons(GONE)) == {"erased", "blocked"}
    assert await service.reasons(OTHER_ID) == ["identity_pending"]
    assert await service.reasons(MOVED) == ["number_changed"], "who moved there stays closed"
    again = await erase(service)
    assert again["linked"] == []
    assert sum(again["erased"].values()) == 0


async def test_the_next_identity_of_an_erased_user_waits_for_a_person(auto: Installation) -> None:
    service = auto
    service.sim.set_user(GONE, hash=GONE_HASH, acknowledged=False)
    await service.deliver(notice(GONE, GONE_HASH, hour_ago()))
    await service.becomes("acknowledged", GONE)
    await erase(service)
    assert await service.reasons(GONE) == [], "it was sendable"
    await service.deliver(said("again"))
    assert await service.reasons(GONE) == []
    await erase(service)
    await service.deliver(notice(GONE, GONE_HASH, hour_ago()))
    assert await service.state(GONE) == "pending"
    await service.deliver(notice(GONE, HASH_C, hour_ago(60)))
    assert await service.state(GONE) == "pending"
    assert await service.reasons(GONE) == ["identity_pending"]
    await erase(service)
    assert await service.reasons(GONE) == ["erased"]
    await service.deliver(said("and again"))
    assert await service.reasons(GONE) == ["erased"], "a message without a hash opens nothing"
    service.sim.set_user(GONE, hash=HASH_B, acknowledged=False)
    await service.deliver(notice(GONE, HASH_B, hour_ago(90)))
    assert (await service.acknowledge(HASH_B, GONE))[0] == 202
    await service.becomes("acknowledged", GONE)
    assert await service.reasons(GONE) == []


def at_number(number: str, *messages: Json, **contact: Any) -> Json:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "1", "phone_number_id": number},
        "contacts": [contact],
        "messages": [{"timestamp": "1749416383", "type": "text"} | one for one in messages],
    }
    return {"field": "messages", "value": value}


def whole(*changes: Json) -> Json:
    return {"object": "whatsapp_business_account", "entry": [{"id": "0", "changes": [*changes]}]}


def at_both(hash_: str = GONE_HASH) -> Json:
    """One callback for two accounts: the same person has written to both."""
    return whole(
        *(
            at_number(
                number,
                {"from": GONE, "id": f"wamid.{at}", "text": {"body": f"said to {at}"}},
                wa_id=GONE,
                identity_key_hash=hash_,
                profile={"name": f"Known to {at}"},
            )
            for number, at in ((NUMBER, "shop"), (OTHER_NUMBER, "outlet"))
        )
    )


async def open_for_one(open_shop: OpenShop) -> CloudInstallation:
    """Open a shop with an outlet of the same app, and a key for the shop alone."""
    mine = {"role": "admin", "sha256": digest_of("key-of-the-shop"), "accounts": ["shop"]}
    all_ = {"role": "admin", "sha256": digest_of("key-of-all")}
    shop = await open_shop(api={"keys": {"mine": mine, "all": all_}})
    shop.key = "key-of-all"
    return shop


async def test_what_another_account_of_the_app_has_stays_and_is_not_told(
    open_shop: OpenShop,
) -> None:
    shop = await open_for_one(open_shop)
    await shop.come(at_both())
    await shop.settled()
    status, told = await shop.api(
        "GET", f"/accounts/shop/users/{GONE}/export", key="key-of-the-shop"
    )
    assert status == 200
    written = json.dumps(told)
    assert "said to shop" in written
    assert "Known to shop" in written
    assert "outlet" not in written
    path = f"/accounts/shop/users/{GONE}/erase"
    status, answer = await shop.api("POST", path, key="key-of-the-shop")
    assert (status, answer["erased"]["callbacks"]) == (200, 1)
    await assert_gone(shop, "said to shop", "Known to shop")
    [entry] = await shop.journal()
    _, kept = await shop.api("GET", f"/journal/{entry['id']}")
    left = at_both()
    shops = left["entry"][0]["changes"][0]["value"]
    shops["contacts"] = shops["messages"] = []
    assert json.loads(kept["body"]) == left
    assert (await shop.of("outlet").identity(GONE))["hash"] == GONE_HASH
    await erase(shop.of("outlet"))
    await assert_gone(shop, GONE, GONE_HASH, "said to", "Known to")


async def test_the_console_names_a_user_by_what_the_account_was_told(
    open_shop: OpenShop,
) -> None:
    shop = await open_for_one(open_shop)
    await shop.come(at_both(), at_both(HASH_B))
    browser = Browser.of(shop)
    await browser.sign_in("key-of-the-shop")
    for path in ("", f"accounts/shop/identities/{GONE}"):
        page = await browser.get(f"/console/{path}")
        assert "Known to shop" in page.html
        assert "outlet" not in page.html


async def test_what_a_stop_cut_short_is_finished_after_the_start(
    manual: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = manual
    await service.deliver(said("vanishing text"), notice(GONE, GONE_HASH, hour_ago()))
    with monkeypatch.context() as patch:
        patch.setattr(workers, "SETTLED_WITHIN_SECONDS", 0)
        patch.setattr(workers, "is_settled", lambda *_, **__: False)
        status, _ = await service.api("POST", f"/accounts/main/users/{GONE}/erase")
        assert status == 503
        assert await service.rows("SELECT * FROM erasures")
        await service.stop()
    await service.start()

    async def is_finished() -> bool:
        return not await service.rows("SELECT * FROM erasures")

    await until(is_finished)
    await service.stop()
    await assert_gone(service, *SENTINELS)


async def test_two_who_are_erased_at_once_are_both_gone(open_shop: OpenShop) -> None:
    shop = await open_for_one(open_shop)
    people = [f"1631555{number:04}" for number in range(1000, 1012)]
    messages = [{"from": one, "id": f"wamid.{one}"} for one in [*people, OTHER_ID]]
    await shop.come(*(whole(at_number(NUMBER, *messages, wa_id=OTHER_ID)) for _ in range(3)))
    await asyncio.gather(*(erase(shop, one) for one in people))
    await assert_gone(shop, *people)
    for entry in await shop.journal():
        _, kept = await shop.api("GET", f"/journal/{entry['id']}")
        (change,) = json.loads(kept["body"])["entry"][0]["changes"]
        assert [one["from"] for one in change["value"]["messages"]] == [OTHER_ID]


async def test_a_user_of_the_cloud_api_is_known_by_every_former_name(
    shop: CloudInstallation,
) -> None:
    service, user_id = shop, "US.77100000000000000001"

    def webhook(contact: Json, message: Json) -> Json:
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "1", "phone_number_id": NUMBER},
            "contacts": [contact],
            "messages": [message | {"id": "wamid.x", "timestamp": "1749416383", "type": "text"}],
        }
        change = {"field": "messages", "value": value}
        return {"object": "whatsapp_business_account", "entry": [{"id": "0", "changes": [change]}]}

    both = {"wa_id": GONE, "user_id": user_id, "identity_key_hash": GONE_HASH}
    profile = {"profile": {"name": "A Vanishing Name"}}
    whole = webhook(both | profile, {"from": GONE, "from_user_id": user_id})
    await service.come(whole)
    assert await service.state(GONE) == "acknowledged", "trusted on first use"
    await erase(service)
    await assert_gone(service, user_id, *SENTINELS)
    by_id = webhook({"user_id": user_id, "identity_key_hash": GONE_HASH}, {"from_user_id": user_id})
    await service.come(by_id)
    assert await service.state(user_id) == "pending"
    await erase(service, user_id)
    await service.come(whole)
    assert await service.state(GONE) == "pending"


async def test_relays_deliver_what_is_left(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays={"crm": {"url": crm.url}})
        assert (await service.api("POST", "/relays/crm/pause"))[0] == 200
        await service.deliver(said("vanishing text"))
        await service.deliver(together(said("vanishing text"), said("theirs", OTHER_ID, "Their")))
        await service.deliver(said("another", WA_ID, "Another"))
        await erase(service)
        assert (await service.api("POST", "/relays/crm/resume"))[0] == 200
        await until(lambda: len(crm.taken) == 2)
        bodies = crm.bodies
        assert not [one for one in SENTINELS if any(one.encode() in body for body in bodies)]
        assert json.loads(bodies[0])["messages"][0]["from"] == OTHER_ID
