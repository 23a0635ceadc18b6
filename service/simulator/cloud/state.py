"""Everything that the Cloud API knows, as one JSON object without its secrets."""

from dataclasses import asdict
from typing import Any

from service.simulator.cloud.cloud import Cloud, CloudMessage
from service.simulator.cloud.lines import Line
from service.simulator.state import COUNTS, SHOWN, faults_of, pending_of

SECRETS = {"app_secret", "access_token"}
MESSAGE_COUNTS = ("accepted", "refused", "delivered", "mismatch", "undeliverable")


def state_of(cloud: Cloud) -> dict[str, Any]:
    """Return users, numbers, accounts, calls, messages, callbacks, faults and settings."""
    webhooks = cloud.webhooks
    return {
        "users": [asdict(user) for user in cloud.users],
        "numbers": {key: _line(line) for key, line in cloud.lines.numbers.items()},
        "accounts": {key: asdict(account) for key, account in cloud.lines.accounts.items()},
        "calls": dict(cloud.calls.counts),
        "messages": {
            **{key: cloud.counts[key] for key in MESSAGE_COUNTS},
            "latest": [_message(message) for message in list(cloud.messages)[-SHOWN:]],
        },
        "callbacks": {
            "updates": webhooks.counts["updates"],
            "unsubscribed": webhooks.counts["unsubscribed"],
            **{key: webhooks.delivery.counts[key] for key in COUNTS},
            "answers": dict(webhooks.delivery.answers),
            "pending": pending_of(webhooks.delivery),
        },
        "faults": faults_of(cloud.faults),
        "settings": settings_of(cloud),
    }


def settings_of(cloud: Cloud) -> dict[str, Any]:
    """Return how it behaves."""
    return cloud.options.model_dump(mode="json", exclude=SECRETS | {"faults", "numbers"})


def _line(line: Line) -> dict[str, Any]:
    own = {"identity_check": line.identity_check, "webhook_url": line.webhook_url}
    return {**line.number.model_dump(), **own}


def _message(message: CloudMessage) -> dict[str, Any]:
    keys = ("id", "phone_number_id", "to", "hash", "at", "outcome")
    return {key: getattr(message, key) for key in keys}
