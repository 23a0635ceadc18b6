"""The signature of a callback: exactly one, of exactly the right form, over exactly the bytes."""

import hashlib
import hmac

import pytest
from multidict import CIMultiDict

from service.webhooks.signatures import HEADER, SignatureVerifier

OLD, NEW = b"an-old-secret-of-ours", b"a-new-secret-of-ours"
BODY = rb'{"name" :"Ren\u00e9 \/"}'


def signature_of(headers: CIMultiDict[str], header: str = HEADER) -> bytes | None:
    return SignatureVerifier([NEW], b"", header).signature_of(headers)


def signed(body: bytes, secret: bytes = NEW) -> bytes:
    return hmac.new(secret, body, hashlib.sha256).digest()


def test_a_known_signature_matches() -> None:
    """RFC 4231, test case 2."""
    told = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    presented = signature_of(CIMultiDict({"x-hub-signature-256": f"sha256={told}"}))
    assert presented is not None
    assert SignatureVerifier([b"Jefe"], b"").matches(presented, b"what do ya want for nothing?")


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_a_signature_by_any_of_the_secrets_matches(secret: bytes) -> None:
    assert SignatureVerifier([NEW, OLD], b"").matches(signed(BODY, secret), BODY)


def test_no_other_secret_and_no_other_bytes_match() -> None:
    assert not SignatureVerifier([NEW], b"").matches(signed(BODY, OLD), BODY)
    assert not SignatureVerifier([NEW], b"").matches(signed(BODY), BODY + b" ")
    assert not SignatureVerifier([NEW], b"").matches(signed(BODY)[:-1], BODY)


@pytest.mark.parametrize(
    "value",
    ["", "sha256=", "0" * 64, f"sha256={'0' * 63}", f"sha256={'0' * 65}", f" sha256={'0' * 64}"],
)
def test_what_has_another_form_is_no_signature(value: str) -> None:
    assert signature_of(CIMultiDict({"X-Hub-Signature-256": value})) is None


def test_two_are_none() -> None:
    line = ("X-Hub-Signature-256", f"sha256={'0' * 64}")
    assert signature_of(CIMultiDict([line])) == bytes(32)
    assert signature_of(CIMultiDict([line, line])) is None
    assert signature_of(CIMultiDict()) is None


@pytest.mark.parametrize("value", ["0" * 64, f"sha256={'0' * 64}"])
def test_in_a_providers_own_header_the_digits_may_stand_alone(value: str) -> None:
    headers = CIMultiDict({"x-360dialog-signature": value})
    assert signature_of(headers, "X-360Dialog-Signature") == bytes(32)
    assert signature_of(headers) is None


def test_without_a_verify_token_no_handshake_succeeds() -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "1", "hub.verify_token": ""}
    assert SignatureVerifier([NEW], None).challenge(query) is None
