"""The calls to the Cloud API, against a server on a real socket: what each error means."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from aiohttp import web

from service.model.account_checks import CloudSettings
from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings
from service.whatsapp.cloud import FIELDS, Graph
from service.whatsapp.http import (
    BusyError,
    CallError,
    ForbiddenError,
    HandshakeError,
    InvalidError,
    LoginRefusedError,
    NoReplyError,
    NotSentError,
    NotThereError,
)

NUMBER, WABA, TOKEN = "106540352242922", "102290129340398", "EAAG-nobody-may-see-this"
ENDPOINT = "https://hooks.example.com/webhooks/meta"

Json = dict[str, Any]


@dataclass
class Server:
    """Answers as it is told to."""

    url: str = ""
    status: int = 200
    body: Any = field(default_factory=dict)
    seconds: float = 0
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    headers: Mapping[str, str] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs, await request.read()))
        self.tokens.add(request.headers.get("Authorization", ""))
        self.headers = request.headers
        await asyncio.sleep(self.seconds)
        if isinstance(self.body, bytes):
            return web.Response(status=self.status, body=self.body)
        return web.json_response(self.body, status=self.status)

    def fail(self, status: int, code: Any, **more: Any) -> None:
        self.status = status
        self.body = {"error": {"message": f"(#{code}) about {TOKEN}", "code": code, **more}}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    fake = Server()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", fake.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


def account(url: str, **others: Any) -> CloudAccountSettings:
    given = {"kind": "cloud", "app": "meta", "phone_number_id": NUMBER, "access_token": TOKEN}
    return CloudAccountSettings.model_validate({**given, "base_url": f"{url}/v25.0", **others})


@pytest.fixture
async def graph(server: Server) -> AsyncIterator[Graph]:
    made = Graph("shop", account(server.url), Metrics())
    yield made
    await made.close()


async def refused(graph: Graph) -> CallError:
    with pytest.raises(CallError) as caught:
        await graph.settings()
    assert TOKEN not in str(caught.value)
    return caught.value


async def test_the_number_is_read_with_the_token_in_a_header_and_nowhere_else(
    server: Server, graph: Graph
) -> None:
    server.body = {"quality_rating": "GREEN", "webhook_configuration": {"application": ENDPOINT}}
    assert await graph.settings() == CloudSettings(ENDPOINT, None, "GREEN")
    assert server.asked == [("GET", f"/v25.0/{NUMBER}?fields={FIELDS}", b"")]
    assert server.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("configured", "url"),
    [
        ({"phone_number": "a", "whatsapp_business_account": "b", "application": "c"}, "a"),
        ({"whatsapp_business_account": "b", "application": "c"}, "b"),
        ({"phone_number": "", "application": "c"}, "c"),
        ({"phone_number": 1}, None),
        ({}, None),
        (None, None),
        ("c", None),
    ],
)
async def test_the_url_that_counts_is_the_numbers_then_its_accounts_then_the_apps(
    server: Server, graph: Graph, configured: Any, url: str | None
) -> None:
    server.body = {"webhook_configuration": configured}
    assert (await graph.settings()).webhook_url == url


@pytest.mark.parametrize(
    ("data", "subscribed"), [([{"whatsapp_business_api_data": {}}], True), ([], False), (1, None)]
)
async def test_the_subscription_is_asked_for_where_the_business_account_is_known(
    server: Server, data: Any, subscribed: bool | None
) -> None:
    server.body = {"data": data}
    graph = Graph("shop", account(server.url, waba_id=WABA), Metrics())
    assert (await graph.settings()).subscribed is subscribed
    assert server.asked[1][:2] == ("GET", f"/v25.0/{WABA}/subscribed_apps")
    await graph.close()


async def test_a_providers_own_header_brings_the_bare_token_and_no_other_header_does(
    server: Server,
) -> None:
    graph = Graph("shop", account(server.url, token_header="D360-API-KEY"), Metrics())
    await graph.settings()
    await graph.close()
    assert server.headers["D360-API-KEY"] == TOKEN
    assert "Authorization" not in server.headers


async def test_a_url_of_the_numbers_own_is_told_from_that_of_the_app(server: Server) -> None:
    graph = Graph("shop", account(server.url), Metrics())
    server.body = {"webhook_configuration": {"application": ENDPOINT}}
    assert (await graph.settings()).own_webhook is False
    server.body = {"webhook_configuration": {"application": ENDPOINT, "phone_number": ENDPOINT}}
    assert (await graph.settings()).own_webhook is True
    await graph.close()


async def test_what_is_set_is_set_as_metas_pages_have_it(server: Server) -> None:
    graph = Graph("shop", account(server.url, waba_id=WABA), Metrics())
    await graph.enable_identity_check()
    await graph.subscribe()
    await graph.set_webhook(ENDPOINT, "a-verify-token")
    await graph.close()
    check, subscribed, webhook = server.asked
    assert check == (
        "POST",
        f"/v25.0/{NUMBER}/settings",
        b'{"user_identity_change":{"enable_identity_key_check":true}}',
    )
    # With no body: one with a URL would set that of the whole account.
    assert subscribed == ("POST", f"/v25.0/{WABA}/subscribed_apps", b"")
    assert webhook[:2] == ("POST", f"/v25.0/{NUMBER}")
    assert webhook[2] == (
        b'{"webhook_configuration":{"override_callback_uri":"' + ENDPOINT.encode() + b'",'
        b'"verify_token":"a-verify-token"}}'
    )


@pytest.mark.parametrize(
    ("status", "code", "more", "meaning"),
    [
        (401, 190, {}, LoginRefusedError),
        (400, 190, {"error_subcode": 463}, LoginRefusedError),
        (401, 0, {}, LoginRefusedError),
        (401, None, {}, LoginRefusedError),
        (403, 10, {}, ForbiddenError),
        (403, 200, {}, ForbiddenError),
        (400, 299, {}, ForbiddenError),
        (500, 3, {}, ForbiddenError),
        (403, "10", {}, ForbiddenError),
        (429, 4, {}, BusyError),
        (400, 80007, {}, BusyError),
        (429, [], {}, BusyError),
        (400, 100, {"error_subcode": 33}, NotThereError),
        (400, 33, {}, NotThereError),
        (400, 2200, {}, HandshakeError),
        (400, 100, {}, NotThereError),
        (500, 2, {}, NoReplyError),
        (200, 1, {}, NoReplyError),
        (302, {}, {}, NoReplyError),
    ],
)
async def test_an_error_is_told_by_its_code_and_without_its_text(
    server: Server, graph: Graph, status: int, code: Any, more: Json, meaning: type[CallError]
) -> None:
    server.fail(status, code, **more)
    error = await refused(graph)
    assert type(error) is meaning
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("more", "meaning"), [({}, InvalidError), ({"error_subcode": 33}, NotThereError)]
)
async def test_what_is_to_be_set_and_is_not_taken_is_told_from_an_id_that_is_wrong(
    server: Server, graph: Graph, more: Json, meaning: type[CallError]
) -> None:
    server.fail(400, 100, **more)
    with pytest.raises(meaning):
        await graph.set_webhook(ENDPOINT, "a-verify-token")
    assert graph.login == "ok"


async def test_a_handshake_that_failed_tells_what_the_endpoint_answered(
    server: Server, graph: Graph
) -> None:
    text = f"failed: HTTP Status Code = 403; HTTP Message = Forbidden {TOKEN}"
    server.status, server.body = 400, {"error": {"message": text, "code": 2200}}
    assert "(it was answered with 403)" in str(await refused(graph))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 1}', b'"x"'])
@pytest.mark.parametrize("status", [400, 500, 503])
async def test_an_answer_without_a_readable_error_goes_by_its_status(
    server: Server, graph: Graph, body: bytes, status: int
) -> None:
    server.status, server.body = status, body
    assert type(await refused(graph)) is NoReplyError


async def test_a_token_is_refused_until_it_is_taken_again(server: Server, graph: Graph) -> None:
    assert graph.login == "none"
    server.fail(401, 190)
    await refused(graph)
    assert graph.login == "refused"
    assert graph.reachability.unreachable_since is not None
    since = graph.login_since
    await refused(graph)
    assert graph.login_since == since
    server.fail(403, 10)
    await refused(graph)
    assert graph.login == "ok"
    assert graph.reachability.unreachable_since is None


@pytest.mark.parametrize("status", [429, 500])
async def test_an_answer_that_says_nothing_of_the_token_leaves_what_is_known_of_it(
    server: Server, graph: Graph, status: int
) -> None:
    await graph.settings()
    server.fail(status, 2 if status == 500 else 4)
    await refused(graph)
    assert graph.login == "ok"
    assert graph.reachability.last_error is not None


async def test_no_answer_in_time_is_no_answer(server: Server) -> None:
    graph = Graph("shop", account(server.url, timeout_seconds=0.05), Metrics())
    server.seconds = 1
    assert type(await refused(graph)) is NoReplyError
    await graph.close()


async def test_no_connection_is_told_as_that() -> None:
    graph = Graph("shop", account("http://127.0.0.1:9"), Metrics())
    assert type(await refused(graph)) is NotSentError
    assert graph.login == "none"
    await graph.close()


async def test_no_token_comes_into_logs_or_metrics(server: Server) -> None:
    metrics = Metrics()
    graph = Graph("shop", account(server.url), metrics)
    server.fail(401, 190)
    with structlog.testing.capture_logs() as logs:
        await refused(graph)
    await graph.close()
    assert logs
    assert TOKEN not in str(logs)
    assert TOKEN not in metrics.render()[0].decode()
    assert TOKEN not in repr(account(server.url))
