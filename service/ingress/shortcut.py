"""Callbacks that come in one piece, under a head that was read before.

A sender sends the same head again and again: of two callbacks only the length differs and, on the
Cloud API, the signatures. A head that the HTTP library has read once, byte for byte the same but
for those values, need not be read again; whatever is new goes the library's way and is learned
there. Here nothing is parsed that the library has not parsed before.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy

from service.ingress.door import Door, Whole, address_in
from service.ingress.envelope import Envelope, envelope_of
from service.ingress.signatures import signature_of
from service.ingress.written import KEPT, as_bytes

HEAD_END = b"\r\n\r\n"
MAX_HEADS = 1024
MAX_HEAD_BYTES = 2048
"""Heads that are remembered: of those that open a door, the last ones that were new."""
MAX_LENGTH_DIGITS = 8

_LINES = (b"content-length: ", b"x-hub-signature-256: sha256=", b"x-hub-signature: sha1=")
"""What the values come after: the beginnings of three lines, written small or large."""
_MARKS = (b"ength: ", b"sha256=", b"sha1=")
"""How those end, in any spelling that a sender is known for: what is looked for."""
_DIGEST_DIGITS = 64

Write = Callable[[bytes | None], None]
"""Called once, with the answer as it goes over the wire; with None where to hang up instead."""


class Head(NamedTuple):
    """What the library has read in a head: whose door it names, with what, and what is kept."""

    account: str
    token: str
    envelope: Envelope


class _Cut(NamedTuple):
    """A head without the values that differ, and those values."""

    rest: bytes
    length: bytes
    sha256: bytes
    sha1: bytes


class Shortcut:
    """Knows heads by what they were read as, and hands what comes under them to the door.

    `problem_of` makes an answer of what nobody foresaw.
    """

    def __init__(self, door: Door, problem_of: Callable[[Exception], web.Response]) -> None:
        self._door = door
        self._problem_of = problem_of
        self._heads: dict[bytes, Head] = {}

    def take(self, data: bytes, write: Write) -> bool:
        """Take what came over a connection, if it is a whole callback under a known head.

        False where it has to go the library's way; `write` is not called then.
        """
        end = data.find(HEAD_END, 0, MAX_HEAD_BYTES) + len(HEAD_END)
        if end < len(HEAD_END):
            return False
        cut = _cut(data[:end])
        head = self._heads.get(cut.rest)
        if head is None or not _usable(cut) or int(cut.length) != len(data) - end:
            return False
        whole = _whole(head, cut, data[end:])
        return self._door.take_whole(whole, partial(self._answer, write))

    def _answer(self, write: Write, refused: web.Response | BaseException | None) -> None:
        if refused is None:
            write(KEPT.written())
        elif isinstance(refused, web.Response):
            write(as_bytes(refused))
        elif isinstance(refused, Exception):
            write(as_bytes(self._problem_of(refused)))
        else:
            write(None)

    def learn(self, data: bytes, message: object) -> None:
        """Remember the head of a whole request that the library has read, if it opens a door.

        Strangers, who can't sign, push none out that a sender uses.
        """
        end = data.find(HEAD_END, 0, MAX_HEAD_BYTES) + len(HEAD_END)
        if end < len(HEAD_END) or not isinstance(message, RawRequestMessage):
            return
        cut, named = _cut(data[:end]), _address(message)
        if named is None or cut.rest in self._heads or not _usable(cut):
            return
        if not _are_named(data[:end]) or not _is_as_read(cut, message.headers):
            return
        head = Head(*named, envelope_of(message.headers))
        if self._door.opens(_whole(head, cut, data[end:])):
            if len(self._heads) >= MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[cut.rest] = head


def _cut(head: bytes) -> _Cut:
    """Cut the values out that differ from one callback to the next."""
    values = []
    for mark in _MARKS:
        start = head.find(mark) + len(mark)
        if start < len(mark):
            values.append(b"")
            continue
        end = head.index(b"\r\n", start)
        values.append(head[start:end])
        head = head[:start] + head[end:]
    return _Cut(head, *values)


def _whole(head: Head, cut: _Cut, body: bytes) -> Whole:
    return Whole(*head, bytes.fromhex(cut.sha256.decode()), body)


def _are_named(head: bytes) -> bool:
    """Tell whether each mark, where it is found first, ends the name that it is for.

    Else what is cut out could be another header's value: one that is kept, or taken for the length.
    """
    return all(_is_named(head, *what) for what in zip(_MARKS, _LINES, strict=True))


def _is_named(head: bytes, mark: bytes, line: bytes) -> bool:
    before, found, _ = head.partition(mark)
    start = before.rfind(b"\r\n") + len(b"\r\n")
    return not found or (before[start:] + mark).lower() == line


def _usable(cut: _Cut) -> bool:
    """Tell whether the values are such as to be read alike whatever they are."""
    return (
        cut.length.isdigit()
        and len(cut.length) <= MAX_LENGTH_DIGITS
        and (not cut.sha1 or cut.sha1.isalnum())
        and (not cut.sha256 or (len(cut.sha256) == _DIGEST_DIGITS and _is_hexadecimal(cut.sha256)))
    )


def _is_hexadecimal(text: bytes) -> bool:
    return not text.strip(b"0123456789abcdefABCDEF")


def _is_as_read(cut: _Cut, headers: CIMultiDictProxy[str]) -> bool:
    """Tell whether the values cut out are those that the library has read under their names."""
    digest = bytes.fromhex(cut.sha256.decode()) if cut.sha256 else None
    return headers.get("Content-Length") == cut.length.decode() and signature_of(headers) == digest


def _address(message: RawRequestMessage) -> tuple[str, str] | None:
    """Read whose door a plain callback names; None for whatever is not one."""
    plain = (
        message.method == "POST"
        and message.version == (1, 1)
        and not (message.should_close or message.chunked or message.upgrade)
        and "Expect" not in message.headers
    )
    return address_in(message.path) if plain else None


def length_of(data: bytes, message: object) -> int | None:
    """Tell how long a request is that begins with these bytes; None where that can't be told.

    Empty lines may come before a head, and are not its end.
    """
    end = -1 if data[:1].isspace() else data.find(HEAD_END)
    if end < 0 or not isinstance(message, RawRequestMessage) or message.chunked or message.upgrade:
        return None
    return end + len(HEAD_END) + int(message.headers.get("Content-Length", "0"))
