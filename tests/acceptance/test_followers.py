"""Two replicas on one database: each answers everything, and what one is asked the leader does."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import Response
from sqlalchemy import Connection

from service.app import exchange
from service.model.account_checks import ENOUGH
from service.model.users import Kind
from service.settings import load
from service.store.database import ChangeSet, UnavailableError, wall_clock
from service.store.operating import operated
from service.store.postgres import PostgresDatabase
from service.store.replicas import want
from service.webhooks.signatures import signed
from service.whatsapp.http import CallError
from service.workers.relays import Relay
from tests.acceptance.cloud import SECRET, prepared
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    Install,
    Installation,
    Json,
    merge,
    until,
)
from tests.acceptance.sinks import sink
from tests.acceptance.webhooks import wrote

pytestmark = pytest.mark.postgres

SPAN = {"from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z"}
GAUGES = ("ackgate_identities{", "ackgate_relay_behind{", "ackgate_oldest_pending_seconds ")


@dataclass
class Pair:
    """The first one that is started leads, the second one follows."""

    leader: Installation
    folder: Path
    stack: AsyncExitStack

    async def lead(self, **over: Any) -> Installation:
        await self.leader.start(**over)
        return self.leader

    async def follow(self) -> Installation:
        """Start a further replica."""
        one = self.leader
        folder = self.folder / "follower"
        folder.mkdir(exist_ok=True)
        tree = merge(one.tree, {"server": {"port": 0}})
        made = Installation(one.http, key=one.key, sim=one.sim, tree=tree, folder=folder)
        self.stack.push_async_callback(made.stop)
        await made.start()
        return made

    async def start(self, **over: Any) -> tuple[Installation, Installation]:
        return await self.lead(**over), await self.follow()


@pytest.fixture
async def pair(prepare: Install, postgres_url: str, tmp_path: Path, stack: AsyncExitStack) -> Pair:
    """Two replicas of an installation, not started yet."""
    one = await prepare()
    one.tree = merge(one.tree, {"database": {"url": postgres_url}})
    return Pair(one, tmp_path, stack)


@pytest.fixture
async def shops(prepare: Install, postgres_url: str, tmp_path: Path, stack: AsyncExitStack) -> Pair:
    """Two replicas with an account of the Cloud API, not started yet."""
    one = await prepared(prepare, database={"url": postgres_url})
    return Pair(one, tmp_path, stack)


async def get(made: Installation, path: str) -> Any:
    status, answer = await made.api("GET", path)
    assert status == 200, answer
    return answer


async def becomes(made: Installation, path: str, wanted: Callable[[Any], bool]) -> Any:
    """Wait until an answer is as wanted; give it."""

    async def so() -> bool:
        return wanted(await get(made, path))

    await until(so, what=path)
    return await get(made, path)


async def become_issues(made: Installation, *codes: str) -> None:
    def so(answer: Json) -> bool:
        found = [issue["code"] for issue in answer["items"]]
        return [code for code in found if code != "webhook_url"] == [*codes]

    await becomes(made, "/issues", so)


async def write(made: Installation, statement: str, **values: Any) -> None:
    await made.write(statement, **values)


# Who leads


async def test_where_the_work_can_not_begin_the_lead_is_left_to_another(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = await pair.start()
    assert leader.service is not None
    parts = leader.service.leader
    assert parts is not None

    async def fail() -> None:
        raise UnavailableError("no connection is free")

    monkeypatch.setattr(parts, "prepare", fail)
    await parts.stop()
    await parts.finish(0)
    await becomes(follower, "/status", lambda status: status["leader"])
    assert not (await get(leader, "/status"))["leader"]


async def test_a_replica_that_stops_lets_others_lead_and_takes_no_lead_any_more(pair: Pair) -> None:
    leader, follower = await pair.start()
    for made in (leader, follower):
        assert made.service is not None
        assert made.service.replica is not None
    await follower.service.replica.stop()
    await leader.service.replica.stop()
    database = leader.service.context.database
    assert database.leads
    await leader.service.replica.close()
    assert not database.leads
    await asyncio.sleep(2.5)  # it would have tried twice
    assert not follower.service.context.database.leads


# What the leader alone sees


async def test_a_follower_shows_what_the_leader_tells(pair: Pair) -> None:
    pair.leader.sim.settings.show_security_notifications = False
    leader, follower = await pair.start(relays={"crm": {"url": "http://127.0.0.1:9"}})
    assert (await get(leader, "/status"))["leader"] is True
    assert (await get(follower, "/status"))["leader"] is False
    await become_issues(follower, "security_notifications_off")
    account = await get(follower, "/accounts/main")
    assert account["login"]["state"] == "ok"
    assert account["health"]["reachable"] is True
    assert account["settings"]["issues"] == ["security_notifications_off"]
    await follower.change()
    await becomes(follower, "/relays/crm", lambda crm: crm["last_error"] is not None)
    assert (await get(follower, "/relays/crm"))["behind"] == 1
    checks = (await get(follower, "/health/status"))["checks"]
    assert checks["client:main"] == {"status": "pass", "gateway_status": "connected"}
    assert checks["settings:main"]["status"] == "warn"
    assert checks["leader"] == {"status": "pass"}


async def test_a_followers_gate_knows_that_the_client_does_not_answer(pair: Pair) -> None:
    leader, follower = await pair.start()
    await leader.sim.stop()

    async def is_known() -> bool:
        warnings = (await follower.gate())["warnings"]
        return "account_unreachable" in [reason["code"] for reason in warnings]

    await leader.refresh()
    await until(is_known)


async def test_whoever_leads_next_knows_since_when_the_client_does_not_answer(pair: Pair) -> None:
    leader, follower = await pair.start()
    await leader.sim.stop()
    await leader.refresh()
    told = follower.service.context.elsewhere
    await until(lambda: told.leading.accounts["main"].unreachable_since)
    before = told.leading.accounts["main"]
    await leader.stop()
    await becomes(follower, "/status", lambda status: status["leader"])
    health = (await get(follower, "/accounts/main"))["health"]
    assert health["unreachable_since"] == before.health["unreachable_since"]
    assert "account_unreachable" in [w["code"] for w in (await follower.gate())["warnings"]]


async def test_whoever_leads_next_forgets_that_the_client_once_did_not_answer_it(
    pair: Pair,
) -> None:
    leader, follower = await pair.start()
    follower.service.context.clients["main"].reachability.note_failure(CallError("no connection"))
    told = follower.service.context.elsewhere
    await until(lambda: told.leading.accounts)
    leader.sim.fault("login", hang=60)  # the follower has not asked the client anything yet
    await leader.stop()
    await becomes(follower, "/status", lambda status: status["leader"])
    assert (await get(follower, "/accounts/main"))["health"]["reachable"]


async def test_a_follower_says_that_nobody_leads(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "NOBODY_SECONDS", 2.5)
    leader, follower = await pair.start()
    database = follower.service.context.database
    assert (await get(follower, "/health/status"))["checks"]["leader"] == {"status": "pass"}

    async def nobody() -> bool:
        return False

    for made in (leader, follower):
        monkeypatch.setattr(made.service.context.database, "lead", nobody)
    wanted = {"status": "warn", "detail": "no replica leads"}
    await becomes(follower, "/health/status", lambda told: told["checks"]["leader"] == wanted)
    assert not database.leads


async def test_gauges_of_tables_and_relays_are_the_leaders_alone(pair: Pair) -> None:
    leader, follower = await pair.start(relays={"crm": {"url": "http://127.0.0.1:9"}})
    of_leader, of_follower = await get(leader, "/metrics"), await get(follower, "/metrics")
    for name in GAUGES:
        assert f"\n{name}" in of_leader
        assert name not in of_follower
    assert "\nackgate_write_queue_length" in of_follower
    await leader.stop()
    await becomes(follower, "/status", lambda status: status["leader"])
    now = await get(follower, "/metrics")
    assert all(f"\n{name}" in now for name in GAUGES)


async def test_a_leader_that_may_have_lost_its_lease_does_not_show_that_it_leads(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await pair.lead()
    assert "\nackgate_leader 1.0" in await get(leader, "/metrics")
    monkeypatch.setattr(PostgresDatabase, "leads", False)
    assert leader.service.context.leading is not None
    assert "\nackgate_leader 0.0" in await get(leader, "/metrics")


async def test_a_configuration_that_is_read_again_while_a_replica_begins_to_lead_is_in_force(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sink() as crm, sink() as other:
        leader, follower = await pair.start(relays={"crm": {"url": crm.url}})
        restore = Relay.restore

        async def restore_and_reload(relay: Relay) -> None:
            await restore(relay)
            follower.tree = merge(follower.tree, {"relays": {"crm": {"url": other.url}}})
            file = follower.written()
            assert await follower.service.reload(lambda: load(file, {}))

        monkeypatch.setattr(Relay, "restore", restore_and_reload)
        await leader.stop()
        await becomes(follower, "/status", lambda status: status["leader"])
        await follower.change()
        await until(lambda: crm.taken or other.taken)
        assert (len(crm.taken), len(other.taken)) == (0, 1)


async def test_a_follower_takes_over_what_the_leader_did(pair: Pair) -> None:
    async with sink() as crm:
        leader, follower = await pair.start(
            policy={"mode": "auto"}, relays={"crm": {"url": crm.url}}
        )
        await follower.change()
        await follower.becomes("acknowledged")
        await until(lambda: len(crm.taken) == 1)
        await leader.stop()
        await follower.change(OTHER_ID)
        await follower.becomes("acknowledged", OTHER_ID)
        await until(lambda: len(crm.taken) == 2)
        assert (await get(follower, "/accounts/main"))["login"]["state"] == "ok"


# What a person asks


async def test_a_relay_is_paused_and_resumed_through_a_follower(pair: Pair) -> None:
    async with sink() as crm:
        leader, follower = await pair.start(relays={"crm": {"url": crm.url}})
        _, answer = await follower.api("POST", "/relays/crm/pause")
        assert answer["state"] == "paused"
        await until(lambda: leader.leading.relays["crm"].state == "paused")
        await follower.change()
        assert (await get(leader, "/relays/crm"))["state"] == "paused"
        _, answer = await follower.api("POST", "/relays/crm/resume")
        assert answer["state"] == "running"
        await until(lambda: crm.taken)


async def test_a_relay_that_waits_as_its_destination_asked_sends_once_a_follower_is_asked(
    pair: Pair,
) -> None:
    async with sink(lambda _: Response(status=503, headers={"Retry-After": "600"})) as crm:
        _, follower = await pair.start(relays={"crm": {"url": crm.url}})
        await follower.change()
        await becomes(follower, "/relays/crm", lambda crm: crm["last_error"] == "answered 503")
        crm.answer = lambda _: 200
        await follower.api("POST", "/relays/crm/resume")
        await until(lambda: crm.taken)


async def test_a_delivery_is_tried_again_and_a_part_is_replayed_through_a_follower(
    pair: Pair,
) -> None:
    async with sink(lambda _: 422) as crm:
        leader, follower = await pair.start(relays={"crm": {"url": crm.url}})
        await follower.change()
        await becomes(follower, "/relays/crm", lambda crm: crm["retrying"] == 1)
        [row] = (await get(follower, "/relays/crm/deliveries"))["items"]
        assert (await follower.api("POST", "/relays/crm/deliveries/99/retry"))[0] == 404
        crm.answer = lambda _: 200
        tried = await follower.api("POST", f"/relays/crm/deliveries/{row['id']}/retry")
        assert tried == (202, {"count": 1})
        await until(lambda: len(crm.taken) == 1)
        await becomes(leader, "/relays/crm", lambda crm: crm["retrying"] == 0)
        assert await follower.api("POST", "/relays/crm/replay", SPAN) == (202, {"count": 1})
        await until(lambda: len(crm.taken) == 2)
        await becomes(follower, "/relays/crm", lambda crm: crm["replaying"] == 0)
        _, answer = await follower.api("POST", "/relays/crm/test")
        assert answer["status"] == 200
        assert len(crm.taken) == 3


async def test_what_was_asked_while_nobody_led_is_done_by_whoever_leads_next(pair: Pair) -> None:
    async with sink(lambda _: 422) as crm:
        leader, follower = await pair.start(relays={"crm": {"url": crm.url}})
        await follower.change()
        await becomes(follower, "/relays/crm", lambda crm: crm["retrying"] == 1)
        await leader.stop()
        tried = len(crm.hits)
        assert (await follower.api("POST", "/relays/crm/deliveries/1/retry"))[0] == 202
        await until(lambda: len(crm.hits) == tried + 1)

        async def is_noted() -> bool:
            return not await follower.rows("SELECT 1 FROM deliveries WHERE retry_asked")

        await until(is_noted)


# What each notices


async def post_signed(made: Installation, secret: str) -> int:
    return await made.post(b"{}", path="/webhooks/meta", headers=signed(secret.encode(), b"{}"))


async def test_wrong_signatures_at_a_follower_are_told_by_the_leader_and_dismissed_anywhere(
    shops: Pair,
) -> None:
    leader, follower = await shops.start()
    for by in (leader, follower):
        for _ in range(10):
            assert await post_signed(follower, "another-secret") == 401
        await become_issues(leader, "wrong_signatures")
        await become_issues(follower, "wrong_signatures")
        status, answer = await by.api("DELETE", "/issues/wrong_signatures")
        assert (status, len(answer["items"])) == (200, 1)
        await become_issues(leader)
        await become_issues(follower)


async def test_a_check_that_seems_off_at_one_replica_is_on_once_a_hash_came_to_another(
    shops: Pair,
) -> None:
    leader, follower = await shops.start()
    for _ in range(ENOUGH):
        assert await post(follower, wrote()) == 200
    await become_issues(leader, "identity_check_off")
    assert await post(leader, wrote(HASH_A)) == 200
    await become_issues(leader)


async def post(made: Installation, body: Json) -> int:
    raw = json.dumps(body).encode()
    return await made.post(raw, path="/webhooks/meta", headers=signed(SECRET.encode(), raw))


# What all have to know


async def test_after_a_downtime_each_replica_says_so_whichever_starts_first(pair: Pair) -> None:
    leader = await pair.lead()
    await leader.stop()
    long_ago = str(wall_clock() - 3_600_000)
    await write(leader, "UPDATE installation SET value = :at WHERE key = 'alive_at'", at=long_ago)
    await leader.start()
    follower = await pair.follow()
    [one], [other] = [await catching_up(made) for made in (leader, follower)]
    assert one["until"] == other["until"]


async def catching_up(made: Installation) -> list[Json]:
    answer = await made.gate()
    return [reason for reason in answer["warnings"] if reason["code"] == "catching_up"]


async def test_callbacks_that_one_could_not_store_close_the_gate_of_the_others(pair: Pair) -> None:
    leader, follower = await pair.start()
    since = wall_clock()
    noted = f"{since} {since + 600_000}"
    await write(leader, "DELETE FROM installation WHERE key = 'downtime'")
    await write(leader, f"INSERT INTO installation VALUES ('downtime', '{noted}')")
    for made in (leader, follower):

        async def is_closed(made: Installation = made) -> bool:
            return bool(await catching_up(made))

        await until(is_closed)


async def test_a_replica_that_went_without_a_word_closes_the_gate_of_the_others(pair: Pair) -> None:
    """What was sent to it comes again a while later, and nobody else knows of it."""
    leader, follower = await pair.start()
    contexts = [made.service.context for made in (leader, follower)]
    for context in contexts:
        context.catching_up = None  # with what was missed before it started
    await write(leader, SEEN, id="gone", seen_at=wall_clock() - 16_000)
    await until(lambda: all(context.catching_up for context in contexts))
    assert contexts[0].catching_up == contexts[1].catching_up
    noted = "SELECT value FROM installation WHERE key = 'downtime'"
    before = await leader.rows(noted)
    await write(leader, SEEN, id="earlier", seen_at=wall_clock() - 40_000)
    await leader.service.background.exchange.once()
    assert await leader.rows(noted) == before


SEEN = "INSERT INTO replicas (id, seen_at, report) VALUES (:id, :seen_at, '{}')"


async def test_whom_a_follower_was_asked_about_after_a_restore_comes_first(pair: Pair) -> None:
    leader = await pair.lead()
    users = [f"1631555{n:04}" for n in range(8)]
    for user in users:
        await leader.change(user)
    await leader.stop()
    await asyncio.to_thread(operated(leader.database_url).mark_restored, datetime.now(UTC))
    asked = len(leader.sim.calls.of("identity_get"))
    slowly = {"reconciler": {"verify_per_second": 0.5}}
    await leader.start(**slowly)
    follower = await pair.follow()
    assert "unverified" in await follower.reasons(users[-1])
    assert (await get(follower, "/accounts/main"))["unverified"] is not None

    async def is_verified() -> bool:
        return "unverified" not in await follower.reasons(users[-1])

    await until(is_verified)
    assert len(leader.sim.calls.of("identity_get")) - asked < len(users)
    await leader.stop()  # the follower goes on, and knows when everybody was asked about
    await becomes(follower, "/status", lambda status: status["leader"])
    assert follower.leading.verifiers


async def test_whom_the_gate_was_asked_about_is_not_forgotten_where_it_could_not_be_noted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await pair.lead()
    for number in range(3):
        await leader.change(f"1631555000{number}")
    await leader.stop()
    await asyncio.to_thread(operated(leader.database_url).mark_restored, datetime.now(UTC))
    await leader.start(reconciler={"verify_per_second": 0.01})
    follower = await pair.follow()
    refused: list[str] = []

    def refuse_once(connection: Connection, account: str, user_ids: set[int], now: int) -> None:
        if not refused:
            refused.append(account)
            raise UnavailableError("refused")
        want(connection, account, user_ids, now)

    monkeypatch.setattr(exchange, "want", refuse_once)
    await follower.reasons("16315550002")

    async def is_noted() -> bool:
        wanted = "SELECT 1 FROM unverified WHERE wanted_at IS NOT NULL"
        return bool(await follower.rows(wanted))

    await until(is_noted)
    assert refused


# Whose clock is another one's


def put_clock(made: Installation, seconds: int) -> None:
    """Let the clock of a replica's machine differ from the database's."""
    made.service.context.ledger.clock = lambda: wall_clock() + 1000 * seconds


async def test_the_leases_of_a_former_leader_last_though_the_clock_of_the_next_one_is_behind(
    pair: Pair,
) -> None:
    leader, follower = await pair.start(policy={"mode": "auto"})
    put_clock(follower, -60)
    leader.sim.fault("identity_put", status=503)
    await follower.change()
    await until(leader.puts)
    ends = wall_clock() + 5_000
    leased = "UPDATE outbox SET holder = 'the former leader', lease_until = :ends"
    await write(leader, leased, ends=ends)
    await leader.stop()
    leader.sim.clear_faults()
    await follower.becomes("acknowledged")
    assert wall_clock() >= ends


async def test_a_leader_whose_clock_is_ahead_does_not_look_all_the_time_for_what_is_not_yet_due(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await pair.lead(policy={"mode": "auto"})
    leader.sim.fault("identity_put", status=503)
    leader.sim.fault("contacts", status=503)
    await leader.change()
    await until(leader.puts)
    await leader.api("POST", "/accounts/main/contacts", {"contacts": [{"input": "+16315550009"}]})
    later = wall_clock() + 3_600_000

    async def is_put_off() -> bool:
        return bool(await leader.rows("SELECT 1 FROM outbox WHERE lease_until IS NULL"))

    await until(is_put_off)
    await write(leader, "UPDATE outbox SET due_at = :later, lease_until = NULL", later=later)
    await write(leader, "UPDATE contacts SET due_at = :later", later=later)
    put_clock(leader, 7_200)
    ledger, taken = leader.service.context.ledger, Counter[str]()
    submit = ledger.submit

    async def count(command: Any) -> Any:
        taken[type(command).__name__] += 1
        return await submit(command)

    monkeypatch.setattr(ledger, "submit", count)
    woken = ChangeSet(work={("main", Kind.ACKNOWLEDGE)}, checks={"main"})
    for listener in ledger.listeners:
        listener(woken)
    await until(lambda: taken["LeaseWork"])
    for _ in range(50):
        await leader.gate()
    assert taken["LeaseWork"] == 1
    assert taken["TakeDueChecks"] == 0


async def test_it_is_noted_by_the_databases_clock_when_the_service_was_alive(pair: Pair) -> None:
    leader = await pair.lead()
    put_clock(leader, 3_600)
    await leader.service.background.close()
    [(alive_at,)] = await leader.rows("SELECT value FROM installation WHERE key = 'alive_at'")
    assert int(alive_at) <= wall_clock()


# Contact checks


async def test_a_request_that_comes_to_two_replicas_at_once_is_paid_for_once(pair: Pair) -> None:
    both = await pair.start()
    body = {"contacts": [{"input": f"+1631555{n:04}"} for n in range(5)], "blocking": "wait"}
    for time in range(1, 6):
        headers = {"Idempotency-Key": f"request-{time}"}
        numbers = {"contacts": [{"input": f"+1631556{time}{n:03}"} for n in range(3)]}
        answers = await asyncio.gather(
            *(check(made, body | numbers, headers) for made in (*both, *both))
        )
        assert [status for status, _ in answers] == [200] * 4
        used = await both[0].rows("SELECT sum(checks) FROM contact_days")
        assert used == [(3 * time,)]


async def check(made: Installation, body: Json, headers: Json) -> tuple[int, Any]:
    return await made.api("POST", "/accounts/main/contacts", body, headers=headers)


async def test_replicas_share_the_rate_of_checks_that_a_client_allows(pair: Pair) -> None:
    both = await pair.start()
    shared: dict[str, int] = {}
    for made in both:
        client = made.service.context.clients["main"]
        client.share_rate = partial(shared.__setitem__, made.base)
    await until(lambda: [shared.get(made.base) for made in both] == [2, 2])
    await both[1].stop()
    await until(lambda: shared[both[0].base] == 1)
