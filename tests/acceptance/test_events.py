"""`GET /api/v1/events`: a stream from wherever a reader was, and a list for those who poll."""

import asyncio
import re
import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from service.api import event_hub
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    digest_of,
    hour_ago,
    notice,
    until,
    wrote,
)
from tests.acceptance.streams import following
from tests.acceptance.test_issues import OFTEN

Json = dict[str, Any]
JSON = {"Accept": "application/json"}


def hub_of(made: Installation) -> event_hub.EventHub:
    assert made.service is not None
    assert made.service.context is not None
    return made.service.context.hub


async def listed(made: Installation, query: str = "", **headers: str) -> Json:
    status, answer = await made.api("GET", f"/events{query}", headers=JSON | headers)
    assert status == 200, answer
    return dict(answer)


def types_of(answer: Json) -> list[str]:
    return [item["type"] for item in answer["items"] if not item["type"].startswith("issue.")]


IDENTITIES = "?type=identity.pending,identity.superseded,identity.held,identity.acknowledged"


# The stream


async def test_what_happens_is_sent_as_it_happens_as_one_line_of_json(manual: Installation) -> None:
    async with following(manual, IDENTITIES) as stream:
        hash_ = await manual.change()
        sent = await stream.next()
        assert sent is not None
        assert (sent.type, sent.data["type"]) == ("identity.pending", "identity.pending")
        assert list(sent.data) == ["id", "type", "at", "account", "user", "data"]
        assert sent.last_id == sent.data["id"]
        assert re.fullmatch(r"[A-Za-z0-9._~-]+", sent.last_id)
        assert (sent.data["account"], sent.data["user"]) == ("main", WA_ID)
        shown = await manual.identity()
        del shown["history"], shown["audit"]
        assert sent.data["data"] == shown
        await manual.hold(hash_)
        held = await stream.next()
        assert held is not None
        assert (held.type, held.data["data"]["state"]) == ("identity.held", "held")


async def test_the_stream_says_what_it_is_and_that_no_cache_keeps_it(manual: Installation) -> None:
    async with following(manual) as stream:
        headers = stream.response.headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Request-ID"]
        assert headers["Connection"] == "close"


async def test_without_an_id_it_begins_at_now_and_says_where_that_is(manual: Installation) -> None:
    await manual.change()
    async with following(manual, IDENTITIES) as stream:
        before = await listed(manual, f"{IDENTITIES}&after={stream.last_id}")
        assert before["items"] == []
        await manual.change(OTHER_ID)
        sent = await stream.next()
        assert sent is not None
        assert sent.data["user"] == OTHER_ID


@pytest.mark.parametrize("how", ["header", "query"])
async def test_whoever_comes_again_with_the_last_id_misses_nothing(
    manual: Installation, how: str
) -> None:
    async with following(manual, IDENTITIES) as stream:
        await manual.change(WA_ID)
        first = await stream.next()
        assert first is not None
    for number in range(3):
        await manual.change(f"1631555{number:04}")
    more = f"{IDENTITIES}&after={first.last_id}"
    again = (
        following(manual, more) if how == "query" else following(manual, IDENTITIES, first.last_id)
    )
    async with again as stream:
        await manual.change(OTHER_ID)
        users = [sent.data["user"] for sent in await stream.some(4)]
    assert users == ["16315550000", "16315550001", "16315550002", OTHER_ID]


async def test_over_a_restart_a_stream_ends_at_once_and_nothing_is_missed(
    manual: Installation,
) -> None:
    seen: list[str] = []
    async with following(manual, IDENTITIES) as stream:
        await manual.change("1631")
        seen += [sent.data["user"] for sent in await stream.some(1)]
        await manual.stop()
        assert await stream.next() is None
        assert stream.response.content.exception() is None, "it ended, and was not cut"
        last_id = stream.last_id
    await manual.start()
    await manual.change("1632")
    async with following(manual, IDENTITIES, last_id) as stream:
        await manual.change("1633")
        seen += [sent.data["user"] for sent in await stream.some(2)]
    assert seen == ["1631", "1632", "1633"]


async def test_while_it_stops_a_stream_is_opened_and_ended_so_that_its_reader_comes_again(
    manual: Installation,
) -> None:
    hub_of(manual).close()
    async with following(manual) as stream:
        assert await stream.next() is None
        assert stream.retry == 2000


async def test_filters_pass_on_what_was_asked_for_alone(manual: Installation) -> None:
    query = "?account=main&type=identity.pending&type=identity.held"
    none = "?account=elsewhere"
    async with (
        following(manual, query) as stream,
        following(manual, IDENTITIES) as others,
        following(manual, none) as nothing,
    ):
        hash_ = await manual.change()
        await manual.hold(hash_)
        await manual.acknowledge(hash_, query="?wait=10")
        await manual.change(OTHER_ID)
        told = [(sent.type, sent.data["user"]) for sent in await stream.some(3)]
        assert [sent.type for sent in await others.some(4)][2] == "identity.acknowledged"
        hub_of(manual).close()
        assert await nothing.next() is None
    assert told == [
        ("identity.pending", WA_ID),
        ("identity.held", WA_ID),
        ("identity.pending", OTHER_ID),
    ]


async def test_a_heartbeat_moves_a_reader_on_that_wants_none_of_what_happens(
    manual: Installation,
) -> None:
    async with following(manual, "?type=identity.failed") as stream, following(manual) as all_:
        await manual.change()
        sent = await all_.next()
        while sent is not None and sent.type != "identity.pending":
            sent = await all_.next()
        hub_of(manual).beat()
        moved = await stream.moved()
        assert sent is not None
        assert moved == sent.last_id
        await manual.change(OTHER_ID)
        hub_of(manual).beat()
    async with following(manual, IDENTITIES, moved) as stream:
        again = await stream.next()
        assert again is not None
        assert again.data["user"] == OTHER_ID


async def test_many_readers_and_many_events_arrive_whole_and_in_order(
    manual: Installation,
) -> None:
    count = 60
    streams = [following(manual, IDENTITIES) for _ in range(20)]
    opened = [await stream.__aenter__() for stream in streams]
    for number in range(count):
        await manual.deliver(notice(f"1631555{number:04}", HASH_A, hour_ago(number)))
    late = following(manual, f"{IDENTITIES}&after=first")
    opened.append(await late.__aenter__())
    raws = []
    for stream in opened:
        told = [sent.data["id"] for sent in await stream.some(count)]
        assert told == sorted(set(told), key=lambda id_: int(id_.partition("-")[2]))
        raws.append(told)
    assert all(told == raws[0] for told in raws)
    for stream in (*streams, late):
        await stream.__aexit__(None, None, None)


# What was missed


async def test_an_id_of_another_epoch_is_told_so_and_begins_at_the_first_event_kept(
    manual: Installation,
) -> None:
    await manual.change()
    async with following(manual, IDENTITIES, "another1-7") as stream:
        reset, first = await stream.some(2)
    assert (reset.type, reset.data["type"], reset.data["data"]) == ("reset", "reset", None)
    assert (first.type, first.data["user"]) == ("identity.pending", WA_ID)


async def test_after_a_restore_a_reader_is_told_so(manual: Installation) -> None:
    await manual.change(WA_ID)
    last_id = (await listed(manual))["next_cursor"]
    backup = await manual.back_up()
    await manual.change(OTHER_ID)
    await manual.restore(backup)
    async with following(manual, IDENTITIES, last_id) as stream:
        reset, first = await stream.some(2)
    assert (reset.type, first.data["user"]) == ("reset", WA_ID)
    assert not first.last_id.startswith(last_id.partition("-")[0])


async def forget(made: Installation, up_to: int) -> None:
    await made.stop()
    await made.write("DELETE FROM events WHERE id <= :up_to", up_to=up_to)
    note = "INSERT INTO installation VALUES ('events_deleted', :up_to)"
    await made.write(note, up_to=str(up_to))
    await made.start()


async def test_an_id_that_is_unknown_or_not_kept_any_more_is_told_as_a_gap(
    manual: Installation,
) -> None:
    for number in range(3):
        await manual.deliver(notice(f"163155500{number}", HASH_A, hour_ago(number)))
    items = [i for i in (await listed(manual))["items"] if i["type"] == "identity.pending"]
    epoch = items[0]["id"].partition("-")[0]
    numbers = [int(item["id"].partition("-")[2]) for item in items]
    await forget(manual, numbers[1])
    for missed in (f"{epoch}-{numbers[0]}", f"{epoch}-999999", "of-another-kind", "x" * 200):
        async with following(manual, IDENTITIES, missed) as stream:
            gap, first = await stream.some(2)
        assert (gap.type, first.data["user"]) == ("gap", "1631555002"), missed
    for kept in (f"{epoch}-{numbers[1]}", "first"):
        async with following(manual, IDENTITIES, kept) as stream:
            sent = await stream.next()
        assert sent is not None
        assert sent.data["user"] == "1631555002"


# Who is too slow, and who may no longer


async def stalled(made: Installation) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream and read nothing of it; as the kernel holds little, it is noticed soon."""
    assert made.service is not None
    [listening] = made.service._listeners[0].server.sockets
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    host, port = made.base.removeprefix("http://").split(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1)
    writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def test_a_reader_that_is_too_far_behind_is_cut_off_and_the_others_are_not(
    manual: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hub, "MAX_BEHIND", 20_000)
    _, writer = await stalled(manual)
    metrics = hub_of(manual)._metrics
    await until(lambda: metrics.registry.get_sample_value("ackgate_event_readers") == 1)
    async with following(manual, IDENTITIES) as stream:
        count = 0

        async def is_cut() -> bool:
            nonlocal count
            many = [notice(f"16{count + n:09}", HASH_A, hour_ago(n)) for n in range(500)]
            messages = [message for one in many for message in one["messages"]]
            await manual.deliver({"messages": messages})
            await stream.some(len(many))
            count += len(many)
            return metrics.registry.get_sample_value("ackgate_event_readers_cut_total") == 1

        await until(is_cut, 60, "the stalled reader is cut off")
        await until(lambda: metrics.registry.get_sample_value("ackgate_event_readers") == 1)
        await manual.change(OTHER_ID)
        sent = await stream.next()
        assert sent is not None
        assert sent.data["user"] == OTHER_ID
    writer.close()


async def test_a_reader_that_goes_away_is_forgotten(manual: Installation) -> None:
    metrics = hub_of(manual)._metrics
    async with following(manual):
        await until(lambda: metrics.registry.get_sample_value("ackgate_event_readers") == 1)

    async def is_gone() -> bool:
        hub_of(manual).beat()
        return metrics.registry.get_sample_value("ackgate_event_readers") == 0

    await until(is_gone, what="the reader is gone")


async def test_a_stream_ends_once_the_key_of_its_reader_does(install: Install) -> None:
    keys = {"desk": {"role": "reader", "sha256": digest_of("desk")}}
    made = await install(api={"keys": keys})
    async with following(made, key="desk") as stream:
        metrics = hub_of(made)._metrics
        await until(lambda: metrics.registry.get_sample_value("ackgate_event_readers") == 1)
        assert made.service is not None
        assert made.service.context is not None
        context = made.service.context
        another = {"another": context.settings.api.keys["desk"]}
        api = context.settings.api.model_copy(update={"keys": another})
        context.settings = context.settings.model_copy(update={"api": api})
        hub_of(made).beat()
        while await stream.next() is not None:
            pass


async def test_a_key_for_some_accounts_sees_theirs_alone(open_shop: Any) -> None:
    limited = {"role": "reader", "sha256": digest_of("desk"), "accounts": ["shop"]}
    whole = {"role": "admin", "sha256": digest_of("all")}
    made = await open_shop(api={"keys": {"desk": limited, "all": whole}})
    made.key = "all"
    await made.change()
    assert "identity.pending" in types_of(await listed(made))
    for query in ("", "?account=main", "?account=main,shop"):
        status, answer = await made.api("GET", f"/events{query}", headers=JSON, key="desk")
        assert status == 200
        assert {item["account"] for item in answer["items"]} <= {"shop"}
    async with following(made, "?after=first", key="desk") as stream:
        await made.change(OTHER_ID)
        newest = (await listed(made))["next_cursor"]
        await until(lambda: hub_of(made)._position >= int(newest.partition("-")[2]))
        hub_of(made).beat()
        while stream.last_id != newest:
            await stream.moved()
        assert WA_ID.encode() not in stream.raw
        assert OTHER_ID.encode() not in stream.raw


# The list


async def test_the_list_has_what_is_kept_and_always_where_to_go_on(manual: Installation) -> None:
    await manual.change()
    first = await listed(manual, IDENTITIES)
    assert types_of(first) == ["identity.pending"]
    rest = await listed(manual, f"{IDENTITIES}&after={first['next_cursor']}")
    assert (rest["items"], rest["next_cursor"]) == ([], first["next_cursor"])
    await manual.change(OTHER_ID)
    [item] = (await listed(manual, f"{IDENTITIES}&after={rest['next_cursor']}"))["items"]
    assert item["user"] == OTHER_ID
    none = await listed(manual, f"?type=identity.failed&after={rest['next_cursor']}")
    assert none["items"] == []
    assert none["next_cursor"] != rest["next_cursor"], "it moves on although nothing is wanted"


async def test_the_list_is_read_page_by_page(manual: Installation) -> None:
    for number in range(5):
        await manual.deliver(notice(f"163155500{number}", HASH_A, hour_ago(number)))
    found: list[str] = []
    cursor = "first"
    while len(found) < 5:
        page = await listed(manual, f"{IDENTITIES}&limit=2&after={cursor}")
        assert len(page["items"]) <= 2
        found += [item["user"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert found == [f"163155500{number}" for number in range(5)]


async def test_the_list_tells_too_what_was_missed(manual: Installation) -> None:
    await manual.change()
    answer = await listed(manual, f"{IDENTITIES}&after=another1-7")
    assert [item["type"] for item in answer["items"]] == ["reset", "identity.pending"]


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("text/event-stream, application/json;q=0.9", "text/event-stream"),
        ("text/event-stream;q=0.1, Application/JSON;q=0.9", "application/json"),
    ],
)
async def test_accept_chooses_between_stream_and_list(
    manual: Installation, accept: str, media: str
) -> None:
    url = f"{manual.base}/api/v1/events"
    for method in (manual.http.get, manual.http.head):
        headers = {"Accept": accept} if accept else {}
        async with method(url, headers=headers, skip_auto_headers={"Accept"}) as response:
            assert (response.status, response.content_type) == (200, media)


@pytest.mark.parametrize("query", ["?after=x", "?after=", "?type=identity.asleep", "?limit=0"])
async def test_what_can_not_be_meant_is_422(manual: Installation, query: str) -> None:
    status, problem = await manual.api("GET", f"/events{query}")
    assert (status, problem["status"]) == (422, 422)


# What is told


async def test_events_of_every_subject_have_the_shape_that_is_described(install: Install) -> None:
    """The list is held against its type, with which each Identity, Contact and Issue has to go."""
    made = await install(**OFTEN)
    hash_ = await made.change(hash_=HASH_A, at_ms=hour_ago(1))
    await made.hold(hash_)
    await made.acknowledge(hash_, query="?wait=10")
    await made.change(hash_=HASH_B)
    path = f"/accounts/main/recipients/{WA_ID}/block"
    soon = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, UTC).isoformat()
    await made.api("PUT", path, {"reason": "asked", "until": soon})
    await made.api("DELETE", path)
    contact = {"contacts": [{"input": "+1 631", "status": "valid", "wa_id": WA_ID}]}
    await made.deliver(contact)
    made.sim.settings.callback_persist = False
    expected = {
        "identity.pending", "identity.held", "identity.acknowledged", "identity.superseded",
        "recipient.blocked", "recipient.resumed", "contact.resolved", "issue.raised",
    }  # fmt: skip

    async def are_told() -> bool:
        return {item["type"] for item in (await listed(made))["items"]} >= expected

    await until(are_told)  # an issue is noticed a little later


async def test_an_ordinary_message_is_told_to_nobody(manual: Installation) -> None:
    await manual.change()
    user = manual.sim.users[WA_ID]
    before = await listed(manual, IDENTITIES)
    await manual.deliver(wrote(WA_ID, user.hash, user.created_timestamp))
    after = await listed(manual, IDENTITIES)
    assert after["items"] == before["items"]


async def test_a_replay_tells_what_it_changes_and_nothing_twice(manual: Installation) -> None:
    await manual.change()
    before = types_of(await listed(manual))
    _, journal = await manual.api("GET", "/journal")
    await manual.api("POST", f"/journal/{journal['items'][0]['id']}/replay")
    assert types_of(await listed(manual)) == before


async def test_streams_are_counted_and_their_length_is_no_time_of_an_answer(
    manual: Installation,
) -> None:
    async with following(manual, IDENTITIES) as stream:
        await manual.change()
        await stream.next()
        _, text = await manual.api("GET", "/metrics")
        assert "ackgate_event_readers 1.0" in text
        assert 'ackgate_events_told_total{type="identity.pending"} 1.0' in text
        hub_of(manual).close()
        assert await stream.next() is None

    async def is_counted() -> bool:
        _, text = await manual.api("GET", "/metrics")
        assert 'ackgate_request_seconds_count{route="GET /api/v1/events"}' not in text
        return 'ackgate_requests_total{route="GET /api/v1/events",status="200"} 1.0' in text

    await until(is_counted)


async def test_head_says_what_get_would_without_a_stream(manual: Installation) -> None:
    async with manual.http.head(f"{manual.base}/api/v1/events") as response:
        assert response.status == 200
        assert await response.read() == b""
