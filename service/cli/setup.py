"""The clients and the Cloud API as commands reach them, and how an account is set up there."""

import logging
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from service.model.account_checks import (
    IDENTITY_CHECK,
    Issue,
    WrongSetting,
    patch_of,
    wrong_cloud_settings,
    wrong_settings,
)
from service.model.webhook_urls import is_endpoint_at
from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings, OnPremAccountSettings, Settings
from service.whatsapp.cloud import Graph, token_header
from service.whatsapp.http import (
    CallError,
    ForbiddenError,
    HandshakeError,
    InvalidError,
    LoginRefusedError,
    NotThereError,
)
from service.whatsapp.onprem import Client
from service.workers.monitoring import expected_of

AS_ADMIN = (
    "this takes an admin's login, which may come from the environment for once: "
    "ACKGATE_ACCOUNTS__{}__USERNAME and …__PASSWORD"
)
WITH_PERMISSION = "give it the permission whatsapp_business_management"
HANDSHAKE = (
    "Meta calls the webhook endpoint itself: the service must run, with the verify_token of "
    "apps.{} in this configuration, and be reachable at server.public_url with a certificate that "
    "is publicly known; 'ackgate doctor' shows which of it is wrong; then run this again"
)
UNTAKEN = (
    "the webhook URL must be https and at most 200 characters long, and the app subscribed to the "
    "WhatsApp Business Account: set accounts.{}.waba_id, and run this again"
)


DECLARED_HANDSHAKE = (
    "Meta calls webhook_url of the account itself: what answers there must know the verify_token "
    "of apps.{} in this configuration"
)


@asynccontextmanager
async def client_at(name: str, account: OnPremAccountSettings) -> AsyncIterator[Client]:
    """Open a connection to an account's WhatsApp client."""
    client = Client(name, account, Metrics())
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def graph_at(name: str, account: CloudAccountSettings) -> AsyncIterator[Graph]:
    """Open a connection to the Cloud API for an account."""
    graph = Graph(name, account, Metrics())
    try:
        yield graph
    finally:
        await graph.close()


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Log nothing inside the block, because the command prints what it finds."""
    before = structlog.get_config()
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent)
    try:
        yield
    finally:
        structlog.configure(**before)


def cure_of(error: CallError, settings: Settings, name: str) -> str | None:
    """Return what to do about a call that failed, where the error does not say so itself."""
    cloud = name in settings.cloud_accounts
    match error:
        case HandshakeError():
            declared = settings.accounts[name].webhook_url is not None
            cure = DECLARED_HANDSHAKE if declared else HANDSHAKE
            return cure.format(settings.cloud_accounts[name].app)
        case InvalidError():
            return UNTAKEN.format(name)
        case ForbiddenError():
            return WITH_PERMISSION if cloud else AS_ADMIN.format(name.upper())
        case LoginRefusedError() if cloud:
            return Issue("login_refused", name, 0, "").cure
        case NotThereError():
            return Issue("number_unreadable", name, 0, "").cure
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Setup:
    """How an account is set up: what is wrong, and whether the command can fix it.

    `unreadable` are settings that can't be read back: they are always set, and never called wrong.
    `taken_from` is another system's webhook URL that is to give way; `own_webhook` is whether it is
    that of the account itself, and not one that the Cloud API has for several.
    """

    fixable: list[WrongSetting]
    unfixable: list[WrongSetting]
    unreadable: list[WrongSetting] = field(default_factory=list)
    version: str | None = None
    webhooks: Mapping[str, Any] = field(default_factory=dict)
    """The client's webhooks object as it is."""
    taken_from: str | None = None
    own_webhook: bool = True

    @property
    def wrong(self) -> list[WrongSetting]:
        """All that is known to be wrong."""
        return self.fixable + self.unfixable

    @property
    def to_set(self) -> list[WrongSetting]:
        """All that the command sets."""
        return self.unreadable + self.fixable


class AccountSetup(Protocol):
    """Where an account is set up: its client, or its number. The methods raise CallError."""

    async def look(self) -> Setup:
        """Return how the account is set up there."""

    async def fix(self, found: Setup) -> Setup:
        """Set what was found, and return how the account is set up then."""


@asynccontextmanager
async def setup_of(settings: Settings, account: str) -> AsyncIterator[AccountSetup]:
    """Open a connection to the client, or the Cloud API, of an account that is configured."""
    if account in settings.cloud_accounts:
        async with graph_at(account, settings.cloud_accounts[account]) as graph:
            yield NumberSetup(graph, settings)
    else:
        async with client_at(account, settings.onprem_accounts[account]) as client:
            yield ClientSetup(client, settings)


def _taken_from(
    settings: Settings, account: str, found: list[WrongSetting], registered: str | None
) -> str | None:
    """Return the URL that gives way, if it is another system's than this installation's."""
    public = settings.server.public_url
    if not registered or not any(each.code == "webhook_url" and each.setting for each in found):
        return None
    is_ours = public is not None and is_endpoint_at(registered, public)
    # Under another host too, for nobody else has the token.
    own = settings.webhook_url(account, at="")
    is_ours |= own.startswith(f"/webhooks/{account}/") and registered.endswith(own)
    return None if is_ours else registered


def how_to_give_back(settings: Settings, account: str, found: Setup, config: Path | None) -> str:
    """Return the command that registers the URL again which the webhook is taken from."""
    cloud = settings.cloud_accounts.get(account)
    if cloud is not None and not found.own_webhook:
        # The number had no URL of its own, but that of its business account or of the app.
        ((name, value),) = token_header(cloud, "ACCESS_TOKEN").items()
        body = '{"webhook_configuration":{"override_callback_uri":""}}'
        return (
            f"curl -X POST {cloud.base_url}/{cloud.phone_number_id} -d '{body}' "
            f"-H '{name}: {value}' -H 'Content-Type: application/json'"
        )
    # Declared for once, it is what the command sets.
    environ = {f"accounts__{account}__webhook_url": found.taken_from or ""}
    if cloud is not None:
        environ[f"apps__{cloud.app}__verify_token"] = "VERIFY_TOKEN of that system"
    variables = (f"ACKGATE_{name.upper()}={shlex.quote(v)}" for name, v in environ.items())
    file = f" --config {shlex.quote(str(config))}" if config is not None else ""
    return f"{' '.join(variables)} ackgate accounts setup {account} --yes --take-over{file}"


class ClientSetup:
    """The setup of a WhatsApp client of the On-Premises API."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    async def look(self) -> Setup:
        """Read the application settings."""
        read = await self._client.settings()
        name = self._client.name
        wrong = wrong_settings(read, expected_of(self._settings, name))
        return Setup(
            *_by_fixable(wrong),
            version=read.version,
            webhooks=dict(read.webhooks),
            taken_from=_taken_from(self._settings, name, wrong, read.webhook_url),
        )

    async def fix(self, found: Setup) -> Setup:
        """Set what is wrong, the certificate first, by which the client verifies the endpoint."""
        file = self._settings.server.public_ca_file
        if file is not None and any(each.code == "webhook_ca" for each in found.fixable):
            await self._client.upload_authority(file.read_text())
        if patch := patch_of(found.fixable, found.webhooks):
            await self._client.change_settings(patch)
        return await self.look()


class NumberSetup:
    """The setup of a number of the Cloud API."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self._graph = graph
        self._settings = settings
        self._account = settings.cloud_accounts[graph.name]
        self._endpoint = settings.registered_url(graph.name)
        verify_token = settings.apps[self._account.app].verify_token
        self._verify_token = verify_token.get_secret_value() if verify_token else ""

    async def look(self) -> Setup:
        """Read the settings of the number."""
        read = await self._graph.settings()
        declared = self._account.webhook_url is not None
        wrong = wrong_cloud_settings(read, self._endpoint, declared=declared)
        return Setup(
            *_by_fixable(wrong),
            [IDENTITY_CHECK],
            taken_from=_taken_from(self._settings, self._graph.name, wrong, read.webhook_url),
            own_webhook=read.own_webhook,
        )

    async def fix(self, found: Setup) -> Setup:
        """Switch the check on, then set what is wrong: the handshake, which may fail, is last."""
        await self._graph.enable_identity_check()
        codes = {each.code for each in found.fixable}
        if "webhook_unsubscribed" in codes:
            await self._graph.subscribe()
        if "webhook_url" in codes and self._endpoint is not None:
            try:
                await self._graph.set_webhook(self._endpoint, self._verify_token)
            except (HandshakeError, InvalidError) as error:
                raise type(error)(f"{error}; all else was set") from None
        return await self.look()


def _by_fixable(wrong: list[WrongSetting]) -> tuple[list[WrongSetting], list[WrongSetting]]:
    """Return what names a setting, which can be set, and what does not."""
    fixable = [each for each in wrong if each.setting is not None]
    return fixable, [each for each in wrong if each.setting is None]
