"""The bot of docs/cloud.md, as it stands there, between Meta and Ackgate."""

import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.acceptance.conftest import (
    APP_ENDPOINT,
    APP_SECRET,
    SHEENA,
    CloudInstallation,
    Json,
    signed,
    until,
)
from tests.acceptance.webhooks import envelope, value
from tests.docs.conftest import blocks

VERIFY_TOKEN = "the-bots-verify-token"


@dataclass
class Bot:
    """The bot, and what it has handled."""

    url: str
    handled: list[Json] = field(default_factory=list)


@pytest.fixture
async def bot(shop: CloudInstallation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bot]:
    """Start the bot of the page in front of Ackgate, with a `handle` that takes notes."""
    monkeypatch.setenv("ACKGATE_WEBHOOK", shop.base + APP_ENDPOINT)
    monkeypatch.setenv("VERIFY_TOKEN", VERIFY_TOKEN)
    (block,) = [each for each in blocks("python") if each.page.name == "cloud.md"]
    page: dict[str, Any] = {"__name__": "bot"}
    exec(compile(block.text, "docs/cloud.md", "exec"), page)
    runner = web.AppRunner(page["bot"](), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = Bot(f"http://127.0.0.1:{runner.addresses[0][1]}/webhook")
    page["handle"] = made.handled.append
    await shop.meta.register(made.url, VERIFY_TOKEN)
    yield made
    await runner.cleanup()


async def test_a_bot_in_front_forwards_what_is_in_effect_before_it_answers(
    shop: CloudInstallation, bot: Bot
) -> None:
    user = shop.meta.write(SHEENA, "Grüße / ¡hola! \U0001f600")
    await shop.meta.settled()
    assert (await shop.gate(SHEENA))["identity_key_hash"] == user.hash
    assert bot.handled[0]["entry"][0]["changes"][0]["value"]["contacts"][0]["wa_id"] == SHEENA


@pytest.mark.slow
async def test_while_ackgate_answers_503_the_bot_does_too_and_meta_delivers_again(
    shop: CloudInstallation, bot: Bot
) -> None:
    answers = shop.meta.webhooks.delivery.answers
    async with shop.locked():
        user = shop.meta.write(SHEENA, "Hello")
        await until(lambda: answers["503"] > 0, 30)
        assert bot.handled == []
    await shop.meta.settled(30)
    assert (await shop.gate(SHEENA))["identity_key_hash"] == user.hash
    assert len(bot.handled) == 1


async def test_while_ackgate_is_down_the_bot_answers_503_and_handles_nothing(
    shop: CloudInstallation, bot: Bot
) -> None:
    await shop.stop()
    raw = json.dumps(envelope(value())).encode()
    async with shop.http.post(bot.url, data=raw, headers=signed(raw)) as response:
        assert response.status == 503
    assert bot.handled == []


async def test_a_wrong_signature_is_refused_through_the_bot_as_well(
    shop: CloudInstallation, bot: Bot
) -> None:
    raw = json.dumps(envelope(value())).encode()
    for headers in (signed(raw, APP_SECRET[::-1]), signed(raw + b" "), {}):
        async with shop.http.post(bot.url, data=raw, headers=headers) as response:
            assert response.status == 401
    assert bot.handled == []


async def test_the_bot_takes_the_largest_webhook_that_meta_sends(
    shop: CloudInstallation, bot: Bot
) -> None:
    raw = json.dumps(envelope(value(messages=[{"text": "x" * 3_000_000}]))).encode()
    async with shop.http.post(bot.url, data=io.BytesIO(raw), headers=signed(raw)) as response:
        assert response.status == 200
    assert len(bot.handled) == 1


async def test_the_bots_handshake_knows_its_verify_token(shop: CloudInstallation, bot: Bot) -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "42", "hub.verify_token": "another"}
    async with shop.http.get(bot.url, params=query) as response:
        assert response.status == 403
