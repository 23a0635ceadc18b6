"""What the Cloud API proves itself by: the signature of a callback, and the verify token.

Follows Meta's "Getting Started with Webhooks": "Validating Payloads", "Verification Requests". A
provider in between may sign in a header of its own, as 360dialog's "Signature Validation" says.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multidict import MultiMapping

from service.settings.accounts import SIGNATURE_HEADER

HEADER = SIGNATURE_HEADER
MAX_CHALLENGE_CHARACTERS = 1024

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_OF_A_PROVIDER = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})")
"""In headers of their own some write the digits alone."""


@dataclass(frozen=True, slots=True)
class SignatureVerifier:
    """The secrets of an app: a callback may be signed with any of `secrets`, in one `header`.

    Without a `verify_token` there is no handshake.
    """

    secrets: Sequence[bytes]
    verify_token: bytes | None
    header: str = HEADER

    def signature_of(self, headers: MultiMapping[str]) -> bytes | None:
        """Return the signature of a callback; None where there is none, or more than one."""
        given = headers.getall(self.header, ())
        form = _SIGNATURE if self.header.lower() == HEADER.lower() else _OF_A_PROVIDER
        found = form.fullmatch(given[0]) if len(given) == 1 else None
        return None if found is None else bytes.fromhex(found[1])

    def matches(self, signature: bytes, body: bytes) -> bool:
        """Return whether a body, byte for byte as it came, was signed with one of the secrets."""
        matches = False
        for secret in self.secrets:
            # Each secret is tried, whatever the one before gave: the time tells nothing.
            matches |= hmac.compare_digest(hmac.digest(secret, body, "sha256"), signature)
        return matches

    def challenge(self, query: Mapping[str, str]) -> str | None:
        """Return the challenge of a verification request; None where the token is wrong."""
        if self.verify_token is None:
            return None
        presented = query.get("hub.verify_token", "").encode(errors="replace")
        knows = hmac.compare_digest(presented, self.verify_token)
        challenge = query.get("hub.challenge", "")
        usable = challenge.isascii() and challenge.isprintable()
        bounded = 0 < len(challenge) <= MAX_CHALLENGE_CHARACTERS
        asks = query.get("hub.mode") == "subscribe"
        return challenge if knows and asks and usable and bounded else None


def signed(secret: bytes, body: bytes, header: str = HEADER) -> dict[str, str]:
    """Return the header that a body is signed with."""
    return {header: f"sha256={hmac.digest(secret, body, 'sha256').hex()}"}
