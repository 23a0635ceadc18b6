"""A business that sends with pywa, and asks Ackgate which identity hash to send along.

pywa's own session is an `httpx.Client` that its user may bring along; this one is told where the
simulator is. Nothing of pywa is replaced.
"""

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from pywa import WhatsApp

from tests.acceptance.conftest import (
    ACCESS_TOKEN,
    NUMBER,
    SHEENA,
    CloudInstallation,
)


@dataclass
class Business:
    """Writes to a user as Ackgate's gate says."""

    shop: CloudInstallation
    whatsapp: WhatsApp

    async def write(self, to: str = SHEENA) -> str | None:
        """Ask the gate, and write with the hash that it gives; None where it says not to."""
        answer = await self.shop.gate(to)
        if not answer["sendable"]:
            return None
        return await self.send(answer["identity_key_hash"], to)

    async def send(self, hash_: str | None, to: str = SHEENA) -> str:
        """Write with a hash, whatever the gate says; give what became of the message."""
        await asyncio.to_thread(
            self.whatsapp.send_message, to, "Your code is 1234", identity_key_hash=hash_
        )
        await self.shop.meta.settled()
        message = self.shop.meta.messages[-1]
        assert (message.to, message.hash) == (to, hash_)
        return message.outcome


@pytest.fixture
def session(shop: CloudInstallation) -> Iterator[httpx.Client]:
    tls = ssl.create_default_context(cafile=shop.sim.ca_file)
    with httpx.Client(trust_env=False, verify=tls) as client:
        yield client


@pytest.fixture
def business(shop: CloudInstallation, session: httpx.Client) -> Business:
    whatsapp = WhatsApp(phone_id=NUMBER, token=ACCESS_TOKEN, session=session, server=None)
    session.base_url = httpx.URL(shop.sim.graph_url)
    return Business(shop, whatsapp)


async def test_a_business_on_pywa_goes_through_a_reinstalled_app_with_ackgate(
    shop: CloudInstallation, business: Business
) -> None:
    old = shop.meta.write(SHEENA, "Hello").hash
    await shop.meta.settled()
    assert (await shop.gate(SHEENA))["identity_key_hash"] == old
    assert await business.write() == "delivered"

    new = shop.meta.reinstall(SHEENA)
    assert await business.write() == "mismatch", "137000: nobody knew yet"
    answer = await shop.gate(SHEENA)
    assert (answer["sendable"], answer["identity_key_hash"]) == (False, None)
    assert [reason["code"] for reason in answer["reasons"]] == ["identity_pending"]
    assert (await shop.identity(SHEENA))["hash"] is None
    assert await business.write() is None, "the gate says not to"

    status, identity = await shop.acknowledge(None, SHEENA, note="called back")
    assert (status, identity["state"]) == (200, "awaiting_hash")
    assert await business.write() == "delivered", "without a hash, once"
    identity = await shop.identity(SHEENA)
    assert (identity["hash"], identity["state"]) == (new, "acknowledged")
    assert identity["decided_by"]["kind"] == "key"
    assert (await shop.gate(SHEENA))["identity_key_hash"] == new
    assert await business.write() == "delivered", "with the new hash"
    assert shop.meta.messages[-1].hash == new


async def test_a_new_hash_that_is_told_with_the_137000_is_sent_along_once_approved(
    shop: CloudInstallation, business: Business
) -> None:
    shop.meta.change_settings(failed_with_hash=True)
    shop.meta.write(SHEENA, "Hello")
    await shop.meta.settled()
    new = shop.meta.reinstall(SHEENA)
    assert await business.write() == "mismatch"
    assert await business.write() is None
    assert (await shop.acknowledge(new, SHEENA))[0] == 200
    assert await business.write() == "delivered"


async def test_a_held_user_is_not_written_to_until_a_person_decides(
    shop: CloudInstallation, business: Business
) -> None:
    shop.meta.write(SHEENA, "Hello")
    await shop.meta.settled()
    shop.meta.reinstall(SHEENA)
    assert await business.write() == "mismatch"
    assert (await shop.hold(None, SHEENA))[0] == 200
    assert await business.write() is None
    assert (await shop.acknowledge(None, SHEENA))[0] == 200
    assert await business.write() == "delivered"
    assert await business.write() == "delivered"


async def test_a_user_without_a_number_is_written_to_by_user_id(
    shop: CloudInstallation, business: Business
) -> None:
    user = shop.meta.set_user("US.13491208655302741918", username="@sheena")
    shop.meta.write(user.user_id, "Hello")
    await shop.meta.settled()
    assert await business.write(user.user_id) == "delivered"
    shop.meta.reinstall(user.user_id)
    assert await business.write(user.user_id) == "mismatch"
    assert await shop.reasons(user.user_id) == ["identity_pending"]
    assert (await shop.acknowledge(None, user.user_id))[0] == 200
    assert await business.write(user.user_id) == "delivered"
    assert (await shop.gate(user.user_id))["identity_key_hash"] == user.hash
    assert (await shop.gate(user.user_id))["wa_id"] is None


async def test_a_stranger_is_written_to_without_a_hash_and_trusted_by_the_status(
    shop: CloudInstallation, business: Business
) -> None:
    assert await business.write() == "delivered"
    assert (await shop.gate(SHEENA))["identity_key_hash"] == shop.meta.users[SHEENA].hash
    assert await business.write() == "delivered"
    assert shop.meta.messages[-1].hash is not None
