"""The calls to a WhatsApp client, against a server on a real socket: answers, and the login."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from aiohttp import web

from service.model.outcomes import Answer
from service.model.timeline import Moment
from service.observability.metrics import Metrics
from service.settings import OnPremAccountSettings
from service.whatsapp import http, session
from service.whatsapp.http import (
    CallError,
    LoginRefusedError,
    NoReplyError,
    NotSentError,
    Transport,
)
from service.whatsapp.onprem import Client

WA_ID, HASH = "16315553601", "Rc/eg9Rl0JA="
PATH = f"/v1/contacts/{WA_ID}/identity"
LOGIN = "/v1/users/login"

Scripted = tuple[int, Any]


@dataclass
class Server:
    """Answers as it is told to, the last answer again and again; knows which tokens are good."""

    url: str = ""
    answers: dict[str, list[Scripted]] = field(default_factory=dict)
    logins: list[Scripted] = field(default_factory=list)
    good_for: timedelta | None = timedelta(days=7)
    refused: set[str] = field(default_factory=set)
    seconds: float = 0
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    logged_in: int = 0
    now: int = 0
    most: int = 0

    def count(self, path: str) -> int:
        return sum(request.raw_path == path for request in self.requests)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            return self.answer(request)
        finally:
            self.now -= 1

    def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == LOGIN:
            return self.log_in()
        if request.headers["Authorization"].removeprefix("Bearer ") in self.refused:
            return web.json_response({"errors": [{"code": 1005}]}, status=401)
        script = self.answers.get(request.path, [(404, {})])
        status, body = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(body, bytes):
            return web.Response(status=status, body=body)
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
        return web.json_response(body, status=status, headers=headers)

    def log_in(self) -> web.Response:
        if self.logins:
            status, body = self.logins.pop(0)
            return web.json_response(body, status=status) if body else web.Response(status=status)
        self.logged_in += 1
        user = {"token": f"token-{self.logged_in}"}
        if self.good_for is not None:
            expires = datetime.now(UTC) + self.good_for
            user["expires_after"] = expires.strftime("%Y-%m-%d %H:%M:%S+00:00")
        return web.json_response({"users": [user], "meta": {"version": "v2.45.1"}})


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


async def at_once() -> None:
    """Let a PUT go."""


def account(url: str, **others: Any) -> OnPremAccountSettings:
    return OnPremAccountSettings.model_validate(
        {"base_url": url, "username": "ackgate", "password": "päss:word"} | others
    )


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    made = Client("main", account(server.url), Metrics())
    yield made
    await made.close()


def identity(**others: Any) -> dict[str, Any]:
    told = {"hash": HASH, "created_timestamp": 1_600_132_094_000, "acknowledged": True}
    return {"contacts": told | others, "meta": {}}


class TestIdentity:
    async def test_it_tells_the_latest_hash_its_time_and_whether_it_is_acknowledged(
        self, server: Server, client: Client
    ) -> None:
        server.answers[PATH] = [(200, identity())]
        answer = await client.identity(WA_ID)
        assert answer == Answer(HASH, Moment(1_600_132_094_000), acknowledged=True)

    @pytest.mark.parametrize(
        ("said", "acknowledged"), [("true", True), ("False", False), (True, True), (False, False)]
    )
    async def test_acknowledged_may_be_a_text_or_a_boolean(
        self, server: Server, client: Client, said: Any, acknowledged: bool
    ) -> None:
        server.answers[PATH] = [(200, identity(acknowledged=said))]
        answer = await client.identity(WA_ID)
        assert answer is not None
        assert answer.acknowledged is acknowledged

    async def test_a_lone_surrogate_costs_nothing_but_its_own_text(
        self, server: Server, client: Client
    ) -> None:
        server.answers[PATH] = [(200, identity(name="\ud800"))]
        assert await client.identity(WA_ID) == Answer(
            HASH, Moment(1_600_132_094_000), acknowledged=True
        )

    @pytest.mark.parametrize("created", [None, 0, -1, 10**15])
    async def test_a_time_that_is_none_is_left_out(
        self, server: Server, client: Client, created: Any
    ) -> None:
        server.answers[PATH] = [(200, identity(created_timestamp=created))]
        assert await client.identity(WA_ID) == Answer(HASH, None, acknowledged=True)

    async def test_a_404_says_that_the_client_knows_none(
        self, server: Server, client: Client
    ) -> None:
        server.answers[PATH] = [(404, {"errors": [{"code": 1006}]})]
        assert await client.identity(WA_ID) is None

    @pytest.mark.parametrize(
        "answer",
        [
            (500, identity()),
            (429, {}),
            (302, {}),
            (200, {}),
            (200, None),
            (200, []),
            (200, {"contacts": []}),
            (200, identity(hash="")),
            (200, identity(hash="a\nb")),
            (200, identity(hash="x" * 1025)),
            (200, identity(hash=7)),
            (200, identity(acknowledged=None)),
            (200, identity(acknowledged="perhaps")),
            (200, b"no json"),
            (200, b"\xff"),
            (200, b"[" * 100_000),
            (204, b""),
        ],
    )
    async def test_any_other_answer_is_none_to_go_by(
        self, server: Server, client: Client, answer: Scripted
    ) -> None:
        server.answers[PATH] = [answer]
        with pytest.raises(NoReplyError) as caught:
            await client.identity(WA_ID)
        assert HASH not in str(caught.value)
        assert WA_ID not in str(caught.value)

    async def test_an_answer_beyond_all_bounds_is_cut_off(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "MAX_REPLY_BYTES", 1000)
        server.answers[PATH] = [(200, identity(padding="x" * 1000))]
        with pytest.raises(NoReplyError):
            await client.identity(WA_ID)


class TestAcknowledge:
    @pytest.mark.parametrize("status", [200, 204, 400, 404, 409, 429, 500, 503])
    async def test_it_puts_the_hash_and_gives_the_status(
        self, server: Server, client: Client, status: int
    ) -> None:
        server.answers[PATH] = [(status, b"")]
        assert await client.acknowledge(WA_ID, HASH, at_once) == status
        put = server.requests[-1]
        assert (put.method, put.path, put.content_type) == ("PUT", PATH, "application/json")
        assert server.bodies[-1] == b'{"hash":"Rc/eg9Rl0JA="}'
        assert server.count(PATH) == 1

    async def test_a_redirect_is_not_followed(self, server: Server, client: Client) -> None:
        server.answers[PATH] = [(307, {})]
        assert await client.acknowledge(WA_ID, HASH, at_once) == 307
        assert server.count("/elsewhere") == 0

    async def test_no_path_is_built_from_a_user_unescaped(
        self, server: Server, client: Client
    ) -> None:
        await client.acknowledge("../a b/%2F?", HASH, at_once)
        assert server.requests[-1].raw_path == "/v1/contacts/..%2Fa%20b%2F%252F%3F/identity"

    async def test_the_request_id_goes_along(self, server: Server, client: Client) -> None:
        server.answers[PATH] = [(200, {})]
        with structlog.contextvars.bound_contextvars(request_id="request-1"):
            await client.acknowledge(WA_ID, HASH, at_once)
        assert server.requests[-1].headers["X-Request-ID"] == "request-1"


class TestJustBeforeAPut:
    async def test_it_is_asked_with_the_token_and_a_place_and_the_put_follows(
        self, server: Server
    ) -> None:
        client = Client("main", account(server.url, max_in_flight=1), Metrics())
        server.answers[PATH] = [(200, {})]
        seen: list[tuple[int, int]] = []

        async def begin() -> None:
            seen.append((server.count(LOGIN), server.count(PATH)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.identity(WA_ID)  # it has the only place

        assert await client.acknowledge(WA_ID, HASH, begin) == 200
        assert (seen, server.count(PATH)) == ([(1, 0)], 1)
        await client.close()

    async def test_what_it_raises_is_raised_and_no_put_is_sent(
        self, server: Server, client: Client
    ) -> None:
        async def begin() -> None:
            raise RuntimeError

        for _ in range(2 * client.max_in_flight):
            with pytest.raises(RuntimeError):
                await client.acknowledge(WA_ID, HASH, begin)
        assert server.count(PATH) == 0
        assert client.reachability.unreachable_since is None

    async def test_it_is_asked_again_before_a_repeat(self, server: Server, client: Client) -> None:
        server.refused = {"token-1"}
        puts: list[int] = []

        async def begin() -> None:
            puts.append(server.count(PATH))
            if len(puts) == 2:
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await client.acknowledge(WA_ID, HASH, begin)
        assert (puts, server.count(PATH), server.count(LOGIN)) == ([0, 1], 1, 2)

    async def test_it_is_not_asked_where_there_is_no_login(
        self, server: Server, client: Client
    ) -> None:
        async def begin() -> None:
            pytest.fail("it was asked")

        for status, error in ((401, LoginRefusedError), (500, NotSentError)):
            server.logins = [(status, b"")]
            client.session.refused = False
            with pytest.raises(error):
                await client.acknowledge(WA_ID, HASH, begin)


class TestWithoutAnAnswer:
    async def test_no_connection_had_no_effect_for_sure(self, unused_tcp_port: int) -> None:
        client = Client("main", account(f"http://127.0.0.1:{unused_tcp_port}"), Metrics())
        try:
            with pytest.raises(NotSentError):
                await client.acknowledge(WA_ID, HASH, at_once)
            assert client.reachability.unreachable_since is not None
        finally:
            await client.close()

    async def test_a_time_out_is_an_unknown_outcome(self, server: Server) -> None:
        client = Client("main", account(server.url, timeout_seconds=0.2), Metrics())
        try:
            await client.session.token()
            server.seconds = 0.8
            with pytest.raises(NoReplyError) as caught:
                await client.acknowledge(WA_ID, HASH, at_once)
            assert caught.value.timed_out
        finally:
            await client.close()

    async def test_a_dropped_connection_is_an_unknown_outcome_and_nothing_is_sent_twice(
        self, server: Server, client: Client
    ) -> None:
        await client.identity(WA_ID)
        dropped = 0

        def drop(request: web.Request) -> web.StreamResponse:
            nonlocal dropped
            dropped += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        server.answer = drop  # type: ignore[method-assign]
        with pytest.raises(NoReplyError):
            await client.acknowledge(WA_ID, HASH, at_once)
        assert dropped == 1

    async def test_it_is_known_how_long_the_client_has_not_answered(
        self, server: Server, client: Client
    ) -> None:
        server.logins = [(500, {}), (500, {})]
        began = time.time_ns() // 1_000_000
        with pytest.raises(CallError):
            await client.identity(WA_ID)
        since = client.reachability.unreachable_since
        assert since is not None
        assert began <= since <= time.time_ns() // 1_000_000
        with pytest.raises(CallError):
            await client.identity(WA_ID)
        assert client.reachability.unreachable_since == since
        await client.identity(WA_ID)
        assert client.reachability.unreachable_since is None
        assert client.reachability.last_error is None

    async def test_calls_under_way_are_bounded(self, server: Server) -> None:
        client = Client("main", account(server.url, max_in_flight=3), Metrics())
        try:
            await client.session.token()
            server.seconds = 0.02
            await asyncio.gather(*(client.identity(WA_ID) for _ in range(12)))
        finally:
            await client.close()
        assert server.most == 3

    async def test_who_finds_no_place_in_time_had_no_effect(self, server: Server) -> None:
        settings = account(server.url, max_in_flight=1, timeout_seconds=0.3)
        client = Client("main", settings, Metrics())
        try:
            await client.session.token()
            server.seconds = 0.8
            results = await asyncio.gather(
                *(client.acknowledge(WA_ID, HASH, at_once) for _ in range(3)),
                return_exceptions=True,
            )
        finally:
            await client.close()
        assert all(isinstance(result, CallError) for result in results)
        assert any(isinstance(result, NotSentError) for result in results)


class TestHealth:
    @pytest.mark.parametrize(
        ("health", "gateway"),
        [
            ({"gateway_status": "connected"}, "connected"),
            ({"gateway_status": "brand_new"}, "brand_new"),
            ({"h:1": {"gateway_status": "connected", "role": "primary"}}, "connected"),
            (
                {
                    "h:1": {"gateway_status": "connected"},
                    "h:2": {"gateway_status": "disconnected"},
                    "h:3": {"role": "coreapp"},
                },
                "disconnected",
            ),
            ({"h:1": {"errors": [{"code": 1014}]}}, "unknown"),
            ({"h:1": "up"}, "unknown"),
            ({"gateway_status": 7}, "unknown"),
            ({}, "unknown"),
            ([], "unknown"),
            (None, "unknown"),
        ],
    )
    async def test_one_container_or_the_worst_of_many_tells_how_the_client_is(
        self, server: Server, client: Client, health: Any, gateway: str
    ) -> None:
        server.answers["/v1/health"] = [(200, {"health": health})]
        await client.check_health()
        assert client.reachability.gateway == gateway

    @pytest.mark.parametrize("body", [[], b"no json", None])
    async def test_an_unreadable_answer_leaves_it_unknown(
        self, server: Server, client: Client, body: Any
    ) -> None:
        server.answers["/v1/health"] = [(200, body)]
        await client.check_health()
        assert client.reachability.gateway == "unknown"
        assert client.reachability.unreachable_since is None

    async def test_no_answer_raises_nothing_but_is_noted(
        self, server: Server, client: Client
    ) -> None:
        server.logins = [(500, {})]
        await client.check_health()
        assert client.reachability.unreachable_since is not None


class TestLogin:
    async def test_name_and_password_are_sent_once_and_the_token_is_kept(
        self, server: Server, client: Client
    ) -> None:
        for _ in range(5):
            await client.identity(WA_ID)
        assert server.count(LOGIN) == 1
        login, first = server.requests[0], server.requests[1]
        sent = base64.b64decode(login.headers["Authorization"].removeprefix("Basic ")).decode()
        assert (login.method, sent) == ("POST", "ackgate:päss:word")
        assert first.headers["Authorization"] == "Bearer token-1"

    async def test_calls_that_begin_together_log_in_once(
        self, server: Server, client: Client
    ) -> None:
        server.seconds = 0.01
        await asyncio.gather(*(client.identity(WA_ID) for _ in range(20)))
        assert server.count(LOGIN) == 1

    async def test_a_token_is_renewed_before_it_expires(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.identity(WA_ID)
        began = time.time()
        monkeypatch.setattr(session.time, "time", lambda: began + 7 * 86_400 - 400)
        await client.identity(WA_ID)
        assert server.count(LOGIN) == 1
        monkeypatch.setattr(session.time, "time", lambda: began + 7 * 86_400 - 200)
        await client.identity(WA_ID)
        assert server.count(LOGIN) == 2
        assert server.requests[-1].headers["Authorization"] == "Bearer token-2"

    async def test_a_renewal_that_fails_leaves_the_token_that_is_still_good(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.answers[PATH] = [(200, {})]
        assert await client.acknowledge(WA_ID, HASH, at_once) == 200
        began = time.time()
        monkeypatch.setattr(session.time, "time", lambda: began + 7 * 86_400 - 200)
        server.logins = [(503, {})]
        assert await client.acknowledge(WA_ID, HASH, at_once) == 200

    async def test_a_short_token_is_not_renewed_with_every_call(
        self, server: Server, client: Client
    ) -> None:
        server.good_for = timedelta(seconds=60)
        for _ in range(5):
            await client.identity(WA_ID)
        assert server.count(LOGIN) == 1

    async def test_a_token_that_has_expired_by_a_wrong_clock_is_used_until_it_is_refused(
        self, server: Server, client: Client
    ) -> None:
        server.good_for = timedelta(days=-1)
        for _ in range(5):
            await client.identity(WA_ID)
        assert server.count(LOGIN) == 1

    async def test_a_token_without_an_end_is_kept(self, server: Server, client: Client) -> None:
        server.good_for = None
        for _ in range(3):
            await client.identity(WA_ID)
        assert server.count(LOGIN) == 1

    async def test_a_401_is_answered_with_one_login_and_the_call_is_repeated(
        self, server: Server, client: Client
    ) -> None:
        server.answers[PATH] = [(200, {})]
        server.refused = {"token-1"}
        assert await client.acknowledge(WA_ID, HASH, at_once) == 200
        assert (server.count(LOGIN), server.count(PATH)) == (2, 2)

    async def test_many_calls_refused_together_log_in_once(
        self, server: Server, client: Client
    ) -> None:
        await client.identity(WA_ID)
        server.refused, server.seconds = {"token-1"}, 0.01
        await asyncio.gather(*(client.identity(WA_ID) for _ in range(10)))
        assert server.count(LOGIN) == 2

    async def test_a_fresh_token_that_is_refused_too_is_no_reason_to_loop(
        self, server: Server, client: Client
    ) -> None:
        server.refused = {f"token-{n}" for n in range(100)}
        for _ in range(10):
            assert await client.acknowledge(WA_ID, HASH, at_once) == 401
        assert server.count(LOGIN) == 2

    async def test_after_a_minute_such_a_token_is_renewed_again(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.refused = {f"token-{n}" for n in range(100)}
        await client.acknowledge(WA_ID, HASH, at_once)
        later = time.monotonic() + session.FIRST_PAUSE_SECONDS + 1
        monkeypatch.setattr(session, "time", _Clock(later))
        server.refused = {"token-1", "token-2"}
        server.answers[PATH] = [(200, {})]
        assert await client.acknowledge(WA_ID, HASH, at_once) == 200
        assert server.count(LOGIN) == 3


class _Clock:
    """A clock of the session's own: the loop keeps the real one."""

    def __init__(self, monotonic: float) -> None:
        self._monotonic = monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def time(self) -> float:
        return time.time()


class TestARefusedLogin:
    @pytest.mark.parametrize("status", [401, 403, 429])
    async def test_the_account_pauses_and_nothing_is_sent(
        self, server: Server, client: Client, status: int
    ) -> None:
        server.logins = [(status, b"")]
        for _ in range(5):
            with pytest.raises(LoginRefusedError):
                await client.acknowledge(WA_ID, HASH, at_once)
        assert (server.count(LOGIN), server.count(PATH)) == (1, 0)
        assert 59 < client.paused_for() <= 60
        assert client.reachability.last_error == "the login was refused"

    async def test_it_is_tried_again_from_a_minute_up_each_time_later(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.logins, clock = [(401, {})] * 9, _Clock(1000.0)
        monkeypatch.setattr(session, "time", clock)
        pauses = []
        for _ in range(9):
            with pytest.raises(LoginRefusedError):
                await client.identity(WA_ID)
            pauses.append(client.paused_for())
            clock._monotonic += pauses[-1] + 0.001
        assert pauses == pytest.approx([60, 120, 240, 480, 960, 1920, 3600, 3600, 3600])
        assert server.count(LOGIN) == 9

    async def test_once_let_in_the_account_goes_on_and_the_pause_begins_anew(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.logins, clock = [(401, {}), (401, {})], _Clock(1000.0)
        monkeypatch.setattr(session, "time", clock)
        for _ in range(2):
            with pytest.raises(LoginRefusedError):
                await client.identity(WA_ID)
            clock._monotonic += 121
        await client.identity(WA_ID)
        assert client.paused_for() == 0
        server.refused, server.logins = {"token-1"}, [(401, {})]
        with pytest.raises(LoginRefusedError):
            await client.identity(WA_ID)
        assert client.paused_for() == pytest.approx(60)

    async def test_a_late_answer_to_the_token_of_before_allows_no_further_login(
        self, server: Server, client: Client
    ) -> None:
        server.answers[PATH] = [(200, identity())]
        await client.identity(WA_ID)
        server.seconds = 0.5
        late = asyncio.create_task(client.identity(WA_ID))
        while not server.now:
            await asyncio.sleep(0.01)
        server.seconds, server.refused, server.logins = 0, {"token-1"}, [(401, {})] * 3
        with pytest.raises(LoginRefusedError):
            await client.identity(WA_ID)
        server.refused = set()
        assert await late is not None
        with pytest.raises(LoginRefusedError):
            await client.identity(WA_ID)
        assert server.count(LOGIN) == 2
        assert client.paused_for() <= 60

    async def test_who_waits_for_a_login_that_is_not_answered_does_not_wait_for_another(
        self, server: Server
    ) -> None:
        server.seconds = 5
        made = Client("main", account(server.url, timeout_seconds=0.3), Metrics())
        async with asyncio.timeout(2):
            asked = (made.identity(WA_ID) for _ in range(20))
            found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in found} == {NotSentError}
        assert server.count(LOGIN) == 1
        await made.close()

    @pytest.mark.parametrize("login", [(503, {}), (200, {})])
    async def test_a_login_that_fails_otherwise_is_not_repeated_for_each_who_waits_for_it(
        self, server: Server, client: Client, login: Scripted
    ) -> None:
        server.logins = [login] * 20
        server.seconds = 0.1
        asked = (client.identity(WA_ID) for _ in range(16))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in found} == {NotSentError}
        assert server.count(LOGIN) == 1

    @pytest.mark.parametrize(
        "login", [(500, {}), (503, {}), (200, {}), (200, {"users": []}), (200, {"users": [{}]})]
    )
    async def test_a_login_that_fails_otherwise_pauses_nothing_and_had_no_effect(
        self, server: Server, client: Client, login: Scripted
    ) -> None:
        server.logins = [login]
        with pytest.raises(NotSentError):
            await client.identity(WA_ID)
        assert client.paused_for() == 0
        assert await client.identity(WA_ID) is None

    async def test_no_secret_is_in_what_is_said_of_it(
        self, server: Server, client: Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.logins = [(401, {})]
        with pytest.raises(LoginRefusedError) as caught:
            await client.identity(WA_ID)
        said = capsys.readouterr()
        for text in (str(caught.value), said.out, said.err):
            assert "päss" not in text
            assert WA_ID not in text


async def test_every_call_is_counted_by_what_became_of_it(server: Server) -> None:
    metrics = Metrics()
    client = Client("main", account(server.url), metrics)
    try:
        server.answers[PATH] = [(503, {})]
        await client.acknowledge(WA_ID, HASH, at_once)
    finally:
        await client.close()
    labels = {"account": "main", "operation": "identity_put", "outcome": "503"}
    assert metrics.registry.get_sample_value("ackgate_client_calls_total", labels) == 1


async def test_a_base_address_may_have_a_path(server: Server) -> None:
    client = Client("main", account(f"{server.url}/behind/proxy/"), Metrics())
    try:
        with pytest.raises(CallError):
            await client.identity(WA_ID)
    finally:
        await client.close()
    assert server.requests[0].path == f"/behind/proxy{LOGIN}"


@pytest.fixture
async def mute() -> AsyncIterator[Server]:
    """A server that takes connections, and never says a word: no handshake comes about."""
    fake = Server()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fake.now += 1
        while await reader.read(65_536):
            pass
        writer.close()

    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    fake.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield fake
    listening.close()


async def test_a_time_out_while_connecting_had_no_effect(mute: Server) -> None:
    settings = account(mute.url, timeout_seconds=0.2, verify_tls=False)
    transport = Transport("main", settings, Metrics(), max_in_flight=1)
    with pytest.raises(NotSentError, match="no connection") as raised:
        await transport.call("identity_put", "PUT", PATH, headers={}, body={"hash": HASH})
    assert raised.value.timed_out
    await transport.close()


async def test_who_waits_for_a_login_that_does_not_connect_begins_none_of_its_own(
    mute: Server,
) -> None:
    client = Client("main", account(mute.url, timeout_seconds=0.2, verify_tls=False), Metrics())
    calls = (client.acknowledge(WA_ID, HASH, at_once) for _ in range(8))
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in found} == {NotSentError}
    assert mute.now == 1
    await client.close()
