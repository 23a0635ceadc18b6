"""The nginx configurations of the documentation, in a real nginx, with certificates made for it."""

import datetime as dt
import http.client
import http.server
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import installed
from tests.docs.conftest import Block, blocks
from tools.processes import free_port

pytestmark = pytest.mark.tools

NAME = "client.webhooks.fbclientcerts.com"
CLAIMS = {
    "X-Amzn-Mtls-Clientcert-Subject": f"CN={NAME}",
    "X-SSL-Client-S-DN": f"CN={NAME}",
    "ssl_client_s_dn": f"CN={NAME}",
    "ssl_client_verify": "SUCCESS",
    "from_meta": "1",
}
DAY = dt.timedelta(days=1)
AT_ONCE = 3
LOWERED = {
    "limit_conn senders 100": f"limit_conn senders {AT_ONCE}",
    "client_header_timeout 10s": "client_header_timeout 2s",
}
"""Bounds of the pages that a test reaches, as it has them."""


@dataclass
class Authority:
    """An authority of its own, which issues certificates into a folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([_common_name(self.name)])
        self.file = self.folder / f"{self.name}.pem"
        own = self._builder(self.subject, self.key).add_extension(
            x509.BasicConstraints(True, None), True
        )
        self.file.write_bytes(_pem(own.sign(self.key, hashes.SHA256())))

    def issue(self, name: str, *more: x509.NameAttribute, ended: bool = False) -> Path:
        """Issue a certificate; its key is in the same file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([*more, _common_name(name)])
        builder = self._builder(subject, key, -DAY if ended else DAY)
        local = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        signed = builder.add_extension(local, False).sign(self.key, hashes.SHA256())
        file = self.folder / f"{len(list(self.folder.iterdir()))}.pem"
        file.write_bytes(
            _pem(signed)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: dt.timedelta = DAY
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + lasts)
        )


def _common_name(name: str) -> x509.NameAttribute:
    return x509.NameAttribute(x509.NameOID.COMMON_NAME, name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Proxy:
    """A running nginx, and what came through it."""

    port: int
    hooks: Authority
    meta: Authority
    passed: list[str]

    def post(self, path: str, certificate: Path | None = None, **headers: str) -> int:
        context = ssl.create_default_context(cafile=self.hooks.file)
        if certificate is not None:
            context.load_cert_chain(certificate)
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=context, timeout=30
        )
        connection.request("POST", path, b"{}", headers)
        status = connection.getresponse().status
        connection.close()
        return status


class Ackgate(http.server.BaseHTTPRequestHandler):
    """Stands for Ackgate: takes everything, and notes its path."""

    passed: list[str]

    def do_POST(self) -> None:
        self.passed.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def here(block: Block, folder: Path, port: int, behind: int, files: dict[str, Path]) -> Path:
    """Write a whole configuration around a block of the page, with ports and files of this test."""
    text = re.sub(r"listen +443", f"listen 127.0.0.1:{port}", block.text)
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{behind}")
    for bound, here in LOWERED.items():
        assert bound in text
        text = text.replace(bound, here)
    for name, file in files.items():
        text = text.replace(name, str(file))
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = folder / "nginx.conf"
    whole.write_text(
        f"daemon off;\npid {folder / 'nginx.pid'};\nerror_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    return whole


BLOCKS = [block for block in blocks("nginx") if block.page.name != "sso.md"]
"""Those that are in front of the webhooks; `test_single_sign_on.py` has the other."""


@pytest.fixture(params=BLOCKS, ids=lambda block: block.page.name)
def block(request: pytest.FixtureRequest) -> Block:
    found: Block = request.param
    return found


@pytest.fixture
def proxy(block: Block, tmp_path: Path) -> Iterator[Proxy]:
    """Run nginx as a page shows it, before a stand-in of Ackgate."""
    hooks, meta = Authority(tmp_path, "hooks"), Authority(tmp_path, "meta")
    own = hooks.issue("localhost")
    passed: list[str] = []
    behind = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Noting", (Ackgate,), {"passed": passed})
    )
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    files = {
        "/etc/ssl/meta-outbound-api-ca-2025-12.pem": meta.file,
        "/etc/ssl/hooks.pem": own,
        "/etc/ssl/hooks.key": own,
    }
    port = free_port()
    nginx = installed("nginx")
    config = here(block, tmp_path, port, behind.server_port, files)
    subprocess.run([nginx, "-t", "-c", str(config)], check=True, capture_output=True)
    running = subprocess.Popen([nginx, "-c", str(config)])
    deadline = time.monotonic() + 30
    while not _listens(port):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield Proxy(port, hooks, meta, passed)
    running.terminate()
    running.wait(30)
    behind.shutdown()
    behind.server_close()


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def test_webhooks_are_forwarded_and_nothing_else(proxy: Proxy) -> None:
    assert proxy.post("/webhooks/main/a-token") == 200
    for path in ("/api/v1/status", "/metrics", "/health/status", "/", "/webhooks/../metrics"):
        assert proxy.post(path) == 404, path
    assert proxy.passed == ["/webhooks/main/a-token"]


def connected(proxy: Proxy, *lines: str) -> ssl.SSLSocket:
    """Connect, and send the begin of a request."""
    context = ssl.create_default_context(cafile=proxy.hooks.file)
    opened = context.wrap_socket(
        socket.create_connection(("127.0.0.1", proxy.port), timeout=30), server_hostname="localhost"
    )
    opened.sendall("\r\n".join(["POST /webhooks/main/x HTTP/1.1", "Host: a", *lines, ""]).encode())
    return opened


def test_one_address_has_so_many_requests_at_once_and_no_more(proxy: Proxy) -> None:
    under_way = [connected(proxy, "Content-Length: 2", "") for _ in range(AT_ONCE)]
    deadline = time.monotonic() + 30
    while proxy.post("/webhooks/main/a-token") != 503:
        assert time.monotonic() < deadline
    for opened in under_way:
        opened.sendall(b"{}")
        assert b" 200 " in opened.recv(4096)
        opened.close()
    assert proxy.post("/webhooks/main/a-token") == 200


def test_a_head_that_comes_slowly_is_cut(proxy: Proxy) -> None:
    with connected(proxy, "X-Slow: 1") as slow:
        assert slow.recv(4096) == b""
    assert proxy.passed == []


with_certificates = pytest.mark.parametrize(
    "block", [b for b in blocks("nginx") if b.page.name == "cloud.md"], indirect=True, ids=["cloud"]
)


@with_certificates
def test_metas_client_certificate_is_let_through_to_the_app(proxy: Proxy) -> None:
    organisation = x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Meta Platforms, Inc.")
    assert proxy.post("/webhooks/meta", proxy.meta.issue(NAME)) == 200
    assert proxy.post("/webhooks/meta", proxy.meta.issue(NAME, organisation)) == 200
    assert proxy.passed == ["/webhooks/meta"] * 2


@with_certificates
def test_without_metas_client_certificate_nothing_reaches_the_app_whatever_is_claimed(
    proxy: Proxy, tmp_path: Path
) -> None:
    meta, stranger = proxy.meta, Authority(tmp_path, "stranger")
    inside = x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, f"x,CN={NAME}")
    for certificate, status in (
        (None, 403),
        (meta.issue("client.other.fbclientcerts.com"), 403),
        (meta.issue(f"{NAME}.example.com"), 403),
        (meta.issue(NAME.replace(".", "x", 1)), 403),
        (meta.issue("example.com", inside), 403),
        (stranger.issue(NAME), 400),
        (meta.issue(NAME, ended=True), 400),
    ):
        assert proxy.post("/webhooks/meta", certificate) == status
        assert proxy.post("/webhooks/meta", certificate, **CLAIMS) == status
    for path in ("/webhooks//meta", "/webhooks/%6deta", "/webhooks/x/../meta", "/webhooks/meta/"):
        assert proxy.post(path, None, **CLAIMS) == 403, path
    assert proxy.passed == []
