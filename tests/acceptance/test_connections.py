"""Callbacks at the socket: each kept and answered, in order, whatever comes before and after it."""

import asyncio
import json
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from yarl import URL

from service.ledger.ledger import FullError
from service.simulator import certificate
from service.store.database import UnavailableError
from service.webhooks.body import Reservation
from service.webhooks.handler import WebhookHandler
from service.webhooks.incoming import IncomingCallback
from tests.acceptance.conftest import (
    APP_ENDPOINT,
    HASH_A,
    HASH_B,
    NUMBER,
    OTHER_NUMBER,
    SHEENA,
    TOKEN,
    WA_ID,
    CloudInstallation,
    Install,
    Installation,
    Json,
    OpenShop,
    digest_of,
    hour_ago,
    notice,
    signed,
    until,
)
from tests.acceptance.webhooks import contact, envelope, text, value

KEY = "the-key-of-an-admin"
KEYED: Json = {"keys": {"admin": {"role": "admin", "sha256": digest_of(KEY)}}}
ENDPOINT = f"/webhooks/main/{TOKEN}"


@pytest.fixture
async def made(install: Install) -> Installation:
    installed = await install(api=KEYED, server={"max_body_bytes": 4096})
    installed.key = KEY
    return installed


@dataclass
class Line:
    """One connection to the webhook endpoint."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, made: Installation, tls: ssl.SSLContext | None = None) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", URL(made.base).port, ssl=tls))

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(first.split()[1]), headers, body

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(data)
        return await self.answer()

    async def status(self, data: bytes) -> int:
        return (await self.ask(data))[0]

    async def ends(self) -> bytes:
        """Read to the end of the connection."""
        async with asyncio.timeout(20):
            rest = await self.reader.read()
        await self.close()
        return rest

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


def request(body: Any, *lines: str, path: str = ENDPOINT, version: str = "1.1") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/{version}", "Host: a", "Content-Type: application/json", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(raw)}", "", ""]).encode() + raw


def changed(hash_: str = HASH_A, seconds: float = 0, wa_id: str = WA_ID) -> Json:
    return notice(wa_id, hash_, hour_ago(seconds))


async def journal(made: Installation) -> list[Json]:
    """Give the callbacks that were kept, the first one first."""
    status, listed = await made.api("GET", "/journal?limit=1000")
    assert status == 200, listed
    return sorted(listed["items"], key=lambda entry: entry["id"])


async def sample(made: Installation, name: str) -> float:
    _, told = await made.api("GET", "/metrics")
    values = [line.split()[-1] for line in told.splitlines() if line.startswith(name + " ")]
    return float(values[0]) if values else 0


async def nothing_in_flight(made: Installation) -> None:
    async def so() -> bool:
        return await sample(made, "ackgate_bytes_in_flight") == 0

    await until(so)


class Slow:
    """Holds up what is submitted to the ledger, until it may go on; or lets it fail."""

    def __init__(self, made: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
        assert made.service is not None
        assert made.service.context is not None
        self.ledger = made.service.context.ledger
        self._metrics = made.service.context.metrics.registry
        self._patch = monkeypatch

    def hold_up(self) -> asyncio.Event:
        submit, may = self.ledger.submit, asyncio.Event()

        async def later(command: Any, bounded: bool) -> Any:
            await may.wait()
            return await submit(command, bounded=bounded)

        def held(command: Any, *, bounded: bool = False) -> Any:
            return asyncio.ensure_future(later(command, bounded))

        self._patch.setattr(self.ledger, "submit", held)
        return may

    def fail(self, error: Exception) -> None:
        def failing(_: object, **__: object) -> Any:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future

        self._patch.setattr(self.ledger, "submit", failing)

    def go_on(self) -> None:
        self._patch.delattr(self.ledger, "submit")

    async def is_waiting(self) -> None:
        """Wait until a callback waits to be written."""
        await until(lambda: self._metrics.get_sample_value("ackgate_bytes_in_flight"))


# What is kept and counted


async def test_callbacks_on_one_connection_are_each_kept_and_counted(
    made: Installation,
) -> None:
    line = await Line.to(made)
    more = ("User-Agent: a/1", "X-Request-ID: abc-1", "x-forwarded-for: 10.0.0.1", "Accept: */*")
    for number, hash_ in enumerate((HASH_A, HASH_B)):
        status, headers, body = await line.ask(request(changed(hash_, number), *more))
        assert (status, body) == (200, b"{}")
        assert headers.pop("X-Request-ID") == "abc-1"
        assert headers.keys() == {"Content-Type", "Content-Length", "Date", "Server"}
    rows = [(await made.api("GET", f"/journal/{row['id']}"))[1] for row in await journal(made)]
    assert len(rows) == 2
    for row in rows:
        assert (row["account"], row["state"]) == ("main", "applied")
        assert row["content_type"] == "application/json"
        assert row["headers"] == [
            ["user-agent", "a/1"],
            ["x-request-id", "abc-1"],
            ["x-forwarded-for", "10.0.0.1"],
        ]
    assert await sample(made, 'ackgate_callbacks_total{account="main",result="applied"}') == 2
    assert (
        await sample(made, 'ackgate_callback_events_total{account="main",event="identity_seen"}')
        == 2
    )
    assert await sample(made, "ackgate_callback_seconds_count") == 2
    await nothing_in_flight(made)
    await line.close()


async def test_what_is_refused_is_answered_as_a_problem_and_not_kept(made: Installation) -> None:
    line = await Line.to(made)
    assert await line.status(request(changed())) == 200
    assert await line.status(request({}, path=ENDPOINT + "x")) == 404
    status, headers, body = await line.ask(request({"padding": "x" * 5000}))
    assert status == 413
    assert headers["Content-Type"] == "application/problem+json; charset=utf-8"
    assert json.loads(body)["type"] == "/docs/problems#too_large"
    assert await line.ends() == b""
    assert len(await journal(made)) == 1
    assert await sample(made, 'ackgate_callbacks_total{account="main",result="too_large"}') == 1


@pytest.mark.parametrize(
    "path",
    [f"{ENDPOINT}x", f"/webhooks/other/{TOKEN}", "/webhooks/main/x", "/webhooks/main"],
)
async def test_a_wrong_token_and_an_unknown_account_are_answered_alike(
    made: Installation, path: str
) -> None:
    line = await Line.to(made)
    status, headers, body = await line.ask(request({}, path=path))
    assert (status, headers["Content-Type"]) == (404, "application/problem+json; charset=utf-8")
    problem = json.loads(body)
    assert problem == {
        "type": "/docs/problems#nothing_here",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing here",
        "request_id": problem["request_id"],
    }
    assert await journal(made) == []
    await line.close()


async def test_an_escaped_token_is_the_same_token(made: Installation) -> None:
    assert TOKEN.startswith("a")
    line = await Line.to(made)
    assert (
        await line.status(request(changed(), path=ENDPOINT.replace(TOKEN, f"%61{TOKEN[1:]}")))
        == 200
    )
    assert await made.state() == "pending"
    await line.close()


async def test_what_is_no_object_is_kept_and_answered_200(made: Installation) -> None:
    line = await Line.to(made)
    assert (await line.ask(request(["no object"])))[::2] == (200, b"{}")
    assert [entry["reason"] for entry in await made.quarantined()] == ["the body is no JSON object"]
    await line.close()


async def test_callbacks_on_one_connection_over_tls_are_each_kept(
    install: Install, tmp_path: Path
) -> None:
    certificate.ensure(tmp_path / "tls")
    files = certificate.Files(tmp_path / "tls")
    tls = {"tls_cert_file": files.cert, "tls_key_file": files.key}
    made = await install(api=KEYED, server=tls)
    made.key, made.tls = KEY, ssl.create_default_context(cafile=files.ca)
    assert isinstance(made.tls, ssl.SSLContext)
    line = await Line.to(made, made.tls)
    for number in range(3):
        assert await line.status(request(changed(seconds=number))) == 200
    assert len(await journal(made)) == 3
    await line.close()


# Where one request ends and the next begins


async def test_what_looks_like_a_length_is_none(made: Installation) -> None:
    line = await Line.to(made)
    hidden = request(changed(HASH_B, 60))

    def with_two(body: bytes, told: int) -> bytes:
        head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: a\r\nX-Length: {told}\r\n"
        return f"{head}Content-Length:{len(body)}\r\n\r\n".encode() + body

    first = json.dumps(changed()).encode()
    assert await line.status(with_two(first, len(first))) == 200
    line.writer.write(with_two(b"{}" + hidden, 2)[: -len(hidden)])
    line.writer.write(hidden)
    assert await line.status(b"") == 200
    assert await line.status(request(changed())) == 200
    assert (await made.identity())["hash"] == HASH_A
    assert len(await journal(made)) == 3
    await line.close()


async def test_a_callback_within_a_body_is_no_callback(made: Installation) -> None:
    line = await Line.to(made)
    assert await line.status(request(changed())) == 200
    hidden = request(changed(HASH_B, 60))
    assert await line.status(request(hidden)) == 200
    line.writer.write(request(hidden)[: -len(hidden)])
    await asyncio.sleep(0.05)
    assert await line.status(hidden) == 200
    assert await line.status(request(changed())) == 200
    assert (await made.identity())["hash"] == HASH_A
    assert len(await journal(made)) == 4
    await line.close()


async def test_callbacks_in_any_pieces_are_answered_in_their_order(made: Installation) -> None:
    line = await Line.to(made)
    assert await line.status(request(changed())) == 200
    sent = [request(b"%d" % number) for number in range(60)]
    together = b"".join(sent)
    for start in range(0, len(together), 97):
        line.writer.write(together[start : start + 97])
        await asyncio.sleep(0)
    assert [(await line.answer())[0] for _ in sent] == [200] * 60
    status, _, body = await line.ask(request(b"x" * 5000))
    assert (status, json.loads(body)["status"]) == (413, 413)
    await line.ends()
    assert len(await journal(made)) == 61
    await nothing_in_flight(made)


async def test_what_is_sent_before_an_answer_is_answered_after_it(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await Line.to(made)
    assert await line.status(request(changed())) == 200
    slow = Slow(made, monkeypatch)
    may = slow.hold_up()
    line.writer.write(request(changed(seconds=1)))
    await slow.is_waiting()
    more = [request(b"x" * (number + 1)) for number in range(3)]
    line.writer.write(more[0])
    await asyncio.sleep(0.02)
    line.writer.write(more[1] + more[2] + request(b"no", path=ENDPOINT + "x"))
    await asyncio.sleep(0.02)
    may.set()
    statuses = [(await line.answer())[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 200, 404]
    assert len(await journal(made)) == 5
    await line.close()


async def test_a_sender_that_wants_the_connection_closed_has_it_closed(made: Installation) -> None:
    line = await Line.to(made)
    for number in range(2):
        assert await line.status(request(changed(seconds=number))) == 200
    assert await line.status(request(changed(), "Connection: close")) == 200
    assert await line.ends() == b""


async def test_a_sender_of_http_1_0_is_answered_and_its_connection_closed(
    made: Installation,
) -> None:
    line = await Line.to(made)
    assert (await line.ask(request(changed(), version="1.0")))[::2] == (200, b"{}")
    assert await line.ends() == b""
    assert await made.state() == "pending"


async def test_what_can_not_be_read_ends_the_connection(made: Installation) -> None:
    line = await Line.to(made)
    for number in range(2):
        assert await line.status(request(changed(seconds=number))) == 200
    assert await line.status(b"POST \x00\r\n\r\n") == 400
    assert await line.ends() == b""


# Senders that go, and the end of the service


async def test_what_a_sender_left_behind_is_kept(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, other = await Line.to(made), await Line.to(made)
    assert await line.status(request(changed())) == 200
    slow = Slow(made, monkeypatch)
    may = slow.hold_up()
    line.writer.write(request(changed(HASH_B, 60)))
    await slow.is_waiting()
    await line.close()
    may.set()
    await nothing_in_flight(made)
    assert (await made.identity())["hash"] == HASH_B
    assert await other.status(request(changed(seconds=90))) == 200
    await other.close()


async def test_what_is_being_written_is_answered_before_the_service_ends(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, idle = await Line.to(made), await Line.to(made)
    for one in (line, idle):
        assert await one.status(request(changed())) == 200
    slow = Slow(made, monkeypatch)
    may = slow.hold_up()
    line.writer.write(request(changed(HASH_B, 60)))
    await slow.is_waiting()
    stopping = asyncio.create_task(made.stop())
    assert await idle.ends() == b""
    assert not stopping.done()
    with pytest.raises(ConnectionError):
        await Line.to(made)
    may.set()
    assert (await line.answer())[0] == 200
    assert await line.ends() == b""
    await stopping
    await made.start()
    assert (await made.identity())["hash"] == HASH_B


# Faults


async def test_what_is_not_stored_is_answered_503_and_comes_again_on_the_same_connection(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, slow = await Line.to(made), Slow(made, monkeypatch)
    assert await line.status(request(changed())) == 200
    slow.fail(UnavailableError("the disk is full"))
    again = request(changed(HASH_B, 60))
    status, headers, body = await line.ask(again)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert headers["Content-Type"] == "application/problem+json; charset=utf-8"
    assert json.loads(body)["detail"] == "the callback could not be stored: deliver it again"
    await nothing_in_flight(made)
    slow.go_on()
    assert await line.status(again) == 200
    assert (await made.identity())["hash"] == HASH_B
    assert await sample(made, 'ackgate_callbacks_total{account="main",result="not_stored"}') == 1
    await line.close()


async def test_an_internal_error_is_answered_500_and_the_connection_goes_on(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, slow = await Line.to(made), Slow(made, monkeypatch)
    assert await line.status(request(changed())) == 200
    slow.fail(RuntimeError("a secret"))
    status, _, body = await line.ask(request(changed(HASH_B, 60)))
    assert (status, json.loads(body)["detail"]) == (500, "the service failed; the log tells more")
    slow.go_on()
    monkeypatch.setattr(WebhookHandler, "_note", lambda *_: 1 / 0)
    assert await line.status(request(changed(HASH_B, 60))) == 500
    monkeypatch.undo()
    assert await line.status(request(changed(HASH_B, 60))) == 200
    assert (await made.identity())["hash"] == HASH_B
    await nothing_in_flight(made)
    await line.close()


async def test_what_the_rules_fail_on_is_kept_and_answered_200(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await Line.to(made)
    assert await line.status(request(changed())) == 200
    with monkeypatch.context() as failing:
        failing.setattr(IncomingCallback, "read", lambda _: 1 / 0)
        assert (await line.ask(request(changed(HASH_B, 60))))[::2] == (200, b"{}")
    [row] = await made.quarantined()
    assert row["reason"] == "the rules failed: ZeroDivisionError"
    assert await line.status(request(changed(HASH_B, 90))) == 200
    await line.close()


async def test_too_much_at_once_is_answered_503_and_the_connection_goes_on(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await install(api=KEYED)
    made.key = KEY
    line, other = await Line.to(made), await Line.to(made)
    for one in (line, other):
        assert await one.status(request(changed())) == 200
    slow = Slow(made, monkeypatch)

    def full(*_: object) -> None:
        raise FullError

    for owner, name in ((slow.ledger, "check_room"), (Reservation, "hold")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            status, headers, _ = await line.ask(request(changed()))
            assert (status, headers["Retry-After"]) == (503, "1")
    for one in (line, other):
        assert await one.status(request(changed())) == 200
    assert await sample(made, 'ackgate_callbacks_total{account="main",result="not_stored"}') == 2
    await line.close()
    await other.close()


# The endpoint of an app


def of_both(hash_: str) -> bytes:
    values = [
        value([contact(hash_, wa_id=SHEENA)], [text(wa_id=SHEENA)], number=number)
        for number in (NUMBER, OTHER_NUMBER)
    ]
    return json.dumps(envelope(*values)).encode()


def sealed(raw: bytes, *lines: str) -> bytes:
    [(name, signature)] = signed(raw).items()
    return request(
        raw, "X-Hub-Signature: sha1=0a", f"{name}: {signature}", *lines, path=APP_ENDPOINT
    )


async def test_a_callback_for_several_accounts_is_kept_for_each(open_shop: OpenShop) -> None:
    shop: CloudInstallation = await open_shop(api=KEYED)
    shop.key = KEY
    line = await Line.to(shop)
    for hash_ in (HASH_A, HASH_B):
        assert (await line.ask(sealed(of_both(hash_))))[::2] == (200, b"{}")
    for account in ("shop", "outlet"):
        assert (await shop.of(account).identity(SHEENA))["hash"] == HASH_B
    assert len(await journal(shop)) == 2
    await nothing_in_flight(shop)
    await line.close()


async def test_a_wrong_signature_is_refused_after_one_that_fits(
    open_shop: OpenShop,
) -> None:
    shop: CloudInstallation = await open_shop(api=KEYED)
    shop.key = KEY
    line = await Line.to(shop)
    first, second = of_both(HASH_A), of_both(HASH_B)
    assert await line.status(sealed(first)) == 200
    assert await line.status(sealed(first)[: -len(first)] + second) == 401
    assert await line.status(sealed(first)) == 200
    assert (await shop.of("shop").identity(SHEENA))["hash"] == HASH_A
    refused = 'ackgate_callbacks_total{account="@meta",result="refused"}'
    assert await sample(shop, refused) == 1
    await line.close()
