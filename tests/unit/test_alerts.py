"""Each destination is told once of what is raised and of what is gone, over restarts too."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import capture_logs

from service.ledger.ledger import Ledger
from service.model.account_checks import Issue
from service.model.policy import Policies, Policy
from service.observability.metrics import Metrics
from service.settings import AlertSettings
from service.store.alerts import forget_destinations, issues_alerted
from service.workers import alerts
from service.workers.alerts import Alerter, AlertsError, Channel, Follower, channels_of, message_of
from service.workers.noticing import Noticer
from tests.acceptance.conftest import until
from tests.acceptance.sinks import Delivery, Sink, sink
from tests.storing import AnyDatabase, MakeDatabase, opening

NOW = 1_600_000_000_000
ISSUE = Issue("webhook_url", "main", NOW, "the webhook URL leads elsewhere")
OTHER = Issue("clock_skew", "main", NOW, "the clock is 90 s ahead")
OF_RELAY = Issue("relay_dead", None, NOW, "relay crm: 2 deliveries were given up", "crm")
NOTICE = Issue("settings_unreadable", "main", NOW, "the login may not read them")


class World:
    """A ledger on a database, with issues of the test's own and whom it alerts."""

    def __init__(self, database: AnyDatabase) -> None:
        self.issues: list[Issue] = []
        self.database = database
        self.begin()

    def begin(self) -> None:
        """Begin with nothing in memory, as after a start."""
        policies = {"main": Policies((), Policy("default"))}
        self.metrics = Metrics()
        self.ledger = Ledger(self.database, policies, self.metrics, max_waiting=1000)
        self.noticer = Noticer(
            lambda: [(issue.account or "", issue) for issue in self.issues],
            lambda _: True,
            self.ledger,
            self.database,
        )
        self.alerter = Alerter(self.ledger, self.database, self.metrics)

    async def there_is(self, *issues: Issue) -> None:
        """Let these be all issues that there are."""
        self.issues = [*issues]
        await self.noticer.look()

    def follower(self, of: Sink) -> Follower:
        return Follower(channel(of), self.database, self.metrics)

    async def told(self, of: Sink) -> set[str]:
        """Give the codes that a destination was told of, as it is kept."""
        query = partial(issues_alerted, destination=channel(of).id)
        return {code for _, code, _ in await self.database.read(query)}

    def count(self, result: str) -> float:
        labels = {"scheme": "json", "result": result}
        return self.metrics.registry.get_sample_value("ackgate_alerts_total", labels) or 0.0

    def follow(self, *sinks: Sink) -> None:
        self.alerter.use([channel(one) for one in sinks])
        self.alerter.start()

    async def end(self) -> None:
        self.alerter.stop()
        await self.alerter.finish(30)


def url(of: Sink) -> str:
    return of.url.replace("http:", "json:").replace("/hook", "/a-secret-path")


def channel(*of: Sink) -> Channel:
    [made] = channels(*of)
    return made


def channels(*of: Sink) -> list[Channel]:
    return channels_of(AlertSettings(urls=SecretStr("\n".join(map(url, of)))))


def messages(of: Sink) -> list[dict[str, Any]]:
    """Give what came and was answered with success."""
    return [json.loads(body) for body in of.bodies]


def titles(of: Sink) -> list[str]:
    return [message["title"] for message in messages(of)]


@pytest.fixture
async def world(make_database: MakeDatabase) -> AsyncIterator[World]:
    async with opening(make_database()) as database:
        made = World(database)
        yield made
        await made.end()


@pytest.fixture
async def pager() -> AsyncIterator[Sink]:
    async with sink() as made:
        yield made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause as little as a test can stand."""
    monkeypatch.setattr(alerts, "GROUP_SECONDS", 0.01)
    monkeypatch.setattr(alerts, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(alerts, "LONGEST_PAUSE_SECONDS", 0.02)


async def test_what_is_raised_is_one_message_and_what_is_gone_is_its_all_clear(
    world: World, pager: Sink
) -> None:
    follower = world.follower(pager)
    await follower.look()
    assert pager.hits == []
    await world.there_is(ISSUE)
    await follower.look()
    await follower.look()
    [raised] = messages(pager)
    assert raised["title"] == "Ackgate: 1 issue raised"
    assert raised["type"] == "warning"
    for words in ("webhook_url (account main)", ISSUE.detail, ISSUE.cure):
        assert words in raised["message"]
    await world.there_is()
    await follower.look()
    await follower.look()
    [_, cleared] = messages(pager)
    assert (cleared["title"], cleared["type"]) == ("Ackgate: 1 issue cleared", "success")
    assert cleared["message"] == "Cleared: webhook_url (account main)\n\nNo issue is left."


async def test_a_restart_repeats_nothing_and_forgets_nothing(world: World, pager: Sink) -> None:
    await world.there_is(ISSUE)
    await world.follower(pager).look()
    world.begin()
    await world.follower(pager).look()
    assert len(messages(pager)) == 1
    await world.there_is(OTHER)  # while nobody is alerted
    world.begin()
    await world.follower(pager).look()
    await world.follower(pager).look()
    [_, then] = messages(pager)
    assert then["title"] == "Ackgate: 1 issue raised, 1 issue cleared"
    assert await world.told(pager) == {"clock_skew"}


async def test_a_notice_is_no_alert(world: World, pager: Sink) -> None:
    await world.there_is(NOTICE)
    follower = world.follower(pager)
    await follower.look()
    await world.there_is()
    await follower.look()
    assert pager.hits == []


async def test_what_comes_and_goes_before_anybody_can_be_told_is_no_alert(
    world: World, pager: Sink
) -> None:
    pager.answer = lambda _: 503
    follower = world.follower(pager)
    await world.there_is(ISSUE)
    await follower.look()
    assert follower.failures == 1
    await world.there_is()
    pager.answer = lambda _: 200
    await follower.look()
    assert messages(pager) == []
    assert follower.failures == 0


@pytest.mark.usefixtures("soon")
async def test_what_is_raised_while_a_message_is_under_way_is_one_message(
    world: World, pager: Sink
) -> None:
    has_come, may_answer = asyncio.Event(), asyncio.Event()

    async def late(_: Delivery) -> web.Response:
        has_come.set()
        await may_answer.wait()
        return web.Response()

    pager.answer = late
    world.follow(pager)
    await world.there_is(OF_RELAY)
    await has_come.wait()
    await world.there_is(OF_RELAY, ISSUE)
    await world.there_is(OF_RELAY, ISSUE, OTHER)
    may_answer.set()
    await until(lambda: len(pager.taken) == 2)
    [_, grouped] = messages(pager)
    assert grouped["title"] == "Ackgate: 2 issues raised"
    assert {"webhook_url", "clock_skew"} <= set(grouped["message"].replace("(", " ").split())
    assert grouped["message"].endswith("Still there: 1 that was told before")


@pytest.mark.usefixtures("soon")
async def test_a_destination_that_is_down_is_told_once_it_is_back(
    world: World, pager: Sink
) -> None:
    await pager.close()
    world.follow(pager)
    with capture_logs() as lines:
        await world.there_is(ISSUE)
        await until(lambda: world.count("failed") >= 2)
        assert world.alerter.failing == 1
        await pager.open(pager.port)
        await until(lambda: len(pager.taken) == 1)
        await until(lambda: world.alerter.failing == 0)
    said = [line for line in lines if line["event"] == "an alert did not go out"]
    assert {(line["scheme"], line["line"]) for line in said} == {("json", 1)}
    assert "a-secret-path" not in str(lines)
    assert str(pager.port) not in str(lines)
    assert world.count("sent") == 1

    async def is_kept() -> bool:
        return await world.told(pager) == {"webhook_url"}

    await until(is_kept)
    assert titles(pager) == ["Ackgate: 1 issue raised"]


@pytest.mark.usefixtures("soon")
async def test_one_that_fails_or_hangs_holds_up_no_other_and_not_the_end(
    world: World, pager: Sink
) -> None:
    released = asyncio.Event()

    async def hang(_: Delivery) -> web.Response:
        await released.wait()
        return web.Response(status=500)

    async with sink(lambda _: 500) as broken, sink(hang) as hanging:
        world.follow(broken, hanging, pager)
        await world.there_is(ISSUE)
        await until(lambda: pager.taken and hanging.hits and len(broken.hits) > 1)
        await world.there_is()
        await until(lambda: len(pager.taken) == 2)
        world.alerter.stop()
        await world.alerter.finish(0)
        assert broken.taken == hanging.taken == []
        released.set()


@pytest.mark.usefixtures("soon")
async def test_a_new_destination_is_told_what_stands_and_one_that_is_gone_nothing_more(
    world: World, pager: Sink
) -> None:
    async with sink() as new:
        world.follow(pager)
        await world.there_is(ISSUE)
        await until(lambda: len(pager.taken) == 1)
        world.alerter.use(channels(new))
        await until(lambda: len(new.taken) == 1)
        await world.there_is()
        await until(lambda: len(new.taken) == 2)
        assert titles(new) == ["Ackgate: 1 issue raised", "Ackgate: 1 issue cleared"]
    assert len(pager.hits) == 1


async def test_a_message_that_was_sent_is_not_sent_again_for_a_fault_of_the_database(
    world: World, pager: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.there_is(ISSUE)
    follower = world.follower(pager)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(alerts, "keep_alerted", fail)
        with pytest.raises(RuntimeError):
            await follower.look()
    assert await world.told(pager) == set()
    await follower.look()
    assert len(pager.hits) == 1
    assert await world.told(pager) == {"webhook_url"}


async def test_what_was_told_to_destinations_that_are_gone_is_forgotten(
    world: World, pager: Sink
) -> None:
    async with sink() as other:
        await world.there_is(ISSUE)
        for one in (pager, other):
            await world.follower(one).look()
        kept = [channel(pager).id]
        await world.database.write(partial(forget_destinations, kept=kept))
        assert await world.told(pager) == {"webhook_url"}
        assert await world.told(other) == set()
        await world.database.write(partial(forget_destinations, kept=[]))
        assert await world.told(pager) == set()


def test_a_message_names_a_few_and_counts_the_others() -> None:
    many = [Issue("unknown_number", None, NOW, "callbacks", str(n)) for n in range(12)]
    message = message_of(many, many, 3)
    assert message.title == "Ackgate: 12 issues raised, 12 issues cleared"
    assert message.body.count("What to do: ") == message.body.count("Cleared: ") == alerts.NAMED
    assert message.body.count("… and 2 more") == 2
    assert message.body.endswith("Still there: 3 that were told before")


@pytest.mark.parametrize("text", ["nonsense://host/x", "json://one/, json://two/"])
def test_a_line_that_apprise_does_not_know_is_named_and_not_shown(text: str) -> None:
    with pytest.raises(AlertsError) as caught:
        channels_of(AlertSettings(urls=SecretStr(f"# a comment\n{text}/")))
    said = "alerts.urls: line 2 is not one URL that Apprise knows; correct or remove it"
    assert str(caught.value) == said


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert channels_of(AlertSettings()) == []
    with pytest.raises(AlertsError, match=r"^alerts\.urls: .* ackgate\[alerts\]"):
        channels_of(AlertSettings(urls=SecretStr("json://127.0.0.1")))
