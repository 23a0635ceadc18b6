"""Everything that a simulator knows, as one JSON object."""

import json
from dataclasses import asdict
from typing import Any

from service.simulator import contact_checks
from service.simulator.acts import Acts
from service.simulator.calls import Call
from service.simulator.delivery import Callback, Delivery
from service.simulator.faults import Faults

SHOWN = 1000
"""How many of the latest messages and PUTs are shown; the counts cover all."""


def state_of(acts: Acts) -> dict[str, Any]:
    """Return users, counts, PUTs, logins, messages, callbacks, faults and settings."""
    client = acts.client
    return {
        "users": {wa_id: asdict(user) for wa_id, user in acts.users.items()},
        "calls": dict(acts.calls.counts),
        "most_in_flight": dict(acts.calls.most_in_flight),
        "puts": [_put(call) for call in acts.puts[-SHOWN:]],
        "logins": {
            "succeeded": client.logins.succeeded,
            "refused": client.logins.refused,
            "tokens": len(client.logins.tokens),
        },
        "messages": [asdict(message) for message in list(client.messages)[-SHOWN:]],
        "callbacks": {
            **{key: client.delivery.counts[key] for key in COUNTS},
            "pending": pending_of(client.delivery),
        },
        "contacts": {
            "unknown": sorted(client.contacts.unknown),
            "failing": sorted(client.contacts.failing),
            "stuck": sorted(client.contacts.stuck),
            "wa_ids": {**client.options.wa_ids, **client.contacts.wa_ids},
            "counts": contact_counts(acts),
        },
        "health": client.health,
        "faults": faults_of(client.faults),
        "webhook_ca": client.webhook_ca is not None,
        "settings": client.settings.model_dump(mode="json"),
    }


def contact_counts(acts: Acts) -> dict[str, int]:
    """Return how many contact checks came, and how many were beyond the rate limit."""
    return {key: acts.contacts.counts[key] for key in contact_checks.COUNTS}


COUNTS = ("accepted", "delivered", "failed_attempts", "lost", "given_up")


def faults_of(faults: Faults) -> list[dict[str, Any]]:
    """Return the faults that are switched on, each with its number and the times it has left."""
    return [
        {"id": number, "left": left, **json.loads(fault.model_dump_json(exclude_defaults=True))}
        for number, fault, left in faults
    ]


def pending_of(delivery: Delivery) -> list[dict[str, Any]]:
    """Return the oldest callbacks that aren't delivered yet."""
    return [_callback(each) for each in list(delivery.pending.values())[:SHOWN]]


def _put(call: Call) -> dict[str, Any]:
    keys = ("wa_id", "hash", "outcome", "status", "request_id", "at", "faulty")
    return {key: getattr(call, key) for key in keys}


def _callback(callback: Callback) -> dict[str, Any]:
    keys = ("number", "kind", "wa_id", "attempts", "problem", "created_at")
    return {key: getattr(callback, key) for key in keys}
