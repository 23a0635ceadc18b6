"""Sending through when things go wrong: a message is sent once or not at all, and which is said."""

import asyncio
import json
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import aiohttp
import pytest
from yarl import URL

from service.api import sending
from service.whatsapp import http
from tests.acceptance.conftest import (
    APP_ENDPOINT,
    SHEENA,
    WA_ID,
    Child,
    CloudInstallation,
    Json,
    OpenShop,
    Spawn,
    until,
)
from tests.acceptance.sending import (
    BOTH,
    CLOUD,
    COMPAT,
    GRAPH,
    KEYS,
    ONPREM,
    SENDER,
    cloud_message,
    form,
    message,
    onprem_message,
    post,
)

UNKNOWN = "it is not known whether the message was sent"


@pytest.fixture
async def shop(open_shop: OpenShop) -> CloudInstallation:
    seconds = {"timeout_seconds": 1}
    made = await open_shop(api=KEYS, accounts={"main": seconds, "shop": seconds})
    made.key = "key-of-admin"
    return made


def side(shop: CloudInstallation, path: str) -> Any:
    return shop.meta if path == CLOUD else shop.sim


def texts(shop: CloudInstallation) -> list[str]:
    return [one.body["text"]["body"] for one in (*shop.meta.messages, *shop.sim.messages)]


def said(answer: Any) -> str:
    return json.dumps(answer.body)


# An answer that is lost


@BOTH
@pytest.mark.parametrize(
    ("fault", "status", "taken"),
    [
        ({"drop": "after"}, 502, 1),
        ({"drop": "before"}, 502, 0),
        ({"hang": 5, "effect": True}, 504, 1),
        ({"hang": 5}, 504, 0),
        ({"latency": 2}, 504, 0),
    ],
    ids=str,
)
async def test_a_lost_answer_is_said_to_leave_it_open_and_nothing_is_sent_twice(
    shop: CloudInstallation, path: str, fault: Json, status: int, taken: int
) -> None:
    side(shop, path).fault("messages", times=1, **fault)
    answer = await post(shop, path, message(path))
    assert (answer.status, UNKNOWN in said(answer)) == (status, True)
    assert side(shop, path).calls["messages"] == 1
    assert len(texts(shop)) == taken
    assert (await post(shop, path, message(path, text="next"))).status == 200
    assert side(shop, path).calls["messages"] == 2
    assert texts(shop)[taken:] == ["next"]


@BOTH
async def test_without_a_connection_nothing_was_sent_and_it_is_said(
    shop: CloudInstallation, path: str
) -> None:
    # A connection that is still being made would outlast the simulator.
    await until(lambda: shop.sim.calls.counts["settings"] and shop.sim.calls.counts["health"])
    await shop.sim.stop()
    answer = await post(shop, path, message(path))
    assert (answer.status, "nothing was sent" in said(answer)) == (503, True)
    assert int(answer.headers["Retry-After"]) > 0
    await shop.sim.start()
    assert texts(shop) == []
    assert (await post(shop, path, message(path))).status == 200
    assert len(texts(shop)) == 1


async def test_a_token_that_has_expired_is_renewed_and_the_message_is_sent_once(
    shop: CloudInstallation,
) -> None:
    assert (await post(shop, ONPREM, onprem_message(text="a"))).status == 200
    shop.sim.expire_tokens()
    assert (await post(shop, ONPREM, onprem_message(text="b"))).status == 200
    assert texts(shop) == ["a", "b"]
    assert Counter(call.status for call in shop.sim.calls.of("messages")) == {200: 2, 401: 1}


async def test_the_gate_is_asked_again_before_the_message_is_repeated_after_a_login(
    shop: CloudInstallation,
) -> None:
    assert (await post(shop, ONPREM, onprem_message(text="a"))).status == 200
    shop.sim.expire_tokens()
    shop.sim.fault("login", latency=0.5)
    slow = asyncio.create_task(post(shop, ONPREM, onprem_message(text="b")))
    await until(lambda: shop.sim.calls.in_flight["login"])
    path = f"/accounts/main/recipients/{WA_ID}/block"
    assert (await shop.api("PUT", path, {"reason": "closed"}))[0] == 200
    answer = await slow
    assert (answer.status, answer.reasons) == (409, ["blocked"])
    assert texts(shop) == ["a"]


async def test_while_the_login_is_refused_nothing_is_sent(shop: CloudInstallation) -> None:
    shop.sim.change_password("another")
    answer = await post(shop, ONPREM, onprem_message())
    assert (answer.status, "nothing was sent" in said(answer)) == (503, True)
    assert {call.outcome for call in shop.sim.calls.of("messages")} <= {"no_effect"}
    assert texts(shop) == []


# Waiting


@pytest.fixture
async def narrow(open_shop: OpenShop) -> AsyncIterator[CloudInstallation]:
    """One message at a time, on both APIs; the first one waits at WhatsApp until it is let go."""
    one = {"max_in_flight": 1, "timeout_seconds": 30}
    made = await open_shop(api=KEYS, accounts={"main": one, "shop": one})
    made.key = "key-of-admin"
    yield made
    made.sim.closing.set()


async def first_under_way(shop: CloudInstallation, path: str) -> Any:
    side(shop, path).fault("messages", latency=1.5, times=1)
    first = asyncio.create_task(post(shop, path, message(path, text="first")))
    await until(lambda: side(shop, path).calls.in_flight["messages"])
    return first


@BOTH
async def test_a_block_that_is_put_while_a_message_waits_for_its_place_counts(
    narrow: CloudInstallation, path: str
) -> None:
    first = await first_under_way(narrow, path)
    second = asyncio.create_task(post(narrow, path, message(path, text="second")))
    await asyncio.sleep(0.2)
    account, to = ("shop", SHEENA) if path == CLOUD else ("main", WA_ID)
    blocking = f"/accounts/{account}/recipients/{to}/block"
    assert (await narrow.api("PUT", blocking, {"reason": "closed"}))[0] == 200
    assert (await first).status == 200
    answer = await second
    assert (answer.status, answer.reasons) == (409, ["blocked"])
    assert texts(narrow) == ["first"]


async def test_a_block_that_is_put_while_other_calls_hold_a_message_up_counts(
    narrow: CloudInstallation,
) -> None:
    narrow.sim.set_user(WA_ID)
    assert (await post(narrow, ONPREM, onprem_message(text="logged in"))).status == 200
    narrow.sim.fault("identity_get", latency=1.5, times=1)
    asking = asyncio.create_task(narrow.of("main").refresh())
    await until(lambda: narrow.sim.calls.in_flight["identity_get"])
    held_up = asyncio.create_task(post(narrow, ONPREM, onprem_message()))
    await asyncio.sleep(0.2)
    blocking = f"/accounts/main/recipients/{WA_ID}/block"
    assert (await narrow.api("PUT", blocking, {"reason": "closed"}))[0] == 200
    assert (await asking)[0] == 200
    answer = await held_up
    assert (answer.status, answer.reasons) == (409, ["blocked"])
    assert texts(narrow) == ["logged in"]


@BOTH
async def test_nothing_is_sent_for_a_sender_that_went_away_while_it_waited(
    narrow: CloudInstallation, path: str
) -> None:
    first = await first_under_way(narrow, path)
    raw = json.dumps(message(path, text="second")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SENDER}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", URL(narrow.base).port)
    writer.write(head.encode() + raw)
    await asyncio.sleep(0.2)
    own = writer.get_extra_info("socket")
    own.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    assert (await first).status == 200
    assert (await post(narrow, path, message(path, text="third"))).status == 200
    assert texts(narrow) == ["first", "third"]


@BOTH
async def test_a_message_without_a_place_in_time_is_503_and_is_not_sent_later(
    narrow: CloudInstallation, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PLACE_SECONDS", 0.2)
    first = await first_under_way(narrow, path)
    answer = await post(narrow, path, message(path, text="second"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "nothing was sent" in said(answer)
    assert (await first).status == 200
    assert (await post(narrow, path, message(path, text="third"))).status == 200
    assert texts(narrow) == ["first", "third"]


async def test_a_hundred_messages_at_once_hold_up_no_acknowledgement(open_shop: OpenShop) -> None:
    shop = await open_shop(api=KEYS, accounts={"main": {"max_in_flight": 4}})
    shop.key = "key-of-admin"
    hash_ = await shop.change("16315550001")
    shop.sim.fault("messages", latency=3)
    many = [
        asyncio.create_task(post(shop, ONPREM, onprem_message(text=str(number))))
        for number in range(100)
    ]
    await until(lambda: shop.sim.calls.in_flight["messages"] == 2)
    status, identity = await shop.of("main").acknowledge(hash_, "16315550001", query="?wait=10")
    assert (status, identity["state"]) == (200, "acknowledged")
    assert shop.sim.calls.in_flight["messages"] == 2
    shop.sim.clear_faults()
    await asyncio.gather(*many)
    assert shop.sim.calls.most_in_flight["messages"] == 2


@BOTH
async def test_of_a_flood_each_message_is_sent_once_or_said_not_to_have_been(
    open_shop: OpenShop, path: str
) -> None:
    shop = await open_shop(api=KEYS, accounts={"shop": {"max_in_flight": 8}})
    api = side(shop, path)
    api.fault("messages", status=503, rate=0.1)
    api.fault("messages", drop="after", rate=0.1)
    numbers = [str(number) for number in range(600)]
    answers = await asyncio.gather(
        *(post(shop, path, message(path, text=number)) for number in numbers)
    )
    by_text = dict(zip(numbers, answers, strict=True))
    taken = Counter(texts(shop))
    assert max(taken.values()) == 1
    assert {answer.status for answer in answers} <= {200, 502, 503}
    for text, answer in by_text.items():
        if answer.status == 502:
            assert UNKNOWN in said(answer)
        else:
            assert taken[text] == (answer.status == 200)
    ids = [answer.body["messages"][0]["id"] for answer in answers if answer.status == 200]
    assert len(ids) == len(set(ids)) > (300 if shop.is_on_a_file else 100)
    assert api.calls["messages"] <= 600
    assert api.calls.most_in_flight["messages"] <= 8


# Kills and stops


@pytest.fixture
async def child(prepare_shop: OpenShop, spawn: Spawn) -> tuple[CloudInstallation, Child]:
    """The real command, with keys; the simulator's callbacks come to it."""
    prepared = await prepare_shop(api=KEYS, server={"shutdown_seconds": 3})
    command = await spawn(prepared.tree)
    command.key = "key-of-admin"
    prepared.meta.webhook_url = command.base + APP_ENDPOINT
    return prepared, command


@BOTH
async def test_a_kill_while_a_message_is_under_way_sends_it_once(
    child: tuple[CloudInstallation, Child], path: str
) -> None:
    shop, command = child
    api = side(shop, path)
    api.fault("messages", latency=1, times=1)
    sending_it = asyncio.create_task(post(command, path, message(path, text="once")))
    await until(lambda: api.calls.in_flight["messages"])
    await command.kill()
    with pytest.raises(aiohttp.ClientError):
        await sending_it
    await until(lambda: not api.calls.in_flight["messages"])
    await command.start()
    assert (await post(command, path, message(path, text="next"))).status == 200
    assert sorted(texts(shop)) in (["next"], ["next", "once"])
    assert api.calls["messages"] == 2


@BOTH
async def test_a_stop_waits_for_the_answer_to_a_message_and_refusals_are_in_effect(
    child: tuple[CloudInstallation, Child], path: str
) -> None:
    shop, command = child
    api = side(shop, path)
    to = SHEENA if path == CLOUD else WA_ID
    if path == CLOUD:
        shop.meta.change_settings(refuse_mismatch=True)
        shop.meta.write(SHEENA, "Hello")
        await shop.meta.settled()
        shop.meta.reinstall(SHEENA)
    else:
        shop.sim.change_identity(WA_ID, notify=False)
    api.fault("messages", latency=1, times=1)
    last = asyncio.create_task(post(command, path, message(path)))
    await until(lambda: api.calls.in_flight["messages"])
    command.signal(15)
    assert (await last).status == 400
    assert await command.ended() == 0
    shop.sim.fault("identity_get", status=503)
    await command.start()
    account = command.of("shop" if path == CLOUD else "main")
    assert await account.reasons(to) != []


@pytest.mark.usefixtures("impatient")
async def test_a_refusal_that_can_not_be_written_down_is_503_in_the_apis_own_shape(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(api=KEYS)
    shop.meta.change_settings(refuse_mismatch=True)
    shop.meta.write(SHEENA, "Hello")
    await shop.meta.settled()
    shop.meta.reinstall(SHEENA)
    shop.meta.fault("messages", latency=1, times=1)
    last = asyncio.create_task(post(shop, CLOUD, cloud_message()))
    await until(lambda: shop.meta.calls.in_flight["messages"])
    async with shop.locked():
        answer = await last
    assert (answer.status, answer.body["error"]["type"]) == (503, "AckgateException")
    assert int(answer.headers["Retry-After"]) > 0
    assert texts(shop) == []


# Media


@pytest.mark.parametrize("is_cloud", [True, False])
async def test_a_file_passes_as_it_comes_and_arrives_whole(
    shop: CloudInstallation, is_cloud: bool
) -> None:
    file = os.urandom(9_000_000)
    if is_cloud:
        answer = await post(shop, f"{GRAPH}/media", form(file))
        [media] = shop.meta.media
        assert (answer.status, answer.body) == (200, {"id": media.id})
    else:
        headers = {"Content-Type": "image/jpeg"}
        answer = await post(shop, f"{COMPAT}/media", file, headers=headers)
        [media] = shop.sim.media
        assert (answer.status, answer.body["media"]) == (200, [{"id": media.id}])
    assert media.content_type == "image/jpeg"
    assert (media.size, media.sha256) == (len(file), sha256(file).hexdigest())


async def test_a_sender_that_asks_first_is_told_to_go_on(shop: CloudInstallation) -> None:
    headers = {"Authorization": f"Bearer {SENDER}", "Content-Type": "image/jpeg"}
    url, data = shop.base + f"{COMPAT}/media", BytesIO(bytes(2_000_000))
    async with shop.http.post(url, data=data, headers=headers, expect100=True) as response:
        assert response.status == 200
    assert [media.size for media in shop.sim.media] == [2_000_000]


async def test_every_role_but_those_that_send_is_refused_media(shop: CloudInstallation) -> None:
    for role, status in (("gate", 403), ("reader", 403), ("sender", 200), ("operator", 200)):
        answer = await post(shop, f"{GRAPH}/media", form(b"x"), key=f"key-of-{role}")
        assert answer.status == status
        headers = {"Content-Type": "image/jpeg"}
        path = f"{COMPAT}/media"
        answer = await post(shop, path, b"x", key=f"key-of-{role}", headers=headers)
        assert answer.status == status
    assert (len(shop.meta.media), len(shop.sim.media)) == (2, 2)


async def chunks(size: int, count: int, pause: float = 0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size)
        await asyncio.sleep(pause)


async def test_a_file_beyond_the_bound_is_413_whether_its_length_is_announced_or_not(
    shop: CloudInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MAX_MEDIA_BYTES", 1_000_000)
    headers = {"Content-Type": "image/jpeg"}
    path = f"{COMPAT}/media"
    announced = await post(shop, path, bytes(1_000_001), headers=headers)
    assert (announced.status, announced.body["errors"][0]["code"]) == (413, 1025)
    chunked = await post(shop, path, chunks(100_000, 11), headers=headers)
    assert chunked.status == 413
    assert not shop.sim.media
    assert (await post(shop, path, chunks(100_000, 10), headers=headers)).status == 200
    assert [media.size for media in shop.sim.media] == [1_000_000]


async def test_an_upload_that_stalls_or_breaks_off_arrives_nowhere(open_shop: OpenShop) -> None:
    shop = await open_shop(api=KEYS, server={"body_timeout_seconds": 0.3})
    head = (
        f"POST {COMPAT}/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SENDER}\r\n"
        "Content-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    )
    for breaks_off in (False, True):
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(shop.base).port)
        writer.write(head.encode() + bytes(500))
        await until(lambda: shop.sim.calls.in_flight["media"])
        if breaks_off:
            writer.close()
        else:
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 408")
            writer.close()
        await until(lambda: not shop.sim.calls.in_flight["media"])
    assert not shop.sim.media


async def test_an_upload_that_is_no_form_or_is_compressed_is_refused(
    shop: CloudInstallation,
) -> None:
    for path, headers in (
        (f"{GRAPH}/media", {"Content-Type": "image/jpeg"}),
        (f"{COMPAT}/media", {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}),
        (f"{COMPAT}/media?a=b", {"Content-Type": "image/jpeg"}),
    ):
        assert (await post(shop, path, b"x", headers=headers)).status == 400, path
    assert not shop.meta.media
    assert not shop.sim.media


async def test_slow_uploads_hold_up_no_message(open_shop: OpenShop) -> None:
    shop = await open_shop(api=KEYS, accounts={"main": {"max_in_flight": 2}})
    headers = {"Content-Type": "image/jpeg"}
    slow = [
        asyncio.create_task(post(shop, f"{COMPAT}/media", chunks(10, 20, 0.1), headers=headers))
        for _ in range(2)
    ]
    await until(lambda: shop.sim.calls.in_flight["media"] == 1)
    assert (await post(shop, ONPREM, onprem_message())).status == 200
    assert shop.sim.calls.in_flight["media"] == 1
    assert [answer.status for answer in await asyncio.gather(*slow)] == [200, 200]
    assert shop.sim.calls.most_in_flight["media"] == 1


async def test_an_upload_after_an_expired_token_is_503_and_the_next_one_passes(
    shop: CloudInstallation,
) -> None:
    headers, path = {"Content-Type": "image/jpeg"}, f"{COMPAT}/media"
    assert (await post(shop, path, b"x", headers=headers)).status == 200
    shop.sim.expire_tokens()
    answer = await post(shop, path, b"x", headers=headers)
    assert (answer.status, "nothing was sent" in said(answer)) == (503, True)
    _, account = await shop.api("GET", "/accounts/main")
    assert account["health"]["reachable"]
    assert (await post(shop, path, b"x", headers=headers)).status == 200
    assert len(shop.sim.media) == 2


def resident(pid: int) -> int:
    """Give the memory of a process, in bytes."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_uploads_of_a_hundred_megabytes_are_never_held_as_a_whole(
    child: tuple[CloudInstallation, Child],
) -> None:
    shop, command = child
    headers, path = {"Content-Type": "video/mp4"}, f"{COMPAT}/media"
    assert (await post(command, path, b"x", headers=headers)).status == 200
    assert command.process is not None
    before = most = resident(command.process.pid)
    uploads = asyncio.gather(
        *(post(command, path, chunks(1_000_000, 100), headers=headers) for _ in range(2))
    )
    while not uploads.done():
        most = max(most, resident(command.process.pid))
        await asyncio.sleep(0.01)
    assert [answer.status for answer in await uploads] == [200, 200]
    assert [media.size for media in shop.sim.media][1:] == [100_000_000] * 2
    assert most - before < 30_000_000
