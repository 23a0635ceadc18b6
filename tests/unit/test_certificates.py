"""When a certificate ends, read from its file without trusting or verifying it."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from service.observability.certificates import ends_at

ENDS = {
    "long ago": dt.datetime(2001, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    "the last that is written with two digits of the year": dt.datetime(
        2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC
    ),
    "the first that is written with four": dt.datetime(2050, 1, 1, tzinfo=dt.UTC),
    "never, as RFC 5280 writes it": dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
}


def issued(end: dt.datetime, *, large: bool = False) -> bytes:
    key = (
        rsa.generate_private_key(65537, 2048) if large else ec.generate_private_key(ec.SECP256R1())
    )
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.example.com")])
    names = [x509.DNSName(f"host{n}.example.com") for n in range(40 if large else 1)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_end_of_a_certificate_is_read(tmp_path: Path, end: dt.datetime) -> None:
    file = tmp_path / "tls.pem"
    file.write_bytes(issued(end))
    assert ends_at(file) == end.timestamp()


def test_of_a_chain_the_first_counts_however_long_it_is(tmp_path: Path) -> None:
    file, end = tmp_path / "chain.pem", ENDS["long ago"]
    later = end + dt.timedelta(days=1)
    file.write_bytes("Für hooks\n".encode("latin-1") + issued(end, large=True) + issued(later))
    assert ends_at(file) == end.timestamp()


def test_a_file_in_another_form_is_a_value_error(tmp_path: Path) -> None:
    file = tmp_path / "tls.pem"
    file.write_bytes(b"no certificate")
    with pytest.raises(ValueError, match="not found"):
        ends_at(file)
