"""The relays: where what arrives, or the events, are passed on to."""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from service.settings.types import (
    AuthorityFile,
    DestinationUrl,
    HeaderName,
    Hidden,
    List,
    Name,
    Secret,
    SomeSeconds,
    Table,
    Text,
)

MIN_SECRET_BYTES = 24
PREFIX = "whsec_"
OWN_HEADERS = frozenset(
    {"content-type", "content-encoding", "content-length", "host", "transfer-encoding"}
)
"""Headers that a delivery has of its own, besides those that begin as in `OWN_PREFIXES`."""
OWN_PREFIXES = ("webhook-", "ackgate-", "x-hub-signature")


def key_of(secret: SecretStr) -> bytes:
    """Return what a secret of Standard Webhooks signs with. Raises ValueError."""
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"must be {PREFIX} and the base64 of at least {MIN_SECRET_BYTES} bytes")
    return key


def _signing(value: SecretStr) -> SecretStr:
    key_of(value)
    return value


def _not_our_own(value: str) -> str:
    if value.lower() in OWN_HEADERS or value.lower().startswith(OWN_PREFIXES):
        raise ValueError("is set by the relay itself")
    return value


SigningSecret = Annotated[Hidden, AfterValidator(_signing)]


class RelaySettings(Table):
    """One destination, and what of the log it gets. `secret` signs as Standard Webhooks say."""

    url: DestinationUrl
    source: Literal["callbacks", "events"] = "callbacks"
    secret: SigningSecret | None = None
    secret_previous: SigningSecret | None = None
    accounts: List[Name] = ()
    kinds: List[Text] = ()
    ordered: bool = True
    max_in_flight: Annotated[int, Field(ge=1, le=1_024)] = 16
    timeout_seconds: SomeSeconds = 15.0
    give_up_after_hours: Annotated[float, Field(gt=0, le=8_784)] = 72.0
    rate_per_second: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    ca_file: AuthorityFile | None = None
    headers: dict[Annotated[HeaderName, AfterValidator(_not_our_own)], Secret] = Field(
        default_factory=dict
    )

    @property
    def keys(self) -> list[bytes]:
        """What deliveries are signed with, the one in use first."""
        known = (self.secret, self.secret_previous)
        return [key_of(secret) for secret in known if secret is not None]

    @property
    def sent_headers(self) -> dict[str, Any]:
        """The headers that each delivery has besides."""
        return {name: value.get_secret_value() for name, value in self.headers.items()}
