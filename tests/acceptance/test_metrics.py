"""What Prometheus reads of a running service: times, the gate, callbacks, files, the process."""

import asyncio
import logging
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from service.observability.logging import configure
from service.observability.metrics import Metrics
from service.observability.writer import MAX_WAITING
from service.simulator import certificate
from tests.acceptance import webhooks
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    SHEENA,
    TOKEN,
    USER_ID,
    WA_ID,
    Caller,
    CloudInstallation,
    Install,
    Installation,
)


async def shown(caller: Caller, name: str, **labels: str) -> list[float]:
    """Give every value of a metric that has these labels."""
    status, text = await caller.api("GET", "/metrics")
    assert status == 200
    return [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


async def test_the_release_and_its_process_are_shown(manual: Installation) -> None:
    python = platform.python_version()
    assert await shown(manual, "ackgate_build_info", version=__version__, python=python) == [1]
    (memory,) = await shown(manual, "ackgate_process_resident_memory_bytes")
    assert memory > 1_000_000
    (started,) = await shown(manual, "ackgate_process_start_time_seconds")
    assert started < time.time()


async def test_others_are_answered_while_the_metrics_are_written(
    manual: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_being_written, may_go_on = threading.Event(), threading.Event()
    render = Metrics.render

    def wait_and_render(metrics: Metrics, accept: str = "") -> tuple[bytes, str]:
        is_being_written.set()
        assert may_go_on.wait(10), "nobody else was answered"
        return render(metrics, accept)

    monkeypatch.setattr(Metrics, "render", wait_and_render)
    scrape = asyncio.create_task(manual.api("GET", "/metrics"))
    await asyncio.to_thread(is_being_written.wait, 30)
    assert (await manual.api("GET", "/health/live"))[0] == 200
    may_go_on.set()
    assert (await scrape)[0] == 200


async def test_openmetrics_is_answered_to_who_asks_for_it(manual: Installation) -> None:
    await manual.change()
    asked = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
    status, text, headers = await manual.call("GET", "/metrics", headers=asked)
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "ackgate_callbacks" in {family.name for family in openmetrics_families(text)}
    _, _, headers = await manual.call("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=")


async def test_the_time_of_each_request_is_shown_by_the_pattern_of_its_route(
    manual: Installation,
) -> None:
    await manual.change()
    for _ in range(2):
        await manual.identity()
    await manual.gate()
    identity = "GET /api/v1/accounts/{account}/identities/{user}"
    assert await shown(manual, "ackgate_request_seconds_count", route=identity) == [2]
    gate = "GET /api/v1/accounts/{account}/recipients/{user}"
    assert await shown(manual, "ackgate_request_seconds_count", route=gate) == [1]
    assert await shown(manual, "ackgate_gate_seconds_count") == [1]
    _, text = await manual.api("GET", "/metrics")
    assert WA_ID not in text


async def answers(made: Installation) -> dict[str, float]:
    """Give how often the gate answered what."""
    kinds = ("sendable", "not_sendable", "no_recipient", "unavailable")
    found = {}
    for kind in kinds:
        labels = {"account": made.account, "result": kind}
        (found[kind],) = await shown(made, "ackgate_gate_answers_total", **labels)
    return found


async def test_what_the_gate_answers_is_counted_for_each_recipient(manual: Installation) -> None:
    assert set((await answers(manual)).values()) == {0}
    await manual.change()
    assert (await manual.gate())["sendable"] is False
    asked = [WA_ID, OTHER_ID, "no number", *(f"1631444{n:04}" for n in range(100))]
    status, _ = await manual.api("POST", "/accounts/main/recipients/lookup", {"recipients": asked})
    assert status == 200
    assert await answers(manual) == {
        "sendable": 101, "not_sendable": 2, "no_recipient": 1, "unavailable": 0,
    }  # fmt: skip
    status, _ = await manual.api("GET", f"/accounts/main/recipients/{WA_ID}?wait=0.1")
    assert status == 200
    assert (await answers(manual))["not_sendable"] == 3


async def test_the_time_of_each_answer_of_the_gate_is_shown(manual: Installation) -> None:
    assert await shown(manual, "ackgate_gate_seconds_count") == [0]
    await manual.gate()
    assert await shown(manual, "ackgate_gate_seconds_count") == [1]
    asked = {"recipients": [WA_ID, OTHER_ID]}
    status, _ = await manual.api("POST", "/accounts/main/recipients/lookup", asked)
    assert status == 200
    assert await shown(manual, "ackgate_gate_seconds_count") == [2]
    (seconds,) = await shown(manual, "ackgate_gate_seconds_sum")
    assert seconds > 0


async def test_a_gate_that_could_not_answer_is_counted(manual: Installation) -> None:
    await manual.write("ALTER TABLE aliases RENAME TO elsewhere")
    try:
        status, _ = await manual.api("GET", f"/accounts/main/recipients/{WA_ID}")
        assert status == 503
        assert (await answers(manual))["unavailable"] == 1
    finally:
        await manual.write("ALTER TABLE elsewhere RENAME TO aliases")


async def test_the_time_to_an_acknowledgement_is_shown_by_account(
    shop: CloudInstallation,
) -> None:
    main = shop.of("main")
    assert await shown(shop, "ackgate_acknowledged_seconds_count", account="main") == [0]
    hash_ = await shop.change()
    shop.pass_time(120)
    status, _ = await main.acknowledge(hash_, query="?wait=10")
    assert status == 200
    assert await shown(shop, "ackgate_acknowledged_seconds_count", account="main") == [1]
    (seconds,) = await shown(shop, "ackgate_acknowledged_seconds_sum", account="main")
    assert 120 <= seconds < 180
    assert await shown(shop, "ackgate_acknowledged_seconds_count", account="shop") == [0]


async def test_when_the_last_callback_of_each_account_came_is_shown_after_a_restart_too(
    shop: CloudInstallation,
) -> None:
    name = "ackgate_last_callback_timestamp_seconds"
    assert await shown(shop, name) == []
    begun = time.time()
    await shop.come(webhooks.wrote(HASH_A, user_id=USER_ID, wa_id=SHEENA))
    (at,) = await shown(shop, name)
    assert begun - 1 < at < time.time() + 1
    await shop.stop()
    await shop.start()
    assert await shown(shop, name, account="shop") == [at]


async def test_wrong_and_missing_signatures_are_counted_by_app(shop: CloudInstallation) -> None:
    name = "ackgate_signature_failures_total"
    assert await shown(shop, name, app="meta") == [0]
    assert await shop.deliver_signed(b"{}", "0" * 32) == 401
    assert await shop.post(b"{}", path="/webhooks/meta") == 401
    assert await shop.post(b"{}", path=f"/webhooks/nobody/{TOKEN}") == 404
    assert await shown(shop, name, app="meta") == [2]


def end_of(certificate: str) -> float:
    own = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    return own.not_valid_after_utc.timestamp()


async def test_the_end_of_the_certificate_is_shown(install: Install, tmp_path: Path) -> None:
    files = certificate.Files(tmp_path / "tls")
    certificate.ensure(tmp_path / "tls")
    tls = {"tls_cert_file": files.cert, "tls_key_file": files.key}
    made = await install(server={**tls, "internal": {"port": 0}})
    port = made.base.rpartition(":")[2]
    name = "ackgate_certificate_expiry_timestamp_seconds"
    assert await shown(made, name, port=port) == [end_of(files.cert)]


async def test_without_a_certificate_none_ends(manual: Installation) -> None:
    assert await shown(manual, "ackgate_certificate_expiry_timestamp_seconds") == []


def back_up(made: Installation, target: Path) -> int:
    """Run `ackgate db backup`; give its exit code."""
    command = (sys.executable, "-m", "service", "db", "backup", str(target))
    config = ("--config", str(made.folder / "ackgate.toml"))
    return subprocess.run((*command, *config), check=False, capture_output=True).returncode


@pytest.mark.sqlite
async def test_the_age_of_the_last_backup_is_shown_and_infinite_where_there_is_none(
    manual: Installation,
) -> None:
    assert await shown(manual, "ackgate_backup_age_seconds") == [math.inf]
    assert back_up(manual, manual.folder / "copy.db") == 0
    manual.pass_time(3600)
    (age,) = await shown(manual, "ackgate_backup_age_seconds")
    assert 3600 <= age < 3700


@pytest.mark.sqlite
async def test_a_backup_that_failed_is_none(manual: Installation) -> None:
    assert back_up(manual, manual.folder / "no such folder" / "copy.db") == 1
    assert await shown(manual, "ackgate_backup_age_seconds") == [math.inf]


@pytest.mark.sqlite
async def test_the_size_of_the_write_ahead_log_is_shown(manual: Installation) -> None:
    (before,) = await shown(manual, "ackgate_write_ahead_log_bytes")
    await manual.change()
    (after,) = await shown(manual, "ackgate_write_ahead_log_bytes")
    log = manual.database.with_name("ackgate.db-wal")
    assert 0 < before < after == log.stat().st_size


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A logger of the service, whose lines go into a pipe that nobody reads."""
    reading, writing = os.pipe()
    root, ours = logging.getLogger(), logging.getLogger("service")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    with open(writing, "w") as stream:  # noqa: PTH123  of a descriptor
        monkeypatch.setattr(sys, "stderr", stream)
        configure("info", "json")
        yield structlog.get_logger("service.unread")
        os.close(reading)
    structlog.reset_defaults()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.raiseExceptions = before[3]


async def test_log_lines_that_nobody_read_are_counted(unread: Any, install: Install) -> None:
    made = await install()
    assert await shown(made, "ackgate_log_lines_dropped_total") == [0]
    for _ in range(3 * MAX_WAITING):
        unread.warning("a line that is long enough to fill a pipe soon")
    (dropped,) = await shown(made, "ackgate_log_lines_dropped_total")
    assert 0 < dropped < 3 * MAX_WAITING
