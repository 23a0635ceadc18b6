"""With the shortcut and without it: the same answers in the same order, the same kept at the door.

Whatever is sent, however it is cut into pieces, and however long the writing takes.
"""

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import event, given, settings
from hypothesis import strategies as st

from service.ingress.door import OFF_LOOP_BYTES
from tests.speaking import DOOR, Kept, Speaking, request
from tests.unit.test_shortcut import KINDS, signed

thorough = settings(max_examples=250, deadline=None)

Piece = tuple[bytes, int]
"""Bytes that come together, and how many turns of the event loop nothing comes after them."""

within = request(b"within")
BODIES = st.sampled_from([b"", b"{}", b"a\r\n\r\nb", within, within[:-6], b"x" * 40]) | st.binary(
    max_size=30
)
TRICKS = [
    request(b"x" * 9, "X-Length: 9").replace(b"Content-Length: ", b"Content-Length:"),
    request(b"x" * 9, "X-Length: 1").replace(b"Content-Length: ", b"Content-Length:"),
    request(b"x" * 9, "X-Length: 99").replace(b"Content-Length: ", b"Content-Length:"),
    request(b"x", "User-Agent: sha1=abc"),
    request(b"x", "User-Agent: sha1=def"),
    b"\r\n\r\n" + request(b"x" * 100),
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n",
    b"\x00",
    *(f"POST {DOOR} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Cut: ".encode(),) * 9,
]
PLAIN = st.one_of(
    st.builds(request, BODIES),
    st.builds(signed, BODIES),
    st.builds(lambda body: request(body, "X-Kept: 1"), BODIES),
    st.just(request(b"", path="/webhooks/nobody")),
)
SMALL = [data for data in KINDS.values() if len(data) <= OFF_LOOP_BYTES]
"""Larger ones are read on a thread, whose turns nobody counts."""
ODD = st.sampled_from([*TRICKS, *SMALL])
KNOWN = [(request(b""), 40), (signed(b""), 40), (request(b"", "X-Kept: 1"), 40)]
"""Whose heads are known when the rest comes."""


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    """Send requests, one by one or run together, each cut or not."""
    found: list[bytes] = []
    rare = st.sampled_from([True, *(False,) * 7])
    for _ in range(draw(st.integers(1, 8))):
        sent = draw(ODD if draw(rare) else PLAIN)
        joined = found.pop() + sent if found and draw(rare) else sent
        if draw(rare):
            cuts = draw(st.lists(st.integers(0, len(joined)), max_size=3))
            ends = [0, *sorted(cuts), len(joined)]
            found += [joined[a:b] for a, b in pairwise(ends) if a < b]
        else:
            found.append(joined)
    return [*KNOWN, *((piece, draw(st.sampled_from([0, 1, 2, 5, 40]))) for piece in found)]


async def outcome(
    sent: Sequence[Piece], turns: int, *, straight: bool
) -> tuple[bytes, list[Kept], float, bool, int]:
    made = Speaking(straight=straight, turns=turns)
    await made.turn(2)
    for data, pause in sent:
        await made.send(data, pause)
    await made.turn(300)
    written = re.sub(rb"\r\nDate: [^\r]*", b"", made.wire.written)
    closed, in_flight = made.wire.closed, made.in_flight
    await made.end()
    return written, made.ledger.kept, in_flight, closed, made.taken


@thorough
@given(sent=pieces(), turns=st.sampled_from([0, 1, 7]))
def test_past_the_library_comes_the_same_out(sent: list[Piece], turns: int) -> None:
    *straight, taken = asyncio.run(outcome(sent, turns, straight=True))
    *library, none = asyncio.run(outcome(sent, turns, straight=False))
    event(f"taken: {min(taken, 4)}")
    assert none == 0
    assert straight == library


def test_callbacks_one_by_one_do_go_past_the_library() -> None:
    sent = [(request(b"x" * count), 40) for count in range(5)]
    written, kept, _, _, taken = asyncio.run(outcome(sent, 1, straight=True))
    assert taken == len(sent) - 1
    assert written.count(b"200 OK") == len(sent)
    assert [one.body for one in kept] == [b"x" * count for count in range(5)]
    assert DOOR.encode() not in written
