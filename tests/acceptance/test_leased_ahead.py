"""What is leased ahead of its turn: no call is under way yet, so it can still be stopped."""

import asyncio
import gc
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from service.ledger.decisions import TakeDecision
from service.ledger.leases import LeaseWork, RecordOutcome, RenewLeases
from service.ledger.unit_of_work import UnitOfWork
from service.model.decisions import Decision, Verb
from service.model.users import by_key
from service.store import sqlite
from service.workers import leasing
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    Spawn,
    Start,
    hour_ago,
    merge,
    notice,
    tree_for,
    until,
)

AUTO = {"mode": "auto", "max_changes": 100}
ONE = {"main": {"max_in_flight": 1}}
HOUR = 3600


def leased(made: Installation) -> int:
    """Count the work that somebody holds."""
    with sqlite3.connect(made.database) as database:
        row = database.execute("SELECT count(*) FROM outbox WHERE holder NOT NULL").fetchone()
    database.close()
    return int(row[0])


async def behind_another(install: Install, seconds: float = 1, **over: Any) -> Installation:
    """One PUT is under way, for so long, and the next is leased and waits for its turn."""
    made = await install(**merge({"policy": AUTO, "accounts": ONE}, over))
    made.sim.fault("identity_put", wa_id=WA_ID, latency=seconds, times=1)
    await made.change()
    await made.put_under_way()
    await made.change(OTHER_ID, HASH_A, hour_ago())
    await until(lambda: leased(made) == 2)
    return made


async def test_holding_what_waits_for_its_turn_is_taken_and_nothing_is_sent(
    install: Install,
) -> None:
    made = await behind_another(install)
    status, shown = await made.hold(HASH_A, OTHER_ID)
    assert (status, shown["state"]) == (200, "held")
    assert leased(made) == 1
    await made.becomes("acknowledged")
    await made.change("16315554001")
    await made.becomes("acknowledged", "16315554001")
    assert await made.state(OTHER_ID) == "held"
    assert (made.puts(OTHER_ID), made.gets(OTHER_ID)) == ([], 0)
    assert [entry["event"] for entry in await made.audit(OTHER_ID)].count("held") == 1


async def test_what_is_being_held_is_not_sent_though_its_turn_comes_before_that_is_written(
    install: Install,
) -> None:
    made = await behind_another(install)
    worker = _acknowledger(made)
    (user_id,) = worker._waiting
    decision = Decision(Verb.HOLD, HASH_A, by_key("somebody"))
    holding = asyncio.create_task(worker.recall(user_id, TakeDecision("main", OTHER_ID, decision)))
    await asyncio.sleep(0)
    worker._slots.release()
    assert await holding is not None
    await made.becomes("acknowledged")
    assert await made.state(OTHER_ID) == "held"
    assert made.puts(OTHER_ID) == []


async def test_holding_another_hash_than_the_one_that_waits_stops_nothing(
    install: Install,
) -> None:
    made = await behind_another(install)
    assert (await made.hold(HASH_B, OTHER_ID))[0] == 409
    await made.becomes("acknowledged", OTHER_ID)
    assert (made.puts(OTHER_ID), made.gets(OTHER_ID)) == (["acknowledged"], 0)


async def test_what_was_held_after_its_lease_had_ended_is_not_sent_when_its_turn_comes(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leasing, "RENEW_EVERY_SECONDS", HOUR)
    made = await behind_another(install)
    made.pass_time(11)
    assert (await made.hold(HASH_A, OTHER_ID))[0] == 200
    await made.becomes("acknowledged")
    await made.change("16315554001")
    await made.becomes("acknowledged", "16315554001")
    assert await made.state(OTHER_ID) == "held"
    assert made.puts(OTHER_ID) == []
    assert "a worker failed" not in capsys.readouterr().out


async def test_of_what_changed_while_it_waited_only_the_latest_is_sent(install: Install) -> None:
    made = await behind_another(install)
    await made.change(OTHER_ID, HASH_B, hour_ago(60))
    await made.becomes("acknowledged", OTHER_ID, HASH_B)
    assert made.puts(OTHER_ID) == ["acknowledged"]


async def test_what_was_superseded_while_it_waited_is_not_sent_though_a_person_decides_now(
    install: Install,
) -> None:
    made = await behind_another(install, policy={"max_changes": 1})
    await made.change(OTHER_ID, HASH_B, hour_ago(60))
    await made.becomes("pending", OTHER_ID, HASH_B)
    await made.becomes("acknowledged")
    await made.change("16315554001")
    await made.becomes("acknowledged", "16315554001")
    assert made.puts(OTHER_ID) == []


async def test_work_whose_lease_ended_is_not_sent_again_beside_the_first(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "RENEW_EVERY_SECONDS", HOUR)
    made = await install(policy=AUTO)
    made.sim.fault("identity_put", latency=1, times=1)
    await made.change()
    await made.put_under_way()
    made.pass_time(11)
    await made.becomes("acknowledged")
    await until(lambda: made.sim.calls.in_flight["identity_put"] == 0)
    assert made.puts() == ["acknowledged"]


async def test_holding_is_too_late_while_the_first_of_two_leases_has_its_put_under_way(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "RENEW_EVERY_SECONDS", HOUR)
    made = await install(policy=AUTO)
    made.sim.fault("identity_put", latency=1, times=1)
    hash_ = await made.change()
    await made.put_under_way()
    made.pass_time(11)
    await until(lambda: len(_acknowledger(made)._in_flight) == 2)
    assert (await made.hold(hash_))[0] == 409
    await made.becomes("acknowledged")
    assert made.puts() == ["acknowledged"]


def _acknowledger(made: Installation) -> leasing.Worker:
    assert made.service is not None
    assert made.service.background is not None
    return made.service.background.workers[0]


async def test_work_given_back_untried_is_done_though_the_clock_was_set_back_meanwhile(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.whatsapp.session.FIRST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(leasing, "LONGEST_SLEEP_SECONDS", 0.2)
    made = await install(policy=AUTO)
    made.sim.expire_tokens()
    made.sim.fault("login", status=401, times=1)
    await made.change()
    await made.becomes("acknowledging")
    await until(lambda: leased(made) == 0)
    made.pass_time(-HOUR)
    await made.becomes("acknowledged")


async def test_while_the_database_is_unavailable_for_longer_than_a_lease_no_put_goes_out_twice(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr(leasing, "DATABASE_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(leasing, "RENEW_EVERY_SECONDS", 0.05)
    made = await install(policy=AUTO, accounts=ONE)
    made.sim.fault("identity_put", latency=0.1)
    people = [f"163155540{number:02}" for number in range(12)]
    for wa_id in people:
        await made.change(wa_id)
    await until(lambda: leased(made) == leasing.LEASED_AHEAD)
    lock = sqlite3.connect(made.database, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    before = len(made.sim.puts)
    made.pass_time(15)
    await until(lambda: len(made.sim.puts) > before + 3)
    lock.execute("ROLLBACK")
    lock.close()
    for wa_id in people:
        await made.becomes("acknowledged", wa_id)
        assert made.puts(wa_id) == ["acknowledged"]


async def test_what_nobody_can_tell_to_be_ours_when_its_turn_comes_is_given_back_untried(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr(leasing, "DATABASE_PAUSE_SECONDS", 0.05)
    made = await behind_another(install)
    worker = _acknowledger(made)
    worker._doubted.update(worker._waiting.values())
    lock = sqlite3.connect(made.database, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    await until(lambda: not worker._waiting and not worker._slots.locked())
    assert made.puts(OTHER_ID) == []
    lock.execute("ROLLBACK")
    lock.close()
    await made.becomes("acknowledged", OTHER_ID)
    assert (made.puts(OTHER_ID), made.gets(OTHER_ID)) == (["acknowledged"], 0)


async def test_an_outcome_that_the_rules_fail_on_is_told_and_settled_by_a_get(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apply, faults = RecordOutcome.apply, [RuntimeError("a fault in the rules")]

    def fail(entry: RecordOutcome, uow: UnitOfWork) -> Any:
        if faults:
            raise faults.pop()
        return apply(entry, uow)

    made = await install(policy=AUTO)
    monkeypatch.setattr(RecordOutcome, "apply", fail)
    await made.change()
    await until(lambda: made.puts() == ["acknowledged"] and not _acknowledger(made)._in_flight)
    made.pass_time(11)
    await made.becomes("acknowledged")
    assert (made.puts(), made.gets()) == (["acknowledged"], 1)
    gc.collect()
    said = capsys.readouterr()
    assert "a worker failed" in said.out
    assert "never retrieved" not in said.out + said.err


async def test_no_transaction_leases_or_renews_without_bound(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "AT_ONCE", 3)
    monkeypatch.setattr(leasing, "RENEW_EVERY_SECONDS", 0.02)
    made = await install(policy=AUTO)
    assert made.service is not None
    assert made.service.parts is not None
    ledger = made.service.parts.ledger
    weights = []
    submit = ledger.submit

    def weigh(entry: Any, **more: Any) -> Any:
        if isinstance(entry, LeaseWork | RenewLeases):
            weights.append(entry.weight)
        return submit(entry, **more)

    monkeypatch.setattr(ledger, "submit", weigh)
    made.sim.fault("identity_put", latency=0.1)
    people = [f"163155540{number:02}" for number in range(40)]
    for wa_id in people:
        await made.change(wa_id)
    for wa_id in people:
        await made.becomes("acknowledged", wa_id)
        assert made.puts(wa_id) == ["acknowledged"]
    assert max(weights) == 1 + 3


async def test_stopped_with_much_leased_ahead_it_ends_in_time_and_all_of_it_is_done_after_the_start(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    sim.fault("identity_put", hang=60, times=2)
    over = {
        "policy": AUTO,
        "server": {"shutdown_seconds": 0.6},
        "accounts": {"main": {"max_in_flight": 2}},
    }
    child = await spawn(merge(tree_for(sim, tmp_path), over))
    people = [f"163155540{number:02}" for number in range(20)]
    for wa_id in people:
        sim.change_identity(wa_id, HASH_A, hour_ago(), notify=False)
        await child.deliver(notice(wa_id, HASH_A, hour_ago()))
    await until(lambda: sim.calls.in_flight["identity_put"] == 2)
    began = time.monotonic()
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    assert time.monotonic() - began < 5
    assert len(sim.puts) == 2
    sim.webhook_url = f"{child.base}/webhooks/main/{TOKEN}"
    await child.start()
    for wa_id in people:
        await child.becomes("acknowledged", wa_id)
    cut = {call.wa_id for call in list(sim.puts)[:2]}
    for wa_id in people:
        own = [call.operation for call in sim.calls if call.wa_id == wa_id]
        assert own[-1] == "identity_put"
        assert own.count("identity_put") == 1 + (wa_id in cut)
        assert wa_id not in cut or own[1] == "identity_get"
