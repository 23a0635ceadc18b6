"""One request and its answer, against a server that writes its answers byte by byte as told."""

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from service.simulator import certificate
from service.whatsapp import exchange
from service.whatsapp.exchange import MAX_HINTS, Answer, Exchange, NotBegunError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b""
"""As an answer: the connection is closed in its place."""


@dataclass
class Peer:
    """Gives its answers in their order, then `OK`, whatever it is asked."""

    answers: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line[:15] == LENGTH), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0) if self.answers else OK
                if answer == CLOSE:
                    break
                for part in answer.split(b"|"):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


LENGTH = b"Content-Length:"


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


@pytest.fixture
async def to_peer(peer: Peer) -> AsyncIterator[Exchange]:
    made = Exchange(URL(f"http://127.0.0.1:{peer.port}/base"), tls=False)
    yield made
    await made.close()


async def put(to_peer: Exchange, body: bytes | None = b"{}") -> Answer:
    async with asyncio.timeout(10):
        return await to_peer.call("PUT", "/v1/it?a=b", {"X-One": "1"}, body)


async def test_a_request_is_written_as_it_was_asked_for(peer: Peer, to_peer: Exchange) -> None:
    answer = await put(to_peer, b'{"a":1}')
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["content-type"] == "application/json"
    first, *lines = peer.requests[0].decode().split("\r\n")
    assert first == "PUT /v1/it?a=b HTTP/1.1"
    assert lines == [
        f"Host: 127.0.0.1:{peer.port}",
        "User-Agent: ackgate",
        "X-One: 1",
        "Content-Length: 7",
        "",
        '{"a":1}',
    ]


async def test_only_a_question_without_a_body_tells_no_length(
    peer: Peer, to_peer: Exchange
) -> None:
    await put(to_peer, None)
    await to_peer.call("GET", "/v1/it", {}, None)
    assert [b"Content-Length: 0\r\n" in request for request in peer.requests] == [True, False]


async def test_calls_after_each_other_share_a_connection_and_calls_at_once_do_not(
    peer: Peer, to_peer: Exchange
) -> None:
    for _ in range(3):
        await put(to_peer)
    assert len(peer.connections) == 1
    await asyncio.gather(put(to_peer), put(to_peer), put(to_peer))
    assert len(peer.connections) == 3


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-|Length: 5\r\n\r\n|ab|cde", b"abcde"),
        (
            CHUNKED + b"|3\r\nabc\r\n|2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n|" + OK, b"{}"),
    ],
    ids=["in pieces", "chunked", "empty", "after a hint"],
)
async def test_an_answer_is_read_whole_and_the_connection_is_good_for_the_next(
    peer: Peer, to_peer: Exchange, answer: bytes, body: bytes
) -> None:
    peer.answers = [answer]
    assert (await put(to_peer)).body == body
    assert (await put(to_peer)).body == b"{}"
    assert len(peer.connections) == 1


async def test_a_connection_that_the_peer_wants_closed_is_not_used_again(
    peer: Peer, to_peer: Exchange
) -> None:
    peer.answers = [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
    assert (await put(to_peer)).status == 200
    assert (await put(to_peer)).status == 200
    assert len(peer.connections) == 2


async def test_nothing_is_sent_twice_not_even_where_a_kept_connection_was_closed(
    peer: Peer, to_peer: Exchange
) -> None:
    peer.answers = [OK, CLOSE]
    await put(to_peer)
    with pytest.raises(aiohttp.ClientError):
        await put(to_peer)
    assert len(peer.requests) == 2
    assert (await put(to_peer)).status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + 10_000 * b"x",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n|ab|cd",
        CHUNKED + b"3\r\nabc\r\n|zz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        (MAX_HINTS + 1) * b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
        CLOSE,
    ],
)
async def test_what_is_no_answer_fails_and_costs_only_its_own_call(
    peer: Peer, to_peer: Exchange, answer: bytes
) -> None:
    peer.answers = [answer]
    with pytest.raises(aiohttp.ClientError):
        await put(to_peer)
    assert (await put(to_peer)).status == 200
    assert len(peer.connections) == 2


async def test_an_answer_that_breaks_off_is_none(peer: Peer, to_peer: Exchange) -> None:
    peer.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"]
    call = asyncio.create_task(put(to_peer))
    while not peer.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    peer.connections[0].close()
    with pytest.raises(aiohttp.ClientError):
        await call


async def test_an_answer_without_a_length_ends_with_the_connection(
    peer: Peer, to_peer: Exchange
) -> None:
    peer.answers = [b"HTTP/1.0 200 OK\r\n\r\n|abc|de", CLOSE]
    call = asyncio.create_task(put(to_peer))
    while not peer.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    peer.connections[0].close()
    assert (await call).body == b"abcde"


async def test_closing_ends_a_call_amid_its_answer(peer: Peer, to_peer: Exchange) -> None:
    peer.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"]
    call = asyncio.create_task(put(to_peer))
    while not peer.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await to_peer.close()
    with pytest.raises(aiohttp.ClientError):
        await call


async def test_what_is_said_unasked_answers_no_later_call(peer: Peer, to_peer: Exchange) -> None:
    peer.answers = [OK + b"|" + OK.replace(b"{}", b"[]")]
    assert (await put(to_peer)).body == b"{}"
    await asyncio.sleep(0.1)
    with pytest.raises(NotBegunError):
        await put(to_peer)
    assert len(peer.requests) == 1
    assert (await put(to_peer)).body == b"{}"
    assert len(peer.connections) == 2


@dataclass
class Deaf:
    """Reads a head and no more, and answers it as told; reads on when it is woken."""

    answer: bytes
    heads: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Future[int] = field(default_factory=asyncio.Future)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.heads += 1
        writer.write(self.answer)
        await self.woken.wait()
        size = 0
        try:
            while more := await reader.read(65_536):
                size += len(more)
        except ConnectionError:
            pass
        if not self.came.done():
            self.came.set_result(size)
        writer.close()


LARGE = 20_000_000


@asynccontextmanager
async def deaf_peer(answer: bytes) -> AsyncIterator[tuple[Deaf, Exchange]]:
    made = Deaf(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    to_it = Exchange(URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), tls=False)
    yield made, to_it
    await to_it.close()
    made.woken.set()
    await made.came
    server.close()
    await server.wait_closed()


async def test_a_connection_whose_peer_left_a_request_unread_is_not_used_again() -> None:
    async with deaf_peer(OK) as (deaf, to_it):
        for _ in range(2):
            assert (await put(to_it, LARGE * b"x")).status == 200
        assert deaf.heads == 2


async def test_of_a_call_that_is_given_up_nothing_more_is_sent() -> None:
    async with deaf_peer(b"") as (deaf, to_it):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await put(to_it, LARGE * b"x")
        assert deaf.heads == 1
        deaf.woken.set()
        assert await deaf.came < LARGE


async def test_closing_waits_for_no_peer_that_reads_nothing() -> None:
    async with deaf_peer(b"") as (deaf, to_it), asyncio.timeout(10):
        call = asyncio.create_task(put(to_it, LARGE * b"x"))
        while not deaf.heads:
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(to_it.close())
        await asyncio.sleep(0.1)
        call.cancel()
        await closing


async def test_nobody_complains_of_a_kept_connection_that_is_reset(
    peer: Peer, to_peer: Exchange
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    peer.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n|ab|cde"]
    await put(to_peer)
    kept = peer.connections[0].get_extra_info("socket")
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.connections[0].transport.abort()
    await asyncio.sleep(0.1)
    assert (await put(to_peer)).status == 200
    gc.collect()
    assert complaints == []


async def test_an_answer_beyond_all_bounds_is_not_read_on(
    peer: Peer, to_peer: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_REPLY_BYTES", 1000)
    peer.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + 1001 * b"x"]
    with pytest.raises(aiohttp.ClientError):
        await put(to_peer)
    assert (await put(to_peer)).status == 200


async def test_a_call_that_is_given_up_leaves_no_answer_for_the_next(
    peer: Peer, to_peer: Exchange
) -> None:
    peer.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + 20 * b"|" + b"late!"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await put(to_peer)
    assert (await put(to_peer)).body == b"{}"
    assert len(peer.connections) == 2


@pytest.mark.parametrize(
    ("method", "path", "name", "value"),
    [
        ("PUT", "/a\r\nX: 1", "X", "1"),
        ("PUT", "/a", "X\nY", "1"),
        ("PUT", "/a", "X", "1\r\n\r\nGET / HTTP/1.1"),
        ("PUT\r\n", "/a", "X", "1"),
        ("PUT", "/a", "X", "1\0"),
        ("PUT", "/a", "X", "\ud800"),
    ],
)
async def test_no_value_makes_two_lines_of_one(
    peer: Peer, to_peer: Exchange, method: str, path: str, name: str, value: str
) -> None:
    with pytest.raises(ValueError, match="two"):
        await to_peer.call(method, path, {name: value}, b"")
    assert peer.connections == []


async def test_over_tls_the_peer_is_verified_before_anything_is_sent(
    peer: Peer, tmp_path: Path
) -> None:
    certificate.ensure(tmp_path)
    files = certificate.Files(tmp_path)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(files.cert, files.key)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=own)
    base = URL(f"https://localhost:{server.sockets[0].getsockname()[1]}")
    strict = Exchange(base, tls=True)
    with pytest.raises(aiohttp.ClientConnectorError):
        await put(strict)
    assert peer.requests == []
    await strict.close()
    for tls in (ssl.create_default_context(cafile=files.ca), False):
        to_it = Exchange(base, tls)
        for _ in range(2):
            assert (await put(to_it)).status == 200
        await to_it.close()
    assert len(peer.requests) == 4
    assert f"Host: localhost:{base.port}\r\n".encode() in peer.requests[0]
    server.close()
    await server.wait_closed()


async def test_where_nobody_listens_there_is_no_connection(peer: Peer) -> None:
    nowhere = Exchange(URL("http://127.0.0.1:1"), tls=False)
    with pytest.raises(aiohttp.ClientConnectorError):
        await put(nowhere)
    await nowhere.close()
    assert peer.requests == []
