"""A metric that got another name is shown under the former one too, for one release."""

from typing import get_args

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from service.model.events import WIRE_NAMES, Event
from service.observability.metrics import FORMER_EVENTS, Metrics
from service.webhooks.handler import OTHER


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_text_is_returned_to_who_names_no_format(metrics: Metrics) -> None:
    for accept in ("", "*/*", "text/plain;version=0.0.4", "application/json"):
        text, media_type = metrics.render(accept)
        assert media_type.startswith("text/plain; version=")
        assert b"# EOF" not in text


def test_openmetrics_is_returned_to_who_asks_for_it(metrics: Metrics) -> None:
    metrics.count_callback("main", "applied")
    asked = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*"
    text, media_type = metrics.render(asked)
    assert media_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {each.name: each for each in openmetrics_families(text.decode())}
    known = {each.name for each in text_string_to_metric_families(metrics.render()[0].decode())}
    assert families.keys() <= known
    counted = families["ackgate_callbacks"].samples[0]
    assert (counted.name, counted.value) == ("ackgate_callbacks_total", 1)


def test_a_renamed_counter_counts_under_both_names(metrics: Metrics) -> None:
    metrics.rule_failures.inc()
    shown = samples(metrics)
    assert shown["ackgate_rule_failures_total", ()] == 1
    assert shown["ackgate_poisoned_total", ()] == 1


def test_a_renamed_gauge_has_its_value_under_both_names(metrics: Metrics) -> None:
    metrics.write_queue.set(7)
    shown = samples(metrics)
    assert shown["ackgate_write_queue_length", ()] == 7
    assert shown["ackgate_ledger_waiting", ()] == 7


def test_a_renamed_label_keeps_its_name_under_the_former_one(metrics: Metrics) -> None:
    metrics.contact_checks.labels("main", "asked").inc(2)
    metrics.contact_refusals.labels("main", "budget").inc()
    shown = samples(metrics)
    new, former = (
        (("account", "main"), ("reason", "asked")),
        (("account", "main"), ("why", "asked")),
    )
    assert shown["ackgate_contact_inputs_checked_total", new] == 2
    assert shown["ackgate_contact_checks_total", former] == 2
    refused = (("account", "main"), ("why", "budget"))
    assert shown["ackgate_contact_refusals_total", refused] == 1


@pytest.mark.parametrize(("event", "former"), FORMER_EVENTS.items())
def test_an_event_has_its_former_value_under_the_former_name(
    metrics: Metrics, event: str, former: str
) -> None:
    metrics.count_events("main", event)
    shown = samples(metrics)
    assert shown["ackgate_callback_events_total", (("account", "main"), ("event", event))] == 1
    assert shown["ackgate_events_total", (("account", "main"), ("event", former))] == 1


def test_each_event_has_a_former_value() -> None:
    assert WIRE_NAMES.keys() == set(get_args(Event))
    assert FORMER_EVENTS.keys() == {*WIRE_NAMES.values(), OTHER}


def test_a_former_name_is_marked_as_deprecated(metrics: Metrics) -> None:
    text = metrics.render()[0].decode()
    for name, new in (
        ("ackgate_poisoned_total", "ackgate_rule_failures_total"),
        ("ackgate_ledger_waiting", "ackgate_write_queue_length"),
    ):
        assert f"# HELP {name} Deprecated, goes with the next release: read {new}\n" in text
