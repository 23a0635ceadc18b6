"""The labelled counters begin at 0, so that an alert on an increase sees the first one.

Prometheus knows no increase from nothing to 1. What can't be known at the start, such as the HTTP
status of an answer, comes with the first one all the same.
"""

from itertools import product
from typing import get_args

from service.ingress.door import EVENT_NAMES, OTHER
from service.ingress.readers import in_journal
from service.ledger.callbacks import APPLIED, QUARANTINED
from service.model.outcomes import GetOutcome, PutOutcome, Settled
from service.model.users import Kind
from service.observability.metrics import Metrics
from service.settings import Settings
from service.store.database import SYNTHETIC

NOBODY = ""
"""The account where it is not known."""
REFUSED = "refused"
RESULTS = (
    APPLIED, QUARANTINED, SYNTHETIC, REFUSED, "too_large", "stalled", "broken", "not_stored",
)  # fmt: skip
EVENTS = (*EVENT_NAMES.values(), OTHER)
OPERATIONS = {
    "onprem": (
        "login", "identity_get", "identity_put", "contacts", "health", "settings", "certificates",
    ),
    "cloud": ("number", "subscribed_apps", "settings"),
}  # fmt: skip
OUTCOMES = {
    Kind.ACKNOWLEDGE: {outcome.name for outcome in get_args(PutOutcome)},
    Kind.ASK: {outcome.name for outcome in get_args(GetOutcome)},
}
UNSETTLED = {settled.name.lower() for settled in Settled if settled is not Settled.TAKEN}


def start_at_zero(metrics: Metrics, settings: Settings) -> None:
    """Let each counter have what can be known of its labels."""
    _start_callbacks(metrics, settings)
    for name, account in settings.accounts.items():
        for labels in product(OPERATIONS[account.kind], ("not_sent", "no_reply")):
            metrics.client_calls.labels(name, *labels)
        for kind, outcomes in OUTCOMES.items():
            for outcome in outcomes | UNSETTLED:
                metrics.outcomes.labels(name, kind, outcome)
    for name in settings.onprem_accounts:
        metrics.contact_failures.labels(name)
        for reason in ("asked", "again"):
            metrics.contact_checks.labels(name, reason)
        for reason in ("budget", "opt_in", "client", "renewal"):
            metrics.contact_refusals.labels(name, reason)


def _start_callbacks(metrics: Metrics, settings: Settings) -> None:
    apps = [in_journal(app) for app in settings.apps]
    metrics.callbacks.labels(NOBODY, REFUSED)
    for labels in product([*settings.accounts, *apps], RESULTS):
        metrics.callbacks.labels(*labels)
    for labels in product([*settings.accounts, NOBODY], EVENTS):
        metrics.events.labels(*labels)
    for app in settings.apps:
        metrics.unknown_numbers.labels(app)
