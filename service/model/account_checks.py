"""What is wrong with how an account is set up, and what to do about it.

Follows Meta's pages on the application settings and on the webhooks' certificates (On-Premises); on
webhook overrides, on the subscribed apps of a WhatsApp Business Account (WABA), and on the identity
change check (Cloud API). What a client does not report is taken to be as it is by default.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.model.events import Event, HashUnreadable, IdentitySeen, UserWrote
from service.model.webhook_urls import origin, same_url, shown_url

LONGEST_BACKOFF_MS = 900_000
"""The client's default: who waits for its retries after a downtime goes by it."""
MAX_SKEW_SECONDS = 60.0
"""Long before the five minutes beyond which an event time is not believed."""

ENOUGH = 20
"""So many messages in a row without a hash are no chance: every ordinary message brings it."""

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client reports of its settings; None is what it does not report.

    `webhooks` is the object as it came; `sent_setting` is where it reports `sent_status`;
    `authorities` are the SHA-256 of the certificates that it verifies the webhook by;
    `skew_seconds` is how far its clock is ahead of ours.
    """

    security_notifications: bool | None = None
    number_notifications: bool | None = None
    callback_persist: bool | None = None
    sent_status: bool | None = None
    sent_setting: str = "sent_status"
    webhook_url: str | None = None
    max_concurrent_requests: int | None = None
    max_backoff_ms: int | None = None
    authorities: frozenset[str] | None = None
    skew_seconds: float | None = None
    version: str | None = None
    webhooks: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class ExpectedSettings:
    """What the settings are held against.

    `webhook_url` is the one to be registered, None where that is not known, and `is_declared`
    whether the configuration declares it, as that of another system;
    `authorities` are the SHA-256 of the certificates that verify it, none where they are publicly
    known; `max_queue` is what the endpoint takes at once.
    """

    webhook_url: str | None = None
    authorities: frozenset[str] = frozenset()
    max_queue: int = 2**40
    is_declared: bool = False


class WrongSetting(NamedTuple):
    """A setting that is wrong, in words that hold no secret.

    `setting` is its path, None where no setting of the client fixes it; `now` and `wanted` are for
    people, `value` is what to set.
    """

    code: str
    detail: str
    setting: str | None = None
    now: Any = None
    wanted: Any = None
    value: Any = None


Found = Iterator[WrongSetting]


def wrong_settings(settings: ClientSettings, expected: ExpectedSettings) -> list[WrongSetting]:
    """Return what is wrong, the worst first."""
    return [found for rule in _RULES for found in rule(settings, expected)]


def _security_notifications(settings: ClientSettings, _: ExpectedSettings) -> Found:
    if settings.security_notifications is True:
        return
    how = "off" if settings.security_notifications is False else "not told, so off"
    yield WrongSetting(
        "security_notifications_off",
        f"show_security_notifications is {how}: when an identity changes, nobody is told, and "
        "nothing is blocked",
        *("show_security_notifications", settings.security_notifications, True, True),
    )


def _webhook_url(settings: ClientSettings, expected: ExpectedSettings) -> Found:
    url, declared = expected.webhook_url, expected.is_declared
    yield from wrong_url(settings.webhook_url, url, "webhooks.url", declared=declared)


def wrong_url(
    registered: str | None, endpoint: str | None, setting: str, *, declared: bool
) -> Found:
    """Find what is wrong with the webhook URL that is registered, by a setting of this path.

    Where another one than the endpoint's is declared, callbacks may come here all the same.
    """
    if registered and (endpoint is None or same_url(registered, endpoint)):
        return
    problem = (
        "webhook_url of the account declares another" if declared else "no callback comes here"
    )
    yield WrongSetting(
        "webhook_url",
        f"{_where(registered, endpoint)}: {problem}",
        setting if endpoint else None,
        shown_url(registered, endpoint),
        shown_url(endpoint, endpoint),
        endpoint,
    )


def _where(registered: str | None, endpoint: str | None) -> str:
    if not registered:
        return "no webhook URL is registered"
    if endpoint is not None and origin(registered) == origin(endpoint):
        return "the webhook URL has another path, or another token, than it should have"
    return f"the webhook URL leads to {origin(registered)}"


def _webhook_ca(settings: ClientSettings, expected: ExpectedSettings) -> Found:
    if settings.authorities is None or expected.authorities <= settings.authorities:
        return
    now = "another" if settings.authorities else "none"
    yield WrongSetting(
        "webhook_ca",
        "the client was not given the authority of the webhook endpoint's certificate "
        "(server.public_ca_file): it can't verify the endpoint",
        *("certificates.webhooks.ca", now, "that of server.public_ca_file"),
    )


def _callback_persist(settings: ClientSettings, _: ExpectedSettings) -> Found:
    if settings.callback_persist is False:
        yield WrongSetting(
            "callback_persist_off",
            "callback_persist is off: callbacks that wait are lost when the client restarts",
            *("callback_persist", False, True, True),
        )


def _number_notifications(settings: ClientSettings, _: ExpectedSettings) -> Found:
    if settings.number_notifications is False:
        yield WrongSetting(
            "number_notifications_off",
            "notify_user_change_number is off: nobody is told when a user has another number",
            *("notify_user_change_number", False, True, True),
        )


def _sent_status(settings: ClientSettings, _: ExpectedSettings) -> Found:
    if settings.sent_status is False:
        yield WrongSetting(
            "sent_status_off",
            f"{settings.sent_setting} is off: a message counts only once it is delivered, so that "
            "more contact checks seem to be made than messages sent",
            *(settings.sent_setting, False, True, True),
        )


def _callback_backoff(settings: ClientSettings, _: ExpectedSettings) -> Found:
    longest = settings.max_backoff_ms
    if longest is not None and longest > LONGEST_BACKOFF_MS:
        yield WrongSetting(
            "callback_backoff",
            f"the client may wait {longest // 1000} s before it delivers again: after a downtime "
            "changes are known that late",
            "max_callback_backoff_delay_ms",
            *(longest, LONGEST_BACKOFF_MS, LONGEST_BACKOFF_MS),
        )


def _concurrency(settings: ClientSettings, expected: ExpectedSettings) -> Found:
    most = settings.max_concurrent_requests
    if most is not None and most > expected.max_queue:
        yield WrongSetting(
            "webhook_concurrency",
            f"the client delivers {most} callbacks at once, and server.max_queue is "
            f"{expected.max_queue}: the rest is refused, and comes late",
        )


def _clock(settings: ClientSettings, _: ExpectedSettings) -> Found:
    skew = settings.skew_seconds
    if skew is not None and abs(skew) > MAX_SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        yield WrongSetting(
            "clock_skew", f"the client's clock is {abs(skew):.0f} s {way} this machine's"
        )


Rule = Callable[[ClientSettings, ExpectedSettings], Found]

_RULES: tuple[Rule, ...] = (
    _security_notifications,
    _webhook_url,
    _webhook_ca,
    _callback_persist,
    _number_notifications,
    _sent_status,
    _callback_backoff,
    _concurrency,
    _clock,
)


def patch_of(found: list[WrongSetting], webhooks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the PATCH of the application settings that fixes what is wrong.

    `webhooks` is sent whole, as it was but for what changes: whether the client puts parts of it
    together is documented nowhere.
    """
    patch: dict[str, Any] = {}
    for each in found:
        if each.setting is None or each.value is None:
            continue
        first, *rest = each.setting.split(".")
        if rest and first not in patch:
            patch[first] = dict(webhooks)
        _put(patch, [first, *rest], each.value)
    return patch


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *above, last = path
    for name in above:
        below = tree.get(name)
        tree[name] = dict(below) if isinstance(below, dict) else {}
        tree = tree[name]
    tree[last] = value


# The settings of a number of the Cloud API.


IDENTITY_CHECK = WrongSetting(
    "identity_check_off",
    "whether it is on can't be read back: it will be switched on",
    *("user_identity_change.enable_identity_key_check", None, True, True),
)
"""Set in any case, for Graph does not report it."""


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What Graph reports of a number; None is what it does not report.

    `webhook_url` is where its callbacks go: to a URL of its own, else of its WABA, else of the app.
    `own_webhook` is whether that is the number's own. `subscribed` is whether any app gets the
    WABA's callbacks.
    """

    webhook_url: str | None = None
    subscribed: bool | None = None
    quality: str | None = None
    own_webhook: bool = False


def wrong_cloud_settings(
    settings: CloudSettings, endpoint: str | None, *, declared: bool = False
) -> list[WrongSetting]:
    """Return what is wrong, in the order in which it is to be fixed.

    `endpoint` is the webhook URL to be registered, None where that is not known, `declared`
    whether it is another system's.
    """
    return [
        *_subscribed(settings),
        *wrong_url(settings.webhook_url, endpoint, "webhook_configuration", declared=declared),
    ]


def _subscribed(settings: CloudSettings) -> Found:
    if settings.subscribed is False:
        yield WrongSetting(
            "webhook_unsubscribed",
            "no app is subscribed to the WhatsApp Business Account: no callback is sent at all",
            *("subscribed_apps", False, True, True),
        )


# Whether the identity change check seems to be on.


@dataclass(slots=True)
class IdentityCheck:
    """Whether a number's identity change check seems to be on, going by what users write.

    Graph does not report it, but messages show it. `hash_at` is when the last identity hash came,
    `without` counts the messages since then, which brought none, and `since` is when the first of
    them came; `dismissed` that a person dismissed it, until the next. Times are Unix milliseconds.
    It is kept in memory: it begins anew with each start, and is known again after a few messages.
    """

    hash_at: int | None = None
    without: int = 0
    since: int | None = None
    dismissed: bool = False

    def note(self, events: Iterable[Event], arrived: int) -> None:
        """Note the events of one callback; a user's hash stands before what the user wrote."""
        has_hash = ""
        for event in events:
            if isinstance(event, IdentitySeen | HashUnreadable):
                has_hash = event.user
                self.hash_at, self.without, self.since = arrived, 0, None
            elif isinstance(event, UserWrote) and event.user != has_hash:
                self.without += 1
                self.since = self.since or arrived
                self.dismissed = False

    @property
    def seems_off(self) -> bool:
        """Whether enough messages came without a hash."""
        return self.without >= ENOUGH and not self.dismissed

    @property
    def detail(self) -> str:
        """Why it seems to be off."""
        return (
            f"the last {self.without} messages of users brought no identity hash: the identity "
            "change check seems to be off, so nobody is told when an identity changes"
        )


# Issues, as people and programs read them.


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
        """Whether it only says something, and is no alarm."""
        return self.code in NOTICES

    @property
    def is_past(self) -> bool:
        """Whether what it is about is over, so that it can be dismissed until it comes again."""
        return self.code in PAST


CURES: Mapping[str, str] = {
    "security_notifications_off": "run 'ackgate accounts setup ACCOUNT'; if that does not last, "
    "the client is too old for identity changes: upgrade it",
    "webhook_url": "run 'ackgate accounts setup ACCOUNT', or fix server.public_url; or set "
    "accounts.ACCOUNT.webhook_url to the URL of a bot in front that forwards",
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
    "login_refused": "fix username and password of the account (Cloud API: its access_token), "
    "then reload; or unlock the login at the client",
    "client_unreachable": "is the client running, and reachable at base_url of the account? does "
    "ca_file verify its certificate?",
    "account_unreachable": "does this machine reach base_url of the account (DNS, firewall, "
    "ca_file)? Meta's status page tells of outages; callbacks are taken all the same",
    "number_unreadable": "fix phone_number_id (and waba_id) of the account, or give its "
    "access_token the permission whatsapp_business_management for them; or set "
    "accounts.ACCOUNT.check_settings = false, behind a provider that has no such settings",
    "webhook_unsubscribed": "run 'ackgate accounts setup ACCOUNT'",
    "identity_check_off": "run 'ackgate accounts setup ACCOUNT'",
    "identities_pending": "'ackgate identities list --account ACCOUNT --state pending' shows them: "
    "recognise each user by another way, then run 'ackgate acknowledge' or 'ackgate identities "
    "hold'; or let policy decide (accounts.ACCOUNT.policy)",
    "erasure_unfinished": "nothing, where the journal is very large; else the log tells why: on "
    "PostgreSQL, is a transaction open for hours (pg_stat_activity)? End it: the service goes on "
    "by itself",
    "database_created": "where there was a database before: stop, and put it back, or restore a "
    "backup with 'ackgate db restore'; else run 'ackgate issues dismiss database_created'",
    "relay_paused": "have the destination take deliveries again, or give the relay another url; "
    "then run 'ackgate relays resume SUBJECT'",
    "relay_behind": "does its destination answer, and fast enough? 'ackgate relays list' shows "
    "the last error",
    "relay_dead": "'ackgate relays deliveries SUBJECT --state dead' shows what was answered; then "
    "run 'ackgate relays retry SUBJECT'",
    "relay_skipped": "raise retention.relay_days, and free some disk; what is lost is lost: run "
    "'ackgate issues dismiss relay_skipped --subject SUBJECT'",
    "relay_losing": "have the destination take deliveries again, or raise retention.relay_days",
    "key_expires": "set a new key under another name in the configuration, let its users change "
    "to it, then remove api.keys.SUBJECT",
    "wrong_signatures": "set apps.SUBJECT.app_secret to the secret of the app at Meta (Settings, "
    "Basic), then reload; behind a provider set signature_header, or auth = 'token' (see "
    "docs/cloud.md); if strangers sent them, run "
    "'ackgate issues dismiss wrong_signatures --subject SUBJECT'",
    "unknown_number": "add an account with this phone_number_id to the configuration and restart, "
    "then replay these callbacks: they are in GET /api/v1/journal?state=quarantined; or run "
    "'ackgate issues dismiss unknown_number --subject SUBJECT', until the next one comes",
}
"""Every code of an issue, with its cure."""

NOTICES = frozenset({"settings_unreadable", "database_created"})
"""The codes that only say something, and are no alarm."""

PAST = frozenset(
    {
        "identity_check_off",
        "unknown_number",
        "wrong_signatures",
        "database_created",
        "relay_skipped",
    }
)
"""The codes of what happened once: all others say how it is now."""
