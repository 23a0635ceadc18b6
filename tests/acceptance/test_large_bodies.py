"""One body of many changes, in any order: in effect as one by one, and all on record."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.acceptance.conftest import (
    Caller,
    CloudInstallation,
    Installation,
    Json,
    blocked,
    hour_ago,
    notice,
    rfc3339,
    until,
)
from tests.acceptance.webhooks import contact, envelope, text, value

MANY = 2_500
"""More than one slice of a callback, and than the entries of a history that are kept at hand."""
KEPT = 1_000
USERS = ("16315553611", "16315553612", "16315553613")
FIRST_AT = 1_700_000_000_000
"""When the first change was: those of a user lie two seconds apart."""


def orders() -> dict[str, list[int]]:
    """Give orders of delivery, each for a user of its own: one is as good as the other."""
    mixed = sorted(range(MANY), key=lambda number: number * 7919 % MANY)
    return dict(zip(USERS, (list(range(MANY)), list(reversed(range(MANY))), mixed), strict=True))


def at(number: int) -> int:
    return FIRST_AT + number * 2_000


def messages(*bodies: Json) -> bytes:
    """Put the messages of many callbacks into one."""
    together = [message for body in bodies for message in body["messages"]]
    return json.dumps({"messages": together}).encode()


def changes(wa_id: str, numbers: Sequence[int]) -> list[Json]:
    return [notice(wa_id, f"hash-{number}", at(number)) for number in numbers]


def written(wa_id: str, numbers: Sequence[int]) -> list[Json]:
    """Write the same for the Cloud API: a message each, with the hash beside it."""
    after = [(at(number) - hour_ago()) / 1000 for number in numbers]
    return [
        value([contact(f"hash-{number}", wa_id=wa_id)], [text(seconds, wa_id=wa_id)])
        for number, seconds in zip(numbers, after, strict=True)
    ]


async def audited(made: Caller) -> dict[str, list[Json]]:
    """Give the whole audit trail by user."""
    found: dict[str, list[Json]] = {}
    cursor = ""
    while True:
        status, page = await made.api("GET", f"/audit?account={made.account}&limit=1000{cursor}")
        assert status == 200, page
        for entry in page["items"]:
            found.setdefault(entry["wa_id"], []).append(entry)
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def assert_as_one_by_one(made: Caller) -> None:
    """The newest change is the latest, those before it are history, and each is on record once."""
    trail = await audited(made)
    for wa_id in USERS:
        shown = await made.identity(wa_id)
        assert (shown["hash"], shown["state"]) == (f"hash-{MANY - 1}", "pending")
        assert shown["changed_at"] == rfc3339(at(MANY - 1))
        assert [(c["hash"], c["changed_at"], c["outcome"]) for c in shown["history"]] == [
            (f"hash-{number}", rfc3339(at(number)), "superseded")
            for number in range(MANY - 2, MANY - 2 - KEPT, -1)
        ]
        assert await made.reasons(wa_id) == ["identity_pending"]
        told = [entry["hash"] for entry in trail[wa_id] if entry["event"] == "changed"]
        assert len({*told, *_first_uses(trail[wa_id])}) == MANY
        assert len(told) <= MANY


def _first_uses(trail: Sequence[Json]) -> list[str]:
    return [entry["hash"] for entry in trail if entry["event"] == "first_use"]


@pytest.mark.slow
async def test_many_changes_in_one_body_are_in_effect_as_one_by_one(manual: Installation) -> None:
    for wa_id, numbers in orders().items():
        assert await manual.post(messages(*changes(wa_id, numbers))) == 200
    await assert_as_one_by_one(manual)


@pytest.mark.slow
async def test_many_changes_in_one_webhook_are_in_effect_as_one_by_one(
    shop: CloudInstallation,
) -> None:
    for wa_id, numbers in orders().items():
        raw = json.dumps(envelope(*written(wa_id, numbers))).encode()
        assert await shop.deliver_signed(raw) == 200
    await assert_as_one_by_one(shop)


async def test_the_users_of_one_body_may_be_mixed(manual: Installation) -> None:
    bodies = zip(*(changes(wa_id, numbers) for wa_id, numbers in orders().items()), strict=True)
    assert await manual.post(messages(*(one for three in bodies for one in three))) == 200
    await assert_as_one_by_one(manual)


@pytest.mark.slow
async def test_the_users_of_one_webhook_may_be_mixed(shop: CloudInstallation) -> None:
    values = zip(*(written(wa_id, numbers) for wa_id, numbers in orders().items()), strict=True)
    raw = json.dumps(envelope(*(one for three in values for one in three))).encode()
    assert await shop.deliver_signed(raw) == 200
    await assert_as_one_by_one(shop)


@pytest.mark.parametrize("mode", ["manual", "auto"])
async def test_of_many_changes_at_the_same_time_the_client_tells_the_latest(
    prepare: Any, mode: str
) -> None:
    made: Installation = await prepare(policy={"mode": mode})
    made.sim.change_identity(USERS[0], "hash-7", at(0), notify=False)
    await made.start()
    same = [notice(USERS[0], f"hash-{number}", at(0)) for number in range(MANY)]
    assert await made.post(messages(*same)) == 200
    assert await made.reasons(USERS[0]) == ["identity_pending"]
    shown = await made.becomes("pending", USERS[0], "hash-7")
    assert {change["outcome"] for change in shown["history"]} <= {"disputed", "superseded"}
    told = [e["hash"] for e in (await audited(made))[USERS[0]] if e["event"] == "changed"]
    assert {*told} == {f"hash-{number}" for number in range(MANY)}


async def test_a_flood_of_changes_is_stopped_by_the_guard(prepare: Any) -> None:
    made: Installation = await prepare(policy={"mode": "auto", "max_changes": 3})
    made.sim.change_identity(USERS[0], f"hash-{MANY - 1}", at(MANY - 1), notify=False)
    await made.start()
    assert await made.post(messages(*changes(USERS[0], range(MANY)))) == 200
    shown = await made.identity(USERS[0])
    assert (shown["hash"], shown["state"]) == (f"hash-{MANY - 1}", "pending")
    reasons = {entry["reason"] for entry in shown["audit"] if entry["event"] == "changed"}
    assert reasons == {"policy default: guard, more than 3 changes within 86400 s"}


async def test_a_flood_of_blocked_messages_closes_the_gate_until_the_client_is_asked(
    manual: Installation,
) -> None:
    await manual.acknowledged(USERS[0])
    asked = manual.gets(USERS[0])
    flood = [blocked(USERS[0]) for _ in range(MANY)]
    statuses = [status for body in flood for status in body["statuses"]]
    assert await manual.post({"statuses": statuses}) == 200

    async def open_again() -> bool:
        return not await manual.reasons(USERS[0])

    await until(open_again)
    assert await manual.audit(USERS[0], "send_blocked")
    assert manual.gets(USERS[0]) > asked
    assert await manual.state(USERS[0]) == "acknowledged"


@pytest.mark.slow
async def test_a_neighbour_is_answered_before_a_large_body_is_done(manual: Installation) -> None:
    """A 200 to the neighbour is in effect, while the large body's changes go on being written."""
    large = messages(*changes(USERS[0], range(4 * MANY)))
    under_way = asyncio.create_task(manual.post(large))

    async def begun() -> bool:
        return await manual.state(USERS[0]) is not None

    await until(begun)
    assert await manual.post(notice(USERS[1], "another", hour_ago())) == 200
    assert await manual.reasons(USERS[1]) == ["identity_pending"]
    assert not under_way.done()
    assert await under_way == 200
    assert (await manual.identity(USERS[0]))["hash"] == f"hash-{4 * MANY - 1}"
