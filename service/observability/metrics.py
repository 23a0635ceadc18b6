"""What Prometheus reads. No label ever holds what a caller chose: no number, hash or path."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class LateCounter:
    """What is counted for every callback: added up here, and handed over when it is read.

    An increment of prometheus_client's takes a lock and several calls, some of them several times
    a callback.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counts: dict[tuple[str, ...], int] = {}

    def inc(self, *labels: str, by: int = 1) -> None:
        """Count; to be called on the event loop alone."""
        self._counts[labels] = self._counts.get(labels, 0) + by

    def hand_over(self) -> None:
        """Add what was counted to the metric."""
        counts, self._counts = self._counts, {}
        for labels, count in counts.items():
            self._counter.labels(*labels).inc(count)


class LateHistogram(Collector):
    """Seconds that are measured for every callback, put in their buckets here; as `LateCounter`."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Note one; to be called on the event loop alone."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Give the buckets, each with what the smaller ones hold."""
        held = zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(self._name, self._text, list(held), self._sum)


class Metrics:
    """Every metric of one running service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._define_ingress()
        self._define_ledger()
        self._define_clients()
        self._define_state()
        self._define_contacts()

    def _define_ingress(self) -> None:
        registry = self.registry
        self.callbacks = Counter(
            "ackgate_callbacks_total",
            "Callbacks by account and by what became of them",
            ("account", "result"),
            registry=registry,
        )
        self.events = Counter(
            "ackgate_events_total",
            "Events read from callbacks",
            ("account", "event"),
            registry=registry,
        )
        self.unknown_numbers = Counter(
            "ackgate_unknown_numbers_total",
            "Callbacks with something for a phone number that no account has",
            ("app",),
            registry=registry,
        )
        self.callback_tally, self.event_tally = (
            LateCounter(self.callbacks),
            LateCounter(self.events),
        )
        self.callback_seconds = LateHistogram(
            "ackgate_callback_seconds",
            "From the head of a callback to its answer",
            _FAST,
            registry,
        )
        self.bytes_in_flight = Gauge(
            "ackgate_bytes_in_flight",
            "Bytes of bodies being read or waiting to be stored",
            registry=registry,
        )
        self.connections = Gauge(
            "ackgate_connections", "Connections that are open", ("port",), registry=registry
        )
        self.connections_refused = Counter(
            "ackgate_connections_refused_total",
            "Connections answered with 503 because too many were open",
            registry=registry,
        )
        self.requests = Counter(
            "ackgate_requests_total",
            "Requests to the API by route and status",
            ("route", "status"),
            registry=registry,
        )

    def _define_ledger(self) -> None:
        registry = self.registry
        self.commit_seconds = Histogram(
            "ackgate_commit_seconds", "One transaction", buckets=_FAST, registry=registry
        )
        self.commit_entries = Histogram(
            "ackgate_commit_entries",
            "Entries written together in one transaction",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.commit_failures = Counter(
            "ackgate_commit_failures_total",
            "Transactions that the database refused",
            registry=registry,
        )
        self.rule_failures = Counter(
            "ackgate_poisoned_total",
            "Callbacks quarantined because the rules failed on them",
            registry=registry,
        )
        self.journal_deleted = Counter(
            "ackgate_journal_deleted_total",
            "Callbacks deleted because they were kept for long enough",
            registry=registry,
        )
        self.waiting = Gauge("ackgate_ledger_waiting", "Entries to be written", registry=registry)

    def _define_clients(self) -> None:
        registry = self.registry
        self.client_calls = Counter(
            "ackgate_client_calls_total",
            "Calls to WhatsApp clients by operation and outcome",
            ("account", "operation", "outcome"),
            registry=registry,
        )
        self.client_seconds = Histogram(
            "ackgate_client_call_seconds",
            "Calls to WhatsApp clients",
            ("operation",),
            buckets=_CALLS,
            registry=registry,
        )
        self._calls = cache(self.client_calls.labels)
        self._call_seconds = cache(self.client_seconds.labels)
        self.outcomes = Counter(
            "ackgate_outcomes_total",
            "What leased work came to",
            ("account", "kind", "outcome"),
            registry=registry,
        )
        self._outcomes = cache(self.outcomes.labels)
        self.reachable = Gauge(
            "ackgate_account_reachable",
            "1 while the account's WhatsApp client answers and lets us in",
            ("account",),
            registry=registry,
        )
        self.issues = Gauge(
            "ackgate_issues",
            "1 for each thing that is wrong with an account",
            ("account", "code"),
            registry=registry,
        )

    def _define_state(self) -> None:
        registry = self.registry
        self.identities = Gauge(
            "ackgate_identities", "Identities by state", ("state",), registry=registry
        )
        self.oldest_pending = Gauge(
            "ackgate_oldest_pending_seconds",
            "Age of the oldest pending identity, 0 where there is none",
            registry=registry,
        )
        self.outbox = Gauge(
            "ackgate_outbox", "Work in the outbox", ("account", "kind"), registry=registry
        )
        self.overdue = Gauge(
            "ackgate_outbox_overdue_seconds",
            "How long the oldest work has been due, 0 where none is",
            ("account", "kind"),
            registry=registry,
        )

        self.unverified = Gauge(
            "ackgate_unverified_users",
            "Users whom the client is still to be asked about, since a restore",
            ("account",),
            registry=registry,
        )
        self.journal_oldest = Gauge(
            "ackgate_journal_oldest_seconds",
            "Age of the oldest callback that is kept, 0 where there is none",
            registry=registry,
        )

        self.disk_free = Gauge(
            "ackgate_disk_free_bytes",
            "What the file system of the database has left",
            registry=registry,
        )

    def _define_contacts(self) -> None:
        registry = self.registry
        self.contact_checks = Counter(
            "ackgate_contact_checks_total",
            "Inputs passed to a client to be checked, by why",
            ("account", "why"),
            registry=registry,
        )
        self.contact_failures = Counter(
            "ackgate_contact_checks_failed_total",
            "Checks given up because no answer came",
            ("account",),
            registry=registry,
        )
        self.contact_refusals = Counter(
            "ackgate_contact_refusals_total",
            "Requests for checks that were refused, and renewals that were left out, by why",
            ("account", "why"),
            registry=registry,
        )
        self.contacts_open = Gauge(
            "ackgate_contact_checks_open",
            "Checks that wait for a result",
            ("account",),
            registry=registry,
        )
        self.budget_used = Gauge(
            "ackgate_contact_budget_used_ratio",
            "The part of the budget of checks that is spent; 1 is all of it",
            ("account",),
            registry=registry,
        )
        self.budget_checks = Gauge(
            "ackgate_contact_budget_checks",
            "Numbers checked within the budget's window",
            ("account",),
            registry=registry,
        )
        self.budget_messages = Gauge(
            "ackgate_contact_budget_messages",
            "Messages within the budget's window, as callbacks told",
            ("account",),
            registry=registry,
        )

    def observe_commit(self, entries: int, seconds: float) -> None:
        """Note one transaction."""
        self.commit_seconds.observe(seconds)
        self.commit_entries.observe(entries)

    def observe_call(self, account: str, operation: str, outcome: str, seconds: float) -> None:
        """Note one call to a WhatsApp client."""
        self._calls(account, operation, outcome).inc()
        self._call_seconds(operation).observe(seconds)

    def count_outcome(self, account: str, kind: str, outcome: str) -> None:
        """Note what a piece of leased work came to."""
        self._outcomes(account, kind, outcome).inc()

    def render(self) -> bytes:
        """Write the metrics as Prometheus text."""
        self.callback_tally.hand_over()
        self.event_tally.hand_over()
        return generate_latest(self.registry)
