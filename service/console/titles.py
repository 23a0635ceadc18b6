"""What issues are called, and where in the console something can be done about them."""

from collections.abc import Mapping
from urllib.parse import quote

ISSUES: Mapping[str, str] = {
    "security_notifications_off": "Identity changes are not reported",
    "webhook_url": "Callbacks may not come here",
    "webhook_ca": "The client can't verify this service",
    "callback_persist_off": "Callbacks are lost when the client restarts",
    "number_notifications_off": "Changed numbers are not reported",
    "sent_status_off": "Sent messages are not reported",
    "callback_backoff": "Callbacks come late after a downtime",
    "webhook_concurrency": "The client sends more at once than is taken",
    "clock_skew": "The clocks differ",
    "settings_unreadable": "The client's settings can't be checked",
    "login_refused": "The login is refused",
    "client_unreachable": "The client does not answer",
    "account_unreachable": "WhatsApp's Cloud API does not answer",
    "number_unreadable": "The phone number can't be read",
    "webhook_unsubscribed": "No callbacks are sent at all",
    "identity_check_off": "The identity change check seems to be off",
    "identities_pending": "Users have waited for a decision for long",
    "erasure_unfinished": "A person is not erased yet",
    "database_created": "The database is new",
    "relay_paused": "A relay is paused",
    "relay_behind": "A relay is late",
    "relay_dead": "Deliveries were given up",
    "relay_skipped": "A relay lost callbacks",
    "relay_losing": "A relay is about to lose callbacks",
    "key_expires": "An API key expires soon",
    "wrong_signatures": "Callbacks came with a wrong signature",
    "unknown_number": "Callbacks came for a number that is not configured",
}


def title_of(code: str) -> str:
    """Return what an issue is called; a new one by its own name."""
    return ISSUES.get(code, code.replace("_", " ").capitalize())


def place_of(code: str, subject: str | None) -> tuple[str, str] | None:
    """Return the page where an issue can be dealt with, and what a link there says."""
    if code == "identities_pending":
        return "/console/", "See who waits"
    if code.startswith("relay_") and subject:
        return f"/console/relays/{quote(subject, safe='')}", "Open the relay"
    return None
