"""Accounts of both kinds side by side, and many numbers behind the one URL of an app."""

import json

from tests.acceptance.conftest import (
    APP_ENDPOINT,
    HASH_A,
    HASH_B,
    NUMBER,
    OTHER_NUMBER,
    SHEENA,
    STRANGE_NUMBER,
    WA_ID,
    CloudInstallation,
    Json,
    OpenShop,
    cloud_account,
    hour_ago,
    notice,
    until,
)
from tests.acceptance.webhooks import contact, envelope, text, value, wrote


async def journal(shop: CloudInstallation) -> list[Json]:
    status, listed = await shop.api("GET", "/journal")
    assert status == 200, listed
    return list(listed["items"])


def of_number(number: str, hash_: str, wa_id: str = SHEENA) -> Json:
    return value([contact(hash_, wa_id=wa_id)], [text(wa_id=wa_id)], number=number)


async def hash_at(shop: CloudInstallation, account: str, user: str = SHEENA) -> str | None:
    return (await shop.of(account).identity(user)).get("hash")


async def test_both_kinds_go_their_way_side_by_side(shop: CloudInstallation) -> None:
    main = shop.of("main")
    changed = shop.sim.change_identity(WA_ID)
    shop.meta.write(WA_ID, "Hello")
    await shop.meta.settled()
    await main.becomes("pending", WA_ID, changed)
    given = shop.meta.users[WA_ID].hash
    assert (await shop.gate(WA_ID))["identity_key_hash"] == given
    assert await main.reasons(WA_ID) == ["identity_pending"]
    status, identity = await main.acknowledge(changed, WA_ID, query="?wait=10")
    assert (status, identity["state"]) == (200, "acknowledged")
    assert shop.puts() == ["acknowledged"]
    _, listed = await shop.api("GET", "/identities")
    assert sorted((i["account"], i["hash"]) for i in listed["items"]) == sorted(
        [("main", changed), ("shop", given)]
    )
    _, told = await shop.api("GET", "/status")
    assert told["counts"]["acknowledged"] == 2


async def test_a_client_that_is_away_holds_up_no_account_of_the_cloud_api(
    shop: CloudInstallation,
) -> None:
    shop.sim.fault("any", hang=True)
    await shop.deliver(notice(WA_ID, HASH_A, hour_ago()))
    assert (await shop.of("main").acknowledge(HASH_A, WA_ID))[0] == 202
    await shop.come(wrote(HASH_A), wrote(HASH_B, 60))
    assert (await shop.acknowledge(HASH_B, SHEENA))[0] == 200
    answer = await shop.gate(SHEENA)
    assert (answer["identity_key_hash"], answer["warnings"]) == (HASH_B, [])


async def test_one_post_for_two_numbers_takes_effect_at_each_account(
    shop: CloudInstallation,
) -> None:
    both = envelope(of_number(NUMBER, HASH_A), of_number(OTHER_NUMBER, HASH_B))
    await shop.come(both)
    assert await hash_at(shop, "shop") == HASH_A
    assert await hash_at(shop, "outlet") == HASH_B
    [entry] = await journal(shop)
    assert (entry["account"], entry["app"], entry["state"]) == (None, "meta", "applied")
    await shop.come(both)
    assert len((await shop.identity(SHEENA))["audit"]) == 1
    _, listed = await shop.api("GET", "/journal?account=shop")
    assert listed["items"] == []


async def test_what_meta_gathers_for_two_numbers_takes_effect_at_each_account(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(meta={"batch": 20})
    for number in (NUMBER, OTHER_NUMBER) * 10:
        shop.meta.write(SHEENA, "Hello", number=number)
    await shop.meta.settled()
    assert [entry["account"] for entry in await journal(shop)] == [None]
    hash_ = shop.meta.users[SHEENA].hash
    assert await hash_at(shop, "shop") == await hash_at(shop, "outlet") == hash_


async def test_an_unknown_number_is_kept_quarantined_and_its_neighbours_are_in_effect(
    shop: CloudInstallation,
) -> None:
    await shop.come(envelope(of_number(STRANGE_NUMBER, HASH_B), of_number(NUMBER, HASH_A)))
    [entry] = await journal(shop)
    assert (entry["account"], entry["state"]) == ("shop", "quarantined")
    assert entry["reason"] == f"no account has the number {STRANGE_NUMBER}"
    assert await hash_at(shop, "shop") == HASH_A
    await shop.come(envelope(of_number(STRANGE_NUMBER, HASH_B)))
    alone = (await journal(shop))[1]
    assert (alone["account"], alone["app"], alone["state"]) == (None, "meta", "quarantined")


async def test_an_unknown_number_is_in_effect_once_it_has_an_account_and_is_replayed(
    shop: CloudInstallation,
) -> None:
    await shop.come(envelope(of_number(STRANGE_NUMBER, HASH_B)))
    await shop.come(envelope(of_number(STRANGE_NUMBER, HASH_A, "16505550000")))
    await shop.stop()
    await shop.start(accounts={"branch": cloud_account(shop.sim, STRANGE_NUMBER)})
    assert await hash_at(shop, "branch") is None
    _, listed = await shop.api("GET", "/journal?state=quarantined")
    assert len(listed["items"]) == 2
    for waiting in listed["items"]:
        status, entry = await shop.api("POST", f"/journal/{waiting['id']}/replay")
        assert (status, entry["state"], entry["reason"]) == (200, "applied", None)
    assert await hash_at(shop, "branch") == HASH_B
    identity = await shop.of("branch").identity(SHEENA)
    assert (identity["state"], identity["changed_at"] is not None) == ("acknowledged", True)
    assert await hash_at(shop, "shop") is None
    assert await shop.quarantined() == []


async def test_a_replay_of_an_app_does_not_wake_what_was_decided_since(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A), wrote(HASH_B, 60))
    await shop.hold(HASH_B, SHEENA)
    before = await shop.identity(SHEENA)
    for entry in await journal(shop):
        assert (await shop.api("POST", f"/journal/{entry['id']}/replay"))[0] == 200
    assert await shop.identity(SHEENA) == before


async def test_two_apps_each_have_their_endpoint_and_their_secret(open_shop: OpenShop) -> None:
    second = {"app_secret": "fedcba9876543210" * 2, "verify_token": "another-token"}
    shop = await open_shop(apps={"second": second}, accounts={"outlet": {"app": "second"}})
    raw = json.dumps(envelope(of_number(OTHER_NUMBER, HASH_A))).encode()
    assert await shop.deliver_signed(raw) == 200
    assert await hash_at(shop, "outlet") is None, "the number is of another app"
    [entry] = await shop.quarantined()
    assert (entry["account"], entry["app"]) == (None, "meta")
    shop.meta.change_settings(
        app_secret=second["app_secret"], webhook_url=f"{shop.base}/webhooks/second"
    )
    await shop.come(raw)
    assert await hash_at(shop, "outlet") == HASH_A
    assert await shop.post(raw, path=APP_ENDPOINT) == 401


async def test_an_account_that_is_taken_out_keeps_its_rows_and_its_number_is_unknown(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A))
    kept = shop.tree["accounts"]["shop"]
    await shop.stop()
    await shop.start(accounts={"shop": None})
    assert (await shop.api("GET", f"/accounts/shop/identities/{SHEENA}"))[0] == 404
    await shop.come(wrote(HASH_B, 60))
    [entry] = await shop.quarantined()
    await shop.stop()
    await shop.start(accounts={"shop": kept})
    assert await hash_at(shop, "shop") == HASH_A
    await shop.api("POST", f"/journal/{entry['id']}/replay")
    assert await shop.state(SHEENA) == "pending"


async def test_the_health_passes_with_accounts_of_both_kinds(open_shop: OpenShop) -> None:
    # It looks again: a first look may come before the app has its webhook.
    shop = await open_shop(inspector={"every_seconds": 0.1})
    await shop.come(wrote(HASH_A))

    async def passes() -> bool:
        _, answer = await shop.api("GET", "/health/status")
        return bool(answer["status"] == "pass")

    await until(passes)
