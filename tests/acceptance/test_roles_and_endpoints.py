"""Who may do what, at which endpoint, and what a list gives."""

import asyncio
import io
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from service.api import routes
from service.simulator import certificate
from service.store.schema import metadata
from service.webhooks import listener
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    Json,
    digest_of,
    hour_ago,
    notice,
    rfc3339,
    until,
)

ROLES = ("gate", "sender", "reader", "operator", "admin")
MAY = {
    "gate": ("gate", "sender", "reader", "operator", "admin"),
    "sender": ("sender", "operator", "admin"),
    "reader": ("reader", "operator", "admin"),
    "operator": ("operator", "admin"),
    "admin": ("admin",),
}
"""Who may do what asks for a role: each that it is named for."""
KEYS = {f"the_{role}": {"role": role, "sha256": digest_of(f"key-of-{role}")} for role in ROLES}
IDENTITY = f"/accounts/main/identities/{WA_ID}"
DECISION = {"hash": "another hash"}

ROUTES: list[tuple[str, str, str, Any, int]] = [
    ("gate", "GET", f"/accounts/main/recipients/{WA_ID}", None, 200),
    ("gate", "POST", "/accounts/main/recipients/lookup", {"recipients": [WA_ID]}, 200),
    ("reader", "GET", "/status", None, 200),
    ("reader", "GET", "/accounts", None, 200),
    ("reader", "GET", "/accounts/main", None, 200),
    ("reader", "GET", "/identities", None, 200),
    ("reader", "GET", IDENTITY, None, 200),
    ("reader", "GET", "/accounts/main/contacts", None, 200),
    ("reader", "GET", "/journal?state=quarantined", None, 200),
    ("reader", "GET", "/journal/1", None, 200),
    ("operator", "POST", f"{IDENTITY}/acknowledge", DECISION, 409),
    ("operator", "POST", f"{IDENTITY}/hold", DECISION, 409),
    ("operator", "POST", "/identities/acknowledge", {"items": []}, 200),
    ("operator", "POST", f"{IDENTITY}/refresh", None, 200),
    ("operator", "DELETE", f"/accounts/main/recipients/{WA_ID}/block", None, 404),
    ("operator", "PUT", f"/accounts/main/recipients/{WA_ID}/block", {"reason": "x"}, 200),
    ("admin", "POST", "/journal/1/replay", None, 200),
]


@pytest.fixture
async def keyed(install: Install) -> Installation:
    made = await install(api={"keys": KEYS})
    made.key = "key-of-admin"
    return made


# Roles


async def test_each_role_may_what_it_may_and_nothing_above(keyed: Installation) -> None:
    await keyed.change()
    entry = await keyed.entry()
    for least, method, each, body, expected in ROUTES:
        path = each.replace("/journal/1", entry)
        for role in ROLES:
            status, answer = await keyed.api(method, path, body, key=f"key-of-{role}")
            assert status == (expected if role in MAY[least] else 403), (role, method, path, answer)


async def test_without_a_key_or_with_a_wrong_one_everything_is_401(keyed: Installation) -> None:
    keyed.key = None
    right = "key-of-admin"
    wrong = [
        None,
        "Bearer",
        "Bearer ",
        "Bearer nobody",
        f"Basic {right}",
        right,
        f"Bearer {right}x",
        f"Bearer {digest_of(right)}",
        f"Bearer {right} {right}",
        f"Bearer {right},Bearer {right}",
        "Bearer \xe9",
    ]
    for header in wrong:
        headers = {} if header is None else {"Authorization": header}
        for _, method, path, body, _ in ROUTES:
            status, problem, sent = await keyed.call(method, path, body, headers=headers)
            assert (status, problem["status"]) == (401, 401), (header, path)
            assert sent["WWW-Authenticate"].startswith("Bearer")
    assert (await keyed.api("GET", f"/status?key={right}"))[0] == 401
    assert (await keyed.api("GET", "/no/such/route"))[0] == 401
    headers = {"Authorization": f"bearer {right}"}
    assert (await keyed.api("GET", "/status", headers=headers))[0] == 200


async def test_health_metrics_and_openapi_need_no_key(keyed: Installation) -> None:
    keyed.key = None
    for path in ("/health/live", "/health/ready", "/health/status", "/metrics", "/openapi.json"):
        assert (await keyed.api("GET", path))[0] == 200, path


OPEN = ("/health/live", "/health/ready", "/health/status", "/metrics", "/openapi.json")


async def test_head_is_answered_as_get_is_without_the_body(keyed: Installation) -> None:
    await keyed.change()
    known = [f"/api/v1{path}" for _, method, path, _, _ in ROUTES if method == "GET"]
    compat = f"/compat/main/v1/contacts/{WA_ID}/identity"
    for path in (*known, "/api/v1/issues", "/api/v1/audit", compat, *OPEN, "/api/v1/journal/99"):
        url, headers = keyed.base + path, {"Authorization": "Bearer key-of-admin"}
        async with keyed.http.get(url, headers=headers) as shown:
            body = await shown.read()
        async with keyed.http.head(url, headers=headers) as head:
            assert await head.read() == b""
        assert (head.status, head.content_type) == (shown.status, shown.content_type), path
        assert abs(int(head.headers["Content-Length"]) - len(body)) < 1000, path


async def test_head_needs_the_role_that_get_needs(keyed: Installation) -> None:
    for key, status in (("nobody", 401), ("key-of-sender", 403), ("key-of-reader", 200)):
        headers = {"Authorization": f"Bearer {key}"}
        async with keyed.http.head(f"{keyed.base}/api/v1/status", headers=headers) as head:
            assert head.status == status


async def test_the_description_is_made_once(
    keyed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    described = routes.description()
    monkeypatch.setattr(routes, "describe", lambda *_: made.append("again"))
    answers = [await keyed.api("GET", "/openapi.json") for _ in range(3)]
    assert answers == [(200, described)] * 3
    assert not made


async def test_the_name_of_the_key_is_who_decided(keyed: Installation) -> None:
    hash_ = await keyed.change()
    keyed.key = "key-of-operator"
    _, shown = await keyed.acknowledge(hash_, query="?wait=5", on_behalf_of="anna")
    decider = {"kind": "key", "name": "the_operator", "on_behalf_of": "anna"}
    assert (shown["state"], shown["decided_by"]) == ("acknowledged", decider)


async def test_only_an_admin_sees_headers_and_body_of_a_callback(keyed: Installation) -> None:
    await keyed.change()
    entry = await keyed.entry()
    _, seen = await keyed.api("GET", entry, key="key-of-admin")
    assert {"body", "headers", "content_type"} <= seen.keys()
    for role in ("reader", "operator"):
        _, seen = await keyed.api("GET", entry, key=f"key-of-{role}")
        assert not {"body", "body_base64", "headers"} & seen.keys()
        assert {"id", "account", "received_at", "state", "reason"} <= seen.keys()


async def test_nothing_that_is_refused_is_done(keyed: Installation) -> None:
    hash_ = await keyed.change()
    for key in ("key-of-reader", "key-of-sender", "key-of-gate", "nobody"):
        for verb in ("acknowledge", "hold"):
            status, _ = await keyed.api("POST", f"{IDENTITY}/{verb}", {"hash": hash_}, key=key)
            assert status in {401, 403}
    assert await keyed.state() == "pending"
    assert keyed.puts() == []


# Without keys, or without a token


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
)
async def test_without_a_key_nothing_forwarded_is_answered(
    manual: Installation, header: str
) -> None:
    headers = {header: "for=192.0.2.1"}
    for path in ("/status", "/health/live", "/metrics"):
        status, problem = await manual.api("GET", path, headers=headers)
        assert (status, problem["status"]) == (403, 403), path
    assert await manual.post(notice(WA_ID, HASH_A, hour_ago()), headers=headers) == 403
    assert await manual.identity() == {}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("192.0.2.1", 403),
        ("localhost.evil.example", 403),
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
    ],
)
async def test_without_a_key_only_a_loopback_name_is_answered(
    manual: Installation, host: str, status: int
) -> None:
    assert (await manual.api("GET", "/status", headers={"Host": host}))[0] == status


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "http://localhost:8080", 200),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
    ],
)
async def test_without_a_key_no_other_web_page_is_answered(
    manual: Installation, header: str, value: str, status: int
) -> None:
    assert (await manual.api("GET", "/status", headers={header: value}))[0] == status


@pytest.mark.parametrize("path", [f"/webhooks/main/{TOKEN}", "/api/v1/status"])
async def test_an_expectation_that_is_not_known_is_refused_and_not_repeated(
    manual: Installation, path: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(manual.base).port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: {WA_ID}\r\n"
    writer.write(f"{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 417")
    assert WA_ID.encode() not in answer


async def test_a_sender_that_asks_first_may_go_on(manual: Installation) -> None:
    headers = {"Expect": "100-continue"}
    assert await manual.post(notice(WA_ID, HASH_A, hour_ago()), headers=headers) == 200
    assert await manual.state() == "pending"


async def test_with_keys_and_tokens_what_a_proxy_forwards_is_answered(
    keyed: Installation,
) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1", "Host": "hooks.example.com"}
    assert await keyed.post(notice(WA_ID, HASH_A, hour_ago()), headers=headers) == 200
    assert (await keyed.api("GET", "/status", headers=headers))[0] == 200


async def test_an_account_without_a_token_is_for_this_machine_alone(install: Install) -> None:
    made = await install(accounts={"main": {"webhook_token": None}})
    body = notice(WA_ID, HASH_A, hour_ago())
    assert await made.post(body, path="/webhooks/main", headers={"X-Real-IP": "1.2.3.4"}) == 403
    assert await made.identity() == {}
    for path in (f"/webhooks/main/{TOKEN}", "/webhooks/main/", "/webhooks/other"):
        assert await made.post(body, path=path) == 404, path
    assert await made.post(body, path="/webhooks/main") == 200
    assert await made.state() == "pending"


# Endpoints


async def test_an_internal_address_leaves_webhooks_alone_outside(
    install: Install,
) -> None:
    made = await install(server={"internal": {"port": 0}})
    assert made.base != made.inside != ""
    hash_ = made.sim.change_identity(WA_ID)
    await made.sim.settled()
    assert (await made.identity())["hash"] == hash_
    body = notice(OTHER_ID, HASH_A, hour_ago())
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/api/v1/status"):
        assert (await made.api("GET", path))[0] == 200, path
        async with made.http.get(made.base + path) as response:
            assert response.status == 404, path
    async with made.http.post(f"{made.inside}/webhooks/main/{TOKEN}", json=body) as response:
        assert response.status == 404
    assert await made.identity(OTHER_ID) == {}


async def test_the_webhooks_speak_tls_with_a_certificate_of_its_own(
    install: Install, tmp_path: Path
) -> None:
    files = certificate.Files(tmp_path / "tls")
    certificate.ensure(tmp_path / "tls")
    made = await install(
        sim_options={"webhook_ca_file": files.ca},
        server={"tls_cert_file": files.cert, "tls_key_file": files.key},
        policy={"mode": "auto"},
    )
    assert made.base.startswith("https://")
    made.tls = ssl.create_default_context(cafile=files.ca)
    hash_ = made.sim.change_identity(WA_ID)
    await made.sim.settled()
    await made.becomes("acknowledged", hash_=hash_)
    assert await made.post(notice(OTHER_ID, HASH_A, hour_ago())) == 200
    _, _, headers = await made.call("GET", "/health/live")
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    host, _, port = made.base.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" not in await reader.read(100)
    writer.close()


async def test_handshakes_that_never_end_are_cut(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 1.0)
    files = certificate.Files(tmp_path / "tls")
    certificate.ensure(tmp_path / "tls")
    tls = {"tls_cert_file": files.cert, "tls_key_file": files.key}
    made = await install(server=tls)
    made.tls = ssl.create_default_context(cafile=files.ca)
    address = URL(made.base)
    opened = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
    async with asyncio.timeout(5):
        assert [await reader.read() for reader, _ in opened] == [b""] * 2
    assert await made.post(notice(OTHER_ID, HASH_A, hour_ago())) == 200
    for _, writer in opened:
        writer.close()


async def test_the_token_and_the_password_show_up_nowhere(
    manual: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    await manual.change()
    assert await manual.post(b"no JSON") == 200
    entries = [await manual.entry(number) for number in (0, 1)]
    for path in (
        *("/status", "/accounts", "/accounts/main", "/journal", *entries),
        *("/audit", IDENTITY, "/metrics", "/health/status", "/openapi.json"),
    ):
        status, answer = await manual.api("GET", path)
        assert status == 200
        for secret in (TOKEN, "development-only"):
            assert secret not in str(answer), path
    for path in (f"/webhooks/nobody/{TOKEN}", f"/webhooks/main/{TOKEN}/more"):
        async with manual.http.post(manual.base + path, json={}) as response:
            assert response.status == 404
            assert TOKEN not in await response.text() + str(response.headers)
    await manual.stop()
    said = "".join(capfd.readouterr())
    stored = b"".join(f.read_bytes() for f in manual.folder.glob("ackgate.db*"))
    for table in metadata.tables:
        stored += str(await manual.rows(f"SELECT * FROM {table}")).encode()
    for secret in (TOKEN, "development-only"):
        assert secret not in said
        assert secret.encode() not in stored


# Routes


async def test_every_route_is_described_and_what_is_described_is_there(
    keyed: Installation,
) -> None:
    _, described = await keyed.api("GET", "/openapi.json")
    assert described["openapi"].startswith("3.")
    listed = {
        (method.upper(), path)
        for path, operations in described["paths"].items()
        for method in operations
    }
    assert keyed.service is not None
    served = {
        (route.method, route.resource.canonical)
        for runner in keyed.service._runners
        for route in runner.app.router.routes()
        # The console's pages are for people: the API's description has none of them.
        if route.resource is not None and not route.resource.canonical.startswith("/console")
    }
    assert {method for method, _ in served - listed} <= {"HEAD", "*"}
    assert listed <= served
    for method, path in listed:
        operation = described["paths"][path][method.lower()]
        assert operation["summary"]
        names = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert names == set(re.findall(r"{(\w+)}", path))
    for _, method, path, _, _ in ROUTES:
        pattern = path.partition("?")[0].replace("/main", "/{account}")
        pattern = pattern.replace(WA_ID, "{user}").replace("/1", "/{id}")
        assert (method, "/api/v1" + pattern) in listed


UNBUILT = [
    ("GET", "/api/v1/no/such/route"),
    ("POST", "/api/v1/status"),
    ("GET", "/api/v1/"),
    ("GET", f"/compat/main/v1/contacts/{WA_ID}"),
    ("POST", f"/compat/main/v1/contacts/{WA_ID}/identity/more"),
    ("GET", "/"),
    ("GET", "/api/v2/status"),
]


@pytest.mark.parametrize(("method", "path"), UNBUILT)
async def test_what_is_not_built_answers_404(keyed: Installation, method: str, path: str) -> None:
    headers = {"Authorization": "Bearer key-of-admin"}
    async with keyed.http.request(
        method, keyed.base + path, json={"contacts": ["1"]}, headers=headers
    ) as response:
        assert response.status in {404, 405}
        assert response.content_type == "application/problem+json"
        assert (await response.json())["type"].startswith("/docs/problems#")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/v1/status", "GET,HEAD"),
        ("GET", f"/api/v1/accounts/main/identities/{WA_ID}/hold", "POST"),
        ("PUT", f"/api/v1/accounts/nobody/identities/{WA_ID}", "GET,HEAD"),
        ("OPTIONS", "/api/v1/journal/1/replay", "POST"),
        ("POST", "/health/ready", "GET,HEAD"),
        ("PUT", "/metrics", "GET,HEAD"),
        ("GET", "/webhooks/main/any-token-or-none", "POST"),
        ("GET", "/webhooks/nobody/any-token-or-none", "POST"),
        ("PUT", "/webhooks/nobody", "GET,POST"),
    ],
)
async def test_another_method_on_a_known_path_is_405_and_says_which_are_allowed(
    keyed: Installation, method: str, path: str, allowed: str
) -> None:
    headers = {"Authorization": "Bearer key-of-gate"}
    async with keyed.http.request(method, keyed.base + path, headers=headers) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert response.content_type == "application/problem+json"
        assert (await response.json())["status"] == 405


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/api/v1/nothing", None, 404),
        ("POST", "/webhooks/main/a-wrong-token-here", b"{}", 404),
        ("POST", "/webhooks/nobody", b"{}", 404),
        ("GET", "/webhooks/nobody", None, 404),
        ("DELETE", "/api/v1/status", None, 405),
        ("PUT", "/webhooks/nobody", None, 405),
        ("POST", "/api/v1/accounts/main/recipients/lookup", b" " * 1_100_000, 413),
    ],
)
async def test_each_problem_says_what_is_wrong(
    keyed: Installation, method: str, path: str, body: bytes | None, status: int
) -> None:
    headers = {"Authorization": "Bearer key-of-admin"}
    async with keyed.http.request(
        method, keyed.base + path, data=body and io.BytesIO(body), headers=headers
    ) as response:
        problem = await response.json()
    assert (response.status, problem["status"]) == (status, status)
    assert problem.keys() == {"type", "title", "status", "detail", "request_id"}
    assert problem["detail"]


async def test_without_a_key_a_method_is_told_nothing(keyed: Installation) -> None:
    async with keyed.http.delete(f"{keyed.base}/api/v1/status") as response:
        assert (response.status, response.headers.get("Allow")) == (401, None)


# Lists


async def pages(made: Installation, path: str, limit: int) -> list[list[Json]]:
    """Turn the pages of a list."""
    found, cursor = [], ""
    while True:
        _, listed = await made.api("GET", f"{path}limit={limit}{cursor}")
        assert set(listed) == {"items", "next_cursor"}
        found.append(listed["items"])
        if listed["next_cursor"] is None:
            return found
        assert re.fullmatch(r"[A-Za-z0-9._~-]+", listed["next_cursor"])
        cursor = f"&cursor={listed['next_cursor']}"


async def test_identities_are_listed_by_their_change_the_oldest_first(
    manual: Installation,
) -> None:
    order = [5, 2, 8, 1, 9, 3, 7, 4, 6, 0]
    for number in order:
        await manual.deliver(notice(f"1631{number}", f"h{number}", hour_ago(number)))
    await manual.deliver(notice("1631a", "same", hour_ago(4)), notice("1631b", "x", hour_ago(4)))
    for limit in (1, 5, 12, 100):
        found = await pages(manual, "/identities?", limit)
        assert max(map(len, found)) <= limit
        items = [item for page in found for item in page]
        assert [item["changed_at"] for item in items] == sorted(i["changed_at"] for i in items)
        assert len({item["wa_id"] for item in items}) == len(items) == 12
    assert items[0]["wa_id"] == "16310"
    assert not {"history", "audit"} & items[0].keys()


async def test_identities_are_listed_by_state_and_account(install: Install) -> None:
    made = await install()
    second = made.tree["accounts"]["main"] | {"webhook_token": "the-token-of-another-account"}
    await made.stop()
    await made.start(accounts={"second": second})
    first, held, done = ("16311", "16312", "16313")
    for wa_id in (first, held, done):
        await made.change(wa_id)
    await made.hold(made.sim.users[held].hash, held)
    await made.acknowledge(made.sim.users[done].hash, done, query="?wait=5")
    body = notice("16319", HASH_A, hour_ago())
    await made.post(body, path="/webhooks/second/the-token-of-another-account")

    async def listed(query: str) -> list[str]:
        _, answer = await made.api("GET", f"/identities?{query}")
        return [item["wa_id"] for item in answer["items"]]

    assert await listed("state=pending") == ["16319", first]
    assert await listed("state=pending&account=main") == [first]
    assert await listed("state=held,acknowledged") == [held, done]
    assert await listed("state=held&state=pending&account=main") == [first, held]
    assert await listed("account=second") == ["16319"]
    assert await listed("account=nobody") == []
    assert await listed("state=awaiting_hash") == []
    assert await listed("state=failed") == []
    assert len(await listed("")) == 4
    _, counted = await made.api("GET", "/status")
    assert {k: v for k, v in counted["counts"].items() if v} == {
        "pending": 2,
        "held": 1,
        "acknowledged": 1,
    }
    assert counted["oldest_pending_seconds"] > 3000
    assert counted["leader"] is True


async def test_what_was_updated_since_is_listed_by_its_update(manual: Installation) -> None:
    hashes = {wa_id: await manual.change(wa_id) for wa_id in ("16311", "16312", "16313")}
    await asyncio.sleep(0.005)
    await manual.hold(hashes["16312"], "16312")
    await asyncio.sleep(0.005)
    await manual.hold(hashes["16311"], "16311")
    since = (await manual.identity("16312"))["updated_at"]
    _, listed = await manual.api("GET", f"/identities?updated_since={since}")
    assert [item["wa_id"] for item in listed["items"]] == ["16312", "16311"]
    found = await pages(manual, "/identities?updated_since=2020-01-01T00:00:00Z&", 1)
    assert [page[0]["wa_id"] for page in found] == ["16313", "16312", "16311"]
    later = rfc3339(hour_ago(7200))
    _, listed = await manual.api("GET", f"/identities?updated_since={later}")
    assert listed == {"items": [], "next_cursor": None}


async def test_the_journal_is_listed_in_pages_and_by_state(manual: Installation) -> None:
    for number in range(7):
        await manual.post(b"no JSON" if number % 3 == 0 else b'{"n":%d}' % number)
    found = await pages(manual, "/journal?", 3)
    assert [len(page) for page in found] == [3, 3, 1]
    ids = [entry["id"] for page in found for entry in page]
    assert ids == sorted(ids)
    broken = await pages(manual, "/journal?state=quarantined&", 2)
    assert [len(page) for page in broken] == [2, 1]
    assert {entry["state"] for page in broken for entry in page} == {"quarantined"}
    applied = await pages(manual, "/journal?state=applied&account=main&", 100)
    assert [entry["reason"] for entry in applied[0]] == [None] * 4


async def test_the_whole_audit_trail_is_listed_in_pages(manual: Installation) -> None:
    hash_ = await manual.change()
    for verb in ("hold", "hold", "acknowledge"):
        await manual.decide(verb, hash_)
    await manual.becomes("acknowledged")
    found = await pages(manual, "/audit?", 2)
    entries = [entry for page in found for entry in page]
    told = [(entry["event"], entry["wa_id"], entry["account"]) for entry in entries]
    assert [t[0] for t in told] == ["changed", "held", "held", "decided", "acknowledged"]
    assert {t[1:] for t in told} == {(WA_ID, "main")}
    _, only = await manual.api("GET", "/audit?event=held&account=main")
    assert len(only["items"]) == 2


async def test_an_account_says_how_it_is(manual: Installation) -> None:
    _, before = await manual.api("GET", "/accounts/main")
    assert (before["account"], before["kind"]) == ("main", "onprem")
    assert (before["first_callback_at"], before["last_callback_at"]) == (None, None)
    manual.sim.fault("identity_put", status=503)
    await manual.acknowledge(await manual.change())
    await manual.deliver(notice(OTHER_ID, HASH_B, hour_ago()))

    async def waiting() -> Json | None:
        _, shown = await manual.api("GET", "/accounts/main")
        is_so = shown["backlog"]["acknowledge"]["waiting"] == 1 and shown["login"]["state"] == "ok"
        return dict(shown) if is_so else None

    after: Json = await until(waiting)
    assert None is not after["first_callback_at"] <= after["last_callback_at"]
    assert after["health"]["reachable"] is True
    _, listed = await manual.api("GET", "/accounts")
    assert [account["account"] for account in listed["items"]] == ["main"]


async def test_health_tells_alive_ready_and_how_the_clients_are(manual: Installation) -> None:
    assert await manual.api("GET", "/health/live") == (200, {"status": "pass"})
    status, ready = await manual.api("GET", "/health/ready")
    assert (status, ready["status"]) == (200, "pass")
    # The first look at the settings may have come before the webhook was registered.
    await manual.leading.inspectors["main"].look()

    async def passes() -> bool:
        code, health = await manual.api("GET", "/health/status")
        assert code == 200
        gateway = health["checks"]["client:main"]["gateway_status"]
        return bool(health["status"] == "pass" and gateway == "connected")

    await until(passes)
    await manual.sim.stop()
    await manual.refresh()
    code, health = await manual.api("GET", "/health/status")
    assert (code, health["status"]) == (200, "warn")
    assert (await manual.api("GET", "/health/ready"))[0] == 200


async def test_an_account_that_a_proxy_authenticates_needs_no_token_and_takes_what_is_forwarded(
    install: Install,
) -> None:
    main = {"webhook_token": None, "webhook_auth": "proxy"}
    made = await install(api={"keys": KEYS}, accounts={"main": main})
    made.key = "key-of-admin"
    forwarded = {"X-Forwarded-For": "192.0.2.10", "Host": "hooks.example.com"}
    body = notice(WA_ID, HASH_A, hour_ago())
    assert await made.post(body, path="/webhooks/main", headers=forwarded) == 200
    assert (await made.identity())["hash"] == HASH_A


async def test_metrics_are_prometheus_text_of_our_own_names(manual: Installation) -> None:
    await manual.change()
    status, shown, headers = await manual.call("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    names = {line.split("{")[0].split()[0] for line in shown.splitlines() if line[0] != "#"}
    assert names
    assert all(name.startswith("ackgate_") for name in names), names
    assert re.search(r'^ackgate_identities\{state="pending"\} 1\.0$', shown, re.MULTILINE)
    assert WA_ID not in shown
