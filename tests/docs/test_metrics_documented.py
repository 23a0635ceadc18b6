"""The page of metrics names each with its type and labels; no page names another."""

import re
from typing import Any

import pytest
from prometheus_client import ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from service.observability.metrics import Former, Metrics, OfLeader
from tests.docs.conftest import PAGES, bare, read, table

SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
}


def collectors() -> list[tuple[str, str, list[str]]]:
    """Return the name, the type and the labels of each metric."""
    registered: dict[Any, Any] = Metrics().registry._collector_to_names
    found: list[tuple[str, str, list[str]]] = [
        (f.name, f.type, []) for f in ProcessCollector("ackgate", registry=None).collect()
    ]
    shown = [one for one in registered if not isinstance(one, OfLeader)]
    for collector in [*shown, *Metrics().of_leader.metrics]:
        if isinstance(collector, ProcessCollector):
            continue
        metric = collector.metric if isinstance(collector, Former) else collector
        assert isinstance(metric, MetricWrapperBase)
        name, labels = metric._name, list(metric._labelnames)
        if isinstance(collector, Former):
            name = collector.name
            labels = [collector.labels.get(label, label) for label in labels]
        found.append((name, str(metric._type), labels))
    return found


def known() -> dict[str, tuple[str, list[str]]]:
    return {
        name + ("_total" if kind == "counter" else ""): (kind, labels)
        for name, kind, labels in collectors()
    }


def documented() -> dict[str, tuple[str, list[str]]]:
    rows = table(read("docs/metrics.md"), "metric", "type", "labels")
    return {bare(name): (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, *_ in rows}


def test_each_metric_is_documented_with_its_type_and_labels() -> None:
    assert documented() == known()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_a_page_names_exists(page: Any) -> None:
    named = set(re.findall(r"\backgate_[a-z_]+\b", page.read_text(encoding="utf-8")))
    samples = {name + suffix for name, kind, _ in collectors() for suffix in SUFFIXES[kind]}
    assert not named - samples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_label_in_a_query_exists(page: Any) -> None:
    labels = {name: labels for name, (_, labels) in known().items()}
    text = page.read_text(encoding="utf-8")
    for name, label in re.findall(r"\b(ackgate_[a-z_]+)\{(\w+)=", text):
        assert label in labels[name]


def test_every_former_name_is_documented_as_deprecated() -> None:
    former = {c.name for c in Metrics().registry._collector_to_names if isinstance(c, Former)}
    deprecated = {
        bare(row[0]) for row in table(read("docs/metrics.md"), "metric", "type", "labels", "read")
    }
    assert former <= {name.removesuffix("_total") for name in deprecated}


def test_the_page_says_which_metrics_the_leader_alone_shows() -> None:
    text = read("docs/metrics.md").partition("## With several replicas\n")[2].partition("\n## ")[0]
    listed = text[text.index("\n* ") :]
    of_leader = [metric._name for metric in Metrics().of_leader.metrics]  # type: ignore[attr-defined]
    assert sorted(re.findall(r"`(ackgate_\w+)`", listed)) == sorted(of_leader)
