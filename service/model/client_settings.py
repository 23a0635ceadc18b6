"""What a WhatsApp client must be set to, and what is wrong with how it is set.

Follows Meta's pages on the application settings and on the webhooks' certificates. What a client
does not tell is taken to be as it is by default.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

LONGEST_BACKOFF_MS = 900_000
"""The client's default: who waits for its retries after a downtime goes by it."""
MAX_SKEW_SECONDS = 60.0
"""Long before the five minutes beyond which an event time is not believed."""

_PORTS = {"http": 80, "https": 443}
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client tells of its settings; None is what it does not tell.

    `webhooks` is the object as it came; `sent_setting` is where it tells `sent_status`;
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
class Expected:
    """What the settings are held against.

    `webhook_url` is the door, None where its public address is not known; `authorities` are the
    SHA-256 of the certificates that verify it, none where they are publicly known;
    `max_queue` is how many callbacks may wait to be stored.
    """

    webhook_url: str | None = None
    authorities: frozenset[str] = frozenset()
    max_queue: int = 2**40


class Wrong(NamedTuple):
    """A setting that is wrong, in words that hold no secret.

    `setting` is its path, None where no setting of the client mends it; `now` and `wanted` are for
    people, `value` is what to set.
    """

    code: str
    detail: str
    setting: str | None = None
    now: Any = None
    wanted: Any = None
    value: Any = None


def wrong_settings(told: ClientSettings, expected: Expected) -> list[Wrong]:
    """Give what is wrong, the worst first."""
    return [found for rule in _RULES for found in rule(told, expected)]


def _security_notifications(told: ClientSettings, _: Expected) -> Iterator[Wrong]:
    if told.security_notifications is True:
        return
    how = "off" if told.security_notifications is False else "not told, so off"
    yield Wrong(
        "security_notifications_off",
        f"show_security_notifications is {how}: when an identity changes, nobody is told, and "
        "nothing is blocked",
        *("show_security_notifications", told.security_notifications, True, True),
    )


def _webhook_url(told: ClientSettings, expected: Expected) -> Iterator[Wrong]:
    yield from wrong_url(told.webhook_url, expected.webhook_url, "webhooks.url")


def wrong_url(registered: str | None, door: str | None, setting: str) -> Iterator[Wrong]:
    """Give what is wrong with the webhook URL that is registered, by a setting of this path."""
    if registered and (door is None or same_url(registered, door)):
        return
    yield Wrong(
        "webhook_url",
        f"{_where(registered, door)}: no callback comes here",
        setting if door else None,
        shown_url(registered, door),
        shown_url(door, door),
        door,
    )


def _where(registered: str | None, door: str | None) -> str:
    if not registered:
        return "no webhook URL is registered"
    if door is not None and origin(registered) == origin(door):
        return "the webhook URL has another path, or another token, than the door"
    return f"the webhook URL leads to {origin(registered)}"


def _webhook_ca(told: ClientSettings, expected: Expected) -> Iterator[Wrong]:
    if told.authorities is None or expected.authorities <= told.authorities:
        return
    now = "another" if told.authorities else "none"
    yield Wrong(
        "webhook_ca",
        "the client was not given the authority of the door's certificate "
        "(server.public_ca_file): it can't verify the door",
        *("certificates.webhooks.ca", now, "that of server.public_ca_file"),
    )


def _callback_persist(told: ClientSettings, _: Expected) -> Iterator[Wrong]:
    if told.callback_persist is False:
        yield Wrong(
            "callback_persist_off",
            "callback_persist is off: callbacks that wait are lost when the client restarts",
            *("callback_persist", False, True, True),
        )


def _number_notifications(told: ClientSettings, _: Expected) -> Iterator[Wrong]:
    if told.number_notifications is False:
        yield Wrong(
            "number_notifications_off",
            "notify_user_change_number is off: nobody is told when a user has another number",
            *("notify_user_change_number", False, True, True),
        )


def _sent_status(told: ClientSettings, _: Expected) -> Iterator[Wrong]:
    if told.sent_status is False:
        yield Wrong(
            "sent_status_off",
            f"{told.sent_setting} is off: a message counts only once it is delivered, so that "
            "more contact checks seem to be made than messages sent",
            *(told.sent_setting, False, True, True),
        )


def _callback_backoff(told: ClientSettings, _: Expected) -> Iterator[Wrong]:
    longest = told.max_backoff_ms
    if longest is not None and longest > LONGEST_BACKOFF_MS:
        yield Wrong(
            "callback_backoff",
            f"the client may wait {longest // 1000} s before it delivers again: after a downtime "
            "changes are known that late",
            "max_callback_backoff_delay_ms",
            *(longest, LONGEST_BACKOFF_MS, LONGEST_BACKOFF_MS),
        )


def _concurrency(told: ClientSettings, expected: Expected) -> Iterator[Wrong]:
    most = told.max_concurrent_requests
    if most is not None and most > expected.max_queue:
        yield Wrong(
            "webhook_concurrency",
            f"the client delivers {most} callbacks at once, and server.max_queue is "
            f"{expected.max_queue}: the rest is refused, and comes late",
        )


def _clock(told: ClientSettings, _: Expected) -> Iterator[Wrong]:
    skew = told.skew_seconds
    if skew is not None and abs(skew) > MAX_SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        yield Wrong("clock_skew", f"the client's clock is {abs(skew):.0f} s {way} this machine's")


Rule = Callable[[ClientSettings, Expected], Iterator[Wrong]]

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


def patch_of(found: list[Wrong], webhooks: Mapping[str, Any]) -> dict[str, Any]:
    """Give the PATCH of the application settings that mends what is wrong.

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


def same_url(one: str, other: str) -> bool:
    """Tell whether two URLs lead to the same door."""
    try:
        return _parts(one) == _parts(other)
    except ValueError:
        return False


def _parts(url: str) -> tuple[Any, ...]:
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    return parts.scheme, parts.username, parts.hostname, port, parts.path, parts.query


def origin(url: str) -> str:
    """Give scheme, host and port of a URL, without what may be secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "an address that is none"
    if not parts.hostname or not parts.hostname.isprintable():
        return "an address that is none"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = port is None or port == _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" if plain else f"{parts.scheme}://{host}:{port}"


def shown_url(url: str | None, door: str | None) -> str | None:
    """Give a URL for people: of the door all but what follows the last slash, else the origin."""
    if not url:
        return None
    return f"{url.rpartition('/')[0]}/…" if url == door else f"{origin(url)}/…"
