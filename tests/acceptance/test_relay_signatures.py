"""What relays send is accepted by the libraries that receivers have, and forgeries are not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from aiohttp import web
from pywa import WhatsApp, utils
from standardwebhooks import Webhook, WebhookVerificationError

from service.workers.destinations import signature
from tests.acceptance.conftest import (
    APP_SECRET,
    NUMBER,
    SHEENA,
    Install,
    OpenShop,
    until,
)
from tests.acceptance.sinks import Delivery, sink
from tests.acceptance.test_relay_operation import SPAN
from tests.acceptance.test_relays import OLD_SECRET, SECRET, text, to
from tests.acceptance.test_reload import reload
from tests.conftest import installed
from tests.docs.conftest import ROOT

STRANGE_SECRET = "whsec_" + base64.b64encode(b"of somebody else entirely").decode()
BODIES = [
    text(1),
    b'{ "messages" :[] , "x":"\\u00e9\\/"}\n',
    '{"text":"Grüße / ¡hola! \U0001f600"}'.encode(),
    b"{}",
]


class Case(NamedTuple):
    """A delivery as a receiver gets it, and whether it is one of ours."""

    what: str
    is_ours: bool
    secret: str
    body: bytes
    headers: dict[str, str]


def cases(delivery: Delivery, *secrets: str) -> Iterator[Case]:
    """Give a delivery for each secret that it is signed with, and what somebody made of it."""
    body, [secret, *_] = delivery.body, secrets
    headers = {name.lower(): value for name, value in delivery.headers.items()}
    id_, at = headers["webhook-id"], int(headers["webhook-timestamp"])
    for each in secrets:
        yield Case("as it came", True, each, body, headers)
    yield Case("another secret", False, STRANGE_SECRET, body, headers)
    yield Case("another body", False, secret, body + b" ", headers)
    yield Case("another id", False, secret, body, headers | {"webhook-id": f"{id_}1"})
    for seconds in (-1, 1):
        moved = headers | {"webhook-timestamp": str(at + seconds)}
        yield Case("another time", False, secret, body, moved)
    yield Case("no signature", False, secret, body, headers | {"webhook-signature": ""})
    for seconds in (-600, 600):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = signature([key], id_, at + seconds, body)
        other = {"webhook-timestamp": str(at + seconds), "webhook-signature": signed}
        yield Case("right once, or some day", False, secret, body, headers | other)


async def delivered(install: Install, *secrets: str) -> list[Delivery]:
    """Give what a relay with these secrets delivers, at once and once more."""
    named = dict(zip(("secret", "secret_previous"), secrets, strict=False))
    async with sink() as crm:
        made = await install(relays=to(crm.url, **named))
        await made.deliver(*BODIES)
        await until(lambda: len(crm.taken) == len(BODIES))
        assert (await made.api("POST", "/relays/crm/replay", SPAN))[0] == 202
        await made.api("POST", "/relays/crm/test")
        await until(lambda: len(crm.taken) == 2 * len(BODIES) + 1)
    return crm.taken


def accepts(case: Case) -> bool:
    try:
        Webhook(case.secret).verify(case.body, case.headers)
    except WebhookVerificationError:
        return False
    return True


@pytest.mark.parametrize("secrets", [(SECRET,), (SECRET, OLD_SECRET)], ids=["one", "two"])
async def test_standardwebhooks_accepts_each_delivery_and_refuses_what_was_made_of_it(
    install: Install, secrets: tuple[str, ...]
) -> None:
    for delivery in await delivered(install, *secrets):
        for case in cases(delivery, *secrets):
            assert accepts(case) is case.is_ours, case


@pytest.mark.tools
@pytest.mark.parametrize("secrets", [(SECRET,), (SECRET, OLD_SECRET)], ids=["one", "two"])
async def test_svix_accepts_each_delivery_and_refuses_what_was_made_of_it(
    install: Install, secrets: tuple[str, ...]
) -> None:
    found = [case for d in await delivered(install, *secrets) for case in cases(d, *secrets)]
    asked = [{"secret": c.secret, "body": c.body.decode(), "headers": c.headers} for c in found]
    process = await asyncio.create_subprocess_exec(
        *(installed("node"), ROOT / "tests/clients/verify.js"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(json.dumps(asked).encode())
    assert process.returncode == 0, f"{said.decode()}\nrun 'make tools' for this test"
    wrong = [
        c for c, accepted in zip(found, json.loads(said), strict=True) if accepted != c.is_ours
    ]
    assert not wrong


async def test_bytes_that_are_no_text_are_signed_as_they_are(install: Install) -> None:
    raw = b"\x1f\x8b\xff no gzip\x00"
    async with sink() as crm:
        made = await install(relays=to(crm.url, secret=SECRET))
        assert await made.post(raw, headers={"Content-Encoding": "gzip"}) == 200
        await until(lambda: crm.taken)
    [delivery] = crm.taken
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{delivery.id}.{delivery.headers['webhook-timestamp']}.".encode() + raw
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert delivery.headers["webhook-signature"] == f"v1,{digest}"


async def test_without_a_secret_there_is_no_signature_of_standard_webhooks(
    install: Install,
) -> None:
    async with sink() as crm:
        made = await install(relays=to(crm.url))
        await made.deliver(text(1))
        await until(lambda: crm.taken)
    assert "webhook-signature" not in crm.taken[0].headers
    assert abs(int(crm.taken[0].headers["webhook-timestamp"]) - time.time()) < 60


# A bot on pywa, which knows nothing of Ackgate


class Bot:
    """Takes what comes as pywa's documentation tells those who serve themselves."""

    def __init__(self, secret: str) -> None:
        self.texts: list[str] = []
        self.use(secret)

    def use(self, secret: str) -> None:
        """Be another bot, with another secret, that goes on in the same list."""
        self._pywa = WhatsApp(
            phone_id=NUMBER,
            token="never-used",
            server=None,
            app_secret=secret,
            skip_duplicate_updates=False,
        )
        self._pywa.on_message()(lambda _, message: self.texts.append(message.text))

    async def answer(self, delivery: Delivery) -> web.Response:
        given = delivery.headers.get(utils.HUB_SIG)
        refused = self._pywa.webhook_update_validator(delivery.body, given)
        if refused is not None:
            return web.Response(status=refused[1])
        _, status = await asyncio.to_thread(self._pywa.webhook_update_handler, delivery.body)
        return web.Response(status=status)


async def test_a_bot_on_pywa_takes_relayed_callbacks_after_a_rotation_and_in_a_replay_too(
    open_shop: OpenShop,
) -> None:
    new, bot = "fedcba9876543210" * 2, Bot(APP_SECRET)
    async with sink(bot.answer) as crm:
        shop = await open_shop(relays=to(crm.url))
        shop.meta.write(SHEENA, "Grüße / ¡hola! \U0001f600")
        await until(lambda: bot.texts == ["Grüße / ¡hola! \U0001f600"])

        # Meta signs with the old one still, Ackgate and the bot have the new one.
        assert await reload(
            shop, apps={"meta": {"app_secret": new, "app_secret_previous": APP_SECRET}}
        )
        assert (await shop.api("POST", "/relays/crm/test"))[1]["status"] == 403
        bot.use(new)
        assert (await shop.api("POST", "/relays/crm/test"))[1]["status"] == 200
        shop.meta.write(SHEENA, "Again")
        await until(lambda: bot.texts[1:] == ["Again"])

        await shop.api("POST", "/relays/crm/replay", SPAN)
        await until(lambda: len(bot.texts) == 4)
    assert bot.texts[2:] == bot.texts[:2]
    assert {d.headers["Ackgate-Attempt"] for d in crm.taken} == {"1"}
