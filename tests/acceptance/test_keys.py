"""Keys of the API that are for some accounts alone, or for a time."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance.conftest import (
    HASH_A,
    NUMBER,
    OTHER_NUMBER,
    SHEENA,
    STRANGE_NUMBER,
    WA_ID,
    CloudInstallation,
    Install,
    Installation,
    Json,
    OpenShop,
    digest_of,
    hour_ago,
    notice,
    until,
)
from tests.acceptance.webhooks import envelope, value, wrote

DAY = 86_400


def key(role: str = "admin", **more: Any) -> Json:
    """Make the key of a role and these accounts; the key is what it is for."""
    return {"role": role, "sha256": digest_of(f"{role} {more.get('accounts', [])}"), **more}


KEYS = {
    "all": key(),
    "main": key(accounts=["main"]),
    "shop": key(accounts=["shop"]),
    "shops": key(accounts=["shop", "outlet"]),
}
ALL, MAIN, SHOP, SHOPS = (
    f"admin {accounts}" for accounts in ([], ["main"], ["shop"], ["shop", "outlet"])
)


@pytest.fixture
async def made(open_shop: OpenShop) -> CloudInstallation:
    """An installation with a change at each of three accounts, and one callback for nobody."""
    made = await open_shop(api={"keys": KEYS}, accounts={"shop": {"trust_first_use": False}})
    made.key = ALL
    assert await made.post(notice(WA_ID, HASH_A, hour_ago())) == 200
    for number in (NUMBER, OTHER_NUMBER, STRANGE_NUMBER):
        assert await made.deliver_signed(json.dumps(wrote(HASH_A, number=number)).encode()) == 200
    return made


async def items(made: Installation, path: str, key: str) -> list[Json]:
    status, listed = await made.api("GET", path, key=key)
    assert status == 200, listed
    return list(listed["items"])


async def accounts_in(made: Installation, path: str, key: str) -> set[str | None]:
    return {item["account"] for item in await items(made, path, key)}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", f"/identities/{SHEENA}", None),
        ("POST", f"/identities/{SHEENA}/acknowledge", {"hash": HASH_A}),
        ("POST", f"/identities/{SHEENA}/acknowledge", {"hash": None}),
        ("POST", f"/identities/{SHEENA}/hold", {"hash": HASH_A}),
        ("POST", f"/identities/{SHEENA}/refresh", None),
        ("GET", f"/recipients/{SHEENA}", None),
        ("GET", f"/recipients/{SHEENA}?wait=1", None),
        ("POST", "/recipients/lookup", {"recipients": [SHEENA]}),
        ("PUT", f"/recipients/{SHEENA}/block", {"reason": "x"}),
        ("DELETE", f"/recipients/{SHEENA}/block", None),
        ("GET", "/contacts", None),
        ("POST", "/contacts", {"contacts": [f"+{SHEENA}"]}),
    ],
)
@pytest.mark.parametrize(("account", "key"), [("shop", MAIN), ("main", SHOP)])
async def test_another_account_is_to_a_key_as_one_that_is_not_there(
    made: CloudInstallation, method: str, path: str, body: Any, account: str, key: str
) -> None:
    hidden = await made.api(method, f"/accounts/{account}{path}", body, key=key)
    missing = await made.api(method, f"/accounts/nobody{path}", body, key=key)
    assert hidden[0] == missing[0] == 404
    assert hidden[1]["detail"] == missing[1]["detail"]
    assert await made.api("GET", f"/accounts/{account}/identities/{SHEENA}", key=ALL)


async def test_the_shape_of_the_client_is_for_the_keys_accounts_too(
    made: CloudInstallation,
) -> None:
    for method, body in (("GET", None), ("PUT", {"hash": HASH_A})):
        url = f"{made.base}/compat/shop/v1/contacts/{SHEENA}/identity"
        for key, expected in ((MAIN, 404), (SHOP, 200)):
            headers = {"Authorization": f"Bearer {key}"}
            async with made.http.request(method, url, json=body, headers=headers) as response:
                assert response.status == expected


async def test_lists_have_what_is_of_the_keys_accounts_alone(made: CloudInstallation) -> None:
    for path in ("/accounts", "/identities", f"/identities?updated_since={rfc(hour_ago(-3600))}"):
        assert await accounts_in(made, path, MAIN) == {"main"}, path
        assert await accounts_in(made, path, SHOP) == {"shop"}, path
        assert await accounts_in(made, path, ALL) == {"main", "shop", "outlet"}, path
    for path in ("/journal", "/audit"):
        assert await accounts_in(made, path, MAIN) == {"main"}, path
        assert await accounts_in(made, path, SHOP) == {"shop"}, path
        assert await items(made, f"{path}?account=main", SHOP) == []
    assert await items(made, "/identities?account=main", SHOP) == []


async def test_pages_of_a_list_lead_through_all_that_the_key_may_see(
    made: CloudInstallation,
) -> None:
    for _ in range(3):
        assert await made.post(notice(WA_ID, HASH_A, hour_ago())) == 200
    seen, cursor = 0, ""
    while cursor is not None:
        path = f"/journal?limit=2{cursor and f'&cursor={cursor}'}"
        _, page = await made.api("GET", path, key=MAIN)
        seen, cursor = seen + len(page["items"]), page["next_cursor"]
    assert seen == 4


async def test_counts_are_of_the_keys_accounts_alone(made: CloudInstallation) -> None:
    for key, pending in ((ALL, 2), (MAIN, 1), (SHOP, 1)):
        _, status = await made.api("GET", "/status", key=key)
        assert status["counts"]["pending"] == pending
        assert (status["oldest_pending_at"] is not None) == bool(pending)
    await made.api("POST", f"/accounts/shop/identities/{SHEENA}/hold", {"hash": HASH_A}, key=SHOP)
    _, status = await made.api("GET", "/status", key=SHOP)
    assert (status["counts"]["pending"], status["oldest_pending_at"]) == (0, None)


async def test_callbacks_of_others_are_neither_shown_nor_replayed(made: CloudInstallation) -> None:
    for entry in await items(made, "/journal", ALL):
        for key, may in ((MAIN, entry["account"] == "main"), (SHOP, entry["account"] == "shop")):
            path = f"/journal/{entry['id']}"
            expected = 200 if may else 404
            assert (await made.api("GET", path, key=key))[0] == expected
            assert (await made.api("POST", f"{path}/replay", key=key))[0] == expected


async def test_a_callback_that_a_replay_would_also_put_into_effect_elsewhere_is_not_replayed(
    made: CloudInstallation,
) -> None:
    """It was for one account when it came; since then the other number has an account too."""
    both = envelope(value(), value(number=STRANGE_NUMBER))
    assert await made.deliver_signed(json.dumps(both).encode()) == 200
    entry = (await items(made, "/journal", ALL))[-1]
    assert entry["account"] == "shop"
    await made.stop()
    third = {**made.tree["accounts"]["shop"], "phone_number_id": STRANGE_NUMBER}
    await made.start(accounts={"third": third})
    path = f"/journal/{entry['id']}/replay"
    assert (await made.api("POST", path, key=SHOP))[0] == 403
    assert (await made.api("POST", path, key=ALL))[0] == 200


async def test_what_is_of_an_app_is_for_a_key_of_all_its_accounts(made: CloudInstallation) -> None:
    """A callback for an unknown number may be anybody's of the app."""

    async def found() -> bool:
        return [issue["code"] for issue in await items(made, "/issues", ALL)].count(
            "unknown_number"
        ) == 1

    await until(found)
    for key, sees in ((SHOPS, True), (SHOP, False), (MAIN, False)):
        codes = {issue["code"] for issue in await items(made, "/issues", key)}
        assert ("unknown_number" in codes) is sees
        assert (None in await accounts_in(made, "/journal", key)) is sees
        status, _ = await made.api("DELETE", "/issues/no_such", key=key)
        assert status == 404
    assert (await made.api("DELETE", "/issues/unknown_number", key=SHOP))[0] == 404
    assert (await made.api("DELETE", "/issues/unknown_number", key=SHOPS))[0] == 200


async def test_issues_are_those_of_the_keys_accounts(made: CloudInstallation) -> None:
    await made.sim.stop()

    async def unreachable() -> bool:
        codes = {issue["code"] for issue in await items(made, "/issues", ALL)}
        return {"client_unreachable", "account_unreachable"} <= codes

    await made.stop()
    await made.start()
    await until(unreachable)
    assert await accounts_in(made, "/issues", MAIN) == {"main"}
    assert await accounts_in(made, "/issues", SHOP) == {"shop"}


async def about_keys(made: Installation) -> list[Json]:
    issues = await items(made, "/issues", ALL)
    return [issue for issue in issues if issue["code"] == "key_expires"]


def rfc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


async def test_a_key_is_good_until_it_expires_and_that_is_an_issue_a_week_before(
    install: Install,
) -> None:
    expires = datetime.fromtimestamp(int(time.time()) + 10 * DAY, UTC)
    keys = {"all": key(), "crm": key("reader", expires_at=expires.isoformat())}
    made = await install(api={"keys": keys})
    assert (await made.api("GET", "/status", key="reader []"))[0] == 200
    assert await about_keys(made) == []
    made.pass_time(4 * DAY)
    [issue] = await about_keys(made)
    assert (issue["account"], issue["subject"]) == (None, "crm")
    assert issue["severity"] == "warning"
    assert "expires at" in issue["detail"]
    assert "remove api.keys.crm" in issue["cure"]
    made.pass_time(6 * DAY - 60)
    assert (await made.api("GET", "/status", key="reader []"))[0] == 200
    made.pass_time(61)
    status, problem, headers = await made.call("GET", "/status", key="reader []")
    assert (status, problem["detail"]) == (401, "the API key has expired")
    assert headers["WWW-Authenticate"].startswith("Bearer")
    [issue] = await about_keys(made)
    assert "has expired" in issue["detail"]
