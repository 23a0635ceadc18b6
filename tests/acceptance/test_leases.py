"""What is promised of leased work: nothing is sent twice, nor what is held or superseded."""

import asyncio
import gc
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.ledger.leases import BeginPut, RecordOutcome
from service.ledger.unit_of_work import UnitOfWork
from service.model.outcomes import Accepted
from service.whatsapp.session import Session
from service.workers import worker
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
THIRD_ID = "16315554001"
HOUR = 3600


async def leased(made: Installation) -> int:
    """Count the work that somebody holds."""
    [(count,)] = await made.rows("SELECT count(*) FROM outbox WHERE holder IS NOT NULL")
    return int(count)


async def nothing_leased(made: Installation) -> bool:
    return await leased(made) == 0


async def behind_another(install: Install, seconds: float = 1, **over: Any) -> Installation:
    """One PUT, the only one that may be open, is under way for so long, and the next is due."""
    made = await install(**merge({"policy": AUTO, "accounts": ONE}, over))
    made.sim.fault("identity_put", wa_id=WA_ID, latency=seconds, times=1)
    await made.change()
    await made.put_under_way()
    await made.change(OTHER_ID, HASH_A, hour_ago())
    assert await made.state(OTHER_ID) == "acknowledging"
    assert await leased(made) == 1
    return made


async def all_done(made: Installation) -> None:
    """Wait for the PUT that was under way, and for one that became due after all others."""
    await made.becomes("acknowledged")
    await made.change(THIRD_ID)
    await made.becomes("acknowledged", THIRD_ID)


class TestWhatIsDueButNotYetCalled:
    async def test_held_it_is_not_sent(self, install: Install) -> None:
        made = await behind_another(install)
        status, shown = await made.hold(HASH_A, OTHER_ID)
        assert (status, shown["state"]) == (200, "held")
        await all_done(made)
        assert await made.state(OTHER_ID) == "held"
        assert (made.puts(OTHER_ID), made.gets(OTHER_ID)) == ([], 0)
        assert [entry["event"] for entry in await made.audit(OTHER_ID)].count("held") == 1

    async def test_holding_another_hash_stops_nothing(self, install: Install) -> None:
        made = await behind_another(install)
        assert (await made.hold(HASH_B, OTHER_ID))[0] == 409
        await made.becomes("acknowledged", OTHER_ID)
        assert (made.puts(OTHER_ID), made.gets(OTHER_ID)) == (["acknowledged"], 0)

    async def test_of_several_changes_only_the_latest_is_sent(self, install: Install) -> None:
        made = await behind_another(install)
        await made.change(OTHER_ID, HASH_B, hour_ago(60))
        await made.becomes("acknowledged", OTHER_ID, HASH_B)
        assert made.puts(OTHER_ID) == ["acknowledged"]

    async def test_superseded_it_is_not_sent_though_a_person_decides_now(
        self, install: Install
    ) -> None:
        made = await behind_another(install, policy={"max_changes": 1})
        await made.change(OTHER_ID, HASH_B, hour_ago(60))
        await made.becomes("pending", OTHER_ID, HASH_B)
        await all_done(made)
        assert made.puts(OTHER_ID) == []


def hold_back(monkeypatch: pytest.MonkeyPatch, *, renewed: bool = False) -> asyncio.Event:
    """Let no call have its token before this is set; `renewed`: no call whose token was refused."""
    go, token = asyncio.Event(), Session.token

    async def late(session: Session, instead_of: str | None = None) -> str:
        if renewed is (instead_of is not None):
            await go.wait()
        return await token(session, instead_of)

    monkeypatch.setattr(Session, "token", late)
    return go


async def outcomes(made: Installation) -> dict[str, float]:
    """Count what PUTs came to, once nothing is left to be recorded."""
    await until(lambda: not _acknowledger(made)._tasks)
    _, text = await made.api("GET", "/metrics")
    samples = [x for family in text_string_to_metric_families(text) for x in family.samples]
    return {
        sample.labels["outcome"]: sample.value
        for sample in samples
        if sample.value
        and sample.name == "ackgate_outcomes_total"
        and sample.labels["kind"] == "acknowledge"
    }


class TestAPutThatHasNotBegun:
    """What is committed after the lease, until just before the PUT, counts."""

    @pytest.fixture
    def login(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Give what calls wait for until it is set, after they were leased."""
        return hold_back(monkeypatch)

    async def waiting(self, install: Install, **over: Any) -> Installation:
        made = await install(**merge({"policy": AUTO}, over))
        await made.change(WA_ID, HASH_A, hour_ago())
        await until(lambda: leased(made))
        return made

    async def test_held_it_is_not_sent(self, install: Install, login: asyncio.Event) -> None:
        made = await self.waiting(install)
        status, shown = await made.hold(HASH_A)
        assert (status, shown["state"]) == (200, "held")
        login.set()
        assert await outcomes(made) == {"not_ours": 1}
        assert await made.state() == "held"
        assert (made.puts(), made.gets()) == ([], 0)

    async def test_a_newer_hash_is_sent_instead(
        self, install: Install, login: asyncio.Event
    ) -> None:
        made = await self.waiting(install)
        await made.change(WA_ID, HASH_B, hour_ago(60))
        login.set()
        await made.becomes("acknowledged", WA_ID, HASH_B)
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)

    async def test_a_newer_hash_that_a_person_decides_about_stops_it(
        self, install: Install, login: asyncio.Event
    ) -> None:
        made = await self.waiting(install, policy={"max_changes": 1})
        await made.change(WA_ID, HASH_B, hour_ago(60))
        login.set()
        assert await outcomes(made) == {"not_ours": 1}
        assert ((await made.identity())["hash"], await made.state()) == (HASH_B, "pending")
        assert made.puts() == []

    async def test_held_and_acknowledged_again_it_is_sent_once(
        self, install: Install, login: asyncio.Event
    ) -> None:
        made = await self.waiting(install)
        assert (await made.hold(HASH_A))[0] == 200
        assert (await made.acknowledge(HASH_A))[0] == 202
        await until(lambda: _acknowledger(made)._skipped)
        assert (await made.hold(HASH_A))[0] == 200
        assert (await made.acknowledge(HASH_A))[0] == 202
        login.set()
        shown = await made.becomes("acknowledged")
        assert (shown["decided_by"]["kind"], shown["attempts"]) == ("key", 1)
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)

    async def test_a_lease_that_has_ended_begins_nothing(
        self, install: Install, login: asyncio.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "RENEW_EVERY_SECONDS", HOUR)
        made = await self.waiting(install)
        made.pass_time(11)
        await until(lambda: _acknowledger(made)._skipped)
        login.set()
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)
        assert await outcomes(made) == {"accepted": 1, "not_ours": 1, "not_tried": 1}

    @pytest.mark.usefixtures("impatient")
    async def test_where_the_database_is_unavailable_it_is_not_sent_but_later(
        self, install: Install, login: asyncio.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "DATABASE_PAUSE_SECONDS", 0.05)
        made = await self.waiting(install)
        async with made.locked():
            login.set()
            await until(lambda: not _acknowledger(made)._calling)
            assert made.puts() == []
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)
        assert await outcomes(made) == {"accepted": 1, "not_tried": 1}

    async def test_where_the_rules_fail_it_is_not_sent_but_later(
        self, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        apply, faults = BeginPut.apply, [RuntimeError("a fault in the rules")]

        def fail(command: BeginPut, uow: UnitOfWork) -> bool:
            if faults:
                raise faults.pop()
            return apply(command, uow)

        monkeypatch.setattr(BeginPut, "apply", fail)
        made = await install(policy=AUTO)
        await made.change()
        await until(lambda: not faults and not _acknowledger(made)._tasks)
        assert made.puts() == []
        made.pass_time(11)
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["acknowledged"], 0)


class TestARepeatAfterARefusedToken:
    @pytest.fixture
    def login(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Give what a call waits for whose token was refused, until it is set."""
        return hold_back(monkeypatch, renewed=True)

    async def between(self, install: Install) -> Installation:
        made = await install(policy=AUTO)
        await made.change(OTHER_ID)
        await made.becomes("acknowledged", OTHER_ID)
        made.sim.expire_tokens()
        await made.change(WA_ID, HASH_A, hour_ago())
        await until(lambda: made.puts() == ["no_effect"])
        return made

    async def test_it_is_too_late_to_hold(self, install: Install, login: asyncio.Event) -> None:
        made = await self.between(install)
        assert (await made.hold(HASH_A))[0] == 409
        login.set()
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["no_effect", "acknowledged"], 0)

    async def test_what_is_superseded_meanwhile_is_not_sent_again(
        self, install: Install, login: asyncio.Event
    ) -> None:
        made = await self.between(install)
        await made.change(WA_ID, HASH_B, hour_ago(60))
        login.set()
        await made.becomes("acknowledged", WA_ID, HASH_B)
        assert (made.puts(), made.gets()) == (["no_effect", "acknowledged"], 0)

    async def test_where_the_login_is_refused_it_is_as_before_the_try(
        self, install: Install, login: asyncio.Event
    ) -> None:
        made = await self.between(install)
        made.sim.fault("login", status=401)
        login.set()
        await until(lambda: nothing_leased(made))
        assert await made.rows("SELECT begun, attempts FROM outbox") == [(False, 0)]
        assert (await made.hold(HASH_A))[0] == 200
        assert (made.puts(), made.gets()) == (["no_effect"], 0)


class TestACallThatIsOpen:
    async def test_it_is_too_late_to_hold(self, install: Install) -> None:
        made = await behind_another(install)
        status, problem = await made.hold(str((await made.identity())["hash"]))
        assert (status, problem["identity"]["state"]) == (409, "acknowledging")
        await made.becomes("acknowledged")
        assert made.puts() == ["acknowledged"]

    async def test_a_newer_identity_of_the_user_waits_and_nobody_else_does(
        self, install: Install
    ) -> None:
        made = await install(policy=AUTO, accounts={"main": {"max_in_flight": 4}})
        made.sim.fault("identity_put", wa_id=WA_ID, latency=1, times=1)
        await made.change(WA_ID, HASH_A, hour_ago())
        await made.put_under_way()
        await made.change(WA_ID, HASH_B, hour_ago(60))
        await made.change(OTHER_ID)
        await made.becomes("acknowledged", OTHER_ID)
        assert [call.wa_id for call in made.sim.puts] == [WA_ID, OTHER_ID]
        assert made.sim.calls.in_flight["identity_put"] == 1
        async with asyncio.timeout(5):
            await made.becomes("acknowledged", WA_ID, HASH_B)
        assert made.puts()[1:] == ["acknowledged"]

    async def test_its_place_is_free_while_its_outcome_is_recorded(
        self, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await install(policy=AUTO, accounts=ONE)
        assert made.service is not None
        assert made.service.context is not None
        ledger, recorded = made.service.context.ledger, asyncio.Event()
        submit = ledger.submit

        async def late(command: Any, **more: Any) -> Any:
            if isinstance(command, RecordOutcome) and command.lease.wa_id == WA_ID:
                await recorded.wait()
            return await submit(command, **more)

        monkeypatch.setattr(ledger, "submit", late)
        await made.change()
        await until(lambda: made.puts() == ["acknowledged"])
        await made.change(OTHER_ID)
        await made.becomes("acknowledged", OTHER_ID)
        assert await made.state() == "acknowledging"
        recorded.set()
        await made.becomes("acknowledged")
        assert made.puts() == ["acknowledged"]


class TestALeaseThatEndsUnderAnOpenCall:
    @pytest.fixture(autouse=True)
    def never_renewed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "RENEW_EVERY_SECONDS", HOUR)

    async def test_nothing_is_sent_beside_it_and_a_get_comes_next(self, install: Install) -> None:
        made = await install(policy=AUTO)
        made.sim.fault("identity_put", latency=1, times=1)
        await made.change()
        await made.put_under_way()
        made.pass_time(11)
        await made.becomes("acknowledged")
        assert (made.puts(), made.gets()) == (["acknowledged"], 1)
        assert made.sim.calls.most_in_flight["identity_put"] == 1

    async def test_it_is_still_too_late_to_hold(self, install: Install) -> None:
        made = await install(policy=AUTO)
        made.sim.fault("identity_put", latency=1, times=1)
        hash_ = await made.change()
        await made.put_under_way()
        made.pass_time(11)
        await until(lambda: _acknowledger(made)._skipped)
        assert (await made.hold(hash_))[0] == 409
        await made.becomes("acknowledged")
        assert made.puts() == ["acknowledged"]

    async def test_what_was_held_after_that_stays_held(self, install: Install) -> None:
        made = await behind_another(install)
        made.pass_time(11)
        assert (await made.hold(HASH_A, OTHER_ID))[0] == 200
        await all_done(made)
        assert await made.state(OTHER_ID) == "held"
        assert made.puts(OTHER_ID) == []


def _acknowledger(made: Installation) -> worker.Worker:
    assert made.service is not None
    assert made.service.leader is not None
    return made.service.leader.workers[0]


async def test_work_given_back_untried_is_done_though_the_clock_was_set_back_meanwhile(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.whatsapp.session.FIRST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(worker, "LONGEST_SLEEP_SECONDS", 0.2)
    made = await install(policy=AUTO)
    made.sim.expire_tokens()
    made.sim.fault("login", status=401, times=1)
    await made.change()
    await made.becomes("acknowledging")
    await until(lambda: nothing_leased(made))
    made.pass_time(-HOUR)
    await made.becomes("acknowledged")


@pytest.mark.usefixtures("impatient")
async def test_while_the_database_is_unavailable_for_longer_than_a_lease_no_put_goes_out_twice(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DATABASE_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(worker, "RENEW_EVERY_SECONDS", 0.05)
    made = await install(policy=AUTO, accounts={"main": {"max_in_flight": 4}})
    made.sim.fault("identity_put", latency=0.3)
    people = [f"163155540{number:02}" for number in range(12)]
    for wa_id in people:
        await made.change(wa_id)
    await made.put_under_way(4)
    async with made.locked():
        made.pass_time(15)
        await until(lambda: made.sim.calls.in_flight["identity_put"] == 0)
        await asyncio.sleep(0.2)
    for wa_id in people:
        await made.becomes("acknowledged", wa_id)
        assert made.puts(wa_id) == ["acknowledged"]


async def test_an_outcome_that_the_rules_fail_on_is_logged_and_settled_by_a_get(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apply, faults = RecordOutcome.apply, [RuntimeError("a fault in the rules")]

    def fail(command: RecordOutcome, uow: UnitOfWork) -> Any:
        if faults and isinstance(command.outcome, Accepted):
            raise faults.pop()
        return apply(command, uow)

    made = await install(policy=AUTO)
    monkeypatch.setattr(RecordOutcome, "apply", fail)
    await made.change()
    await until(lambda: made.puts() == ["acknowledged"] and not _acknowledger(made)._tasks)
    made.pass_time(11)
    await made.becomes("acknowledged")
    assert (made.puts(), made.gets()) == (["acknowledged"], 1)
    gc.collect()
    said = capsys.readouterr()
    assert "a worker failed" in said.out
    assert "never retrieved" not in said.out + said.err


@pytest.mark.slow
async def test_stopped_amid_calls_it_ends_in_time_and_all_is_done_after_the_start(
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
