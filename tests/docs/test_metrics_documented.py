"""The page of metrics names each with its type and labels; no page names another."""

import re
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from service.observability.metrics import Metrics
from tests.docs.conftest import PAGES, bare, read, table

SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
}


def collectors() -> list[MetricWrapperBase]:
    registered: dict[str, Any] = Metrics().registry._names_to_collectors
    return [c for c in set(registered.values()) if isinstance(c, MetricWrapperBase)]


def known() -> dict[str, tuple[str, list[str]]]:
    found: dict[str, tuple[str, list[str]]] = {}
    for collector in collectors():
        kind = str(collector._type)
        suffix = "_total" if kind == "counter" else ""
        found[collector._name + suffix] = (kind, list(collector._labelnames))
    return found


def documented() -> dict[str, tuple[str, list[str]]]:
    rows = table(read("docs/metrics.md"), "metric", "type", "labels")
    return {bare(name): (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, *_ in rows}


def test_each_metric_is_documented_with_its_type_and_labels() -> None:
    assert documented() == known()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_a_page_names_exists(page: Any) -> None:
    named = set(re.findall(r"\backgate_[a-z_]+\b", page.read_text(encoding="utf-8")))
    samples = {c._name + suffix for c in collectors() for suffix in SUFFIXES[str(c._type)]}
    assert not named - samples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_label_in_a_query_exists(page: Any) -> None:
    labels = {name: labels for name, (_, labels) in known().items()}
    text = page.read_text(encoding="utf-8")
    for name, label in re.findall(r"\b(ackgate_[a-z_]+)\{(\w+)=", text):
        assert label in labels[name]
