"""The simulator's certificate: self-made, as the client's own, with a CA file to verify it.

Three files in a folder: `simulator-ca.pem` (what a caller trusts), `simulator-cert.pem` and
`simulator-key.pem` (for its owner alone). The CA's own key is kept nowhere.
"""

import fcntl
import ipaddress
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=1)
SKEW = timedelta(hours=1)

NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
)


@dataclass(frozen=True, slots=True)
class Files:
    """Where the certificates lie."""

    folder: Path

    @property
    def ca(self) -> Path:
        """What a caller trusts."""
        return self.folder / "simulator-ca.pem"

    @property
    def cert(self) -> Path:
        """The server's certificate."""
        return self.folder / "simulator-cert.pem"

    @property
    def key(self) -> Path:
        """The server's private key, mode 0600."""
        return self.folder / "simulator-key.pem"


def ensure(folder: Path) -> Files:
    """Return the files in a folder, made anew unless they still hold for more than a day."""
    files = Files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not is_usable(files, datetime.now(UTC) + RENEWED_BEFORE):
            make(files, datetime.now(UTC))
    return files


def server_context(files: Files) -> ssl.SSLContext:
    """Return the TLS of a server with these files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    return context


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two simulators from writing into one folder at once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_usable(files: Files, at: datetime) -> bool:
    """Tell whether the files are there, belong together, and hold beyond a time."""
    try:
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        cert.verify_directly_issued_by(ca)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    ends = min(ca.not_valid_after_utc, cert.not_valid_after_utc)
    return ends > at and key.public_key() == cert.public_key()


def make(files: Files, now: datetime) -> None:
    """Write a CA, a certificate that it signs, and the certificate's key."""
    ca_key, key = _new_key(), _new_key()
    ca = _ca(ca_key, now)
    cert = _server(key, ca, ca_key, now)
    _write(files.key, _pem_of(key))
    _write(files.cert, cert.public_bytes(serialization.Encoding.PEM), mode=0o644)
    _write(files.ca, ca.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file whole; it never exists with wider permissions."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALIDITY)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name, public = _name("Simulator CA"), key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        _builder(name, now)
        .issuer_name(name)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(_name("localhost"), now)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(NAMES, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
