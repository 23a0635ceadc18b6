"""The client's application settings and the webhook's authority, as they come over the wire.

Follows Meta's pages on the application settings and on the webhooks' certificates; both are for
admins alone.
"""

import re
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any

from service.dialects.common import boolean
from service.model.account_checks import ClientSettings
from service.whatsapp.transport import Reply

SETTINGS = "/v1/settings/application"
WEBHOOK_CA = "/v1/certificates/webhooks/ca"
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)
HALF_A_SECOND = 0.5
"""The Date of an answer has whole seconds: on average it is so much older."""


def settings_of(
    reply: Reply, authorities: frozenset[str] | None, skew_seconds: float | None
) -> ClientSettings | None:
    """Read the settings, liberally; None where the answer holds none."""
    payload = _table(reply.payload)
    settings = _table(payload.get("settings"))
    if not isinstance(settings.get("application"), dict):
        return None
    told = _table(settings.get("application"))
    webhooks = _table(told.get("webhooks"))
    by_message = boolean(_table(webhooks.get("message")).get("sent"))
    return ClientSettings(
        security_notifications=boolean(told.get("show_security_notifications")),
        number_notifications=boolean(told.get("notify_user_change_number")),
        callback_persist=boolean(told.get("callback_persist")),
        sent_status=boolean(told.get("sent_status")) if by_message is None else by_message,
        sent_setting="sent_status" if by_message is None else "webhooks.message.sent",
        webhook_url=_text(webhooks.get("url")),
        max_concurrent_requests=_number(webhooks.get("max_concurrent_requests")),
        max_backoff_ms=_number(told.get("max_callback_backoff_delay_ms")),
        authorities=authorities,
        skew_seconds=skew_seconds,
        version=_text(_table(payload.get("meta")).get("version")),
        webhooks=webhooks,
    )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    """Read a number, or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:18])
    return value if type(value) is int else None


def skew_of(date: str | None, began: float, ended: float) -> float | None:
    """Tell how far (s) the client's clock is ahead, by the Date of an answer to a call of ours.

    `began` and `ended` are Unix seconds; within the time that the call took nothing is told.
    """
    try:
        at = parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    there = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() + HALF_A_SECOND
    return there - min(max(there, began), ended)


def fingerprints(pem: str) -> frozenset[str]:
    """Give the SHA-256 of each certificate in a PEM bundle; ValueError where one can't be read."""
    found = (ssl.PEM_cert_to_DER_cert(each) for each in _CERTIFICATE.findall(pem))
    return frozenset(sha256(der).hexdigest() for der in found)
