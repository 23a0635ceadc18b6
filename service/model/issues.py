"""What is wrong with an account, in a form that people and programs read, and how to cure it."""

from collections.abc import Mapping
from typing import NamedTuple


class Issue(NamedTuple):
    """One thing that is wrong. `since` is Unix milliseconds, first seen by this process.

    `account` is None where it concerns no account, or none that is configured. `subject` is what
    it is about, where an account may have several of the kind.
    """

    code: str
    account: str | None
    since: int
    detail: str
    subject: str | None = None

    @property
    def cure(self) -> str:
        """What to do."""
        named = CURES[self.code].replace("ACCOUNT", self.account or "ACCOUNT")
        return named.replace("SUBJECT", self.subject or "''")

    @property
    def is_notice(self) -> bool:
        """Whether it only tells something, and is no alarm."""
        return self.code in NOTICES

    @property
    def is_past(self) -> bool:
        """Whether what it tells of is over, so that it can be dismissed until it comes again."""
        return self.code in PAST


CURES: Mapping[str, str] = {
    "security_notifications_off": "run 'ackgate accounts setup ACCOUNT'; if that does not last, "
    "the client is too old for identity changes: upgrade it",
    "webhook_url": "run 'ackgate accounts setup ACCOUNT', or mend server.public_url",
    "webhook_ca": "run 'ackgate accounts setup ACCOUNT', then restart the client's Coreapps",
    "callback_persist_off": "run 'ackgate accounts setup ACCOUNT'",
    "number_notifications_off": "run 'ackgate accounts setup ACCOUNT'",
    "sent_status_off": "run 'ackgate accounts setup ACCOUNT'",
    "callback_backoff": "run 'ackgate accounts setup ACCOUNT'",
    "webhook_concurrency": "raise server.max_queue, or lower "
    "webhooks.max_concurrent_requests at the client",
    "clock_skew": "set the clocks of both machines (NTP)",
    "settings_unreadable": "nothing needs to be done; to have them checked, give the account the "
    "login of an admin (Cloud API: a token with whatsapp_business_management)",
    "login_refused": "mend username and password of the account (Cloud API: its access_token), "
    "then restart; or unlock the login at the client",
    "client_unreachable": "is the client running, and reachable at base_url of the account? does "
    "ca_file verify its certificate?",
    "account_unreachable": "does this machine reach base_url of the account (DNS, firewall, "
    "ca_file)? Meta's status page tells of outages; callbacks are taken all the same",
    "number_unreadable": "mend phone_number_id (and waba_id) of the account, or give its "
    "access_token the permission whatsapp_business_management for them",
    "webhook_unsubscribed": "run 'ackgate accounts setup ACCOUNT'",
    "identity_check_off": "run 'ackgate accounts setup ACCOUNT'",
    "unknown_number": "add an account with this phone_number_id to the configuration and restart, "
    "then replay these callbacks: they are in GET /api/v1/journal?state=quarantined; or run "
    "'ackgate issues dismiss unknown_number --subject SUBJECT', until the next one comes",
}
"""Every code of an issue, with its cure."""

NOTICES = frozenset({"settings_unreadable"})
"""The codes that tell something, and are no alarm."""

PAST = frozenset({"identity_check_off", "unknown_number"})
"""The codes of what was told by callbacks that came: all others tell how it is now."""
