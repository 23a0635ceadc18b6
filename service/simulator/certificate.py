"""The simulator's certificate: self-made, as the client's own, with a CA file to verify it.

Three files in a folder: `simulator-ca.pem` (what a caller trusts), `simulator-cert.pem` and
`simulator-key.pem` (for its owner alone). The CA's own key is kept nowhere. The library that makes
them is in the extra `ackgate[simulator]`; files that are there already do without it.
"""

import fcntl
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

VALIDITY = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=1)
SKEW = timedelta(hours=1)
NAMES = ("localhost", "127.0.0.1", "::1")


class MissingExtraError(Exception):
    """A certificate has to be made, and the library for it isn't installed."""


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of the certificates in a folder."""

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
    """Return the files in a folder, made anew unless they are valid for more than a day."""
    files = Files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        # Two simulators don't write into one folder at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        now = datetime.now(UTC)
        if not _are_valid_until(files, now + RENEWED_BEFORE):
            make(files, now)
    finally:
        os.close(lock)
    return files


def server_context(files: Files) -> ssl.SSLContext:
    """Return the TLS settings of a server with these files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # An encrypted key is refused: nobody is there to type its password.
    context.load_cert_chain(files.cert, files.key, password="")
    return context


def make(files: Files, now: datetime) -> None:
    """Write a CA, a certificate that it signs, and the certificate's key.

    Raise MissingExtraError where `trustme` isn't installed.
    """
    try:
        import trustme  # noqa: PLC0415 -- an extra; everything else does without it
    except ModuleNotFoundError:
        raise MissingExtraError(
            "its certificate needs trustme, which is in the extra ackgate[simulator]; "
            "install that, or serve with --no-tls"
        ) from None
    ca = trustme.CA(path_length=0, organization_unit_name="Simulator CA")
    issued = ca.issue_cert(
        *NAMES, common_name=NAMES[0], not_before=now - SKEW, not_after=now + VALIDITY
    )
    _write(files.key, issued.private_key_pem.bytes(), mode=0o600)
    _write(files.cert, issued.cert_chain_pems[0].bytes(), mode=0o644)
    _write(files.ca, ca.cert_pem.bytes(), mode=0o644)


def _are_valid_until(files: Files, at: datetime) -> bool:
    """Return whether the files are there, belong together, and are valid beyond a time.

    A TLS handshake in memory verifies them as a caller would.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server = server_context(files).wrap_bio(to_server, to_client, server_side=True)
        client = ssl.create_default_context(cafile=files.ca).wrap_bio(
            to_client, to_server, server_hostname=NAMES[0]
        )
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        found = client.getpeercert()
    except (OSError, ValueError):
        return False
    return found is not None and ssl.cert_time_to_seconds(str(found["notAfter"])) > at.timestamp()


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file whole; it never exists with wider permissions."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)
