"""Faults of the disk, the clock and the client: the promised outcome, and a metric that shows it.

| fault | outcome | metric |
|---|---|---|
| disk full, read-only, locked, I/O error | 503, nothing in effect, recovers | commit_failures |
| read-only at the start | one line, exit code 1 | none: nothing runs |
| a worker that fails, the clock forward | the lease ends, a GET comes first | outcomes |
| the clock back | new work at once, and what waited for another try | overdue, identities |
| the client down, flapping, slow | tried without end, never failed | reachable, outcomes |
"""

import asyncio
import ctypes
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, select

from service.api import health
from service.ledger.leases import Lease
from service.simulator import Simulator
from service.store.database import Database, wall_clock
from service.store.schema import journal, outbox, users
from service.store.sqlite import SQLiteDatabase
from service.workers.worker import Worker
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    TOKEN,
    WA_ID,
    Caller,
    Child,
    Install,
    Installation,
    Json,
    Spawn,
    Start,
    blocked,
    notice,
    tree_for,
    until,
)

AUTO = {"mode": "auto", "max_changes": 1000}
HOUR, DAY = 3600, 86_400
LONGEST_PAUSE_MS = 300_000
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
async def made(install: Install) -> Installation:
    return await install(policy=AUTO)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.worker.DATABASE_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("service.workers.worker.RENEW_EVERY_SECONDS", 0.02)


async def metric(caller: Caller, name: str, **labels: str) -> float:
    """Give a metric as Prometheus reads it: the sum over the labels that aren't named."""
    status, text = await caller.api("GET", "/metrics")
    assert status == 200
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def database_of(made: Installation) -> Database:
    assert made.service is not None
    assert made.service.context is not None
    return made.service.context.database


async def set_on_writer(made: Installation, pragma: str) -> None:
    """Set a pragma on the connection that writes."""
    await pragma_of(made, pragma)


async def pragma_of(made: Installation, pragma: str) -> list[Any]:
    database = database_of(made)
    assert isinstance(database, SQLiteDatabase)
    async with database._writer.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        return [*await driver.execute_fetchall(f"PRAGMA {pragma}")]


async def work_of(made: Installation) -> list[Any]:
    def load(connection: Connection) -> list[Any]:
        return list(connection.execute(select(outbox)).all())

    return await database_of(made).read(load)


async def journalled(made: Installation) -> int:
    def load(connection: Connection) -> int:
        return len(connection.execute(select(journal.c.id)).all())

    return await database_of(made).read(load)


def large(wa_id: str, hash_: str) -> Json:
    """Write a notification that needs some pages of its own."""
    return notice(wa_id, hash_, wall_clock()) | {"padding": "x" * 50_000}


async def assert_refused(caller: Caller, body: Json) -> None:
    """The sender is told to deliver it again, and none of it is in effect."""
    url = f"{caller.base}/webhooks/main/{TOKEN}"
    before = await metric(caller, "ackgate_callbacks_total", result="not_stored")
    failures = await metric(caller, "ackgate_commit_failures_total")
    async with caller.http.post(url, json=body) as response:
        assert response.status == 503
        assert 0 < int(response.headers["Retry-After"]) <= 60
    assert await metric(caller, "ackgate_callbacks_total", result="not_stored") == before + 1
    assert await metric(caller, "ackgate_commit_failures_total") > failures
    assert await caller.identity(body["messages"][0]["from"]) == {}


async def assert_ready(caller: Caller, *, able: bool) -> None:
    status, answer = await caller.api("GET", "/health/ready")
    assert status == (200 if able else 503)
    assert answer["checks"]["database"]["status"] == ("pass" if able else "fail")


class TestTheDisk:
    @pytest.mark.sqlite
    async def test_a_full_disk_refuses_what_does_not_fit_and_goes_on_once_there_is_room(
        self, made: Installation
    ) -> None:
        await made.change()
        await made.becomes("acknowledged")
        kept = await journalled(made)
        await set_on_writer(made, "max_page_count = 1")
        body = large("16315554001", HASH_A)
        await assert_refused(made, body)
        await assert_refused(made, body)
        assert await journalled(made) == kept
        assert await made.state() == "acknowledged"
        await set_on_writer(made, "max_page_count = 1000000")
        made.sim.change_identity("16315554001", HASH_A, notify=False)
        await made.deliver(body)
        await made.becomes("acknowledged", "16315554001")
        await assert_ready(made, able=True)
        assert await metric(made, "ackgate_identities", state="acknowledged") == 2

    @pytest.mark.sqlite
    async def test_on_a_nearly_full_disk_it_is_not_ready_until_the_largest_callback_would_fit(
        self, install: Install
    ) -> None:
        made = await install(server={"max_body_bytes": 200_000})
        await made.change()
        (pages,) = (await pragma_of(made, "page_count"))[0]
        await set_on_writer(made, f"max_page_count = {pages + 8}")
        await assert_refused(made, large("16315554001", HASH_A))
        for _ in range(3):
            await assert_ready(made, able=False)
            await made.deliver(blocked("16315554002"))
        await set_on_writer(made, "max_page_count = 1000000")
        await assert_ready(made, able=True)
        await made.deliver(large("16315554001", HASH_A))
        await assert_ready(made, able=True)

    @pytest.mark.sqlite
    async def test_little_room_on_the_disk_is_a_warning_and_a_metric(
        self, made: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def disk() -> Any:
            return (await made.api("GET", "/health/status"))[1]["checks"]["disk"]

        monkeypatch.setattr(health, "LOW_DISK_BYTES", 1)
        assert (await disk())["status"] == "pass"
        assert await metric(made, "ackgate_disk_free_bytes") > 0
        monkeypatch.setattr(health, "LOW_DISK_BYTES", 2**62)
        assert (await disk())["status"] == "warn"
        await assert_ready(made, able=True)

    @pytest.mark.sqlite
    async def test_a_database_that_turns_read_only_refuses_and_is_still_read(
        self, made: Installation
    ) -> None:
        await made.change()
        await made.becomes("acknowledged")
        await set_on_writer(made, "query_only = ON")
        hash_ = made.sim.change_identity("16315554001", notify=False)
        body = notice("16315554001", hash_, made.sim.users["16315554001"].created_timestamp)
        await assert_refused(made, body)
        await assert_ready(made, able=False)
        assert await made.state() == "acknowledged"
        assert await made.reasons() == []
        await set_on_writer(made, "query_only = OFF")
        await assert_ready(made, able=True)
        await made.deliver(body)
        await made.becomes("acknowledged", "16315554001", hash_)

    @pytest.mark.usefixtures("impatient")
    @pytest.mark.parametrize("lease_ends", [False, True])
    async def test_what_a_put_came_to_is_written_once_the_database_can_be(
        self, made: Installation, lease_ends: bool
    ) -> None:
        made.sim.fault("identity_put", latency=0.1, times=1)
        await made.change()
        await made.put_under_way()
        async with made.locked():
            await until(lambda: made.puts() == ["acknowledged"])
            await _has_failed(made)
            if lease_ends:
                made.pass_time(11)
                await _has_failed(made)
        await made.becomes("acknowledged")
        outcome = "not_ours" if lease_ends else "accepted"
        await until(lambda: _above(made, "ackgate_outcomes_total", 0, outcome=outcome))
        assert made.puts() == ["acknowledged"]
        assert made.gets() == int(lease_ends)

    @pytest.mark.sqlite
    async def test_a_read_only_file_at_the_start_is_one_line_and_nothing_half_started(
        self, made: Installation
    ) -> None:
        await made.change()
        await made.becomes("acknowledged")
        await made.stop()
        made.database.chmod(0o400)
        code, said = await _run_without_rights(made.written())
        assert code == 1
        assert len(said.splitlines()) == 1
        assert str(made.database) in said
        assert "Permission denied" in said
        made.database.chmod(0o600)
        await made.start()
        assert await made.state() == "acknowledged"

    @pytest.mark.usefixtures("impatient")
    async def test_a_locked_database_refuses_after_its_patience_and_recovers(
        self, made: Installation
    ) -> None:
        await made.change()
        await made.becomes("acknowledged")
        hash_ = made.sim.change_identity("16315554001", notify=False)
        body = notice("16315554001", hash_, made.sim.users["16315554001"].created_timestamp)
        async with made.locked():
            began = time.monotonic()
            await assert_refused(made, body)
            assert time.monotonic() - began > 0.1
            await assert_ready(made, able=False)
            assert await made.state() == "acknowledged"
        await made.deliver(body)
        await made.becomes("acknowledged", "16315554001", hash_)
        await assert_ready(made, able=True)

    async def test_a_short_lock_is_waited_for(self, made: Installation) -> None:
        async with made.locked():
            delivered = asyncio.create_task(made.change())
            await asyncio.sleep(0.3)
            assert not delivered.done()
        await delivered
        await made.becomes("acknowledged")
        assert await metric(made, "ackgate_commit_failures_total") == 0

    @pytest.mark.sqlite
    async def test_an_io_error_in_mid_transaction_leaves_nothing_of_it(
        self, simulate: Start, spawn: Spawn, tmp_path: Path
    ) -> None:
        """The kernel lets the process write only the first of the pages of a transaction."""
        sim = await simulate()
        child = await spawn(tree_for(sim, tmp_path) | {"policy": AUTO})
        await _change(child, sim, WA_ID)
        await child.becomes("acknowledged")
        log = tmp_path / "ackgate.db-wal"
        bodies = [large(f"1631555400{number}", HASH_A) for number in range(3)]
        with file_size_limited(child, log.stat().st_size + 6000):
            for body in bodies:
                await assert_refused(child, body)
            await assert_ready(child, able=False)
            assert await child.state() == "acknowledged"
        await assert_ready(child, able=True)
        for number, body in enumerate(bodies):
            sim.change_identity(f"1631555400{number}", HASH_A, notify=False)
            await child.deliver(body)
            await child.becomes("acknowledged", f"1631555400{number}")
        assert await metric(child, "ackgate_identities", state="acknowledged") == 4
        await child.kill()
        with closing(sqlite3.connect(tmp_path / "ackgate.db")) as left:
            assert left.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            twice = "SELECT 1 FROM audit WHERE event = 'changed' GROUP BY hash, user_id"
            assert len(left.execute(twice).fetchall()) == 4


async def _has_failed(made: Installation) -> None:
    """Wait until a commit has failed that has begun since, and so at the time that it is by now."""
    failures = await metric(made, "ackgate_commit_failures_total")
    await until(lambda: _above(made, "ackgate_commit_failures_total", failures + 1))


async def _above(caller: Caller, name: str, value: float, **labels: str) -> bool:
    return await metric(caller, name, **labels) > value


async def _change(child: Child, sim: Simulator, wa_id: str) -> None:
    hash_ = sim.change_identity(wa_id, notify=False)
    await child.deliver(notice(wa_id, hash_, sim.users[wa_id].created_timestamp))


def _drop_rights() -> None:
    """Let a file's permissions hold for root, too; of no effect for others."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


async def _run_without_rights(config: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "serve", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_drop_rights,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, said.decode()


@contextmanager
def file_size_limited(child: Child, size: int) -> Iterator[None]:
    assert child.process is not None
    pid, which = child.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (size, before[1]))
    yield
    resource.prlimit(pid, which, before)


class TestLeases:
    async def test_the_lease_of_a_worker_that_failed_in_mid_work_ends(
        self, made: Installation
    ) -> None:
        worker = _worker(made)
        perform = worker._perform

        async def fail(task: Lease) -> Any:
            await perform(task)
            worker._perform = perform
            raise RuntimeError("a fault in a worker")

        worker._perform = fail
        await made.change()
        await until(lambda: made.puts() == ["acknowledged"])
        await until(lambda: not worker._tasks)
        made.pass_time(5)
        await asyncio.sleep(0.1)
        assert await made.state() == "acknowledging"
        made.pass_time(6)
        await made.becomes("acknowledged")
        assert made.puts() == ["acknowledged"]
        assert made.gets() == 1
        assert await metric(made, "ackgate_outcomes_total", outcome="told") == 1


def _worker(made: Installation) -> Worker:
    """Give the acknowledger."""
    assert made.service is not None
    return made.service.leader.workers[0]


class TestTheClock:
    async def test_forward_a_lease_ends_early_and_the_put_under_way_is_not_repeated(
        self, made: Installation
    ) -> None:
        made.sim.fault("identity_put", hang=0.5, effect=True, times=1)
        await made.change()
        await made.put_under_way()
        made.pass_time(HOUR)
        await made.becomes("acknowledged")
        await until(lambda: _above(made, "ackgate_outcomes_total", 1))
        assert made.puts() == ["acknowledged"]
        assert await metric(made, "ackgate_outcomes_total", outcome="told") == 1
        assert await metric(made, "ackgate_outcomes_total", outcome="not_ours") == 1
        assert await work_of(made) == []

    async def test_back_a_lease_lasts_and_its_holder_writes_what_came_of_it(
        self, made: Installation
    ) -> None:
        made.sim.fault("identity_put", latency=0.3, times=1)
        await made.change()
        await made.put_under_way()
        made.pass_time(-HOUR)
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)
        assert await metric(made, "ackgate_outcomes_total", outcome="accepted") == 1

    async def test_back_new_work_is_done_at_once_and_so_is_what_waited_for_another_try(
        self, made: Installation
    ) -> None:
        made.sim.fault("identity_put", wa_id=WA_ID, status=503, times=1)
        await made.change()
        await until(lambda: _tried(made, WA_ID))
        made.pass_time(-HOUR)
        await made.change("16315554001")
        await made.becomes("acknowledged", "16315554001")
        await made.becomes("acknowledged")
        assert made.puts() == ["no_effect", "acknowledged"]
        assert await metric(made, "ackgate_outbox_overdue_seconds", kind="acknowledge") == 0
        assert await metric(made, "ackgate_identities", state="failed") == 0

    @pytest.mark.parametrize("seconds", [-HOUR, -3 * DAY, HOUR, 3 * DAY])
    async def test_the_order_is_that_of_the_changes_whatever_the_clock_says(
        self, made: Installation, seconds: int
    ) -> None:
        now = wall_clock()
        made.sim.change_identity(WA_ID, HASH_A, now - 4000, notify=False)
        await made.deliver(notice(WA_ID, HASH_A, now - 4000))
        await made.becomes("acknowledged", hash_=HASH_A)
        made.pass_time(seconds)
        made.sim.change_identity(WA_ID, HASH_B, now - 2000, notify=False)
        await made.deliver(notice(WA_ID, HASH_B, now - 2000))
        await made.becomes("acknowledged", hash_=HASH_B)
        made.pass_time(-seconds)
        again = [notice(WA_ID, HASH_B, now - 2000), notice(WA_ID, HASH_A, now - 4000)]
        await made.deliver(*again, *again)
        shown = await made.becomes("acknowledged", hash_=HASH_B)
        assert [entry["hash"] for entry in shown["history"]] == [HASH_A]
        assert len(await made.audit(event="changed")) == 2
        assert len(await made.audit(event="clock_skew")) == int(seconds < 0)
        assert made.puts() == ["acknowledged"] * 2
        assert await metric(made, "ackgate_identities", state="acknowledged") == 1


async def _connected(made: Installation) -> None:
    """Wait until the service has a connection to the client, which ends when the client stops."""
    await until(lambda: _above(made, "ackgate_client_calls_total", 1))


async def _back(made: Installation) -> None:
    """Let the client listen again, as soon as no test beside this one has its port."""

    async def listens() -> bool:
        with suppress(OSError):
            await made.sim.start()
            return True
        return False

    await until(listens)


async def _tried(made: Installation, wa_id: str, tries: int = 1) -> bool:
    def load(connection: Connection) -> int:
        query = select(users.c.attempts).where(users.c.wa_id == wa_id)
        return int(connection.execute(query).scalar_one())

    return await database_of(made).read(load) == tries


class TestTheClient:
    @pytest.mark.slow
    async def test_down_for_three_days_it_is_tried_again_and_again_and_nothing_failed(
        self, made: Installation
    ) -> None:
        await _connected(made)
        await made.sim.stop()
        await made.change()
        # Pauses are of minutes; an hour passes at a time, so that the test does not take one.
        tries = 3 * DAY // 3600
        for number in range(1, tries + 1):
            await until(lambda number=number: _tried(made, WA_ID, number))
            (work,) = await work_of(made)
            assert work.due_at - made._now() <= LONGEST_PAUSE_MS
            made.pass_time(3600)
        await until(lambda: _tried(made, WA_ID, tries + 1))
        await made.change("16315554001")
        await until(lambda: _tried(made, "16315554001"))
        assert await metric(made, "ackgate_identities", state="failed") == 0
        assert await metric(made, "ackgate_identities", state="acknowledging") == 2
        assert await metric(made, "ackgate_account_reachable", account="main") == 0
        assert await metric(made, "ackgate_outcomes_total", outcome="no_effect") == tries + 2
        await _back(made)
        made.pass_time(301)
        for wa_id in (WA_ID, "16315554001"):
            await made.becomes("acknowledged", wa_id)
            assert made.puts(wa_id) == ["acknowledged"]
        assert await metric(made, "ackgate_account_reachable", account="main") == 1
        assert await metric(made, "ackgate_outcomes_total", outcome="accepted") == 2

    async def test_flapping_everything_is_acknowledged_once_in_the_end(
        self, made: Installation
    ) -> None:
        await _connected(made)
        people = [f"1631555400{number}" for number in range(8)]
        for number, wa_id in enumerate(people):
            down = number % 2 == 0
            await (made.sim.stop() if down else _back(made))
            await made.change(wa_id)
            await until(lambda wa_id=wa_id: _tried(made, wa_id))
        made.pass_time(301)
        for wa_id in people:
            await made.becomes("acknowledged", wa_id)
            assert made.puts(wa_id) == ["acknowledged"]
        assert await metric(made, "ackgate_client_calls_total", outcome="not_sent") >= 4
        assert await metric(made, "ackgate_outcomes_total", outcome="accepted") == 8
        assert await metric(made, "ackgate_identities", state="failed") == 0
        assert await metric(made, "ackgate_account_reachable", account="main") == 1

    async def test_slower_than_a_lease_it_is_renewed_and_the_put_is_not_repeated(
        self, made: Installation
    ) -> None:
        made.sim.fault("identity_put", latency=1.0, times=1)
        await made.change()
        await made.put_under_way()
        for _ in range(4):
            made.pass_time(8)
            await until(lambda: _renewed(made))
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)
        assert await metric(made, "ackgate_outcomes_total", outcome="accepted") == 1
        slow = "ackgate_client_call_seconds_sum"
        assert await metric(made, slow, operation="identity_put") > 0.9

    async def test_slower_than_the_time_out_it_is_asked_and_tried_again(
        self, install: Install
    ) -> None:
        made = await install(policy=AUTO, accounts={"main": {"timeout_seconds": 0.3}})
        made.sim.fault("identity_put", latency=0.6, times=2)
        await made.change()
        await until(lambda: _tried(made, WA_ID))
        assert made.gets() == 1
        made.pass_time(301)
        await made.becomes("acknowledged")
        assert await metric(made, "ackgate_identities", state="failed") == 0
        calls = "ackgate_client_calls_total"
        assert await metric(made, calls, operation="identity_put", outcome="no_reply") == 2

    async def test_slow_it_holds_up_no_callback_and_gets_no_more_calls_than_it_may(
        self, install: Install
    ) -> None:
        made = await install(policy=AUTO, accounts={"main": {"max_in_flight": 2}})
        made.sim.fault("identity_put", latency=0.1)
        people = [f"163155540{number:02}" for number in range(20)]
        for wa_id in people:
            await made.change(wa_id)
        assert await metric(made, "ackgate_outbox", kind="acknowledge") > 10
        assert await metric(made, "ackgate_callbacks_total", result="applied") == 20
        for wa_id in people:
            await made.becomes("acknowledged", wa_id)
            assert made.puts(wa_id) == ["acknowledged"]
        assert made.sim.calls.most_in_flight["identity_put"] == 2
        assert await metric(made, "ackgate_outbox") == 0


async def _renewed(made: Installation) -> bool:
    (row,) = await work_of(made)
    return row.lease_until is not None and row.lease_until - made._now() > 9_000
