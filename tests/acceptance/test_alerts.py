"""Alerts of the whole service reach a receiver by Apprise, and the command tries them out."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.app import StartError
from service.store.alerts import issues_alerted
from service.workers import alerts
from service.workers.alerts import channels_of
from tests.acceptance.commands import parsed, refused, run
from tests.acceptance.conftest import Install, Installation, toml, until
from tests.acceptance.sinks import Sink, sink
from tests.acceptance.test_issues import ENDPOINT, OFTEN, become
from tests.acceptance.test_reload import Captured, reload
from tests.acceptance.test_reload import refused as not_reloaded

SECRET = "a-path-that-nobody-may-see"


def url(of: Sink) -> str:
    return f"json://127.0.0.1:{of.port}/{SECRET}"


def urls_of(folder: Path, *sinks: Sink) -> dict[str, Any]:
    """Write the file of URLs; give the table of the configuration."""
    file = folder / "alert-urls"
    file.write_text("\n".join(["# who is told", *map(url, sinks)]) + "\n")
    return {"urls_file": str(file)}


def messages(of: Sink) -> list[str]:
    return [json.loads(body)["message"] for body in of.bodies]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause as little as a test can stand."""
    monkeypatch.setattr(alerts, "GROUP_SECONDS", 0.05)
    monkeypatch.setattr(alerts, "FIRST_PAUSE_SECONDS", 0.05)


async def told(made: Installation) -> set[str]:
    """Give the codes that the only destination was told of, as is kept."""
    assert made.service is not None
    assert made.service.context is not None
    context = made.service.context
    [channel] = channels_of(context.settings.alerts)
    query = partial(issues_alerted, destination=channel.id)
    return {code for _, code, _ in await context.database.read(query)}


async def is_told(made: Installation, *codes: str) -> None:
    async def so() -> bool:
        return await told(made) == set(codes)

    await until(so, what=f"told of {codes}")


async def test_what_is_wrong_is_told_once_over_a_restart_and_that_it_is_over(
    prepare: Install, tmp_path: Path, capsys: Captured
) -> None:
    async with sink() as pager:
        made = await prepare(**OFTEN, alerts=urls_of(tmp_path, pager))
        await made.start()
        made.sim.webhook_url = ENDPOINT
        await become(made)
        await is_told(made)
        before = len(pager.taken)
        made.sim.settings.callback_persist = False
        await is_told(made, "callback_persist_off")
        [raised] = messages(pager)[before:]
        assert "callback_persist_off (account main): callback_persist is off" in raised
        assert "What to do: run 'ackgate accounts setup main'" in raised
        await made.stop()
        await made.start()
        made.sim.webhook_url = ENDPOINT
        made.sim.settings.show_security_notifications = False
        made.sim.settings.callback_persist = True
        await is_told(made, "security_notifications_off")
        codes = ["callback_persist_off", "security_notifications_off"]
        later = "\n".join(messages(pager)[before + 1 :])
        assert later.count(f"{codes[0]} (account main):") == 0
        assert later.count(f"Cleared: {codes[0]} (account main)") == 1
        assert later.count(f"{codes[1]} (account main):") == 1
        _, metrics = await made.api("GET", "/metrics")
        assert 'ackgate_alerts_total{result="failed",scheme="json"} 0.0' in metrics
        assert "ackgate_alert_urls_failing 0.0" in metrics
        shown = capsys.readouterr()
        assert SECRET not in metrics + shown.out + shown.err


async def test_a_reload_changes_who_is_told(
    install: Install, tmp_path: Path, capsys: Captured
) -> None:
    async with sink() as pager:
        made = await install(**OFTEN)
        made.sim.settings.callback_persist = False
        assert await reload(made, alerts=urls_of(tmp_path, pager))
        await until(lambda: "callback_persist_off" in "".join(messages(pager)))
        bad = {"alerts": {"urls_file": None, "urls": "nonsense://host"}}
        line = await not_reloaded(made, capsys, bad)
        assert "alerts.urls: line 1 is not one URL that Apprise knows" in line
        assert await reload(made, alerts={"urls_file": None})
        assert made.leading.alerter.failing == 0
        taken = len(pager.hits)
        made.sim.settings.show_security_notifications = False
        asked = made.sim.calls.counts["settings"]
        await until(lambda: made.sim.calls.counts["settings"] > asked + 5)
        assert len(pager.hits) == taken


async def test_without_the_extra_a_start_is_refused_and_without_urls_it_is_not(
    prepare: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    made = await prepare(alerts={"pending_minutes": 5})
    with pytest.raises(StartError, match=r"^alerts\.urls: .*extra ackgate\[alerts\]"):
        await made.start(alerts={"urls": f"json://127.0.0.1/{SECRET}"})
    await made.start(alerts={"urls": None})


def written(folder: Path, table: dict[str, Any]) -> str:
    file = folder / "ackgate.toml"
    file.write_text(toml({"alerts": table}))
    return str(file)


async def test_the_command_sends_one_alert_to_each_url_and_says_which_went_out(
    tmp_path: Path,
) -> None:
    async with sink() as pager, sink(lambda _: 500) as broken:
        config = written(tmp_path, urls_of(tmp_path, pager))
        result = await run("alerts", "test", "--config", config)
        assert result.stdout.splitlines()[-1].split() == ["2", "json", "sent"]
        assert len(pager.taken) == 1
        assert "Nothing is wrong" in messages(pager)[0]

        config = written(tmp_path, urls_of(tmp_path, broken, pager))
        result = await run("alerts", "test", "--json", "--config", config, expect=1)
        assert parsed(result) == {
            "items": [
                {"line": 2, "scheme": "json", "sent": False},
                {"line": 3, "scheme": "json", "sent": True},
            ]
        }
        assert result.stderr == "ackgate: 1 of 2 did not go out\n"
        assert (len(broken.hits), len(pager.hits)) == (1, 2)
        for part in (SECRET, str(pager.port), str(broken.port)):
            assert part not in result.output


async def test_what_the_command_can_not_do_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, {})
    assert "alerts.urls_file is not set" in await refused("alerts", "test", "--config", config)
    config = written(tmp_path, {"urls": f"nonsense://{SECRET}"})
    for words, status in ((("alerts", "test"), 1), (("check-config",), 2)):
        said = await refused(*words, "--config", config, expect=status)
        assert said.startswith("alerts.urls: line 1 is not one URL that Apprise knows")
        assert SECRET not in said
    config = written(tmp_path, {"urls": f"json://{SECRET}"})
    monkeypatch.setitem(sys.modules, "apprise", None)
    for words, status in ((("alerts", "test"), 1), (("check-config",), 2)):
        said = await refused(*words, "--config", config, expect=status)
        assert "ackgate[alerts]" in said
