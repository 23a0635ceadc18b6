"""What `ackgate accounts setup` looks at and sets: a client, or a number of the Cloud API."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.cli.clients import client_at, graph_at
from service.model.account_checks import (
    IDENTITY_CHECK,
    WrongSetting,
    patch_of,
    wrong_cloud_settings,
    wrong_settings,
)
from service.settings import Settings
from service.whatsapp.client import Client
from service.whatsapp.errors import HandshakeError, InvalidError
from service.whatsapp.graph import Graph
from service.workers.inspector import expected_of


@dataclass(frozen=True, slots=True)
class Found:
    """How an account is set: what setup can mend, what it can't, and what can't be read back.

    `unread` is set in any case, and never told to be wrong.
    """

    mendable: list[WrongSetting]
    others: list[WrongSetting]
    unread: list[WrongSetting] = field(default_factory=list)
    version: str | None = None
    webhooks: Mapping[str, Any] = field(default_factory=dict)
    """The client's webhooks object as it is."""

    @property
    def wrong(self) -> list[WrongSetting]:
        """All that is known to be wrong."""
        return self.mendable + self.others

    @property
    def to_set(self) -> list[WrongSetting]:
        """All that setup sets."""
        return self.unread + self.mendable


class Side(Protocol):
    """The other side of an account. Both raise CallError."""

    async def look(self) -> Found:
        """Tell how the account is set there."""

    async def mend(self, found: Found) -> Found:
        """Set what was found, and look again."""


@asynccontextmanager
async def side_of(settings: Settings, account: str) -> AsyncIterator[Side]:
    """Open the way to the other side of an account that is configured."""
    if account in settings.cloud_accounts:
        async with graph_at(account, settings.cloud_accounts[account]) as graph:
            yield NumberSide(graph, settings)
    else:
        async with client_at(account, settings.onprem_accounts[account]) as client:
            yield ClientSide(client, settings)


class ClientSide:
    """A WhatsApp client of the On-Premises API."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    async def look(self) -> Found:
        """Read the application settings."""
        told = await self._client.settings()
        found = wrong_settings(told, expected_of(self._settings, self._client.name))
        return Found(*_parted(found), version=told.version, webhooks=dict(told.webhooks))

    async def mend(self, found: Found) -> Found:
        """Set what is wrong, the certificate first, so that the door can be verified."""
        file = self._settings.server.public_ca_file
        if file is not None and any(each.code == "webhook_ca" for each in found.mendable):
            await self._client.upload_authority(file.read_text())
        if patch := patch_of(found.mendable, found.webhooks):
            await self._client.change_settings(patch)
        return await self.look()


class NumberSide:
    """A number of the Cloud API."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self._graph = graph
        account = settings.cloud_accounts[graph.name]
        public = settings.server.public_url
        self._door = settings.door(graph.name, public) if public else None
        self._verify_token = settings.apps[account.app].verify_token.get_secret_value()

    async def look(self) -> Found:
        """Read how the number is set up."""
        told = await self._graph.settings()
        return Found(*_parted(wrong_cloud_settings(told, self._door)), [IDENTITY_CHECK])

    async def mend(self, found: Found) -> Found:
        """Switch the check on, then set what is wrong: the handshake, which may fail, is last."""
        await self._graph.enable_identity_check()
        codes = {each.code for each in found.mendable}
        if "webhook_unsubscribed" in codes:
            await self._graph.subscribe()
        if "webhook_url" in codes and self._door is not None:
            try:
                await self._graph.set_webhook(self._door, self._verify_token)
            except (HandshakeError, InvalidError) as error:
                raise type(error)(f"{error}; all else was set") from None
        return await self.look()


def _parted(found: list[WrongSetting]) -> tuple[list[WrongSetting], list[WrongSetting]]:
    """Part what can be set from what can't."""
    mendable = [each for each in found if each.setting is not None]
    return mendable, [each for each in found if each.setting is None]
