"""Many identities acknowledged in one request: each by its hash, on one evidence."""

from typing import Any

import pytest

from service.observability import failpoints
from service.store.database import UnavailableError
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    SHEENA,
    USER_ID,
    WA_ID,
    Answer,
    CloudInstallation,
    Installation,
    Json,
    OpenShop,
)
from tests.acceptance.webhooks import contact, envelope, mismatch, text, told, value, wrote

EVIDENCE = {"method": "called back", "reference": "T-17"}


def item(user: str, hash_: str | None, account: str = "main") -> Json:
    return {"account": account, "user": user, "hash": hash_}


async def post(made: Installation, *items: Any, **grounds: Any) -> Answer:
    return await made.api("POST", "/identities/acknowledge", {"items": list(items), **grounds})


async def answers(made: Installation, *items: Any, **grounds: Any) -> list[Json]:
    status, answer = await post(made, *items, **grounds)
    assert status == 200, answer
    return list(answer["items"])


async def test_each_is_acknowledged_by_its_hash_with_the_one_evidence(
    manual: Installation,
) -> None:
    hashes = {user: await manual.change(user) for user in (WA_ID, OTHER_ID)}
    items = [item(user, hash_) for user, hash_ in hashes.items()]
    answered = await answers(manual, *items, evidence=EVIDENCE, note="checked", on_behalf_of="ann")
    assert [one["status"] for one in answered] == [202, 202]
    assert [{name: one[name] for name in items[0]} for one in answered] == items
    assert [one["identity"]["hash"] for one in answered] == [*hashes.values()]
    for user in hashes:
        await manual.becomes("acknowledged", user)
        [decided] = await manual.audit(user, "decided")
        assert (decided["evidence"], decided["note"]) == (EVIDENCE, "checked")
        assert decided["by"] == {"kind": "key", "name": "local", "on_behalf_of": "ann"}
    assert [one["status"] for one in await answers(manual, *items)] == [200, 200]
    assert len(await manual.audit(WA_ID, "decided")) == 1


async def test_what_is_refused_has_its_reason_and_the_others_go_through(
    manual: Installation,
) -> None:
    await manual.change(WA_ID, HASH_A)
    await manual.change(OTHER_ID, HASH_B)
    answered = await answers(
        manual,
        item(WA_ID, HASH_B),
        item("16315550000", HASH_A),
        item(WA_ID, HASH_A, "other"),
        item(WA_ID, None),
        item("+1 631 555 3602", HASH_B),
    )
    assert [one["status"] for one in answered] == [409, 404, 404, 422, 202]
    conflict, unknown, account, unnamed = (one["error"] for one in answered[:4])
    assert conflict["detail"] == "another hash is the latest"
    assert conflict["identity"]["hash"] == HASH_A
    assert unknown["detail"] == "there is no identity of this user"
    assert account["detail"] == "there is no such account"
    assert unnamed["errors"][0]["field"] == "hash"
    assert all("identity" not in one for one in answered[:4])
    await manual.becomes("acknowledged", OTHER_ID)
    assert await manual.state(WA_ID) == "pending"


async def test_only_another_spelling_of_the_number_is_refused(manual: Installation) -> None:
    hash_ = await manual.change("5511987654321")
    [answered] = await answers(manual, item("551187654321", hash_))
    assert answered["status"] == 404
    assert answered["error"]["other_spelling"] == "5511987654321"


async def test_accounts_of_both_kinds_go_together(shop: CloudInstallation) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID}
    await shop.come(wrote(HASH_A, **names), wrote(HASH_B, 60, **names))
    hash_ = await shop.change(WA_ID)
    answered = await answers(
        shop, item(USER_ID, HASH_B, "shop"), item(WA_ID, hash_), item(USER_ID, HASH_B, "outlet")
    )
    assert [one["status"] for one in answered] == [200, 202, 404]
    assert answered[0]["identity"]["state"] == "acknowledged"


async def test_a_hash_that_nobody_knows_is_approved_on_the_cloud_api_alone(
    shop: CloudInstallation,
) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID}
    await shop.come(wrote(HASH_A, **names))
    await shop.come(told(mismatch(recipient_id=SHEENA)))  # of the second in which it is made
    [answered] = await answers(shop, item(USER_ID, None, "shop"))
    assert (answered["status"], answered["identity"]["state"]) == (200, "awaiting_hash")


async def test_a_thousand_are_decided_in_one_request_and_one_more_is_refused(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(accounts={"shop": {"trust_first_use": False}})
    users = [f"1631555{n:04}" for n in range(1001)]
    contacts = [contact(HASH_A, wa_id=user) for user in users]
    texts = [text(n / 100, wa_id=user) for n, user in enumerate(users)]
    await shop.come(envelope(value(contacts, texts)))
    items = [item(user, HASH_A, "shop") for user in users]
    status, problem = await post(shop, *items)
    assert (status, problem["errors"][0]["field"]) == (422, "items")
    answered = await answers(shop, *items[:1000])
    assert [one["user"] for one in answered] == users[:1000]
    assert {(one["status"], one["identity"]["state"]) for one in answered} == {
        (200, "acknowledged")
    }
    assert await shop.state(users[1000]) == "pending"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"account": "main", "user": WA_ID}, "items.1.hash"),
        ({"account": "main", "user": WA_ID, "hash": ""}, "items.1.hash"),
        ({"account": "main", "user": "", "hash": HASH_A}, "items.1.user"),
        ({"account": "main", "user": WA_ID, "hash": HASH_A, "note": "x"}, "items.1.note"),
    ],
)
async def test_nothing_is_decided_where_one_item_is_not_valid(
    manual: Installation, wrong: Json, field: str
) -> None:
    hash_ = await manual.change()
    status, problem = await post(manual, item(WA_ID, hash_), wrong)
    assert status == 422
    assert [error["field"] for error in problem["errors"]] == [field]
    assert await manual.state() == "pending"


async def test_a_database_that_fails_refuses_each_and_decides_nothing(
    manual: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_ = await manual.change()

    def fail(point: str, _: str = "") -> None:
        if point == "ledger.before_begin":
            raise UnavailableError("no")

    monkeypatch.setattr(failpoints, "reached", fail)
    [answered] = await answers(manual, item(WA_ID, hash_))
    assert (answered["status"], answered["error"]["status"]) == (503, 503)
    monkeypatch.undo()
    assert await manual.state() == "pending"
