"""Relays from a terminal: where they stand, and what a person does about them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from tests.acceptance.commands import parsed, refused, run
from tests.acceptance.conftest import OTHER_ID, Install, Installation, digest_of, until
from tests.acceptance.sinks import Delivery, Sink, sink
from tests.acceptance.test_relays import relay, text, to

SPAN = ("--from", "2026-01-01T00:00Z", "--to", "2100-01-01T00:00Z")


@dataclass
class Relaying:
    """A service with one relay, and where that leads."""

    made: Installation
    crm: Sink

    @property
    def base(self) -> str:
        return self.made.base


@pytest.fixture
async def relaying(install: Install) -> AsyncIterator[Relaying]:
    async with sink() as crm:
        yield Relaying(await install(relays=to(crm.url)), crm)


async def dead(relaying: Relaying) -> None:
    """Let one delivery be given up, and one of another user be tried again and again."""
    relaying.crm.answer = lambda d: 200 if d.body == text(0) else 422
    await relaying.made.stop()
    await relaying.made.start(relays=to(relaying.crm.url, give_up_after_hours=1e-9))
    await relaying.made.deliver(text(1), text(2, OTHER_ID))
    await until(lambda: len(relaying.crm.hits) == 2)
    [first, _] = await rows(relaying)
    while (await rows(relaying))[0]["state"] != "dead":
        hits = len(relaying.crm.hits)
        await run("relays", "retry", "crm", str(first["id"]), url=relaying.base)
        await until(lambda hits=hits: len(relaying.crm.hits) > hits)


async def rows(relaying: Relaying, *words: str) -> list[dict[str, object]]:
    found = await run("relays", "deliveries", "crm", *words, "--json", url=relaying.base)
    return list(parsed(found)["items"])


async def test_relays_are_listed_within_80_columns_without_what_there_is_none_of(
    relaying: Relaying,
) -> None:
    for words in (("relays",), ("relays", "list")):
        listed = (await run(*words, url=relaying.base)).stdout
        assert [word in listed for word in ("crm", "running", "dead", "lost")] == [
            True, True, False, False,
        ]  # fmt: skip
        assert parsed(await run(*words, "--json", url=relaying.base))["items"][0]["dead"] == 0
    await dead(relaying)
    await run("relays", "pause", "crm", url=relaying.base)
    listed = (await run("relays", url=relaying.base)).stdout
    assert "answered 422" in listed
    assert listed.splitlines()[0].startswith("relay ")
    assert max(map(len, listed.splitlines())) <= 80


async def test_without_a_relay_the_list_says_so(manual: Installation) -> None:
    assert "there is no relay" in (await run("relays", url=manual.base)).stderr


async def test_deliveries_are_listed_by_state_with_what_was_answered(relaying: Relaying) -> None:
    assert (
        "no delivery is like that"
        in (await run("relays", "deliveries", "crm", url=relaying.base)).stderr
    )
    await dead(relaying)
    relaying.crm.answer = lambda _: web.Response(status=422, text="unknown template")
    [given_up] = await rows(relaying, "--state", "dead")
    await run("relays", "retry", "crm", str(given_up["id"]), url=relaying.base)

    async def told() -> bool:
        found = await rows(relaying, "--state", "dead", "--state", "retrying")
        return "unknown template" in [row["answer"] for row in found]

    await until(told)
    shown = (await run("relays", "deliveries", "crm", url=relaying.base)).stdout
    assert "unknown template" in shown
    assert max(map(len, shown.splitlines())) <= 80


async def test_a_relay_is_paused_and_resumed(relaying: Relaying) -> None:
    said = (await run("relays", "pause", "crm", url=relaying.base)).stdout
    assert said == "crm is paused, 0 behind\n"
    await relaying.made.deliver(text(1))
    resumed = parsed(await run("relays", "resume", "crm", "--json", url=relaying.base))
    assert resumed["state"] == "running"
    await until(lambda: relaying.crm.bodies == [text(1)])


async def test_all_dead_deliveries_are_tried_again_or_a_single_one(relaying: Relaying) -> None:
    await dead(relaying)
    relaying.crm.answer = lambda _: 200
    said = (await run("relays", "retry", "crm", url=relaying.base)).stdout
    assert said == "tried again: 1\n"
    await until(lambda: relaying.crm.bodies == [text(1)])

    async def one_is_left() -> bool:
        return len(await rows(relaying)) == 1

    await until(one_is_left)
    [left] = await rows(relaying)
    await run("relays", "retry", "crm", str(left["id"]), url=relaying.base)
    await until(lambda: relaying.crm.bodies == [text(1), text(2, OTHER_ID)])
    assert "404" in await refused("relays", "retry", "crm", "99", url=relaying.base)


async def test_a_replay_shows_how_much_is_left_until_it_is_through(relaying: Relaying) -> None:
    await relaying.made.deliver(*(text(n, f"1631555{n:04}") for n in range(30)))
    await until(lambda: len(relaying.crm.taken) == 30)
    done = await run("relays", "replay", "crm", *SPAN, url=relaying.base)
    assert "30/30" in done.stderr
    assert done.stdout == "arrived then: 30\n"
    assert len(relaying.crm.taken) == 60
    told = parsed(await run("relays", "replay", "crm", *SPAN, "--json", url=relaying.base))
    assert told == {"count": 30}
    assert len(relaying.crm.taken) == 90


async def test_a_replay_need_not_be_waited_for_and_is_not_while_paused(
    relaying: Relaying,
) -> None:
    await relaying.made.deliver(text(1))
    await until(lambda: relaying.crm.taken)
    await run("relays", "pause", "crm", url=relaying.base)
    said = await run("relays", "replay", "crm", *SPAN, "--no-wait", url=relaying.base)
    assert said.stdout == "arrived then: 1\n"
    ended = await run("relays", "replay", "crm", *SPAN, url=relaying.base, expect=1)
    assert "crm is paused, with 2 left: 'ackgate relays resume crm'" in ended.stderr
    assert len(relaying.crm.taken) == 1
    assert (await relay(relaying.made))["replaying"] == 2


async def test_a_replay_of_a_time_without_callbacks_ends_at_once(relaying: Relaying) -> None:
    span = ("--from", "2026-01-01T00:00Z", "--to", "2026-01-01T00:01Z")
    done = await run("relays", "replay", "crm", *span, url=relaying.base)
    assert done.stdout == "arrived then: 0\n"
    backwards = ("--from", span[3], "--to", span[1])
    assert "422" in await refused("relays", "replay", "crm", *backwards, url=relaying.base)
    words = ("relays", "replay", "crm", "--from", "noon", "--to", "later")
    assert "must be a time" in await refused(*words, url=relaying.base, expect=2)


async def test_a_test_shows_what_the_destination_answers(relaying: Relaying) -> None:
    told = (await run("relays", "test", "crm", url=relaying.base)).stdout
    assert [line.split()[0] for line in told.splitlines()][:2] == ["status", "milliseconds"]

    async def late(_: Delivery) -> web.Response:
        await asyncio.sleep(0)
        return web.Response(status=401, text="wrong signature")

    relaying.crm.answer = late
    said = await run("relays", "test", "crm", url=relaying.base, expect=1)
    assert "wrong signature" in said.stdout
    assert said.stderr == "ackgate: not delivered: answered 401\n"
    as_json = await run("relays", "test", "crm", "--json", url=relaying.base, expect=1)
    assert parsed(as_json)["status"] == 401


async def test_an_unknown_relay_is_one_line(relaying: Relaying) -> None:
    for words in (("pause", "erp"), ("test", "erp"), ("deliveries", "erp"), ("retry", "erp")):
        assert "there is no such relay" in await refused("relays", *words, url=relaying.base)


async def test_what_only_an_admin_may_do_is_refused_to_others(install: Install) -> None:
    keys = {"op": {"role": "operator", "sha256": digest_of("op")}}
    made = await install(relays=to("http://127.0.0.1:9"), api={"keys": keys})
    assert "403" in await refused("relays", "replay", "crm", *SPAN, url=made.base, key="op")
    await run("relays", "pause", "crm", url=made.base, key="op")
