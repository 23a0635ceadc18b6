"""The id of a request comes back with the answer, and is found again in journal and audit trail."""

import re
from collections.abc import Mapping
from io import BytesIO

import pytest

from tests.acceptance.conftest import (
    HASH_A,
    TOKEN,
    WA_ID,
    CloudInstallation,
    Installation,
    hour_ago,
    notice,
    until,
)

OWN = {"X-Request-ID": "crm-4711.a_b"}
MADE = re.compile("[a-z]{20}")
IDENTITY = f"/api/v1/accounts/main/identities/{WA_ID}"

ANSWERED = [
    ("GET", "/api/v1/status", None, 200),
    ("GET", "/api/v1/identities?limit=0", None, 422),
    ("GET", IDENTITY, None, 404),
    ("POST", f"{IDENTITY}/hold", b"no JSON", 400),
    ("PATCH", "/api/v1/status", None, 405),
    ("GET", "/nothing", None, 404),
    ("GET", "/health/ready", None, 200),
    ("GET", "/metrics", None, 200),
    ("POST", f"/webhooks/main/{TOKEN}", b"{}", 200),
    ("POST", f"/webhooks/main/{TOKEN}", b"x" * 5_000_000, 413),
    ("POST", "/webhooks/main/another-token", b"{}", 404),
    ("GET", "/webhooks/main", None, 404),
]


async def answer(
    made: Installation, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, str]:
    url = made.base + path
    data = None if body is None else BytesIO(body)
    async with made.http.request(method, url, data=data, headers=headers) as response:
        return response.status, response.headers["X-Request-ID"]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERED)
async def test_every_answer_has_the_id_of_its_request(
    manual: Installation, method: str, path: str, body: bytes | None, status: int
) -> None:
    assert await answer(manual, method, path, body, OWN) == (status, OWN["X-Request-ID"])
    first, second = [await answer(manual, method, path, body, {}) for _ in range(2)]
    assert first[0] == second[0] == status
    assert first[1] != second[1]
    assert MADE.fullmatch(first[1])
    # What could be a phone number is not repeated.
    _, other = await answer(manual, method, path, body, {"X-Request-ID": WA_ID})
    assert MADE.fullmatch(other)


async def test_an_expectation_that_is_refused_has_an_id_too(manual: Installation) -> None:
    headers = {"Expect": "something", **OWN}
    url = f"{manual.base}/api/v1/accounts/main/recipients/lookup"
    async with manual.http.post(url, data=b"{}", headers=headers) as response:
        assert (response.status, response.headers["X-Request-ID"]) == (417, OWN["X-Request-ID"])


async def test_the_journal_tells_the_request_that_a_callback_came_with(
    manual: Installation,
) -> None:
    for id_ in ("first", "second"):
        body = notice(WA_ID, HASH_A, hour_ago())
        assert await manual.post(body, headers={"X-Request-ID": id_}) == 200
    await manual.post(b"no JSON", headers={"X-Request-ID": "third"})
    _, listed = await manual.api("GET", "/journal")
    assert [row["request_id"] for row in listed["items"]] == ["first", "second", "third"]
    assert (await manual.api("GET", await manual.entry(1)))[1]["request_id"] == "second"


async def test_the_audit_trail_tells_which_request_brought_each_entry_about(
    manual: Installation,
) -> None:
    hash_ = manual.sim.change_identity(WA_ID, notify=False)
    body = notice(WA_ID, hash_, manual.sim.users[WA_ID].created_timestamp)
    assert await manual.post(body, headers={"X-Request-ID": "callback"}) == 200
    block = f"/accounts/main/recipients/{WA_ID}/block"
    steps = [
        ("POST", f"{IDENTITY}/hold", {"hash": hash_}, "hold"),
        ("PUT", block, {"reason": "asked us to stop"}, "block"),
        ("DELETE", block, None, "unblock"),
        ("POST", f"{IDENTITY}/acknowledge?wait=10", {"hash": hash_}, "acknowledge"),
        ("POST", f"{await manual.entry()}/replay", None, "replay"),
    ]
    for method, path, sent, id_ in steps:
        status, found = await manual.api(method, path, sent, headers={"X-Request-ID": id_})
        assert status == 200, found
    _, listed = await manual.api("GET", "/audit")
    assert [(entry["event"], entry["request_id"]) for entry in listed["items"]] == [
        ("changed", "callback"),
        ("held", "hold"),
        ("blocked", "block"),
        ("unblocked", "unblock"),
        ("decided", "acknowledge"),
        ("acknowledged", "acknowledge"),
        ("replayed", "replay"),
    ]
    trail = await manual.audit()
    assert [entry["request_id"] for entry in trail] == [
        entry["request_id"] for entry in listed["items"][:-1]
    ]
    assert manual.sim.puts[-1].request_id == "acknowledge"


async def test_what_policy_acknowledges_is_of_the_callback_that_brought_the_change(
    auto: Installation,
) -> None:
    hash_ = auto.sim.change_identity(WA_ID, notify=False)
    body = notice(WA_ID, hash_, auto.sim.users[WA_ID].created_timestamp)
    assert await auto.post(body, headers={"X-Request-ID": "callback"}) == 200
    await auto.becomes("acknowledged")
    trail = await until(lambda: auto.audit(event="acknowledged"))
    assert [entry["request_id"] for entry in trail] == ["callback"]


async def test_a_webhook_of_an_app_that_brings_no_id_is_in_the_journal_with_one(
    shop: CloudInstallation,
) -> None:
    raw = b'{"object": "whatsapp_business_account", "entry": []}'
    assert await shop.deliver_signed(raw) == 200
    _, listed = await shop.api("GET", "/journal")
    assert MADE.fullmatch(listed["items"][0]["request_id"])
