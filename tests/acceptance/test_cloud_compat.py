"""The On-Premises shape over accounts of either kind: code that was written for the client."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from yarl import URL

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    SHEENA,
    USER_ID,
    WA_ID,
    Answer,
    CloudInstallation,
    Json,
    OpenShop,
    digest_of,
    hour_ago,
    notice,
)
from tests.acceptance.webhooks import mismatch, told, wrote

KEYS = {role: f"the-key-of-a-{role}" for role in ("gate", "reader", "operator", "admin")}
KEYED: Json = {
    "keys": {role: {"role": role, "sha256": digest_of(key)} for role, key in KEYS.items()}
}


async def call(
    made: CloudInstallation,
    method: str,
    account: str,
    user: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Call as a client of the On-Premises API does, at another address."""
    key = {} if made.key is None else {"Authorization": f"Bearer {made.key}"}
    url = URL(f"{made.base}/compat/{account}/v1/contacts/{user}/identity", encoded=True)
    sent = {**key, **(headers or {})}
    async with made.http.request(method, url, json=body, headers=sent) as response:
        assert response.content_type in {"application/json", "application/problem+json"}
        return response.status, await response.json()


@pytest.fixture(params=["main", "shop"])
def account(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def changed(made: CloudInstallation, account: str, hash_: str = HASH_B) -> str:
    """Let a user's identity have changed, and wait for a person; give the user."""
    if account == "main":
        made.sim.change_identity(WA_ID, hash_, hour_ago(60), notify=False)
        await made.deliver(notice(WA_ID, hash_, hour_ago(60)))
        return WA_ID
    await made.come(wrote(HASH_A), wrote(hash_, 60))
    return SHEENA


def shape(hash_: str | None, *, acknowledged: bool) -> Json:
    told = {"hash": hash_, "created_timestamp": hour_ago(60), "acknowledged": acknowledged}
    return {"contacts": told}


async def test_get_shows_the_latest_identity_and_a_put_acknowledges_it(
    shop: CloudInstallation, account: str
) -> None:
    user = await changed(shop, account)
    assert await call(shop, "GET", account, user) == (200, shape(HASH_B, acknowledged=False))
    assert await call(shop, "PUT", account, user, {"hash": HASH_B}) == (200, {})
    assert await call(shop, "GET", account, user) == (200, shape(HASH_B, acknowledged=True))
    identity = await shop.of(account).identity(user)
    assert (identity["state"], identity["decided_by"]["kind"]) == ("acknowledged", "key")


async def test_a_put_over_a_client_is_a_put_at_the_client(shop: CloudInstallation) -> None:
    await changed(shop, "main")
    assert await call(shop, "PUT", "main", WA_ID, {"hash": HASH_B}) == (200, {})
    assert shop.puts() == ["acknowledged"]
    assert shop.sim.users[WA_ID].acknowledged


async def test_a_put_over_the_cloud_api_makes_the_hash_the_trusted_one(
    shop: CloudInstallation,
) -> None:
    await changed(shop, "shop")
    assert (await shop.gate(SHEENA))["identity_key_hash"] is None
    assert await call(shop, "PUT", "shop", SHEENA, {"hash": HASH_B}) == (200, {})
    assert (await shop.gate(SHEENA))["identity_key_hash"] == HASH_B
    assert not shop.sim.puts
    assert {call.method for call in shop.meta.calls.of("number")} <= {"GET"}


async def test_a_put_repeated_is_200_again(shop: CloudInstallation, account: str) -> None:
    user = await changed(shop, account)
    for _ in range(3):
        assert await call(shop, "PUT", account, user, {"hash": HASH_B}) == (200, {})
    assert len([e for e in await shop.of(account).audit(user) if e["event"] == "decided"]) == 1


async def test_a_put_waits_for_the_client(shop: CloudInstallation) -> None:
    await changed(shop, "main")
    shop.sim.fault("identity_put", times=1, latency=0.3)
    waiting = asyncio.create_task(call(shop, "PUT", "main", WA_ID, {"hash": HASH_B}))
    await shop.put_under_way()
    assert not waiting.done()
    assert await waiting == (200, {})
    assert await shop.of("main").state() == "acknowledged"


async def test_a_put_that_the_client_refuses_for_good_is_a_409(shop: CloudInstallation) -> None:
    await changed(shop, "main")
    shop.sim.fault("identity_put", status=400)
    shop.sim.fault("identity_get", status=404)
    status, problem = await call(shop, "PUT", "main", WA_ID, {"hash": HASH_B})
    assert (status, problem["identity"]["state"]) == (409, "failed")


async def test_another_hash_is_a_409_and_changes_nothing(
    shop: CloudInstallation, account: str
) -> None:
    user = await changed(shop, account)
    status, problem = await call(shop, "PUT", account, user, {"hash": HASH_C})
    assert (status, problem["identity"]["hash"]) == (409, HASH_B)
    assert await shop.of(account).state(user) == "pending"
    assert not shop.sim.puts


async def test_who_has_no_identity_is_a_404(shop: CloudInstallation, account: str) -> None:
    for stranger in ("16310000000", "US.1", "n%2Fa"):
        assert (await call(shop, "GET", account, stranger))[0] == 404
        assert (await call(shop, "PUT", account, stranger, {"hash": HASH_A}))[0] == 404


async def test_an_account_that_is_not_configured_is_a_404(shop: CloudInstallation) -> None:
    assert (await call(shop, "GET", "nobody", WA_ID))[0] == 404
    assert (await call(shop, "PUT", "nobody", WA_ID, {"hash": HASH_A}))[0] == 404


async def test_a_user_may_be_named_by_any_alias(shop: CloudInstallation) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID, "parent_user_id": "US.ENT.1"}
    await shop.come(wrote(HASH_B, 60, **names))
    for alias in names.values():
        assert await call(shop, "GET", "shop", alias) == (200, shape(HASH_B, acknowledged=True))
        assert await call(shop, "PUT", "shop", alias, {"hash": HASH_B}) == (200, {})


async def test_other_keys_in_the_body_are_let_pass(shop: CloudInstallation, account: str) -> None:
    user = await changed(shop, account)
    body = {"hash": HASH_B, "blocking": "wait", "of_tomorrow": {"a": [1]}}
    assert await call(shop, "PUT", account, user, body) == (200, {})


@pytest.mark.parametrize(
    "body", [{}, {"hash": ""}, {"hash": 7}, {"hash": "x" * 1025}, [], "x"], ids=str
)
async def test_a_body_without_a_usable_hash_is_a_422(
    shop: CloudInstallation, account: str, body: Any
) -> None:
    user = await changed(shop, account)
    assert (await call(shop, "PUT", account, user, body))[0] == 422
    assert await shop.of(account).state(user) == "pending"


async def test_a_hash_that_nobody_knows_is_shown_and_approved_as_null(
    shop: CloudInstallation,
) -> None:
    await shop.come(wrote(HASH_A))
    await shop.come(told(mismatch(recipient_id=SHEENA)))  # of a time after the trust
    status, answer = await call(shop, "GET", "shop", SHEENA)
    assert (status, answer["contacts"]["hash"]) == (200, None)
    assert answer["contacts"]["acknowledged"] is False
    assert (await call(shop, "PUT", "shop", SHEENA, {"hash": HASH_A}))[0] == 409
    assert await call(shop, "PUT", "shop", SHEENA, {"hash": None}) == (200, {})
    assert await shop.state(SHEENA) == "awaiting_hash"
    assert (await call(shop, "GET", "shop", SHEENA))[1]["contacts"]["acknowledged"] is False
    assert (await call(shop, "PUT", "main", WA_ID, {"hash": None}))[0] == 422


@pytest.mark.parametrize(
    ("role", "get", "put"),
    [
        (None, 401, 401),
        ("unknown", 401, 401),
        ("gate", 403, 403),
        ("reader", 200, 403),
        ("operator", 200, 200),
        ("admin", 200, 200),
    ],
)
async def test_a_reader_may_get_and_an_operator_may_put(
    open_shop: OpenShop, account: str, role: str | None, get: int, put: int
) -> None:
    made = await open_shop(api=KEYED)
    user = await changed(made, account)
    made.key = None if role is None else KEYS.get(role, "another-key")
    assert (await call(made, "GET", account, user))[0] == get
    assert (await call(made, "PUT", account, user, {"hash": HASH_B}))[0] == put
    if put == 200:
        identity = await made.of(account).identity(user)
        assert identity["decided_by"] == {"kind": "key", "name": role}


async def test_the_checks_come_in_their_order(open_shop: OpenShop) -> None:
    made = await open_shop(api=KEYED)
    made.key = KEYS["reader"]
    assert (await call(made, "PUT", "nobody", "n%2Fa", []))[0] == 403
    made.key = KEYS["operator"]
    assert (await call(made, "PUT", "nobody", "n%2Fa", []))[0] == 422
    assert (await call(made, "PUT", "nobody", "n%2Fa", {"hash": "x"}))[0] == 404
