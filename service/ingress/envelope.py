"""What is kept of a request besides its body: the labels that it is read by, and some headers."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

MAX_HEADER_BYTES = 8192
MAX_LABEL_CHARACTERS = 200
_SIGNATURE = "x-hub-signature"


class Envelope(NamedTuple):
    """How a body came: its media type and its encoding, the headers that are kept, as JSON.

    `request_id` is the X-Request-ID, whatever it is.
    """

    content_type: str = ""
    encoding: str = ""
    headers: str = "[]"
    request_id: str | None = None


def envelope_of(headers: Mapping[str, str]) -> Envelope:
    """Read the headers of a request."""
    encoding = headers.get("Content-Encoding")
    return Envelope(
        label(headers.get("Content-Type", "")),
        label(encoding).strip().lower() if encoding else "",
        kept_headers(headers),
        headers.get("X-Request-ID"),
    )


def label(value: str) -> str:
    """Make a header's value fit to be kept: bounded, and without bytes that are no text."""
    if not value.isascii():
        value = value.encode(errors="backslashreplace").decode()
    return value[:MAX_LABEL_CHARACTERS]


def kept_headers(headers: Mapping[str, str]) -> str:
    """Keep the user agent and the `x-*` headers as a JSON list of pairs, 8 kB at most.

    Not the signatures: they were checked, are each another, and say nothing else.
    """
    kept = [(lower, value) for name, value in headers.items() if (lower := _kept_as(name))]
    return _write(tuple(kept)) if kept else "[]"


@lru_cache(maxsize=64)
def _kept_as(name: str) -> str | None:
    """Give the name in small letters, where the header is one to keep."""
    lower = name.lower()
    if lower.startswith(_SIGNATURE):
        return None
    return lower if lower.startswith("x-") or lower == "user-agent" else None


@lru_cache(maxsize=64)
def _write(kept: tuple[tuple[str, str], ...]) -> str:
    """Write pairs; a sender sends mostly the same."""
    written = json.dumps(kept)
    return written if len(written) <= MAX_HEADER_BYTES else json.dumps(_fitting(kept))


def _fitting(kept: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    room = MAX_HEADER_BYTES
    for count, pair in enumerate(kept):
        room -= len(json.dumps(pair)) + 2
        if room < 0:
            return kept[:count]
    return kept
