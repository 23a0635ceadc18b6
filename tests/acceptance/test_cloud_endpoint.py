"""Webhooks of the Cloud API: what an app signs is kept and in effect, and nothing else is."""

import asyncio
import gzip
import hashlib
import hmac
import json
import sys
from collections.abc import Mapping

import pytest
from sqlalchemy import func, select
from yarl import URL

from service.store.schema import journal as journal_table
from tests.acceptance.conftest import (
    HASH_A,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    Json,
    Spawn,
    digest_of,
    hour_ago,
    merge,
    notice,
    until,
)

SECRET, PREVIOUS = "0123456789abcdef" * 2, "fedcba9876543210" * 2
VERIFY_TOKEN = "a-verify-token&of ours=é"
ENDPOINT = "/webhooks/meta"
NUMBER, OTHER_NUMBER, STRANGE_NUMBER = "106540352242922", "106540352242923", "999999999999999"
KEY = "the-key-of-an-admin"
KEYED: Json = {"keys": {"admin": {"role": "admin", "sha256": digest_of(KEY)}}}


def account(number: str = NUMBER) -> Json:
    return {
        "kind": "cloud",
        "app": "meta",
        "phone_number_id": number,
        "base_url": "http://127.0.0.1:9",
        "access_token": "EAAG-a-token",
    }


CLOUD: Json = {
    "apps": {"meta": {"app_secret": SECRET, "verify_token": VERIFY_TOKEN}},
    "accounts": {"shop": account(), "outlet": account(OTHER_NUMBER)},
}


@pytest.fixture(params=["without keys", "with keys"])
async def shop(install: Install, request: pytest.FixtureRequest) -> Installation:
    """An installation with accounts of both kinds; with keys callbacks pass by the router."""
    keyed = request.param == "with keys"
    made = await install(**CLOUD, **({"api": KEYED} if keyed else {}))
    made.key = KEY if keyed else None
    return made


def change(number: str, *wa_ids: str) -> Json:
    return {
        "field": "messages",
        "value": {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": number},
            "contacts": [
                {"profile": {"name": "A user"}, "wa_id": wa_id, "identity_key_hash": HASH_A}
                for wa_id in wa_ids
            ],
            "messages": [
                {
                    "from": wa_id,
                    "id": f"wamid.{number}{wa_id}",
                    "timestamp": str(hour_ago() // 1000),
                    "type": "text",
                    "text": {"body": "Hello"},
                }
                for wa_id in wa_ids
            ],
        },
    }


def envelope(*changes: Json) -> Json:
    entry = {"id": "102290129340398", "changes": list(changes)}
    return {"object": "whatsapp_business_account", "entry": [entry]}


def wrote(wa_id: str = WA_ID, number: str = NUMBER) -> bytes:
    return json.dumps(envelope(change(number, wa_id))).encode()


def signature(raw: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def signed(raw: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": signature(raw, secret)}


async def deliver(made: Installation, raw: bytes, **headers: str) -> int:
    return await made.post(raw, path=ENDPOINT, headers={**signed(raw), **headers})


async def knows(made: Installation, wa_id: str = WA_ID, name: str = "shop") -> bool:
    status, answer = await made.api("GET", f"/accounts/{name}/recipients/{wa_id}")
    assert status == 200, answer
    return bool(answer["known"])


async def journal(made: Installation) -> list[Json]:
    status, listed = await made.api("GET", "/journal?limit=1000")
    assert status == 200, listed
    return list(listed["items"])


async def stored(made: Installation) -> int:
    assert made.service is not None
    assert made.service.context is not None
    query = select(func.count()).select_from(journal_table)
    return int(await made.service.context.database.read(lambda c: c.execute(query).scalar() or 0))


async def counted(made: Installation, sample: str) -> float:
    """Give the value of a sample of the metrics, 0 where there is none."""
    _, text = await made.api("GET", "/metrics")
    values = [line.split()[-1] for line in text.splitlines() if line.startswith(sample + " ")]
    return float(values[0]) if values else 0


async def refused(made: Installation) -> float:
    return await counted(made, 'ackgate_callbacks_total{account="@meta",result="refused"}')


# What is signed


async def test_a_signed_callback_is_kept_for_its_account_and_in_effect(shop: Installation) -> None:
    assert await deliver(shop, wrote()) == 200
    assert await knows(shop)
    [entry] = await journal(shop)
    assert (entry["account"], entry["state"]) == ("shop", "applied")
    sample = 'ackgate_callbacks_total{account="shop",result="applied"}'
    assert await counted(shop, sample) == 1


async def test_the_endpoints_of_both_kinds_stand_side_by_side(shop: Installation) -> None:
    await shop.deliver(notice(WA_ID, HASH_A, hour_ago()))
    assert await deliver(shop, wrote("16315559999")) == 200
    assert [entry["account"] for entry in await journal(shop)] == ["main", "shop"]
    assert (await knows(shop, WA_ID, "main"), await knows(shop, WA_ID)) == (True, False)


async def test_the_signature_is_over_the_bytes_as_they_came(shop: Installation) -> None:
    raw = wrote().replace(b"A user", rb"Ren\u00e9 \/ \ud83d\ude00").replace(b": ", b" :\t\n ")
    assert json.dumps(json.loads(raw)).encode() != raw
    assert await deliver(shop, raw) == 200
    assert await knows(shop)
    assert (await shop.api("GET", await shop.entry()))[1]["body"].encode() == raw


async def test_a_signature_over_the_same_json_written_anew_is_refused(shop: Installation) -> None:
    raw = wrote().replace(b"A user", rb"Ren\u00e9 \/")
    anew = json.dumps(json.loads(raw), ensure_ascii=False).encode()
    assert await shop.post(raw, path=ENDPOINT, headers=signed(anew)) == 401
    assert await stored(shop) == 0


def wrong_headers() -> dict[str, dict[str, str]]:
    raw, right = wrote(), signature(wrote())
    digits = right.removeprefix("sha256=")
    values = {
        "of another secret": signature(raw, PREVIOUS),
        "of another body": signature(raw + b" "),
        "empty": "",
        "without its name": digits,
        "of another kind": f"sha1={digits}",
        "too short": right[:-1],
        "too long": right + "0",
        "no digits": "sha256=" + "x" * 64,
        "with spaces": f"sha256={digits[:10]} {digits[11:]}",
        "two in one": f"{right}, {right}",
        "other letters": f"SHA256={digits}",
        "not ASCII": "sha256=" + "٣" * 64,
    }
    headers = {name: {"X-Hub-Signature-256": value} for name, value in values.items()}
    return {**headers, "missing": {}, "the old header alone": {"X-Hub-Signature": right}}


@pytest.mark.parametrize("headers", wrong_headers().values(), ids=wrong_headers())
async def test_a_missing_or_wrong_signature_gets_401_and_nothing_is_stored(
    shop: Installation, headers: Mapping[str, str]
) -> None:
    url = URL(shop.base + ENDPOINT)
    async with shop.http.post(url, data=wrote(), headers=headers) as response:
        assert response.status == 401
        assert response.content_type == "application/problem+json"
        assert "WWW-Authenticate" in response.headers
        assert (await response.json())["status"] == 401
    assert await stored(shop) == 0
    assert await refused(shop) == 1


async def test_several_signatures_are_refused_even_if_each_is_right(shop: Installation) -> None:
    line = ("X-Hub-Signature-256", signature(wrote()))
    url = URL(shop.base + ENDPOINT)
    async with shop.http.post(url, data=wrote(), headers=[line, line]) as response:
        assert response.status == 401
    assert await stored(shop) == 0


async def test_while_the_secret_is_changed_both_are_taken_and_no_third(
    install: Install,
) -> None:
    made = await install(**CLOUD)
    await made.stop()
    await made.start(apps={"meta": {"app_secret_previous": PREVIOUS}})
    for number, secret in enumerate((SECRET, PREVIOUS)):
        raw = wrote(f"1631555000{number}")
        assert await made.post(raw, path=ENDPOINT, headers=signed(raw, secret)) == 200
    raw = wrote()
    assert await made.post(raw, path=ENDPOINT, headers=signed(raw, "0" * 32)) == 401
    assert await stored(made) == 2


TOKEN_OF_APP = "the-token-of-an-app"


async def test_where_a_provider_passes_no_signature_on_the_token_in_the_path_takes_its_place(
    install: Install,
) -> None:
    app = {"auth": "token", "webhook_token": TOKEN_OF_APP}
    made = await install(**merge(CLOUD, {"apps": {"meta": app}}))
    for path in ("", "/", "/another-token-of-an-app", f"/{TOKEN_OF_APP}x", f"/{TOKEN}"):
        # A right signature does not help.
        assert await made.post(wrote(), path=ENDPOINT + path, headers=signed(wrote())) == 404, path
    assert await made.post(wrote(), path=f"/webhooks/nobody/{TOKEN_OF_APP}") == 404
    assert await journal(made) == []
    assert await made.post(wrote(), path=f"{ENDPOINT}/{TOKEN_OF_APP}") == 200
    assert await knows(made)
    query = {"hub.mode": "subscribe", "hub.challenge": "1", "hub.verify_token": VERIFY_TOKEN}
    async with made.http.get(made.base + ENDPOINT, params=query) as response:
        assert response.status == 404


async def test_a_provider_signs_in_a_header_of_its_own_and_metas_is_none_then(
    install: Install,
) -> None:
    app = {"signature_header": "X-360Dialog-Signature"}
    made = await install(**merge(CLOUD, {"apps": {"meta": app}}), api=KEYED)
    made.key = KEY
    raw = wrote()
    assert await made.post(raw, path=ENDPOINT, headers=signed(raw)) == 401
    assert await made.post(raw, path=ENDPOINT) == 401
    bare = signature(raw).removeprefix("sha256=")
    for wrong in (bare[::-1], f"{bare}0", ""):
        headers = {"X-360Dialog-Signature": wrong}
        assert await made.post(raw, path=ENDPOINT, headers=headers) == 401
    assert await journal(made) == []
    for right in (bare, signature(raw)):
        headers = {"x-360dialog-signature": right}
        assert await made.post(raw, path=ENDPOINT, headers=headers) == 200
    assert await knows(made)
    _, entry = await made.api("GET", f"/journal/{(await journal(made))[0]['id']}")
    assert bare not in str(entry)
    async with made.http.post(made.base + ENDPOINT, data=raw) as response:
        assert response.headers["WWW-Authenticate"] == "X-360Dialog-Signature"


async def test_the_token_of_an_account_opens_no_app(shop: Installation) -> None:
    for path in (f"{ENDPOINT}/{TOKEN}", f"{ENDPOINT}/x", "/webhooks/shop", "/webhooks/nobody"):
        raw = wrote()
        url = URL(shop.base + path)
        async with shop.http.post(url, data=raw, headers=signed(raw)) as response:
            assert response.status == 404
            problem = await response.json()
            assert problem == {
                "type": "/docs/problems#nothing_here",
                "title": "Not Found",
                "status": 404,
                "detail": "there is nothing here",
                "request_id": problem["request_id"],
            }
    assert await stored(shop) == 0


async def test_the_signature_is_kept_nowhere(shop: Installation) -> None:
    raw = wrote()
    old = {"X-Hub-Signature": "sha1=" + "0123456789" * 4}
    assert await deliver(shop, raw, **old, **{"X-Request-ID": "a-request"}) == 200
    _, entry = await shop.api("GET", await shop.entry())
    assert "x-request-id" in dict(entry["headers"])
    assert not [name for name, _ in entry["headers"] if "signature" in name]


# On one connection


def request(raw: bytes, *more: str, method: str = "POST", path: str = ENDPOINT) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    return "\r\n".join([*lines, *more, f"Content-Length: {len(raw)}", "", ""]).encode() + raw


async def speak(made: Installation, *requests: bytes) -> list[int]:
    """Send requests on one connection, one after another; give the statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(made.base).port)
    found = []
    async with asyncio.timeout(10):
        for sent in requests:
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            await reader.readexactly(int(length))
            found.append(int(head.split()[1]))
    writer.close()
    return found


async def test_a_wrong_signature_does_not_end_the_connection(shop: Installation) -> None:
    first, second = wrote(), wrote("16315550001")
    sealed = [f"X-Hub-Signature-256: {signature(raw)}" for raw in (first, second)]
    sent = request(first, sealed[0]), request(first, sealed[1]), request(second, sealed[1])
    assert await speak(shop, *sent) == [200, 401, 200]
    assert await stored(shop) == 2


@pytest.mark.parametrize("seal", ["", "X-Hub-Signature-256: sha256=no\r\n"])
async def test_who_brings_no_signature_is_answered_before_the_body_is_read(
    shop: Installation, seal: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(shop.base).port)
    head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: 127.0.0.1\r\n{seal}Content-Length: 4000000\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 401 " in answer
        assert b"connection: close" in answer.lower()
        await reader.read()
    writer.close()


# Bodies


async def test_a_compressed_body_is_checked_as_it_came_and_not_inflated(
    shop: Installation,
) -> None:
    packed = gzip.compress(wrote())
    assert await deliver(shop, packed, **{"Content-Encoding": "gzip"}) == 200
    [entry] = await shop.quarantined()
    assert (entry["account"], entry["app"]) == (None, "meta")
    assert entry["reason"] == "the body is compressed"
    inflated = {**signed(wrote()), "Content-Encoding": "gzip"}
    assert await shop.post(packed, path=ENDPOINT, headers=inflated) == 401
    assert await stored(shop) == 1


async def test_bodies_are_bounded_as_at_every_endpoint(install: Install) -> None:
    made = await install(**CLOUD, server={"max_body_bytes": 4096, "body_timeout_seconds": 0.2})
    assert await deliver(made, wrote() + b" " * 4096) == 413
    raw = wrote()
    whole = request(raw, f"X-Hub-Signature-256: {signature(raw)}")
    assert await speak(made, whole[:-10]) == [408]
    assert await stored(made) == 0
    for result in ("too_large", "stalled"):
        sample = f'ackgate_callbacks_total{{account="@meta",result="{result}"}}'
        assert await counted(made, sample) == 1


async def test_three_megabytes_and_a_thousand_updates_are_taken_in_one_post(
    shop: Installation,
) -> None:
    wa_ids = [str(16315550000 + number) for number in range(1000)]
    padding = "x" * 2800
    changes = [change(NUMBER, wa_id) | {"padding": padding} for wa_id in wa_ids]
    raw = json.dumps(envelope(*changes)).encode()
    assert 3_000_000 < len(raw) < 4_194_304
    assert await shop.post(raw, path=ENDPOINT, headers=signed(raw, PREVIOUS)) == 401
    assert await deliver(shop, raw) == 200
    assert await stored(shop) == 1
    found = [await knows(shop, wa_id) for wa_id in (wa_ids[0], wa_ids[500], wa_ids[-1])]
    assert found == [True, True, True]


# Whose it is


async def test_one_post_for_several_accounts_takes_effect_at_each_and_is_kept_once(
    shop: Installation,
) -> None:
    raw = json.dumps(envelope(change(NUMBER, WA_ID), change(OTHER_NUMBER, "16315550001"))).encode()
    assert await deliver(shop, raw) == 200
    assert (await knows(shop), await knows(shop, "16315550001", "outlet")) == (True, True)
    assert (await knows(shop, WA_ID, "outlet"), await knows(shop, "16315550001")) == (False, False)
    [entry] = await journal(shop)
    assert (entry["account"], entry["app"], entry["state"]) == (None, "meta", "applied")
    sample = 'ackgate_callbacks_total{account="@meta",result="applied"}'
    assert await counted(shop, sample) == 1


async def test_what_is_for_a_number_of_nobody_is_kept_and_counted_beside_the_rest(
    shop: Installation,
) -> None:
    raw = json.dumps(envelope(change(STRANGE_NUMBER, "1631555"), change(NUMBER, WA_ID))).encode()
    assert await deliver(shop, raw) == 200
    assert await knows(shop)
    [entry] = await shop.quarantined()
    assert f"no account has the number {STRANGE_NUMBER}" in entry["reason"]
    assert await counted(shop, 'ackgate_unknown_numbers_total{app="meta"}') == 1


async def test_what_was_kept_for_a_number_takes_effect_by_a_replay_once_it_has_an_account(
    install: Install,
) -> None:
    made = await install(**CLOUD)
    assert await deliver(made, wrote(number=STRANGE_NUMBER)) == 200
    [entry] = await made.quarantined()
    assert (entry["account"], entry["app"]) == (None, "meta")
    await made.stop()
    await made.start(accounts={"late": account(STRANGE_NUMBER)})
    status, again = await made.api("POST", f"/journal/{entry['id']}/replay")
    assert (status, again["state"], again["reason"]) == (200, "applied", None)
    assert await knows(made, WA_ID, "late")
    _, trail = await made.api("GET", "/audit?event=replayed")
    assert [each["account"] for each in trail["items"]] == [None]


async def test_a_replay_of_an_accounts_own_entry_is_read_as_its_app_speaks(
    shop: Installation,
) -> None:
    assert await deliver(shop, wrote()) == 200
    status, again = await shop.api("POST", f"{await shop.entry()}/replay")
    assert (status, again["account"], again["state"]) == (200, "shop", "applied")
    raw = json.dumps(envelope(change(NUMBER, WA_ID), change(OTHER_NUMBER, WA_ID))).encode()
    assert await deliver(shop, raw) == 200
    status, again = await shop.api("POST", f"{await shop.entry(1)}/replay")
    assert (status, again["account"], again["app"]) == (200, None, "meta")
    assert again["state"] == "applied"


async def test_what_is_no_envelope_is_kept_quarantined_and_answered_200(
    shop: Installation,
) -> None:
    for raw in (b"", b"no JSON", b"[]", b"\xff\xfe"):
        assert await deliver(shop, raw) == 200
    entries = await shop.quarantined()
    assert [(entry["account"], entry["app"]) for entry in entries] == [(None, "meta")] * 4
    assert await counted(shop, 'ackgate_unknown_numbers_total{app="meta"}') == 0


# The handshake


def handshake(**over: str) -> dict[str, str]:
    return {
        "hub.mode": "subscribe",
        "hub.challenge": "1158201444",
        "hub.verify_token": VERIFY_TOKEN,
    } | {f"hub.{name}": value for name, value in over.items()}


@pytest.mark.parametrize("challenge", ["1158201444", "<b>a &amp; b</b>", "x" * 1024])
async def test_the_handshake_gives_the_challenge_back_as_plain_text(
    shop: Installation, challenge: str
) -> None:
    query = handshake(challenge=challenge)
    async with shop.http.get(shop.base + ENDPOINT, params=query) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert await response.text() == challenge
    assert await stored(shop) == 0


@pytest.mark.parametrize(
    "query",
    [
        handshake(verify_token="another-token"),
        handshake(verify_token=""),
        handshake(mode="unsubscribe"),
        handshake(challenge=""),
        handshake(challenge="x" * 1025),
        handshake(challenge="a\r\nb"),
        handshake(challenge="é"),
        {"hub.mode": "subscribe", "hub.challenge": "1"},
        {},
    ],
)
async def test_who_does_not_know_the_verify_token_gets_403(
    shop: Installation, query: Mapping[str, str]
) -> None:
    async with shop.http.get(shop.base + ENDPOINT, params=query) as response:
        assert response.status == 403
        assert response.content_type == "application/problem+json"
        problem = await response.json()
        assert problem == {
            "type": "/docs/problems#verification_refused",
            "title": "Forbidden",
            "status": 403,
            "detail": "the handshake is refused",
            "request_id": problem["request_id"],
        }
    assert await refused(shop) == 1


@pytest.mark.parametrize("name", ["nobody", "main", "shop"])
async def test_only_an_app_that_is_configured_shakes_hands(shop: Installation, name: str) -> None:
    async with shop.http.get(f"{shop.base}/webhooks/{name}", params=handshake()) as response:
        assert response.status == 404


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
async def test_the_endpoint_takes_get_and_post_alone(shop: Installation, method: str) -> None:
    async with shop.http.request(method, shop.base + ENDPOINT, params=handshake()) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,POST")


# What an account without a client has, and what not


async def test_what_only_a_client_can_tell_is_not_there_for_an_account_without_one(
    shop: Installation,
) -> None:
    await deliver(shop, wrote())
    status, _ = await shop.api("POST", f"/accounts/shop/identities/{WA_ID}/refresh")
    assert status == 404
    status, _ = await shop.api("POST", "/accounts/shop/contacts", {"contacts": ["+16315550001"]})
    assert status == 404
    assert (await shop.api("GET", "/accounts/shop/contacts"))[1]["items"] == []


async def test_accounts_of_both_kinds_are_listed_and_the_health_is_told(
    shop: Installation,
) -> None:
    await deliver(shop, wrote())
    _, listed = await shop.api("GET", "/accounts")
    kinds = {each["account"]: each["kind"] for each in listed["items"]}
    assert kinds == {"main": "onprem", "shop": "cloud", "outlet": "cloud"}
    _, told = await shop.api("GET", "/accounts/shop")
    assert told["login"]["state"] == "none"
    assert told["first_callback_at"] is not None

    async def passes() -> bool:
        """Tell whether nothing is wrong but that nobody stands for the Cloud API here.

        The On-Premises client may be looked at before the test has set its webhook URL.
        """
        _, answer = await shop.api("GET", "/health/status")
        wrong = {name for name, each in answer["checks"].items() if each["status"] != "pass"}
        return wrong - {"settings:main"} == {"client:shop", "client:outlet"}

    await until(passes)


async def test_the_commands_know_accounts_of_the_cloud_api(shop: Installation) -> None:
    config = shop.written()
    ran = await run("accounts", "setup", "shop", "--config", str(config))
    assert ran == (1, "shop: no connection (ClientConnectorError)")
    code, _ = await run("check-config", "--config", str(config))
    assert code == 0
    _, told = await run("doctor", "--json", "--config", str(config), all_of=True)
    names = {check["account"] for check in json.loads(told)["checks"]}
    assert "shop" in names


async def run(*arguments: str, all_of: bool = False) -> tuple[int, str]:
    """Run a command; give its exit code, and what it printed, else the last line of its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    said = out if all_of else err.strip().rpartition(b"\n")[2]
    return process.returncode or 0, said.decode().removeprefix("ackgate: ").strip()


async def test_the_real_command_serves_accounts_of_both_kinds(
    prepare: Install, spawn: Spawn
) -> None:
    made = await prepare(**CLOUD)
    child = await spawn(made.tree)
    raw = wrote()
    assert await child.post(raw, path=ENDPOINT, headers=signed(raw)) == 200
    assert await child.post(raw, path=ENDPOINT) == 401
    lines = "\n".join(child.lines)
    for secret in (SECRET, VERIFY_TOKEN, "EAAG-a-token", signature(raw)):
        assert secret not in lines


POLICY_OF_VERSION_0 = (
    '{"default": {"delay_seconds": 0.0, "max_changes": 3, "mode": "manual", "name": "default", '
    '"per_seconds": 86400.0}, "rules": []}'
)
"""As releases wrote it that knew no Cloud API."""


async def test_an_upgrade_notes_no_change_of_a_policy_that_did_not_change(
    prepare: Install,
) -> None:
    made = await prepare()
    await made.start()
    await made.stop()
    await made.write("UPDATE accounts SET policy = :policy", policy=POLICY_OF_VERSION_0)
    await made.start(**CLOUD)
    assert (await made.api("GET", "/audit?event=policy_changed"))[1]["items"] == []
    await made.stop()
    await made.start(accounts={"shop": {"trust_first_use": False}})
    _, trail = await made.api("GET", "/audit?event=policy_changed")
    assert [each["account"] for each in trail["items"]] == ["shop"]
