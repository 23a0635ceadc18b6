"""What Prometheus reads. No label ever holds what a caller chose: no number, hash or path."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from service import __version__

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DECISIONS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)

FORMER_EVENTS = {
    "identity_seen": "IdentitySeen",
    "hash_unreadable": "HashUnreadable",
    "send_blocked": "SendBlocked",
    "hash_refused": "HashRefused",
    "number_changed": "NumberChanged",
    "user_wrote": "UserWrote",
    "contact_checked": "ContactChecked",
    "aliases_seen": "Named",
    "message_sent": "MessageSent",
    "other": "Other",
}
"""The values of the label `event`, each with its value in `ackgate_events_total`."""


class Former(Collector):
    """The name that a metric had in the release before, with its labels and their values then.

    It shows the same numbers as the metric itself, so that dashboards and alerts have a release's
    time to move to the new name.
    """

    def __init__(
        self,
        name: str,
        metric: Collector,
        registry: CollectorRegistry,
        *,
        labels: Mapping[str, str] | None = None,
        values: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.name = name
        self.metric = metric
        self.labels = labels or {}
        self._values = values or {}
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the samples of the metric under the former name."""
        for family in self.metric.collect():
            suffix = "_total" if family.type == "counter" else ""
            text = f"Deprecated, goes with the next release: read {family.name}{suffix}"
            former = Metric(self.name, text, family.type)
            for sample in family.samples:
                former.add_sample(
                    self.name + sample.name.removeprefix(family.name),
                    {
                        self.labels.get(label, label): self._values.get((label, value), value)
                        for label, value in sample.labels.items()
                    },
                    sample.value,
                )
            yield former


class OfLeader(Collector):
    """The metrics that the leader alone shows: what is the same wherever it is counted.

    So there is one series of each, whichever replica is scraped, and none of a former leader's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.is_shown = True
        self.metrics: list[Collector] = []
        registry.register(self)

    def register(self, metric: Collector) -> None:
        """Add a metric."""
        self.metrics.append(metric)

    def collect(self) -> Iterator[Metric]:
        """Return their samples, if this replica leads."""
        if self.is_shown:
            for metric in self.metrics:
                yield from metric.collect()


class Metrics:
    """Every metric of one running service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.of_leader = OfLeader(self.registry)
        self._define_process()
        self._define_webhooks()
        self._define_api()
        self._define_ledger()
        self._define_clients()
        self._define_state()
        self._define_contacts()
        self._define_relays()
        self._define_alerts()

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _leaders(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Define a gauge that the leader alone shows."""
        gauge = Gauge(name, text, labels, registry=None)
        self.of_leader.register(gauge)
        return gauge

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _define_process(self) -> None:
        ProcessCollector(namespace="ackgate", registry=self.registry)
        build = self._gauge(
            "ackgate_build_info", "1, with the release and its Python", ("version", "python")
        )
        build.labels(__version__, platform.python_version()).set(1)
        self.leader = self._gauge("ackgate_leader", "1 while this replica leads")
        self.certificate_expiry = self._gauge(
            "ackgate_certificate_expiry_timestamp_seconds",
            "When the certificate that the service proves itself by ends",
            ("port",),
        )

    def _define_webhooks(self) -> None:
        self.callbacks = self._counter(
            "ackgate_callbacks_total", "Callbacks by account and outcome", ("account", "result")
        )
        self.events = self._counter(
            "ackgate_callback_events_total", "Events read from callbacks", ("account", "event")
        )
        Former(
            "ackgate_events",
            self.events,
            self.registry,
            values={("event", new): old for new, old in FORMER_EVENTS.items()},
        )
        # Looking a child up costs as much as counting does, and this is done for every callback.
        self._callbacks: Callable[..., Counter] = cache(self.callbacks.labels)
        self._events: Callable[..., Counter] = cache(self.events.labels)
        self.unknown_numbers = self._counter(
            "ackgate_unknown_numbers_total",
            "Callbacks with something for a phone number that no account has",
            ("app",),
        )
        self.signature_failures = self._counter(
            "ackgate_signature_failures_total",
            "Callbacks of an app whose signature is missing or wrong",
            ("app",),
        )
        self.last_callback = self._leaders(
            "ackgate_last_callback_timestamp_seconds",
            "When the account's last callback arrived",
            ("account",),
        )
        self.callback_seconds = self._histogram(
            "ackgate_callback_seconds", "From the head of a callback to its answer", _FAST
        )
        self.bytes_in_flight = self._gauge(
            "ackgate_bytes_in_flight", "Bytes of bodies being read or waiting to be stored"
        )
        self.api_bytes_in_flight = self._gauge(
            "ackgate_api_bytes_in_flight",
            "Bytes of bodies of API requests being read or worked on",
        )
        self.connections = self._gauge(
            "ackgate_connections", "Connections that are open", ("port",)
        )
        self.unreadable_requests = self._counter(
            "ackgate_unreadable_requests_total", "Requests that are no valid HTTP, answered 400"
        )
        self.connections_refused = self._counter(
            "ackgate_connections_refused_total",
            "Deprecated, goes with the next release: always 0, for the proxy in front bounds them",
        )

    def _define_api(self) -> None:
        self.keys_refused = self._counter(
            "ackgate_api_keys_refused_total",
            "Requests to the API without a key, or with an unknown one",
            ("reason",),
        )
        self.requests = self._counter(
            "ackgate_requests_total", "Requests to the API by route and status", ("route", "status")
        )
        self.request_seconds = self._histogram(
            "ackgate_request_seconds",
            "From the head of an API request to its answer",
            _FAST,
            ("route",),
        )
        self.gate_answers = self._counter(
            "ackgate_gate_answers_total",
            "What the gate answered about recipients",
            ("account", "result"),
        )
        self.gate_seconds = self._histogram(
            "ackgate_gate_seconds",
            "What the gate takes to answer about one recipient or many",
            _FAST,
        )
        self.sends = self._counter(
            "ackgate_sends_total",
            "Messages that were to be sent through Ackgate, by what became of them",
            ("account", "result"),
        )
        self._sends: Callable[..., Counter] = cache(self.sends.labels)
        self.event_readers = self._gauge(
            "ackgate_event_readers", "Readers that follow the event log by a stream"
        )
        self.event_readers_cut = self._counter(
            "ackgate_event_readers_cut_total",
            "Readers of a stream cut off for being too far behind",
        )
        self._requests: Callable[..., Counter] = cache(self.requests.labels)
        self._request_seconds: Callable[..., Histogram] = cache(self.request_seconds.labels)
        self._gate_answers: Callable[..., Counter] = cache(self.gate_answers.labels)

    def _define_ledger(self) -> None:
        self.commit_seconds = self._histogram("ackgate_commit_seconds", "One transaction", _FAST)
        self.commit_entries = self._histogram(
            "ackgate_commit_entries",
            "Commands written together in one transaction",
            (1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self.commit_failures = self._counter(
            "ackgate_commit_failures_total", "Transactions that the database refused"
        )
        self.conflicts = self._counter(
            "ackgate_conflicts_total",
            "Transactions that were run again because another was first, by why",
            ("why",),
        )
        self.rule_failures = self._counter(
            "ackgate_rule_failures_total",
            "Callbacks quarantined because the rules failed on them: an internal error",
        )
        Former("ackgate_poisoned", self.rule_failures, self.registry)
        self.journal_deleted = self._counter(
            "ackgate_journal_deleted_total",
            "Callbacks deleted because they were kept for long enough",
        )
        self.told = self._counter(
            "ackgate_events_told_total", "Events appended to the event log", ("type",)
        )
        self._told: Callable[..., Counter] = cache(self.told.labels)
        self.write_queue = self._gauge("ackgate_write_queue_length", "Commands to be written")
        Former("ackgate_ledger_waiting", self.write_queue, self.registry)

    def _define_clients(self) -> None:
        self.client_calls = self._counter(
            "ackgate_client_calls_total",
            "Calls to WhatsApp clients by operation and outcome",
            ("account", "operation", "outcome"),
        )
        self.client_seconds = self._histogram(
            "ackgate_client_call_seconds", "Calls to WhatsApp clients", _CALLS, ("operation",)
        )
        self._calls: Callable[..., Counter] = cache(self.client_calls.labels)
        self._call_seconds: Callable[..., Histogram] = cache(self.client_seconds.labels)
        self.outcomes = self._counter(
            "ackgate_outcomes_total",
            "Outcomes of leased work",
            ("account", "kind", "outcome"),
        )
        self._outcomes: Callable[..., Counter] = cache(self.outcomes.labels)
        self.reachable = self._leaders(
            "ackgate_account_reachable",
            "1 while the account's WhatsApp client answers and accepts the login",
            ("account",),
        )
        self.issues = self._leaders(
            "ackgate_issues", "1 for each thing that is wrong with an account", ("account", "code")
        )

    def _define_state(self) -> None:
        self.acknowledged_seconds = self._histogram(
            "ackgate_acknowledged_seconds",
            "From the arrival of an identity to its acknowledgement",
            _DECISIONS,
            ("account",),
        )
        self._acknowledged_seconds: Callable[..., Histogram] = cache(
            self.acknowledged_seconds.labels
        )
        self.identities = self._leaders("ackgate_identities", "Identities by state", ("state",))
        self.oldest_pending = self._leaders(
            "ackgate_oldest_pending_seconds",
            "Age of the oldest pending identity, 0 where there is none",
        )
        self.outbox = self._leaders("ackgate_outbox", "Work in the outbox", ("account", "kind"))
        self.overdue = self._leaders(
            "ackgate_outbox_overdue_seconds",
            "How long the oldest work has been due, 0 where none is",
            ("account", "kind"),
        )
        self.unverified = self._leaders(
            "ackgate_unverified_users",
            "Users whom the client is still to be asked about, since a restore",
            ("account",),
        )
        self.journal_oldest = self._leaders(
            "ackgate_journal_oldest_seconds",
            "Age of the oldest callback that is kept, 0 where there is none",
        )
        self.log_lines_dropped = self._counter(
            "ackgate_log_lines_dropped_total",
            "Log lines that were dropped because nobody read them in time",
        )
        self.disk_free = self._gauge(
            "ackgate_disk_free_bytes", "What the file system of the database has left"
        )
        self.log_bytes = self._gauge(
            "ackgate_write_ahead_log_bytes", "Size of the database's write-ahead log"
        )
        self.backup_age = self._gauge(
            "ackgate_backup_age_seconds",
            "Since when the last backup was made, +Inf where there was none",
        )

    def _define_contacts(self) -> None:
        self.contact_checks = self._counter(
            "ackgate_contact_inputs_checked_total",
            "Inputs passed to a client to be checked, by reason",
            ("account", "reason"),
        )
        former = {"reason": "why"}
        Former("ackgate_contact_checks", self.contact_checks, self.registry, labels=former)
        self.contact_failures = self._counter(
            "ackgate_contact_checks_failed_total",
            "Checks given up because no answer came",
            ("account",),
        )
        self.contact_refusals = self._counter(
            "ackgate_contact_checks_refused_total",
            "Requests for checks that were refused, and renewals that were left out, by reason",
            ("account", "reason"),
        )
        Former("ackgate_contact_refusals", self.contact_refusals, self.registry, labels=former)
        self.contacts_open = self._leaders(
            "ackgate_contact_checks_open", "Checks that wait for a result", ("account",)
        )
        self.budget_used = self._leaders(
            "ackgate_contact_budget_used_ratio",
            "The part of the budget of checks that is spent; 1 is all of it",
            ("account",),
        )
        self.budget_checks = self._leaders(
            "ackgate_contact_budget_checks",
            "Numbers checked within the budget's window",
            ("account",),
        )
        self.budget_messages = self._leaders(
            "ackgate_contact_budget_messages",
            "Messages within the budget's window, as callbacks report them",
            ("account",),
        )

    def _define_relays(self) -> None:
        self.relay_deliveries = self._counter(
            "ackgate_relay_deliveries_total", "Deliveries by result", ("relay", "result")
        )
        self.relay_seconds = self._histogram(
            "ackgate_relay_delivery_seconds", "One delivery", _CALLS, ("relay",)
        )
        self.relay_delay = self._histogram(
            "ackgate_relay_delay_seconds",
            "From the arrival of a callback to its first delivery with success",
            _CALLS,
            ("relay",),
        )
        self._deliveries: Callable[..., Counter] = cache(self.relay_deliveries.labels)
        self._delivery_seconds: Callable[..., Histogram] = cache(self.relay_seconds.labels)
        self._delivery_delay: Callable[..., Histogram] = cache(self.relay_delay.labels)
        self.relay_skipped = self._counter(
            "ackgate_relay_skipped_total",
            "Rows of the log that were deleted before they were delivered",
            ("relay",),
        )
        self.relay_behind = self._leaders(
            "ackgate_relay_behind", "Rows of the log that are still to be looked at", ("relay",)
        )
        self.relay_behind_seconds = self._leaders(
            "ackgate_relay_behind_seconds",
            "Age of the oldest row that is still to be delivered, 0 where there is none",
            ("relay",),
        )
        self.relay_rows = self._leaders(
            "ackgate_relay_rows",
            "Callbacks that failed while others passed, by state",
            ("relay", "state"),
        )
        self.relay_state = self._leaders(
            "ackgate_relay_state", "1 for the state that a relay is in", ("relay", "state")
        )

    def _define_alerts(self) -> None:
        self.alerts = self._counter(
            "ackgate_alerts_total",
            "Messages about issues, by the beginning of the URL and what became of them",
            ("scheme", "result"),
        )
        self.alerts_failing = self._leaders(
            "ackgate_alert_urls_failing", "URLs of alerts that did not take the last message"
        )

    def count_callback(self, account: str, result: str) -> None:
        """Count one callback; `account` is empty where it is of none."""
        self._callbacks(account, result).inc()

    def count_events(self, account: str, event: str, count: int = 1) -> None:
        """Count events that were read from a callback."""
        self._events(account, event).inc(count)

    def observe_request(self, route: str, status: int, seconds: float | None) -> None:
        """Observe one request to the API, by the pattern of its route; None for a stream's time."""
        self._requests(route, str(status)).inc()
        if seconds is not None:
            self._request_seconds(route).observe(seconds)

    def count_answers(self, account: str, results: Mapping[str, int]) -> None:
        """Count what the gate answered, by the number of recipients with each result."""
        for result, count in results.items():
            self._gate_answers(account, result).inc(count)

    def count_send(self, account: str, result: str) -> None:
        """Count a message that was to be sent through."""
        self._sends(account, result).inc()

    def observe_acknowledged(self, account: str, seconds: float) -> None:
        """Observe how long an identity had been known when it was acknowledged."""
        self._acknowledged_seconds(account).observe(seconds)

    def observe_commit(self, entries: int, seconds: float) -> None:
        """Observe one transaction."""
        self.commit_seconds.observe(seconds)
        self.commit_entries.observe(entries)

    def count_told(self, types: Iterable[str]) -> None:
        """Count events that were appended to the event log."""
        for type_ in types:
            self._told(type_).inc()

    def observe_call(self, account: str, operation: str, outcome: str, seconds: float) -> None:
        """Observe one call to a WhatsApp client."""
        self._calls(account, operation, outcome).inc()
        self._call_seconds(operation).observe(seconds)

    def observe_delivery(self, relay: str, result: str, seconds: float) -> None:
        """Observe one delivery of a relay."""
        self._deliveries(relay, result).inc()
        self._delivery_seconds(relay).observe(seconds)

    def observe_delivery_delay(self, relay: str, seconds: float) -> None:
        """Observe how long after its arrival a callback was delivered at the first try."""
        self._delivery_delay(relay).observe(seconds)

    def count_outcome(self, account: str, kind: str, outcome: str) -> None:
        """Count the outcome of a piece of leased work."""
        self._outcomes(account, kind, outcome).inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their media type: OpenMetrics where `Accept` names it."""
        named = (part.partition(";")[0].strip().lower() for part in accept.split(","))
        if "application/openmetrics-text" in named:
            # The library has no types for this one.
            text: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
