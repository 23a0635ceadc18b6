"""Callbacks past the HTTP library: which heads are remembered, what is taken, and what follows."""

import asyncio
import hmac
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage

from service.ingress.door import OFF_LOOP_BYTES, Door
from service.ingress.shortcut import MAX_HEAD_BYTES, MAX_HEADS, _cut
from service.ingress.sites import SILENCE_SECONDS, _Speaker
from tests.speaking import DOOR, MAX_BODY, SECRET, SlowLedger, Speaking, request

META = "/webhooks/meta"


def signed(body: bytes, *lines: str, secret: bytes = SECRET, sha1: str = "0a") -> bytes:
    digest = hmac.digest(secret, body, "sha256").hex()
    both = (f"X-Hub-Signature: sha1={sha1}", f"X-Hub-Signature-256: sha256={digest}")
    return request(body, *lines, *both, path=META)


async def taken_and_waiting() -> Speaking:
    made = Speaking(turns=-1)
    await made.send(request(b"first"), turns=3)
    made.ledger.futures[0].set_result(None)
    await made.turn(10)
    await made.send(request(b"second"))
    assert made.taken == 1
    return made


# What is taken


async def test_a_head_that_was_read_is_not_read_again_and_the_body_is_taken_as_it_came() -> None:
    made = Speaking()
    bodies = [b"{}", b"", b"a longer one", b"with\r\n\r\nan empty line", request(b"one within")]
    for body in bodies:
        await made.send(request(body, "User-Agent: a/1"))
    assert made.taken == len(bodies) - 1
    assert made.bodies == bodies
    assert made.statuses == [200] * len(bodies)
    assert {kept.door for kept in made.ledger.kept} == {"main"}
    assert {kept.envelope.headers for kept in made.ledger.kept} == {'[["user-agent", "a/1"]]'}
    assert made.in_flight == 0
    await made.end()


async def test_signed_callbacks_differ_in_their_signatures_and_are_each_checked() -> None:
    made = Speaking()
    await made.send(signed(b"first", sha1="00ff"))
    await made.send(signed(b"second", sha1="abcdef0123456789"))
    assert (made.taken, made.statuses) == (1, [200, 200])
    await made.send(signed(b"third", secret=b"not the secret"))
    assert made.taken == 1
    assert made.statuses == [200, 200, 401]
    assert made.bodies == [b"first", b"second"]
    await made.end()


async def test_what_was_learned_on_one_connection_is_known_on_the_next() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    other = Speaking()
    other.speaker._shortcut = made.shortcut
    await other.turn(2)
    await other.send(request(b"second"))
    assert made.taken == 1
    assert made.bodies == [b"first", b"second"]
    assert (made.statuses, other.statuses) == ([200], [200])
    await made.end()
    await other.end()


async def test_a_head_of_one_door_opens_no_other() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    for path in ("/webhooks/main/b-token", "/webhooks/other/a-token", "/webhooks/main/a-tokenx"):
        await made.send(request(b"second", path=path))
    assert made.taken == 0
    assert made.statuses == [200, 404, 404, 404]
    await made.send(request(b"third", path="/webhooks/other/another-token"))
    await made.send(request(b"fourth", path="/webhooks/other/another-token"))
    assert [(kept.door, kept.body) for kept in made.ledger.kept] == [
        ("main", b"first"),
        ("other", b"third"),
        ("other", b"fourth"),
    ]
    await made.end()


async def test_the_token_is_compared_for_every_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Speaking()
    await made.send(request(b"first"))
    monkeypatch.setattr(Door, "_admit", Mock(return_value=None))
    await made.send(request(b"second"))
    assert made.statuses == [200, 404]
    assert made.taken == 0
    await made.end()


@pytest.mark.parametrize("count", [OFF_LOOP_BYTES + 1, MAX_BODY + 1])
async def test_a_large_body_goes_the_librarys_way(count: int) -> None:
    made = Speaking()
    await made.send(request(b"first"))
    data = request(b"x" * count)
    made.ledger = SlowLedger()
    assert made.shortcut.take(data, Mock()) is False
    assert made.in_flight == 0
    await made.end()


# What is learned


KINDS = {
    "another method": request(b"x", first="PUT {} HTTP/1.1"),
    "HTTP/1.0": request(b"x", first="POST {} HTTP/1.0"),
    "HTTP/1.0, kept open": request(b"x", "Connection: keep-alive", first="POST {} HTTP/1.0"),
    "a query": request(b"x", path=f"{DOOR}?a=1"),
    "a whole address": request(b"x", path=f"http://a{DOOR}"),
    "an escaped path": request(b"x", path=DOOR.replace("a-t", "%61-t")),
    "a wrong token": request(b"x", path=f"{DOOR}x"),
    "no such door": request(b"x", path="/webhooks/nobody/a-token"),
    "to be closed": request(b"x", "Connection: close"),
    "an expectation": request(b"x", "Expect: 100-continue"),
    "another protocol": request(b"x", "Connection: upgrade", "Upgrade: websocket"),
    "empty lines before it": b"\r\n" + request(b"x"),
    "a large head": request(b"x", f"X-Large: {'x' * MAX_HEAD_BYTES}"),
    "a large body": request(b"x" * (OFF_LOOP_BYTES + 1)),
    "no length": f"POST {DOOR} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "in chunks": (
        f"POST {DOOR} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"1\r\nx\r\n0\r\n\r\n"
    ),
    "a length without a space": request(b"x").replace(b"Length: ", b"Length:"),
    "a length after two spaces": request(b"x").replace(b"Length: ", b"Length:  "),
    "a length with a space after it": request(b"x").replace(b"th: 1\r", b"th: 1 \r"),
    "two lengths": request(b"x", "Content-Length: 1"),
    "a length of its own": request(b"x", "X-Length: 1").replace(b"Content-Length: ", b"C-L:"),
    "another header like a length": request(b"x", "X-Length: 1"),
    "another header taken for the length": request(b"x", "X-Length: 1").replace(
        b"Content-Length: ", b"Content-Length:"
    ),
    "another header like a digest": request(b"x", "User-Agent: sha1=abc"),
    "no signature": request(b"x", path=META),
    "a wrong signature": signed(b"x", secret=b"not the secret"),
    "two signatures": signed(b"x", f"X-Hub-Signature-256: sha256={64 * 'a'}"),
    "a short signature": signed(b"x").replace(b"sha256=", b"sha256=a"),
    "a signature elsewhere": signed(b"x").replace(b"X-Hub-Signature-256", b"X-Signature-256"),
    "a length that is none": request(b"x").replace(b"th: 1\r", b"th: +1\r"),
    "a folded line": request(b"x", "X-Folded: a", " b"),
    "bare line feeds": request(b"x").replace(b"\r\n", b"\n"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_some_heads_are_never_learned(kind: str) -> None:
    for _ in range(2):
        made = Speaking()
        await made.send(KINDS[kind])
        await made.end()
        assert made.shortcut._heads == {}
        assert made.taken == 0


async def test_only_what_came_in_one_piece_is_learned() -> None:
    made = Speaking()
    data = request(b"a body")
    for end in (1, 10, len(data) - 7, len(data) - 1):
        await made.send(data[:end])
        await made.send(data[end:])
    assert made.shortcut._heads == {}
    assert made.statuses == [200] * 4
    await made.end()


async def test_a_few_heads_are_remembered_the_last_ones_that_were_new() -> None:
    made = Speaking()
    for number in range(MAX_HEADS + 2):
        await made.send(request(b"", f"X-Number: {number}"), turns=10)
    assert len(made.shortcut._heads) == MAX_HEADS
    assert made.taken == 0
    await made.send(request(b"", f"X-Number: {MAX_HEADS + 1}"))
    await made.send(request(b"", "X-Number: 2"))
    assert made.taken == 2
    await made.send(request(b"", "X-Number: 1"))
    assert made.taken == 2
    assert len(made.shortcut._heads) == MAX_HEADS
    await made.end()


async def test_a_head_that_comes_again_the_long_way_pushes_no_other_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.ingress.shortcut.MAX_HEADS", 2)
    made = Speaking(turns=3)
    await made.send(request(b"", "X-Number: 1"))
    first = dict(made.shortcut._heads)
    await made.send(request(b"", "X-Number: 2"), turns=0)
    for _ in range(3):
        await made.send(request(b"", "X-Number: 2"), turns=0)
    await made.turn(40)
    assert made.shortcut._heads.keys() > first.keys()
    assert len(made.shortcut._heads) == 2
    assert made.statuses == [200] * 5
    await made.end()


async def test_a_stranger_at_an_apps_door_is_not_remembered() -> None:
    made = Speaking()
    await made.send(signed(b"first"))
    known = dict(made.shortcut._heads)
    for number in range(3):
        await made.send(signed(b"x", f"X-Number: {number}", secret=b"not the secret"))
    assert made.shortcut._heads == known
    await made.end()


def test_values_are_cut_out_and_everything_else_is_compared() -> None:
    head, _, _ = signed(b"a body", "X-Kept: 1").partition(b"a body")
    cut = _cut(head)
    assert (cut.length, cut.sha1) == (b"6", b"0a")
    assert cut.sha256.decode() == hmac.digest(SECRET, b"a body", "sha256").hex()
    assert cut.rest == (
        b"POST /webhooks/meta HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\nX-Hub-Signature: sha1=\r\n"
        b"X-Hub-Signature-256: sha256=\r\nContent-Length: \r\n\r\n"
    )


@pytest.mark.parametrize(
    "length", ["1", "3", "", "+2", " 2", "0x2", "2,2", "2_0", "000000002", "²"]
)
async def test_a_length_that_is_not_that_of_the_rest_goes_the_librarys_way(length: str) -> None:
    made = Speaking()
    await made.send(request(b"first"))
    data = request(b"{}").replace(b"th: 2\r", f"th: {length}\r".encode())
    assert made.shortcut.take(data, Mock()) is False
    assert made.bodies == [b"first"]
    await made.end()


# The connection


async def test_a_body_that_is_still_coming_is_no_new_callback() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    within = request(b"within")
    whole = request(within)
    await made.send(whole[: -len(within)])
    await made.send(within)
    await made.send(request(b"last"))
    assert made.bodies == [b"first", within, b"last"]
    assert (made.taken, made.statuses) == (1, [200, 200, 200])
    await made.end()


async def test_a_head_that_is_still_coming_is_no_new_callback() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    await made.send(f"POST {DOOR} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Cut: ".encode())
    await made.send(request(b"2nd"))
    assert made.taken == 0
    assert made.bodies[:1] == [b"first"]
    assert b"2nd" not in made.bodies
    await made.end()


async def test_empty_lines_before_a_head_make_the_end_of_its_body_no_sooner() -> None:
    made = Speaking(turns=5)
    await made.send(request(b"first"))
    within = request(b"")
    body = within + b"x" * 200
    data = b"\r\n\r\n" + request(body)
    end = len(data) - len(body)
    await made.send(data[:end])
    await made.send(data[end : end + len(within)])
    await made.send(data[end + len(within) :])
    assert made.bodies == [b"first", body]
    assert made.taken == 0
    await made.end()


async def test_what_comes_before_an_answer_is_answered_after_it_and_read_no_further() -> None:
    made = Speaking(turns=10)
    await made.send(request(b"0"))
    await made.send(request(b"1"), turns=0)
    assert made.wire.reads
    made.speaker.data_received(request(b"2") + request(b"3")[:20])
    assert not made.wire.reads
    made.speaker.data_received(request(b"3")[20:])
    await made.turn(80)
    assert made.wire.reads
    assert made.bodies == [b"0", b"1", b"2", b"3"]
    assert made.statuses == [200] * 4
    await made.end()


async def test_a_sender_that_reads_no_answers_is_heard_no_further() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    made.speaker.pause_writing()
    for _ in range(3):
        await made.send(request(b"more"))
    assert made.taken == 0
    assert len(made.statuses) <= 2
    made.speaker.resume_writing()
    await made.turn(40)
    assert made.statuses == [200] * 4
    await made.end()


async def test_after_requests_that_ran_together_nothing_is_taken_any_more() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    second = request(b"second")
    await made.send(second[:-3])
    begun = f"POST {DOOR} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Cut: ".encode()
    await made.send(second[-3:] + request(b"third") + begun)
    await made.send(request(b"within a head"))
    assert made.taken == 0
    assert made.bodies == [b"first", b"second", b"third"]
    await made.end()


async def test_a_callback_overtakes_none_that_the_library_has_read() -> None:
    made = Speaking(turns=5)
    await made.send(request(b"first"))
    await made.send(request(b"second", "X-New: 1"), turns=0)
    await made.send(request(b"third"))
    assert made.taken == 0
    assert made.bodies == [b"first", b"second", b"third"]
    await made.end()


async def test_a_connection_that_was_to_be_closed_from_the_start_takes_nothing() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    other = Speaking()
    other.speaker._shortcut = made.shortcut
    other.speaker.close()
    await other.turn(3)
    await other.send(request(b"second"))
    assert made.taken == 0
    assert (made.bodies, other.statuses) == ([b"first"], [])
    await made.end()
    await other.end()


async def test_the_keep_alive_timer_cuts_no_callback_off_and_ends_an_idle_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Speaking(turns=-1)
    loop = asyncio.get_running_loop()
    await made.send(request(b"first"), turns=3)
    made.ledger.futures[0].set_result(None)
    await made.turn(10)
    made.speaker._next_keepalive_close_time = loop.time()
    await made.send(request(b"second"))
    assert made.taken == 1
    made.speaker._process_keepalive()
    assert not made.wire.closed
    made.ledger.futures[1].set_result(None)
    await made.turn(10)
    assert made.statuses == [200, 200]
    late = loop.time() + 100
    monkeypatch.setattr(made.speaker._loop, "time", lambda: late)
    made.speaker._process_keepalive()
    assert made.wire.closed
    await made.end()


async def test_a_connection_whose_first_callback_was_taken_is_not_silent() -> None:
    made, other = Speaking(), Speaking()
    await made.send(request(b"first"))
    other.speaker._shortcut = made.shortcut
    await other.turn(2)
    await other.send(request(b"second"))
    assert made.taken == 1
    other.speaker._hang_up_if_silent()
    assert not other.wire.closed
    assert SILENCE_SECONDS > 0
    await made.end()
    await other.end()


async def test_a_sender_that_goes_away_before_the_answer_leaves_nothing_behind() -> None:
    made = await taken_and_waiting()
    assert (made.taken, made.in_flight) == (1, len(b"second"))
    await made.end()
    written = made.wire.written
    made.ledger.futures[1].set_result(None)
    await made.turn(10)
    assert made.in_flight == 0
    assert made.wire.written == written


async def test_a_callback_that_is_being_written_is_answered_before_the_service_ends() -> None:
    made = await taken_and_waiting()
    made.speaker.close()
    ending = asyncio.create_task(made.speaker.shutdown(30))
    await made.turn(10)
    assert not ending.done()
    assert not made.wire.closed
    made.ledger.futures[1].set_result(None)
    await ending
    assert made.statuses == [200, 200]
    assert made.wire.closed
    await made.end()


# Faults


async def test_what_nobody_foresaw_is_answered_and_the_connection_goes_on() -> None:
    made = await taken_and_waiting()
    made.ledger.futures[1].set_exception(RuntimeError("a fault"))
    await made.turn(10)
    assert made.statuses == [200, 500]
    assert b"a fault" not in made.wire.written
    assert made.in_flight == 0
    await made.send(request(b"third"))
    made.ledger.futures[2].set_result(None)
    await made.turn(10)
    assert made.statuses == [200, 500, 200]
    await made.end()


async def test_a_fault_in_what_is_counted_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await taken_and_waiting()
    monkeypatch.setattr(Door, "_note", Mock(side_effect=RuntimeError("a fault")))
    made.ledger.futures[1].set_result(None)
    await made.turn(10)
    assert made.statuses == [200, 500]
    assert made.in_flight == 0
    await made.end()


async def test_a_callback_whose_writing_was_called_off_has_its_connection_closed() -> None:
    made = await taken_and_waiting()
    made.ledger.futures[1].cancel()
    await made.turn(10)
    assert made.statuses == [200]
    assert made.wire.closed
    assert made.in_flight == 0
    await made.end()


async def test_a_fault_before_a_callback_waits_leaves_no_bytes_in_flight() -> None:
    made = Speaking()
    await made.send(request(b"first"))
    made.ledger.fault = RuntimeError("a fault")
    with pytest.raises(RuntimeError):
        made.speaker.data_received(request(b"second"))
    assert made.in_flight == 0
    await made.end()


# The library


def attributes() -> list[str]:
    return [
        "_waiter",
        "_handler_waiter",
        "_messages",
        "_close",
        "_force_close",
        "_request_count",
        "_request_in_progress",
        "_current_request",
        "_next_keepalive_close_time",
        "_loop",
        "_pause_transport_reading",
        "_resume_transport_reading",
        "_process_keepalive",
        "writing_paused",
        "force_close",
        "transport",
    ]


@pytest.mark.parametrize("name", attributes())
async def test_aiohttp_still_has_what_the_shortcut_leans_on(name: str) -> None:
    made = Speaking()
    plain = web.RequestHandler(web.Server(Mock()), loop=asyncio.get_running_loop())
    assert hasattr(plain, name), f"aiohttp has no RequestHandler.{name} any more: see sites.py"
    assert not {name} & set(_Speaker.__slots__)
    await made.end()


async def test_aiohttp_still_works_as_the_shortcut_expects() -> None:
    """Who raises the version of aiohttp and sees this fail has `_Speaker` to look through."""
    made = Speaking(straight=False, turns=-1)
    speaker = made.speaker
    await made.turn(3)
    waiter = speaker._waiter
    assert waiter is not None
    assert not waiter.done()
    speaker.data_received(request(b"first"))
    assert waiter.done(), "a request no longer wakes the task by `_waiter`"
    [(message, content)] = speaker._messages
    assert isinstance(message, RawRequestMessage)
    assert content.is_eof()
    assert (message.path, message.version, message.method) == (DOOR, (1, 1), "POST")
    assert (message.should_close, message.chunked, message.upgrade) == (False, False, False)
    await made.turn(3)
    assert (speaker._waiter, speaker._request_in_progress) == (None, True)
    assert speaker._request_count == 1
    made.ledger.futures[0].set_result(None)
    await made.turn(10)
    assert speaker._waiter is not None
    assert speaker._request_in_progress is False
    speaker.close()
    assert speaker._close
    speaker.force_close()
    assert speaker._force_close
    await made.end()
