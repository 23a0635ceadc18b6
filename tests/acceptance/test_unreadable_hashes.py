"""An identity change whose user can be read and whose hash can't: the gate closes all the same."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import (
    APP_ENDPOINT,
    HASH_A,
    HASH_B,
    HASH_C,
    NUMBER,
    OTHER_ID,
    SHEENA,
    USER_ID,
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
from tests.acceptance.conftest import wrote as wrote_to_client
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

UNREADABLE: list[Any] = ["x" * 1025, "Rc/eg9\nRl0JA=", ["Rc/eg9Rl0JA="], {"hash": 7}, 7]
SHAPES = ["1,025 characters", "a line feed", "a list", "an object", "a number"]
FAR = 30
"""Seconds after the first sighting: beyond every tolerance."""


async def make_readable(made: Installation, before: Any, after: str) -> None:
    """Stand in for a dialect that has learned to read a hash: let its text be one that it reads."""
    for id_, body in await made.rows("SELECT id, body FROM journal"):
        readable = bytes(body).replace(json.dumps(before).encode(), json.dumps(after).encode())
        await made.write("UPDATE journal SET body = :body WHERE id = :id", body=readable, id=id_)


async def only_quarantined(made: Installation, where: str) -> Json:
    [entry] = await made.quarantined()
    assert where in entry["reason"]
    return entry


# On-Premises: as a 480


def unreadable_notice(hash_: Any, wa_id: str = WA_ID) -> Json:
    body = notice(wa_id, HASH_B, hour_ago(FAR))
    body["messages"][0]["system"]["identity"] = hash_
    return body


def unreadable_message(hash_: Any, wa_id: str = WA_ID) -> Json:
    body = wrote_to_client(wa_id, HASH_B, hour_ago(FAR))
    body["messages"][0]["identity"]["hash"] = hash_
    return body


Made = Callable[[Any], Json]
IN_ONPREM = {
    "messages[0].system.identity": unreadable_notice,
    "messages[0].identity.hash": unreadable_message,
}


@pytest.mark.parametrize("where", IN_ONPREM)
@pytest.mark.parametrize("hash_", UNREADABLE, ids=SHAPES)
async def test_the_gate_closes_until_the_client_has_told_the_hash(
    manual: Installation, hash_: Any, where: str
) -> None:
    await manual.acknowledged()
    latest = manual.sim.change_identity(WA_ID, notify=False)
    asked = manual.gets()
    manual.sim.fault("identity_get", latency=0.2, times=1)
    await manual.deliver(IN_ONPREM[where](hash_))
    assert await manual.reasons() == ["send_blocked"]
    shown = await manual.becomes("pending", hash_=latest)
    assert "send_blocked" in [entry["event"] for entry in shown["audit"]]
    assert await manual.reasons() == ["identity_pending"]
    assert manual.gets() == asked + 1
    await only_quarantined(manual, where)


@pytest.mark.parametrize("where", IN_ONPREM)
async def test_of_a_user_never_heard_of_the_client_is_asked_too(
    manual: Installation, where: str
) -> None:
    latest = manual.sim.change_identity(WA_ID, notify=False)
    await manual.sim.stop()
    await manual.deliver(IN_ONPREM[where](UNREADABLE[0]))
    assert await manual.reasons() == ["send_blocked"]
    await manual.sim.start()
    manual.pass_time(600)
    await manual.becomes("pending", hash_=latest)


async def test_where_the_gate_is_closed_already_the_client_tells_what_there_is_to_decide_about(
    manual: Installation,
) -> None:
    await manual.change()
    latest = manual.sim.change_identity(WA_ID, notify=False)
    await manual.deliver(unreadable_notice(UNREADABLE[1]))
    await manual.becomes("pending", hash_=latest)
    assert manual.gets() == 1


async def test_the_rest_of_such_a_callback_is_in_effect(manual: Installation) -> None:
    body = unreadable_message(UNREADABLE[2])
    body["messages"] += notice(OTHER_ID, HASH_C, hour_ago(0))["messages"]
    await manual.deliver(body)
    assert (await manual.identity(OTHER_ID))["hash"] == HASH_C
    assert (await manual.gate())["known"] is True
    await only_quarantined(manual, "messages[0].identity.hash: no text")


async def test_delivered_again_it_asks_nothing_again(manual: Installation) -> None:
    await manual.acknowledged()
    await manual.deliver(unreadable_notice(UNREADABLE[0]))
    await until(lambda: manual.gets() == 1)
    await until(lambda: _open(manual))
    [entry] = await manual.quarantined()
    await manual.deliver(unreadable_notice(UNREADABLE[0]))
    status_, replayed = await manual.api("POST", f"/journal/{entry['id']}/replay")
    assert (status_, replayed["state"]) == (200, "quarantined")
    assert await manual.reasons() == []
    assert manual.gets() == 1


async def _open(made: Installation) -> bool:
    return await made.reasons() == []


async def test_a_replay_that_can_read_the_hash_is_a_change_like_any(manual: Installation) -> None:
    await manual.deliver(notice(WA_ID, HASH_A, hour_ago(0)))
    assert (await manual.acknowledge(HASH_A))[0] == 202
    await manual.sim.stop()
    await manual.deliver(unreadable_notice(UNREADABLE[0]))
    await make_readable(manual, UNREADABLE[0], HASH_B)
    entry = await only_quarantined(manual, "system.identity")
    status_, replayed = await manual.api("POST", f"/journal/{entry['id']}/replay")
    assert (status_, replayed["state"]) == (200, "applied")
    shown = await manual.identity()
    assert (shown["hash"], shown["state"]) == (HASH_B, "pending")


# Cloud: a change whose hash nobody knows


def card(hash_: Any, after: float = FAR, **names: str) -> Json:
    return wrote(hash_, after, **(names or {"wa_id": SHEENA}))


def status_of(state: str) -> Made:
    def made(hash_: Any) -> Json:
        return told(status(state, FAR, "wamid.T1BBUVVF", hash_, recipient_id=SHEENA))

    return made


def stamped(hash_: Any) -> Json:
    element = text(FAR, wa_id=SHEENA) | {"identity": {"hash": hash_}}
    return envelope(value(messages=[element]))


def system_of(stamp: Callable[[Any], Any], type_: str) -> Made:
    def made(hash_: Any) -> Json:
        return system(FAR, type=type_, identity=stamp(hash_))

    return made


def stamped_system(hash_: Any) -> Json:
    webhook = system(FAR, type="customer_identity_changed")
    [change] = webhook["entry"][0]["changes"]
    change["value"]["messages"][0]["identity"] = {"acknowledged": False, "hash": hash_}
    return webhook


def standing_by(hash_: Any) -> Json:
    webhook = card(hash_)
    [change] = webhook["entry"][0]["changes"]
    inner = {key: change["value"].pop(key) for key in ("contacts", "messages")}
    change["value"]["standby"], change["field"] = inner, "standby"
    return webhook


IN_CLOUD: dict[str, tuple[Made, str]] = {
    "contact": (card, "contacts[0].identity_key_hash"),
    "contact of nobody who wrote": (
        lambda hash_: envelope(value([contact(hash_, wa_id=SHEENA)])),
        "contacts[0].identity_key_hash",
    ),
    "status sent": (status_of("sent"), "statuses[0].recipient_identity_key_hash"),
    "status read": (status_of("read"), "statuses[0].recipient_identity_key_hash"),
    "refused": (
        lambda hash_: told(mismatch(None, "wamid.T1BBUVVF", hash_, recipient_id=SHEENA)),
        "statuses[0].recipient_identity_key_hash",
    ),
    "refused long ago": (
        lambda hash_: told(mismatch(FAR, "wamid.T1BBUVVF", hash_, recipient_id=SHEENA)),
        "statuses[0].recipient_identity_key_hash",
    ),
    "message": (stamped, "messages[0].identity.hash"),
    "system": (system_of(lambda h: h, "user_identity_changed"), "messages[0].system.identity"),
    "system with an object": (
        system_of(lambda h: {"hash": h}, "customer_identity_changed"),
        "messages[0].system.identity.hash",
    ),
    "beside a system message": (stamped_system, "messages[0].identity.hash"),
    "standby": (standing_by, "value.standby.contacts[0].identity_key_hash"),
}


@pytest.mark.parametrize("policy", ["manual", "auto"])
@pytest.mark.parametrize("place", IN_CLOUD)
@pytest.mark.parametrize("hash_", UNREADABLE[:3], ids=SHAPES[:3])
async def test_of_a_trusted_user_it_waits_for_a_person_and_the_hash_is_unknown(
    open_shop: OpenShop, hash_: Any, place: str, policy: str
) -> None:
    shop = await open_shop(policy={"mode": policy})
    made, where = IN_CLOUD[place]
    await shop.come(card(HASH_A, 0))
    assert await shop.reasons(SHEENA) == []
    await shop.come(made(hash_))
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (None, "pending")
    assert [entry["hash"] for entry in shown["history"]] == [HASH_A]
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    assert (await shop.gate(SHEENA))["identity_key_hash"] is None
    await only_quarantined(shop, where)


async def test_of_a_user_with_a_user_id_alone_too(shop: CloudInstallation) -> None:
    await shop.come(card(HASH_A, 0, user_id=USER_ID), card(UNREADABLE[0], user_id=USER_ID))
    shown = await shop.identity(USER_ID)
    assert (shown["hash"], shown["state"]) == (None, "pending")


@pytest.mark.parametrize("place", IN_CLOUD)
async def test_of_a_user_without_an_identity_it_is_quarantined_and_nothing_else(
    shop: CloudInstallation, place: str
) -> None:
    made, where = IN_CLOUD[place]
    await shop.come(made(UNREADABLE[0]))
    assert await shop.identity(SHEENA) == {}
    assert await shop.reasons(SHEENA) == []
    await only_quarantined(shop, where)


async def test_beside_a_hash_that_can_be_read_nothing_is_trusted(shop: CloudInstallation) -> None:
    cards = [contact(hash_, wa_id=SHEENA) for hash_ in (UNREADABLE[0], HASH_A)]
    await shop.come(envelope(value(cards, [text(0, wa_id=SHEENA)])))
    assert await shop.reasons(SHEENA) == ["identity_pending"]


@pytest.mark.parametrize("between", [UNREADABLE[0], HASH_B], ids=["unreadable", "readable"])
@pytest.mark.parametrize("bodies", [1, 3])
async def test_a_first_hash_that_went_and_came_again_is_not_trusted_in_one_body_or_in_three(
    shop: CloudInstallation, between: str, bodies: int
) -> None:
    told_at = ((HASH_A, 0), (between, FAR), (HASH_A, 2 * FAR))
    values = [
        value([contact(hash_, wa_id=SHEENA)], [text(after, wa_id=SHEENA)])
        for hash_, after in told_at
    ]
    await shop.come(*([envelope(*values)] if bodies == 1 else map(envelope, values)))
    assert await shop.reasons(SHEENA) == ["identity_pending"]


async def test_whatever_was_decided_about_the_hash_before_it_stands_no_more(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(policy={"mode": "auto", "delay_seconds": 3600, "max_changes": 9})
    await shop.come(card(HASH_A, 0), card(HASH_B, 10))
    assert await shop.state(SHEENA) == "scheduled"
    await shop.come(card(UNREADABLE[0]))
    shop.pass_time(3601)
    assert (await shop.acknowledge(HASH_B, SHEENA))[0] == 409
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (None, "pending")


async def test_while_a_hash_is_awaited_one_that_cannot_be_read_closes_again(
    shop: CloudInstallation,
) -> None:
    await shop.come(card(HASH_A, 0), card(UNREADABLE[0]))
    assert (await shop.acknowledge(None, SHEENA))[1]["state"] == "awaiting_hash"
    assert await shop.reasons(SHEENA) == []
    now = mismatch(None, "wamid.NEW", ["x"], recipient_id=SHEENA)
    await shop.come(told(now | {"status": "sent", "errors": []}))
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (None, "pending")


async def test_delivered_again_it_says_nothing_twice(shop: CloudInstallation) -> None:
    await shop.come(card(HASH_A, 0), card(UNREADABLE[0]), card(HASH_B, 2 * FAR))
    assert (await shop.acknowledge(HASH_B, SHEENA))[0] == 200
    entry = await only_quarantined(shop, "identity_key_hash")
    raw = json.dumps(card(UNREADABLE[0])).encode()
    assert await shop.post(raw, path=APP_ENDPOINT, headers=signed(raw)) == 200
    status_, replayed = await shop.api("POST", f"/journal/{entry['id']}/replay")
    assert (status_, replayed["state"]) == (200, "quarantined")
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (HASH_B, "acknowledged")


async def test_a_replay_that_can_read_the_hash_fills_it_in(shop: CloudInstallation) -> None:
    await shop.come(card(HASH_A, 0), card(UNREADABLE[0]))
    assert (await shop.identity(SHEENA))["hash"] is None
    await make_readable(shop, UNREADABLE[0], HASH_B)
    entry = await only_quarantined(shop, "identity_key_hash")
    status_, replayed = await shop.api("POST", f"/journal/{entry['id']}/replay")
    assert (status_, replayed["state"]) == (200, "applied")
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (HASH_B, "pending")
    assert [entry["hash"] for entry in shown["history"]] == [HASH_A]
    assert (await shop.acknowledge(HASH_B, SHEENA))[1]["state"] == "acknowledged"


async def test_once_a_later_hash_is_known_a_replay_fills_it_in_between(
    shop: CloudInstallation,
) -> None:
    await shop.come(card(HASH_A, 0), card(UNREADABLE[0]), card(HASH_C, 2 * FAR))
    await make_readable(shop, UNREADABLE[0], HASH_B)
    entry = await only_quarantined(shop, "identity_key_hash")
    assert (await shop.api("POST", f"/journal/{entry['id']}/replay"))[0] == 200
    shown = await shop.identity(SHEENA)
    assert (shown["hash"], shown["state"]) == (HASH_C, "pending")
    assert [entry["hash"] for entry in shown["history"]] == [HASH_B, HASH_A]


async def test_what_cannot_be_read_comes_into_no_log_line_and_no_reason(
    shop: CloudInstallation, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = f"a-secret-hash{'x' * 1025}"
    await shop.come(card(HASH_A, 0), card(secret))
    [entry] = await shop.quarantined()
    written = capsys.readouterr()
    assert "a-secret-hash" not in written.out + written.err + str(entry)
    assert NUMBER not in entry["reason"]
