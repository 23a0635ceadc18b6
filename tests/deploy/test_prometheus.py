"""The alerts: right by promtool, each tried, and told of in the documentation as they are."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import installed
from tests.docs.conftest import ROOT, bare, read, table
from tests.docs.test_pages import anchors

FOLDER = Path(__file__).parents[2] / "deploy/prometheus"
RULES = FOLDER / "ackgate.rules.yml"
TESTS = FOLDER / "ackgate.rules.test.yml"
_RULE = re.compile(
    r"- alert: (\w+)\n +expr: (.+)\n +for: (\w+)\n +labels:\n +severity: (\w+)\n"
    r" +annotations:\n +summary: (.+)\n +runbook: (.+)\n"
)


def rules() -> list[tuple[str, ...]]:
    """Give of each alert its name, query, time, severity, summary and page."""
    text = RULES.read_text(encoding="utf-8")
    found = _RULE.findall(text)
    assert len(found) == text.count("- alert:")
    return found


@pytest.mark.tools
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", [("check", "rules", RULES), ("test", "rules", TESTS)])
def test_promtool_finds_no_fault(command: tuple[str | Path, ...]) -> None:
    ran = subprocess.run(
        [installed("promtool"), *command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_is_tried_once_where_it_fires_and_once_where_it_does_not() -> None:
    text = TESTS.read_text(encoding="utf-8")
    tried = re.findall(r"- name: (\w+) (fires|stays quiet)\n", text)
    wanted = {(name, how) for name, *_ in rules() for how in ("fires", "stays quiet")}
    assert sorted(tried) == sorted(wanted)
    for name, how, rest in re.findall(r"- name: (\w+) (fires|stays quiet)\n((?:    .*\n)+)", text):
        assert f"alertname: {name}\n" in rest
        assert ("exp_alerts:" in rest) is (how == "fires")


def test_the_documentation_has_each_alert_as_it_is_and_no_other() -> None:
    rows = table(read("docs/operations.md"), "alert", "PromQL", "for", "severity")
    told = [(bare(name), bare(query), time, severity) for name, query, time, severity, *_ in rows]
    known = [(name, query, time, severity) for name, query, time, severity, *_ in rules()]
    assert told == [(n, q, "at once" if t == "0m" else t, s) for n, q, t, s in known]


def test_each_alert_leads_to_what_the_documentation_says_of_it() -> None:
    for name, *_, runbook in rules():
        page, _, anchor = runbook.partition("#")
        assert anchor in anchors((ROOT / page).read_text(encoding="utf-8")), name
