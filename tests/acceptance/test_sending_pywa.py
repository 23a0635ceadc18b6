"""A business on pywa sends through Ackgate: nothing is changed but the base URL and the token.

pywa's own session is an `httpx.Client` that its user may bring along; this one is told where
Ackgate is. Nothing of pywa is replaced.
"""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from pywa import WhatsApp
from pywa.errors import RecipientIdentityKeyMismatch, WhatsAppError

from tests.acceptance.conftest import NUMBER, SHEENA, USER_ID, CloudInstallation, OpenShop
from tests.acceptance.sending import KEYS, SENDER, known


@pytest.fixture
async def shop(open_shop: OpenShop) -> CloudInstallation:
    made = await open_shop(api=KEYS)
    made.key = "key-of-admin"
    return made


@pytest.fixture
def session(shop: CloudInstallation) -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, base_url=f"{shop.base}/graph/v25.0") as client:
        yield client


@pytest.fixture
def whatsapp(session: httpx.Client) -> WhatsApp:
    base_url = session.base_url
    made = WhatsApp(phone_id=NUMBER, token=SENDER, session=session, server=None)
    session.base_url = base_url
    return made


async def test_pywa_sends_with_the_hash_that_is_trusted(
    shop: CloudInstallation, whatsapp: WhatsApp
) -> None:
    hash_ = await known(shop)
    sent = await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    [message] = shop.meta.messages
    assert (message.id, message.to, message.hash) == (sent.id, SHEENA, hash_)
    assert (message.outcome, message.body["text"]["body"]) == ("delivered", "Hello")


async def test_pywa_learns_that_the_gate_is_closed_and_nothing_is_sent(
    shop: CloudInstallation, whatsapp: WhatsApp
) -> None:
    await known(shop)
    shop.meta.reinstall(SHEENA)
    shop.meta.write(SHEENA, "It's me")
    await shop.meta.settled()
    with pytest.raises(WhatsAppError) as refused:
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    error = refused.value
    assert (error.status_code, error.code, error.type) == (409, 409, "AckgateException")
    assert error.details == "the gate is closed: identity_pending"
    assert [reason["code"] for reason in error.raw["error_data"]["reasons"]] == ["identity_pending"]
    assert not shop.meta.messages
    assert shop.meta.calls["messages"] == 0


async def test_a_137000_is_pywas_own_error_and_closes_the_gate_before_it_is_heard_of(
    shop: CloudInstallation, whatsapp: WhatsApp
) -> None:
    shop.meta.change_settings(refuse_mismatch=True)
    await known(shop)
    new = shop.meta.reinstall(SHEENA)
    with pytest.raises(RecipientIdentityKeyMismatch) as refused:
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    assert refused.value.status_code == 400
    assert await shop.reasons(SHEENA) == ["identity_pending"]
    with pytest.raises(WhatsAppError) as closed:
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    assert closed.value.status_code == 409
    assert shop.meta.calls["messages"] == 1
    # As Meta's guide says: a person approves one message without a hash, and the next has the new.
    assert (await shop.acknowledge(None, SHEENA))[0] == 200
    for _ in range(2):
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
        await shop.meta.settled()
    assert [message.hash for message in shop.meta.messages] == [None, new]


async def test_a_137000_in_a_later_status_closes_the_gate_too(
    shop: CloudInstallation, whatsapp: WhatsApp
) -> None:
    await known(shop)
    shop.meta.reinstall(SHEENA)
    await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    await shop.meta.settled()
    assert shop.meta.messages[-1].outcome == "mismatch"
    with pytest.raises(WhatsAppError) as closed:
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    assert closed.value.status_code == 409


async def test_pywa_sends_to_a_user_id(shop: CloudInstallation, whatsapp: WhatsApp) -> None:
    hash_ = shop.meta.set_user(USER_ID).hash
    shop.meta.write(USER_ID, "Hello")
    await shop.meta.settled()
    await asyncio.to_thread(whatsapp.send_message, USER_ID, "Hello")
    [message] = shop.meta.messages
    assert (message.to, message.by_number, message.hash) == (USER_ID, False, hash_)


async def test_pywa_sends_a_file_that_it_uploads_first(
    shop: CloudInstallation, whatsapp: WhatsApp
) -> None:
    await asyncio.to_thread(
        whatsapp.send_image, SHEENA, b"\xff\xd8\xff" * 1000, mime_type="image/jpeg"
    )
    [media], [message] = shop.meta.media, shop.meta.messages
    assert (media.size, message.body["image"]["id"]) == (3000, media.id)


async def test_pywa_marks_a_message_as_read_and_shows_that_it_is_typing(
    shop: CloudInstallation, whatsapp: WhatsApp
) -> None:
    await known(shop)
    shop.meta.reinstall(SHEENA)
    await asyncio.to_thread(whatsapp.mark_message_as_read, "wamid.x")
    await asyncio.to_thread(whatsapp.indicate_typing, "wamid.x")
    assert [mark["message_id"] for mark in shop.meta.marks] == ["wamid.x"] * 2
    assert "typing_indicator" in shop.meta.marks[-1]
    assert not shop.meta.messages


async def test_pywa_learns_of_a_wrong_key_as_of_a_wrong_token(
    shop: CloudInstallation, whatsapp: WhatsApp, session: httpx.Client
) -> None:
    session.headers["Authorization"] = "Bearer nobody"
    with pytest.raises(WhatsAppError) as refused:
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    assert (refused.value.code, refused.value.status_code) == (190, 401)
    assert shop.meta.calls["messages"] == 0
