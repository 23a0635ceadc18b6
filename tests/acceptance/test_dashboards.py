"""The alerts and the dashboard ask for metrics and labels that a running service has."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.simulator import certificate
from tests.acceptance import webhooks
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    SHEENA,
    USER_ID,
    CloudInstallation,
    OpenShop,
    until,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/ackgate.rules.yml"
DASHBOARD = DEPLOY / "grafana/ackgate.json"
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds."""
_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"\b((?:ackgate_|up\b)\w*)(?:{{((?:[^}}\"]|{_STRING})*)}})?")
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")

Samples = Mapping[str, list[dict[str, str]]]


class Query(NamedTuple):
    """What is asked of Prometheus, where, and which labels its legend shows."""

    place: str
    text: str
    legend: str = ""


def alerts() -> Iterator[Query]:
    rule = re.compile(r"- alert: (\w+)\n +expr: (.+)\n")
    for name, text in rule.findall(RULES.read_text(encoding="utf-8")):
        yield Query(name, text)


def panels() -> Iterator[Query]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield Query(panel["title"], target["expr"], target["legendFormat"])
    for each in dashboard["annotations"]["list"]:
        yield Query(each["name"], each["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert found is not None
            assert variable["query"]["query"] == variable["definition"]
            yield Query(variable["name"], found[1], f"{{{{{found[2]}}}}}")


QUERIES = [*alerts(), *panels()]


def faults(query: Query, samples: Samples) -> Iterator[str]:
    """Give what a query asks for and the service does not have."""
    labels = set(OF_PROMETHEUS)
    for name, matchers in _SELECTOR.findall(query.text):
        if name == "up":
            continue
        if name not in samples:
            yield f"no metric {name}"
            continue
        own = {label for sample in samples[name] for label in sample}
        labels |= own
        for label, operator, quoted in _MATCHER.findall(matchers):
            value = json.loads(quoted)
            values = {sample.get(label) for sample in samples[name]}
            if label not in own | OF_PROMETHEUS:
                yield f"{name} has no label {label}"
            elif operator in {"=", "!="} and label in own and value not in values:
                yield f"{name} has no {label} {value!r}"
    kept = [
        label
        for group in re.findall(r"\bby \(([^)]*)\)", query.text)
        for label in group.split(", ")
    ]
    for label in [*kept, *re.findall(r"{{(\w+)}}", query.legend)]:
        if label not in labels:
            yield f"no label {label}"
    if kept:
        yield from (
            f"{label} is summed away"
            for label in re.findall(r"{{(\w+)}}", query.legend)
            if label not in kept
        )


async def scraped(made: CloudInstallation) -> Samples:
    status, text = await made.api("GET", "/metrics")
    assert status == 200
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.fixture
async def worked(open_shop: OpenShop, tmp_path: Path) -> CloudInstallation:
    """A service with TLS that has done some of everything, and has some work left."""
    files = certificate.Files(tmp_path / "tls")
    certificate.ensure(tmp_path / "tls")
    tls = {"tls_cert_file": files.cert, "tls_key_file": files.key}
    relays = {"crm": {"url": "http://127.0.0.1:9"}}  # nothing listens there
    made = await open_shop(server={**tls, "internal": {"port": 0}}, relays=relays)
    made.tls = False
    made.sim.settings.show_security_notifications = False
    main = made.of("main")
    await main.acknowledge(await made.change(), query="?wait=10")
    made.sim.fault("identity_put", status=503)
    await main.acknowledge(await made.change(OTHER_ID), OTHER_ID)
    raw = json.dumps(webhooks.wrote(HASH_A, user_id=USER_ID, wa_id=SHEENA)).encode()
    assert await made.deliver_signed(raw) == 200
    await made.gate(SHEENA)
    return made


async def test_every_query_of_alerts_and_dashboard_finds_its_metrics_and_labels(
    worked: CloudInstallation,
) -> None:
    samples: Samples = {}

    async def something_is_wrong_and_something_left() -> bool:
        nonlocal samples
        samples = await scraped(worked)
        return {"ackgate_issues", "ackgate_outbox"} <= samples.keys()

    await until(something_is_wrong_and_something_left)
    found = {query.place: wrong for query in QUERIES if (wrong := [*faults(query, samples)])}
    assert not found


@pytest.mark.parametrize(
    ("query", "legend", "fault"),
    [
        ("rate(ackgate_nothing_total[5m])", "", "no metric ackgate_nothing_total"),
        ('ackgate_outbox{who="x"}', "", "ackgate_outbox has no label who"),
        ('ackgate_outbox{account="x"} > 0', "", "ackgate_outbox has no account 'x'"),
        ("sum by (account, who) (ackgate_outbox)", "", "no label who"),
        ("ackgate_outbox", "{{who}}", "no label who"),
        ("sum by (account) (ackgate_outbox)", "{{kind}}", "kind is summed away"),
    ],
)
def test_a_query_for_what_is_not_there_is_found(query: str, legend: str, fault: str) -> None:
    samples = {"ackgate_outbox": [{"account": "main", "kind": "ask"}]}
    assert list(faults(Query("here", query, legend), samples)) == [fault]
    right = 'sum by (account) (ackgate_outbox{kind=~"ask|x",instance="$instance"}) or up{job="x"}'
    assert not list(faults(Query("here", right, "{{account}}"), samples))
