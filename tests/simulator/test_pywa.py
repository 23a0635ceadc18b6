"""pywa, an independent implementation, checks what the simulator signs, reads it, and sends to it.

pywa's own session is an `httpx.Client` that its user may bring along; this one is given where the
simulator is. Nothing of pywa is replaced.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pywa import WhatsApp, types, utils
from pywa.errors import RecipientIdentityKeyMismatch, WhatsAppError
from pywa.types.system import PhoneNumberChange

from service.simulator import Simulator
from service.simulator.cloud.cloud import Cloud
from tests.simulator.conftest import NUMBER, SECRET, SHEENA, TOKEN, VERIFY_TOKEN, WABA, Endpoint

USER_ID = "US.13491208655302741918"


@pytest.fixture
def session() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def whatsapp(graph_sim: Simulator, session: httpx.Client) -> WhatsApp:
    client = WhatsApp(
        phone_id=NUMBER,
        token=TOKEN,
        session=session,
        server=None,
        app_secret=SECRET,
        verify_token=VERIFY_TOKEN,
        skip_duplicate_updates=False,
    )
    session.base_url = httpx.URL(graph_sim.graph_url)
    return client


@pytest.fixture
def updates(whatsapp: WhatsApp) -> list[Any]:
    """What pywa's own handlers get."""
    found: list[Any] = []
    for listen in (
        whatsapp.on_message,
        whatsapp.on_message_status,
        whatsapp.on_phone_number_change,
    ):
        listen()(lambda _, update: found.append(update))
    return found


async def hand_over(whatsapp: WhatsApp, endpoint: Endpoint) -> None:
    """Give pywa every webhook that came, as its documentation tells those who serve themselves."""
    for raw, headers in zip(endpoint.raw, endpoint.headers, strict=True):
        assert whatsapp.webhook_update_validator(raw, headers[utils.HUB_SIG]) is None
        handled = await asyncio.to_thread(whatsapp.webhook_update_handler, raw)
        assert handled == ("ok", 200)


async def test_pywa_accepts_what_the_simulator_signs_and_no_changed_byte(
    cloud: Cloud, whatsapp: WhatsApp, endpoint: Endpoint
) -> None:
    cloud.write(SHEENA, "Grüße/😀")
    await cloud.settled()
    (raw,), (headers,) = endpoint.raw, endpoint.headers
    signature = headers[utils.HUB_SIG]
    assert utils.webhook_updates_validator(SECRET, raw, signature)
    assert whatsapp.webhook_update_validator(raw, signature) is None
    for place in range(0, len(raw), 7):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert not utils.webhook_updates_validator(SECRET, changed, signature)
    assert not utils.webhook_updates_validator("another", raw, signature)


async def test_pywa_sends_with_the_right_hash_and_is_refused_with_the_wrong_one(
    cloud: Cloud, whatsapp: WhatsApp, endpoint: Endpoint, updates: list[Any]
) -> None:
    # pywa reads a failed status by its contacts only
    cloud.change_settings(identity_check=True, statuses=["sent"], failed_with_contacts=True)
    hash_ = cloud.set_user(SHEENA, name="Sheena Nelson").hash

    def send(**along: str) -> types.SentMessage:
        return whatsapp.send_message(SHEENA, "Hello", **along)

    right = await asyncio.to_thread(send, identity_key_hash=hash_)
    wrong = await asyncio.to_thread(send, identity_key_hash="another")
    without = await asyncio.to_thread(send)
    assert [message.outcome for message in cloud.messages] == [
        "delivered",
        "mismatch",
        "delivered",
    ]
    await cloud.settled()
    await hand_over(whatsapp, endpoint)
    found = {update.id: update for update in updates}
    assert found[right.id].status is types.MessageStatusType.SENT
    assert found[without.id].status is types.MessageStatusType.SENT
    assert found[wrong.id].status is types.MessageStatusType.FAILED
    assert isinstance(found[wrong.id].error, RecipientIdentityKeyMismatch)
    hashes = {s["id"]: s.get("recipient_identity_key_hash") for s in endpoint.status_updates}
    assert hashes == {right.id: None, wrong.id: None, without.id: hash_}


async def test_pywa_sends_to_a_user_id(cloud: Cloud, whatsapp: WhatsApp) -> None:
    cloud.set_user(USER_ID)
    sent = await asyncio.to_thread(whatsapp.send_message, USER_ID, "Hello")
    (message,) = cloud.messages
    assert (message.id, message.to, message.by_number) == (sent.id, USER_ID, False)
    assert message.outcome == "delivered"


async def test_pywa_reads_messages_with_their_hash_and_users_without_a_number(
    cloud: Cloud, whatsapp: WhatsApp, endpoint: Endpoint, updates: list[Any]
) -> None:
    cloud.change_settings(identity_check=True)
    cloud.set_user(SHEENA, user_id=USER_ID, hash="DF2lS5v2W6x=")
    cloud.write(SHEENA, "Hello")
    cloud.set_user(SHEENA, username="@sheena", hidden=True)
    cloud.write(SHEENA, "It's me")
    await cloud.settled()
    await hand_over(whatsapp, endpoint)
    seen = {update.text: update.from_user for update in updates}
    assert {user.identity_key_hash for user in seen.values()} == {"DF2lS5v2W6x="}
    assert {user.bsuid for user in seen.values()} == {USER_ID}
    assert seen["Hello"].wa_id == SHEENA
    assert seen["It's me"].wa_id is None
    assert seen["It's me"].username == "@sheena"


async def test_pywa_reads_a_changed_number(
    cloud: Cloud, whatsapp: WhatsApp, endpoint: Endpoint, updates: list[Any]
) -> None:
    user = cloud.change_number(SHEENA, "12195555358")
    await cloud.settled()
    await hand_over(whatsapp, endpoint)
    (update,) = updates
    assert isinstance(update, PhoneNumberChange)
    assert (update.old_wa_id, update.new_wa_id) == (SHEENA, "12195555358")
    assert update.new_user_id == user.user_id


async def test_pywa_sets_the_check_and_the_webhooks(
    cloud: Cloud, whatsapp: WhatsApp, endpoint: Endpoint
) -> None:
    check = types.others.UserIdentityChangeSettings(enable_identity_key_check=True)
    assert await asyncio.to_thread(
        whatsapp.update_business_phone_number_settings, user_identity_change=check
    )
    assert cloud.business.numbers[NUMBER].identity_check is True
    own = f"{endpoint.url}-2"
    await asyncio.to_thread(
        whatsapp.override_phone_callback_url, callback_url=own, verify_token=VERIFY_TOKEN
    )
    await asyncio.to_thread(
        whatsapp.override_waba_callback_url,
        callback_url=own,
        verify_token=VERIFY_TOKEN,
        waba_id=WABA,
    )
    assert cloud.business.numbers[NUMBER].webhook_url == own
    assert cloud.business.accounts[WABA].webhook_url == own
    number = await asyncio.to_thread(whatsapp.get_business_phone_number)
    assert number.display_phone_number == "15550783881"


async def test_pywa_learns_of_a_wrong_token(whatsapp: WhatsApp, session: httpx.Client) -> None:
    session.headers["Authorization"] = "Bearer wrong"
    with pytest.raises(WhatsAppError) as refused:
        await asyncio.to_thread(whatsapp.send_message, SHEENA, "Hello")
    assert (refused.value.code, refused.value.status_code) == (190, 401)
