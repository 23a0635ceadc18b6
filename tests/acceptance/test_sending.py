"""Sending through Ackgate: whom a message goes to is whom the gate was asked about, or nobody."""

import asyncio
import gzip
import json
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.acceptance.conftest import (
    ACCESS_TOKEN,
    APP_ENDPOINT,
    HASH_A,
    NUMBER,
    OTHER_ID,
    OTHER_NUMBER,
    SHEENA,
    STRANGE_NUMBER,
    USER_ID,
    WA_ID,
    CloudInstallation,
    Install,
    OpenShop,
    Spawn,
    app_tree,
    digest_of,
    hour_ago,
    merge,
    notice,
    until,
)
from tests.acceptance.sending import (
    BOTH,
    CLOUD,
    GRAPH,
    KEYS,
    ONPREM,
    ROLES,
    SENDER,
    cloud_message,
    form,
    known,
    message,
    onprem_message,
    post,
)

MALLORY = "16505550666"


@pytest.fixture
async def shop(open_shop: OpenShop) -> CloudInstallation:
    made = await open_shop(api=KEYS, accounts={"main": {"timeout_seconds": 5}})
    made.key = "key-of-admin"
    return made


def sent(shop: CloudInstallation) -> list[tuple[str, str]]:
    """Give whom each message went to, with its text, on both APIs."""
    taken = [*shop.meta.messages, *(one for one in shop.sim.messages if one.accepted)]
    return [(one.to, one.body["text"]["body"]) for one in taken]


# Open


async def test_a_message_goes_on_as_it_was_and_the_answer_comes_back_as_it_was(
    shop: CloudInstallation,
) -> None:
    body = cloud_message(context={"message_id": "wamid.x"}, biz_opaque_callback_data="order-1")
    answer = await post(shop, CLOUD, body)
    [message] = shop.meta.messages
    assert (answer.status, answer.body["messages"]) == (200, [{"id": message.id}])
    assert answer.body["contacts"] == [{"input": SHEENA, "wa_id": SHEENA}]
    assert message.body == body
    assert answer.headers["Content-Type"].startswith("application/json")

    answer = await post(shop, ONPREM, onprem_message())
    [taken] = shop.sim.messages
    assert (answer.status, answer.body["messages"]) == (200, [{"id": taken.id}])
    assert taken.body == onprem_message()
    [call] = shop.sim.calls.of("messages")
    assert call.request_id == answer.headers["X-Request-ID"]


async def test_on_the_cloud_api_the_trusted_hash_goes_along(shop: CloudInstallation) -> None:
    hash_ = await known(shop)
    for to in (SHEENA, f"+{SHEENA}", "+1 (650) 555-1234"):
        assert (await post(shop, CLOUD, cloud_message(to=to))).status == 200
    user = shop.meta.write(USER_ID, "Hello")
    await shop.meta.settled()
    assert (await post(shop, CLOUD, cloud_message(to=USER_ID))).status == 200
    assert [message.hash for message in shop.meta.messages] == [hash_, hash_, hash_, user.hash]
    assert {message.outcome for message in shop.meta.messages} == {"delivered"}


async def test_nobody_known_is_written_to_without_a_hash_or_with_the_senders_own(
    shop: CloudInstallation,
) -> None:
    assert (await post(shop, CLOUD, cloud_message())).status == 200
    own = cloud_message(to=MALLORY, recipient_identity_key_hash="their own")
    assert (await post(shop, CLOUD, own)).status == 200
    assert [message.hash for message in shop.meta.messages] == [None, "their own"]


async def test_a_hash_of_the_senders_own_must_be_the_one_that_is_trusted(
    shop: CloudInstallation,
) -> None:
    hash_ = await known(shop)
    right = await post(shop, CLOUD, cloud_message(recipient_identity_key_hash=hash_))
    assert (right.status, shop.meta.messages[-1].hash) == (200, hash_)
    wrong = await post(shop, CLOUD, cloud_message(recipient_identity_key_hash=HASH_A))
    assert (wrong.status, wrong.body["error"]["code"]) == (409, 409)
    assert "recipient_identity_key_hash" in wrong.body["error"]["error_data"]["details"]
    assert HASH_A not in str(wrong.body)
    assert len(shop.meta.messages) == 1


# Closed


async def test_every_reason_that_closes_the_gate_is_a_409_and_nothing_is_sent(
    shop: CloudInstallation,
) -> None:
    main = shop.of("main")
    assert await shop.post(notice(WA_ID, HASH_A, hour_ago())) == 200
    answer = await post(shop, ONPREM, onprem_message())
    assert (answer.status, answer.reasons) == (409, ["identity_pending"])
    [error] = answer.body["errors"]
    assert error["code"] == 409
    assert error["title"] == "Ackgate: the gate is closed: identity_pending"
    assert error["details"] == "a person acknowledges the identity"
    assert (await main.hold(HASH_A))[0] == 200
    assert (await post(shop, ONPREM, onprem_message())).reasons == ["identity_held"]
    block = {"reason": "asked not to be written to"}
    path = f"/accounts/main/recipients/{OTHER_ID}/block"
    assert (await shop.api("PUT", path, block))[0] == 200
    answer = await post(shop, ONPREM, onprem_message(to=f"+{OTHER_ID}"))
    assert (answer.reasons, answer.body["errors"][0]["details"]) == (["blocked"], block["reason"])

    await known(shop)
    shop.meta.change_number(SHEENA, MALLORY)
    await shop.meta.settled()
    answer = await post(shop, CLOUD, cloud_message())
    assert (answer.status, answer.reasons) == (409, ["number_changed"])
    error = answer.body["error"]
    assert (error["code"], error["type"]) == (409, "AckgateException")
    assert error["fbtrace_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert sent(shop) == []
    assert shop.sim.calls["messages"] == shop.meta.calls["messages"] == 0


async def test_a_message_that_was_refused_is_not_sent_once_the_gate_opens(
    shop: CloudInstallation,
) -> None:
    hash_ = await shop.change()
    assert (await post(shop, ONPREM, onprem_message(text="first"))).status == 409
    assert (await shop.of("main").acknowledge(hash_, query="?wait=10"))[0] == 200
    assert (await post(shop, ONPREM, onprem_message(text="second"))).status == 200
    assert sent(shop) == [(WA_ID, "second")]


TRICKS: list[tuple[str, bytes]] = [
    ("twice", b'{"to":"%(open)s","to":"%(shut)s",%(rest)s}'),
    ("twice, the other way round", b'{"to":"%(shut)s","to":"%(open)s",%(rest)s}'),
    ("escaped", b'{"to":"%(open)s","t\\u006f":"%(shut)s",%(rest)s}'),
    ("a null first", b'{"to":null,"to":"%(shut)s",%(rest)s}'),
    ("other letters", b'{"to":"%(open)s","To":"%(shut)s",%(rest)s}'),
    ("a list", b'{"to":["%(open)s","%(shut)s"],%(rest)s}'),
    ("two in one", b'{"to":"%(open)s,%(shut)s",%(rest)s}'),
    ("a line each", b'{"to":"%(open)s\\n%(shut)s",%(rest)s}'),
    ("a NUL between", b'{"to":"%(shut)s\\u0000%(open)s",%(rest)s}'),
    ("the other field", b'{"to":"%(open)s","recipient":"%(shut)s",%(rest)s}'),
    ("the other field, a user id", b'{"to":"%(open)s","recipient":"US.1349",%(rest)s}'),
    ("a group", b'{"to":"%(open)s","recipient_type":"group",%(rest)s}'),
    ("a key after the object", b'{"to":"%(open)s",%(rest)s}{"to":"%(shut)s",%(rest)s}'),
    ("a form", b"to=%(shut)s&type=text"),
    ("an array", b'[{"to":"%(open)s",%(rest)s},{"to":"%(shut)s",%(rest)s}]'),
    ("Graph's batch", b'{"to":"%(open)s","batch":[{"body":"to=%(shut)s"}],%(rest)s}'),
    ("Graph's token", b'{"to":"%(open)s","access_token":"x",%(rest)s}'),
    ("Graph's method", b'{"to":"%(open)s","method":"DELETE",%(rest)s}'),
    ("a mark too", b'{"to":"%(shut)s","status":"read","message_id":"x",%(rest)s}'),
    ("nobody", b"{%(rest)s}"),
    ("nobody, by name", b'{"to":"Sheena",%(rest)s}'),
    ("other digits", '{"to":"١٦٥","to":"%(shut)s",%(rest)s}'.encode()),
    ("UTF-16", '{"to":"16505550666"}'.encode("utf-16")),
    ("a mark of order", b'\xef\xbb\xbf{"to":"%(shut)s",%(rest)s}'),
    ("too deep", b'{"to":"%(open)s","text":' + b'{"a":' * 500 + b"1" + b"}" * 501),
    ("nothing", b""),
]


@BOTH
@pytest.mark.parametrize(("trick", "body"), TRICKS, ids=[name for name, _ in TRICKS])
async def test_no_trick_of_a_body_sends_to_another_than_the_gate_is_asked_about(
    shop: CloudInstallation, path: str, trick: str, body: bytes
) -> None:
    account = "shop" if path == CLOUD else "main"
    block = {"reason": "closed"}
    blocking = f"/accounts/{account}/recipients/{MALLORY}/block"
    assert (await shop.api("PUT", blocking, block))[0] == 200
    rest = b'"type":"text","text":{"body":"x"}'
    if path == CLOUD:
        rest += b',"messaging_product":"whatsapp"'
    for name, value in ((b"open", SHEENA.encode()), (b"shut", MALLORY.encode()), (b"rest", rest)):
        body = body.replace(b"%%(%s)s" % name, value)
    answer = await post(shop, path, body)
    assert answer.status == 400, (trick, answer.body)
    for number in (SHEENA, MALLORY):
        assert number not in answer.raw.decode()
    assert sent(shop) == []


@BOTH
async def test_a_compressed_body_a_query_and_a_form_are_refused(
    shop: CloudInstallation, path: str
) -> None:
    raw = json.dumps(message(path)).encode()
    for headers, query, body in (
        ({"Content-Encoding": "gzip"}, "", gzip.compress(raw)),
        ({"Content-Encoding": "gzip"}, "", raw),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "", raw),
        ({"Content-Type": "text/plain"}, "", raw),
        ({}, f"?to={MALLORY}", raw),
        ({}, "?access_token=x", raw),
    ):
        answer = await post(shop, path + query, body, headers=headers)
        assert answer.status == 400, (headers, query)
    assert sent(shop) == []


async def test_nothing_of_a_request_goes_on_but_what_was_judged(
    open_shop: OpenShop, api: "Api"
) -> None:
    shop = await api.shop(open_shop)
    headers = {"X-Forwarded-To": MALLORY, "Cookie": "a=b", "D360-API-KEY": "x", "Accept": "x/y"}
    path = f"/graph/v19.0/{NUMBER}/messages"
    assert (await post(shop, path, cloud_message(), headers=headers)).status == 200
    [(target, given, raw)] = api.requests
    assert target == f"/v25.0/{NUMBER}/messages"
    assert given["Authorization"] == f"Bearer {ACCESS_TOKEN}"
    assert json.loads(raw) == cloud_message()
    assert SENDER not in str(given)
    assert not {"Cookie", "D360-API-KEY", "X-Forwarded-To"} & given.keys()
    assert given["Accept"] == "*/*"


# Read marks


async def test_a_read_mark_passes_whatever_the_gate_says(shop: CloudInstallation) -> None:
    await known(shop)
    path = f"/accounts/shop/recipients/{SHEENA}/block"
    assert (await shop.api("PUT", path, {"reason": "closed"}))[0] == 200
    mark = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.x"}
    answer = await post(shop, CLOUD, mark)
    assert (answer.status, answer.body) == (200, {"success": True})
    assert list(shop.meta.marks) == [mark]
    assert (await post(shop, CLOUD, {**mark, "to": SHEENA})).status == 400
    assert (await post(shop, ONPREM, mark)).status == 400
    assert sent(shop) == []


# Refused by WhatsApp


async def test_a_137000_closes_the_gate_and_the_audit_trail_names_the_request(
    shop: CloudInstallation,
) -> None:
    shop.meta.change_settings(refuse_mismatch=True)
    old = await known(shop)
    shop.meta.reinstall(SHEENA)
    answer = await post(shop, CLOUD, cloud_message(), headers={"X-Request-ID": "order-4711"})
    assert (answer.status, answer.body["error"]["code"]) == (400, 137000)
    assert answer.body["error"]["type"] == "OAuthException"
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    identity = await shop.identity(SHEENA)
    assert (identity["hash"], identity["history"][0]["hash"]) == (None, old)
    [entry] = await shop.audit(SHEENA, "changed")
    assert entry["request_id"] == "order-4711"
    assert (await post(shop, CLOUD, cloud_message())).status == 409
    assert sent(shop) == []


async def test_a_137000_for_nobody_known_changes_nothing(shop: CloudInstallation) -> None:
    shop.meta.change_settings(refuse_mismatch=True)
    shop.meta.set_user(SHEENA)
    body = cloud_message(recipient_identity_key_hash="another")
    assert (await post(shop, CLOUD, body)).body["error"]["code"] == 137000
    assert await shop.identity(SHEENA) == {}


async def test_a_decision_about_the_next_hash_stands_when_a_message_with_the_former_is_refused(
    shop: CloudInstallation,
) -> None:
    shop.meta.change_settings(refuse_mismatch=True)
    await known(shop)
    shop.meta.fault("messages", latency=1.0, times=1)
    slow = asyncio.create_task(post(shop, CLOUD, cloud_message()))
    await until(lambda: shop.meta.calls.in_flight["messages"])
    new = shop.meta.reinstall(SHEENA)
    shop.meta.write(SHEENA, "It's me")
    await shop.meta.settled()
    assert (await shop.acknowledge(new, SHEENA))[0] == 200
    assert (await slow).body["error"]["code"] == 137000
    assert await shop.reasons(SHEENA) == []
    assert (await post(shop, CLOUD, cloud_message())).status == 200


@pytest.mark.parametrize("to", [WA_ID, f"+{WA_ID}", "+1 631-555-3601"])
@pytest.mark.parametrize("status", [400, 403, 409])
async def test_a_1028_closes_the_gate_and_the_client_is_asked(
    shop: CloudInstallation, to: str, status: int
) -> None:
    shop.sim.change_settings(refusal_status=status)
    hash_ = shop.sim.change_identity(WA_ID, notify=False)
    shop.sim.fault("identity_get", status=503)
    # The simulator knows a user by the very text of `to`, so that it is the wa_id here.
    shop.sim.users[to] = shop.sim.users[WA_ID]
    answer = await post(shop, ONPREM, onprem_message(to=to), headers={"X-Request-ID": "order-12"})
    assert (answer.status, answer.body["errors"][0]["code"]) == (status, 1028)
    assert answer.body["errors"][0]["title"].startswith("A user_identity_changed")
    main = shop.of("main")
    assert await main.reasons() == ["send_blocked"]
    again = await post(shop, ONPREM, onprem_message(to=to))
    assert (again.status, again.reasons) == (409, ["send_blocked"])
    _, trail = await shop.api("GET", "/audit?event=send_blocked")
    [entry] = trail["items"]
    assert (entry["account"], entry["wa_id"], entry["request_id"]) == ("main", WA_ID, "order-12")
    shop.sim.clear_faults()
    await main.becomes("pending", hash_=hash_)
    assert sent(shop) == []


async def test_a_480_that_comes_later_closes_the_gate(shop: CloudInstallation) -> None:
    shop.sim.change_settings(blocked_send="fail")
    shop.sim.change_identity(WA_ID, notify=False)
    assert (await post(shop, ONPREM, onprem_message())).status == 200
    await shop.sim.settled()
    assert (await post(shop, ONPREM, onprem_message())).status == 409


# The answer


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
@BOTH
async def test_an_error_of_whatsapps_comes_back_as_it_was(
    shop: CloudInstallation, path: str, status: int
) -> None:
    side = shop.meta if path == CLOUD else shop.sim
    side.fault("messages", status=status, times=1)
    answer = await post(shop, path, message(path))
    assert answer.status == status
    error = answer.body["error"] if path == CLOUD else answer.body["errors"][0]
    assert "Ackgate" not in str(error)
    assert side.calls["messages"] == 1
    assert sent(shop) == []
    assert (await post(shop, path, message(path))).status == 200


class Api:
    """An API that answers what it is told to, where the simulator never would."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = lambda: web.json_response({"messages": [{"id": "wamid.x"}]})

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        if request.method == "GET":
            return web.json_response({})  # how the number is set up, which is none of this
        self.requests.append((request.path_qs, dict(request.headers), raw))
        return self.answer()

    async def shop(self, open_shop: OpenShop) -> CloudInstallation:
        account = {"base_url": f"{self.url}/v25.0", "ca_file": None}
        made = await open_shop(api=KEYS, accounts={"shop": account})
        made.key = "key-of-admin"
        return made


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_status_body_and_the_headers_that_matter_come_back(
    open_shop: OpenShop, api: Api
) -> None:
    shop = await api.shop(open_shop)
    raw = b'{ "error": {"message": "(#130429)", "code": 130429, "type": "OAuthException"} }\n'
    headers = {
        "Content-Type": "text/javascript; charset=UTF-8",
        "Retry-After": "17",
        "X-App-Usage": '{"call_count":100}',
        "Set-Cookie": "a=b",
        "Server": "proxygen",
        "X-Request-ID": "theirs",
    }

    def answer() -> web.Response:
        made = web.Response(status=429, body=raw, headers=headers)
        made.enable_compression(web.ContentCoding.gzip, strategy=0)
        return made

    api.answer = answer
    found = await post(shop, CLOUD, cloud_message(), checked=False)
    assert (found.status, found.raw) == (429, raw)
    shown = {name: found.headers.get(name) for name in headers}
    assert shown["Content-Type"] == headers["Content-Type"]
    assert (shown["Retry-After"], shown["X-App-Usage"]) == ("17", '{"call_count":100}')
    assert shown["Set-Cookie"] is None
    assert shown["X-Request-ID"] != "theirs"
    assert "Content-Encoding" not in found.headers


@pytest.mark.parametrize(
    "made",
    [
        lambda: web.Response(status=307, headers={"Location": "https://evil.example/"}),
        lambda: web.Response(body=b"x" * 1_100_000),
    ],
)
async def test_an_answer_that_is_none_is_a_502_that_leaves_it_open_whether_it_was_sent(
    open_shop: OpenShop, api: Api, made: Callable[[], web.Response]
) -> None:
    shop = await api.shop(open_shop)
    api.answer = made
    answer = await post(shop, CLOUD, cloud_message())
    assert answer.status == 502
    assert "it is not known whether" in answer.body["error"]["message"]
    assert len(api.requests) == 1


async def test_a_page_in_front_of_whatsapp_comes_back_as_it_was(
    open_shop: OpenShop, api: Api
) -> None:
    shop = await api.shop(open_shop)
    page = "<html>Bad gateway</html>"
    api.answer = lambda: web.Response(status=520, text=page, content_type="text/html")
    answer = await post(shop, CLOUD, cloud_message(), checked=False)
    assert (answer.status, answer.raw.decode()) == (520, page)
    assert answer.headers["Content-Type"].startswith("text/html")


# Who may


@BOTH
async def test_senders_operators_and_admins_may_send_and_nobody_else(
    shop: CloudInstallation, path: str
) -> None:
    for role in ROLES:
        answer = await post(shop, path, message(path), key=f"key-of-{role}")
        allowed = role in {"sender", "operator", "admin"}
        assert answer.status == (200 if allowed else 403), role
    assert len(sent(shop)) == 3
    for key in (None, "nobody", ACCESS_TOKEN):
        answer = await post(shop, path, message(path), key=key)
        assert answer.status == 401
        error = answer.body["error"] if path == CLOUD else answer.body["errors"][0]
        assert error["code"] == (190 if path == CLOUD else 1005)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len(sent(shop)) == 3


async def test_a_key_for_some_accounts_sends_for_these_alone(open_shop: OpenShop) -> None:
    key = {"role": "sender", "sha256": digest_of("of-outlet"), "accounts": ["outlet"]}
    past = {"role": "sender", "sha256": digest_of("past"), "expires_at": "2020-01-01T00:00:00Z"}
    shop = await open_shop(api=merge(KEYS, {"keys": {"of_outlet": key, "past": past}}))
    outlet = f"/graph/v25.0/{OTHER_NUMBER}/messages"
    assert (await post(shop, outlet, cloud_message(), key="of-outlet")).status == 200
    unknown = f"/graph/v25.0/{STRANGE_NUMBER}/messages"
    answers = [
        await post(shop, path, message(path), key="of-outlet")
        for path in (unknown, CLOUD, ONPREM, "/compat/nobody/v1/messages")
    ]
    assert [answer.status for answer in answers] == [404] * 4
    for answer in answers[:2]:
        error = answer.body["error"]
        assert (error["code"], error["error_subcode"]) == (100, 33)
    assert answers[0].body["error"]["message"] == answers[1].body["error"]["message"]
    assert answers[2].body == answers[3].body
    assert (await post(shop, outlet, cloud_message(), key="past")).status == 401
    assert [message.phone_number_id for message in shop.meta.messages] == [OTHER_NUMBER]


async def test_a_number_that_two_apps_have_needs_a_key_for_one_of_the_two(
    open_shop: OpenShop,
) -> None:
    key = {"role": "sender", "sha256": digest_of("of-shop"), "accounts": ["shop"]}
    apps = {**app_tree(), "other": {"app_secret": "x" * 32, "verify_token": "a-verify-token"}}
    outlet = {"app": "other", "phone_number_id": NUMBER}
    shop = await open_shop(
        api=merge(KEYS, {"keys": {"of_shop": key}}), apps=apps, accounts={"outlet": outlet}
    )
    answer = await post(shop, CLOUD, cloud_message())
    assert (answer.status, len(shop.meta.messages)) == (400, 0)
    assert (await post(shop, CLOUD, cloud_message(), key="of-shop")).status == 200


async def test_an_account_of_the_cloud_api_is_not_sent_through_in_the_other_shape(
    shop: CloudInstallation,
) -> None:
    answer = await post(shop, "/compat/shop/v1/messages", onprem_message())
    assert (answer.status, answer.body["errors"][0]["code"]) == (404, 1006)
    assert sent(shop) == []


async def test_without_keys_only_this_machine_sends(open_shop: OpenShop) -> None:
    shop = await open_shop()
    assert (await post(shop, CLOUD, cloud_message(), key="any")).status == 200
    answer = await post(shop, CLOUD, cloud_message(), headers={"X-Forwarded-For": "192.0.2.1"})
    assert (answer.status, answer.body["error"]["code"]) == (403, 10)
    assert len(sent(shop)) == 1


NOT_PASSED = [
    ("POST", f"/graph/v25.0/{NUMBER}"),
    ("GET", f"/graph/v25.0/{NUMBER}"),
    ("POST", f"/graph/v25.0/{NUMBER}/settings"),
    ("POST", f"/graph/v25.0/{NUMBER}/register"),
    ("POST", f"/graph/v25.0/{NUMBER}/messages/"),
    ("POST", f"/graph/v25.0/{NUMBER}/messages/x"),
    ("POST", f"/graph/v25.0/{NUMBER}%2Fsettings/messages"),
    ("POST", f"/graph/v25.0/{NUMBER}/settings%3F/messages"),
    ("POST", f"/graph/v25.0%2F{NUMBER}/settings/messages"),
    ("POST", f"/graph/latest/{NUMBER}/messages"),
    ("POST", f"/graph/v25/{NUMBER}/messages"),
    ("POST", f"/graph/{NUMBER}/messages"),
    ("POST", "/graph/v25.0/102290129340398/subscribed_apps"),
    ("POST", "/graph/v25.0/"),
    ("POST", "/graph/"),
    ("GET", "/graph/v25.0/1013859600285441"),
    ("DELETE", "/graph/v25.0/1013859600285441"),
    ("POST", "/compat/main/v1/users/login"),
    ("GET", "/compat/main/v1/settings/application"),
    ("PATCH", "/compat/main/v1/settings/application"),
    ("POST", "/compat/main/v1/contacts"),
    ("PUT", "/compat/main/v1/messages/x"),
    ("GET", "/compat/main/v1/media/x"),
    ("POST", "/compat/main/v2/messages"),
    ("POST", "/compat/main%2Fv1/settings/messages"),
]


@pytest.mark.parametrize(("method", "path"), NOT_PASSED)
async def test_every_other_path_is_404_and_goes_nowhere(
    shop: CloudInstallation, method: str, path: str
) -> None:
    shop.sim.calls.counts.clear()
    url = URL(shop.base + path, encoded=True)
    headers = {"Authorization": "Bearer key-of-admin"}
    async with shop.http.request(method, url, json=cloud_message(), headers=headers) as response:
        assert response.status == 404
        body = await response.json()
    assert "error" in body or not path.startswith("/graph/")
    assert sent(shop) == []
    assert shop.meta.calls["messages"] == shop.sim.calls["messages"] == 0
    assert shop.meta.calls["settings"] == shop.meta.calls["unknown"] == 0


@pytest.mark.parametrize("path", [CLOUD, ONPREM, f"{GRAPH}/media"])
async def test_another_method_is_405(shop: CloudInstallation, path: str) -> None:
    headers = {"Authorization": "Bearer key-of-admin"}
    for method in ("GET", "PUT", "DELETE"):
        async with shop.http.request(method, shop.base + path, headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_with_an_internal_address_nothing_is_sent_through_outside(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(api=KEYS, server={"internal": {"port": 0}})
    assert (await post(shop, CLOUD, cloud_message())).status == 404
    shop.base = shop.inside
    assert (await post(shop, CLOUD, cloud_message())).status == 200
    assert len(sent(shop)) == 1


# Bodies


@BOTH
async def test_a_body_that_is_too_large_is_413_in_the_apis_own_shape(
    shop: CloudInstallation, path: str
) -> None:
    body = json.dumps(message(path, text="x" * 1_048_576)).encode()
    answer = await post(shop, path, body)
    error = answer.body["error"] if path == CLOUD else answer.body["errors"][0]
    assert (answer.status, "1048576" in str(error)) == (413, True)
    large = message(path, text="x" * 900_000)
    assert (await post(shop, path, json.dumps(large).encode())).status == 200
    assert [len(text) for _, text in sent(shop)] == [900_000]


async def test_a_body_that_breaks_off_or_stalls_sends_nothing(open_shop: OpenShop) -> None:
    shop = await open_shop(api=KEYS, server={"body_timeout_seconds": 0.3})
    whole = json.dumps(cloud_message()).encode()
    head = (
        f"POST {CLOUD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SENDER}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(whole) + 1}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(shop.base).port)
    writer.write(head.encode() + whole)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error"' in answer
    writer.close()
    assert sent(shop) == []


# Metrics and the log


async def test_each_message_is_counted_by_what_became_of_it_and_nothing_personal_is_said(
    prepare_shop: OpenShop, spawn: Spawn
) -> None:
    prepared = await prepare_shop(api=KEYS, log={"level": "debug"})
    child = await spawn(prepared.tree)
    child.key = "key-of-admin"
    shop = replace(prepared, base=child.base, key="key-of-admin")
    shop.meta.webhook_url = shop.base + APP_ENDPOINT
    secret = "a-word-of-the-message"
    shop.meta.change_settings(refuse_mismatch=True)
    hash_ = await known(shop)
    body = cloud_message(text=secret)
    assert (await post(shop, CLOUD, body)).status == 200
    assert (await post(shop, CLOUD, {**body, "To": MALLORY})).status == 400
    shop.meta.fault("messages", status=500, times=1)
    assert (await post(shop, CLOUD, body)).status == 500
    shop.meta.fault("messages", drop="before", times=1)
    assert (await post(shop, CLOUD, body)).status == 502
    shop.meta.reinstall(SHEENA)
    assert (await post(shop, CLOUD, body)).body["error"]["code"] == 137000
    assert (await post(shop, CLOUD, body)).status == 409
    assert (await post(shop, f"{GRAPH}/media", form(b"x" * 10))).status == 200
    await shop.sim.stop()
    answer = await post(shop, CLOUD, cloud_message(to=MALLORY, text=secret))
    assert (answer.status, "nothing was sent" in str(answer.body)) == (503, True)
    _, metrics = await shop.api("GET", "/metrics")
    results = ("sent", "closed", "refused", "rejected", "invalid", "not_sent", "unknown")
    for result in results:
        assert f'ackgate_sends_total{{account="shop",result="{result}"}} 1.0' in metrics, result
    call = 'ackgate_client_calls_total{account="shop",operation="messages",outcome='
    assert f'{call}"200"}} 1.0' in metrics
    assert f'{call}"no_reply"}} 1.0' in metrics
    assert 'ackgate_client_call_seconds_count{operation="messages"} 5.0' in metrics
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    said = "\n".join(child.lines)
    lines = [json.loads(line) for line in child.lines]
    found = [line for line in lines if line["event"] == "send"]
    order = ["sent", "invalid", "rejected", "unknown", "refused", "closed", "not_sent"]
    assert [line["result"] for line in found] == order
    assert {(line["level"], line["account"], line["caller"]) for line in found} == {
        ("info", "shop", "the_sender")
    }
    assert len({line["request_id"] for line in found}) == 7
    assert [line.get("answer") for line in found] == [200, None, 500, None, 400, None, None]
    assert [line["answer"] for line in lines if line["event"] == "upload"] == [200]
    for word in (secret, SHEENA, MALLORY, hash_, SENDER, ACCESS_TOKEN, "Your order"):
        assert word not in said
        assert word not in metrics


async def test_an_account_without_a_client_is_seen_as_refused_when_its_token_is(
    shop: CloudInstallation,
) -> None:
    shop.meta.change_settings(access_token="another")
    answer = await post(shop, CLOUD, cloud_message())
    assert (answer.status, answer.body["error"]["code"]) == (401, 190)
    assert answer.body["error"]["type"] == "OAuthException"
    _, account = await shop.api("GET", "/accounts/shop")
    assert account["login"]["state"] == "refused"
    shop.meta.change_settings(access_token=ACCESS_TOKEN)
    assert (await post(shop, CLOUD, cloud_message())).status == 200
    _, account = await shop.api("GET", "/accounts/shop")
    assert account["login"]["state"] == "ok"


async def test_a_session_of_the_senders_own_gets_one_answer_for_each_message(
    install: Install,
) -> None:
    """Kept connections of a sender mix up nothing."""
    made = await install(api=KEYS)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {SENDER}"}) as session:
        for number in range(5):
            body = onprem_message(text=str(number))
            async with session.post(made.base + ONPREM, json=body) as response:
                assert (await response.json())["messages"][0]["id"] == made.sim.messages[-1].id
    assert [one.body["text"]["body"] for one in made.sim.messages] == [*"01234"]
