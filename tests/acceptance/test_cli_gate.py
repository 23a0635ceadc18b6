"""`ackgate gate` in a script: the exit status tells, and a person reads why, until when, and what
to send along.
"""

import socket

import pytest

from tests.acceptance.commands import answers, parsed, refused, run, serving
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    SHEENA,
    USER_ID,
    WA_ID,
    CloudInstallation,
    Install,
    Installation,
    digest_of,
)
from tests.acceptance.webhooks import wrote

KEY = "a-key-that-only-tests-know"


async def test_the_exit_status_says_whether_the_user_may_be_written_to(
    manual: Installation,
) -> None:
    await manual.acknowledged()
    assert parsed(await run("gate", "main", WA_ID, "--json", url=manual.base))["sendable"] is True
    await manual.change()
    closed = await run("gate", "main", WA_ID, "--json", url=manual.base, expect=1)
    assert parsed(closed)["sendable"] is False


async def test_what_could_not_be_told_is_neither_sendable_nor_not(install: Install) -> None:
    keys = {"crm": {"role": "gate", "sha256": digest_of(KEY)}}
    made = await install(api={"keys": keys})
    assert "401" in await refused("gate", "main", WA_ID, url=made.base, expect=3)
    assert "no such account" in await refused(
        "gate", "other", WA_ID, url=made.base, key=KEY, expect=3
    )
    await run("gate", "main", WA_ID, url=made.base, key=KEY)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        assert "Connection refused" in await refused("gate", "main", WA_ID, url=url, expect=3)


@pytest.mark.parametrize(("answer", "status"), [({"title": "busy"}, 503), ({}, 200), ([], 200)])
async def test_an_answer_that_does_not_tell_is_none(answer: object, status: int) -> None:
    async with serving(answers(answer, status)) as url:
        await refused("gate", "main", WA_ID, url=url, expect=3)


async def test_a_wrong_option_stays_a_wrong_command() -> None:
    await run("gate", "main", expect=2)
    assert "--url" in await refused("gate", "main", WA_ID, "--url", "nowhere", expect=2)


async def test_a_block_is_shown_with_its_reason_and_its_end(manual: Installation) -> None:
    path = f"/accounts/main/recipients/{WA_ID}/block"
    body = {"reason": "fraud suspected, see T-17", "until": "2100-01-02T03:04:05Z"}
    status, _ = await manual.api("PUT", path, body)
    assert status == 200
    shown = (await run("gate", "main", WA_ID, url=manual.base, expect=1)).stdout
    assert "blocks: blocked" in shown
    assert "fraud suspected, see T-17" in shown
    assert "2100-01-02" in shown
    assert "the block ends, or a person ends it" in shown


async def test_the_hash_to_send_along_is_shown(shop: CloudInstallation) -> None:
    names = {"wa_id": SHEENA, "user_id": USER_ID}
    await shop.come(wrote(HASH_A, **names))
    shown = (await run("gate", "shop", SHEENA, url=shop.base)).stdout
    [line] = [line for line in shown.splitlines() if "identity_key_hash" in line]
    assert line.split() == ["identity_key_hash", HASH_A]
    await shop.come(wrote(HASH_B, 60, **names))
    shown = (await run("gate", "shop", SHEENA, url=shop.base, expect=1)).stdout
    assert HASH_A not in shown


async def test_the_gate_tells_the_new_number() -> None:
    reason = {"code": "number_changed", "wa_id": OTHER_ID, "since": None, "clears_when": "…"}
    async with serving(answers({"wa_id": WA_ID, "sendable": False, "reasons": [reason]})) as url:
        shown = await run("gate", "main", WA_ID, url=url, expect=1)
        assert f"number_changed: {OTHER_ID}" in shown.stdout


async def test_a_user_without_a_number_is_named_by_the_user_id() -> None:
    nameless = {"wa_id": None, "user_id": USER_ID, "sendable": False}
    reason = {"code": "number_changed", "user_id": "US.2", "since": None, "clears_when": "…"}
    async with serving(answers({**nameless, "reasons": [reason]})) as url:
        shown = (await run("gate", "shop", USER_ID, url=url, expect=1)).stdout
    assert shown.startswith(f"{USER_ID} must not be written to")
    assert "number_changed: US.2" in shown
