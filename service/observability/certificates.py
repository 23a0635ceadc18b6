"""When a certificate ends: Python's own `ssl` tells it only of one that it trusts and verified."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_END = "-----END CERTIFICATE-----"
_VERSION = 0xA0
_UTC_TIME = 0x17
_LONG = 0x80
"""From here on the byte says how many bytes hold the length."""


class _Element(NamedTuple):
    """A value in DER (X.690): its tag, what is in it, and what follows."""

    tag: int
    content: bytes
    rest: bytes


def ends_at(file: Path) -> float:
    """Return when the first certificate of a PEM file ends, in Unix seconds."""
    first, _, _ = file.read_text(encoding="ascii", errors="replace").partition(_END)
    begin = first.index("-----BEGIN CERTIFICATE-----")
    return _not_after(ssl.PEM_cert_to_DER_cert(first[begin:] + _END))


def _not_after(certificate: bytes) -> float:
    """Return the end of a certificate's validity (RFC 5280, 4.1)."""
    fields = _read(_read(certificate).content).content
    if fields[0] == _VERSION:
        fields = _read(fields).rest
    for _ in ("serial number", "signature algorithm", "issuer"):
        fields = _read(fields).rest
    validity = _read(fields).content
    end = _read(_read(validity).rest)
    form = "%y%m%d%H%M%SZ" if end.tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(end.content.decode(), form).replace(tzinfo=UTC).timestamp()


def _read(data: bytes) -> _Element:
    """Return the first element."""
    length, begin = data[1], 2
    if length >= _LONG:
        begin += length - _LONG
        length = int.from_bytes(data[2:begin])
    return _Element(data[0], data[begin : begin + length], data[begin + length :])
