"""One HTTP call, against a peer on a real socket that answers byte by byte as it is scripted."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.observability.metrics import Metrics
from service.settings import OnPremAccountSettings
from service.simulator import certificate
from service.whatsapp import http
from service.whatsapp.http import NoReplyError, NotSentError, Reply, Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b"|close|"
RESET = b"|reset|"
"""As an answer, or after one: the connection is closed, or reset."""


@dataclass
class Peer:
    """Gives its answers in their order, then `OK`, whatever it is asked; `|` parts an answer."""

    answers: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.lower().split(b"\r\n")
                length = next((int(x[15:]) for x in lines if x.startswith(b"content-length:")), 0)
                self.requests.append(head + await reader.readexactly(length))
                for part in (self.answers.pop(0) if self.answers else OK).split(b"|"):
                    if part == b"reset":
                        own = writer.get_extra_info("socket")
                        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if part in (b"close", b"reset"):
                        return
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def puts(self) -> int:
        return sum(request.startswith(b"PUT ") for request in self.requests)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    made = Peer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for connection in made.connections:
        connection.close()
    await server.wait_closed()


def calling(url: str, **others: Any) -> Transport:
    given = {"base_url": url, "username": "ackgate", "password": "secret", "timeout_seconds": 2}
    account = OnPremAccountSettings.model_validate({**given, **others})
    return Transport("main", account, Metrics(), max_in_flight=4)


@pytest.fixture
async def to_peer(peer: Peer) -> AsyncIterator[Transport]:
    made = calling(f"http://127.0.0.1:{peer.port}/base")
    yield made
    await made.close()


async def put(to_peer: Transport, body: Any = None, method: str = "PUT") -> Reply:
    async with asyncio.timeout(10):
        return await to_peer.call(
            "it", method, "/v1/it?a=b%2F", headers={"X-One": "1"}, body=body or {}
        )


async def test_a_request_is_sent_as_it_was_asked_for(peer: Peer, to_peer: Transport) -> None:
    assert (await put(to_peer, {"a": 1})).status == 200
    first, *lines = peer.requests[0].decode().split("\r\n")
    assert first == "PUT /base/v1/it?a=b%2F HTTP/1.1"
    assert lines[-2:] == ["", '{"a":1}']
    assert {f"Host: 127.0.0.1:{peer.port}", "User-Agent: ackgate", "X-One: 1"} < set(lines)
    assert {"Content-Type: application/json", "Content-Length: 7"} < set(lines)


async def test_calls_after_each_other_share_a_connection_and_calls_at_once_do_not(
    peer: Peer, to_peer: Transport
) -> None:
    for _ in range(3):
        await put(to_peer)
    assert len(peer.connections) == 1
    await asyncio.gather(put(to_peer), put(to_peer), put(to_peer))
    assert len(peer.connections) == 3


@pytest.mark.parametrize("lost", [CLOSE, RESET, HALF + CLOSE, HALF + RESET])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_nothing_is_sent_twice_where_a_kept_connection_is_lost(
    peer: Peer, to_peer: Transport, method: str, lost: bytes
) -> None:
    peer.answers = [OK, lost]
    await put(to_peer)
    with pytest.raises(NoReplyError) as caught:
        await put(to_peer, method=method)
    assert not caught.value.timed_out
    await asyncio.sleep(0.1)
    assert len(peer.connections) == 1
    assert (len(peer.requests), peer.puts) == (2, 1 + (method == "PUT"))
    assert (await put(to_peer)).status == 200


async def test_a_connection_that_was_lost_while_nothing_was_asked_costs_no_call(
    peer: Peer, to_peer: Transport
) -> None:
    peer.answers = [OK + RESET, OK + CLOSE]
    for _ in range(3):
        assert (await put(to_peer)).status == 200
        await asyncio.sleep(0.1)
    assert (len(peer.connections), peer.puts) == (3, 3)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-|Length: 5\r\n\r\n|ab|cde", b"abcde"),
        (CHUNKED + b"|3\r\nabc\r\n|2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n", b"abcde"),
        (b"HTTP/1.0 200 OK\r\n\r\n|abc|de" + CLOSE, b"abcde"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n|" + OK, b"{}"),
    ],
)
async def test_an_answer_is_read_whole_however_it_comes(
    peer: Peer, to_peer: Transport, answer: bytes, body: bytes
) -> None:
    peer.answers = [answer]
    assert (await put(to_peer)).raw == body
    assert (await put(to_peer)).raw == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + 10_000 * b"x",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n|ab|cd",
        CHUNKED + b"3\r\nabc\r\n|zz\r\n",
        CHUNKED + b"3\r\nabc\r\n" + CLOSE,
        HALF + CLOSE,
        CLOSE,
    ],
)
async def test_what_is_no_whole_answer_fails_and_costs_only_its_own_call(
    peer: Peer, to_peer: Transport, answer: bytes
) -> None:
    peer.answers = [answer]
    with pytest.raises(NoReplyError):
        await put(to_peer)
    assert (await put(to_peer)).status == 200
    assert (len(peer.connections), peer.puts) == (2, 2)


async def test_an_answer_that_is_too_long_is_not_read_on(
    peer: Peer, to_peer: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 1000)
    peer.answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n + n * b"x" for n in LENGTHS
    ]
    assert len((await put(to_peer)).raw) == 1000
    with pytest.raises(NoReplyError):
        await put(to_peer)
    assert (await put(to_peer)).status == 200


LENGTHS = [1000, 1001]


async def test_all_of_a_call_takes_so_long_at_most_and_leaves_no_answer_for_the_next(
    peer: Peer,
) -> None:
    to_peer = calling(f"http://127.0.0.1:{peer.port}", timeout_seconds=0.2)
    peer.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + 40 * b"|x"]
    with pytest.raises(NoReplyError) as caught:
        await put(to_peer)
    assert caught.value.timed_out
    assert (await put(to_peer)).raw == b"{}"
    assert len(peer.connections) == 2
    await to_peer.close()


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_a_peer_that_reads_nothing_holds_up_neither_a_call_nor_the_end() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await woken.wait()
        writer.transport.abort()

    woken = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    to_peer = calling(f"http://127.0.0.1:{port}", timeout_seconds=0.3)
    async with asyncio.timeout(5):
        with pytest.raises(NoReplyError):
            await put(to_peer, {"large": 20_000_000 * "x"})
        await to_peer.close()
    woken.set()
    server.close()
    await server.wait_closed()


async def test_no_cookie_is_sent_back_no_redirect_followed_and_no_proxy_used(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_peer = calling(f"http://localhost:{peer.port}")  # No jar keeps cookies of an IP address.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    moved = b"HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nSet-Cookie: a=b\r\n"
    peer.answers = [moved + b"Content-Length: 0\r\n\r\n"]
    assert (await put(to_peer)).status == 307
    assert (await put(to_peer)).status == 200
    assert len(peer.requests) == 2
    assert b"cookie" not in b"".join(peer.requests).lower()
    await to_peer.close()


async def test_over_tls_the_peer_is_verified_before_anything_is_sent(
    peer: Peer, tmp_path: Path
) -> None:
    certificate.ensure(tmp_path)
    files = certificate.Files(tmp_path)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(files.cert, files.key)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=own)
    base = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    strict = calling(base)
    with pytest.raises(NotSentError):
        await put(strict)
    assert peer.requests == []
    await strict.close()
    for trust in ({"ca_file": files.ca}, {"verify_tls": False}):
        to_it = calling(base, **trust)
        for _ in range(2):
            assert (await put(to_it)).status == 200
        await to_it.close()
    assert len(peer.requests) == 4
    server.close()
    await server.wait_closed()
