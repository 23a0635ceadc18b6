"""The tree of the configuration: every key with its type, its bounds and its default."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.model.policy import Policies, Policy
from service.settings.accounts import (
    AccountSettings,
    AppSettings,
    CloudAccountSettings,
    OnPremAccountSettings,
    PolicySettings,
)
from service.settings.alerts import AlertSettings
from service.settings.console import ConsoleSettings
from service.settings.database import DatabaseSettings
from service.settings.relays import RelaySettings
from service.settings.types import (
    AuthorityFile,
    Count,
    List,
    Moment,
    Name,
    Port,
    ReadableFile,
    Seconds,
    Sha256,
    SomeSeconds,
    Table,
    Text,
    Url,
    is_loopback,
)

Role = Literal["gate", "sender", "reader", "operator", "admin"]
FIRST_USE = Policy("trust_first_use", mode="auto")


class InternalServerSettings(Table):
    """The address of the API, the console, metrics and health, when it is one of its own."""

    host: Text = "127.0.0.1"
    port: Port = 8081


class ServerSettings(Table):
    """Where the service listens, and what it bounds."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    tls_cert_file: ReadableFile | None = None
    tls_key_file: ReadableFile | None = None
    max_body_bytes: Count = 4_194_304
    public_url: Url | None = None
    public_ca_file: AuthorityFile | None = None
    drain_seconds: Seconds = 2.0
    shutdown_seconds: Seconds = 10.0
    body_timeout_seconds: SomeSeconds = 10.0
    max_connections: Count = 4_096
    max_in_flight_bytes: Count = 50_331_648
    max_queue: Count = 4_096
    internal: InternalServerSettings | None = None


class ReconcilerSettings(Table):
    """How fast the client is asked: by the slow sweep, and about everybody after a restore."""

    sweep_after_seconds: Annotated[float, Field(gt=0, le=31_622_400)] = 3_600.0
    sweep_per_second: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    verify_per_second: Annotated[float, Field(gt=0, le=1_000)] = 20.0


Days = Annotated[float, Field(ge=0, le=36_600)]


class RetentionSettings(Table):
    """How long each kind of row is kept, 0 for ever; and how long relays may hold some of it."""

    journal_days: Days = 30.0
    quarantined_days: Days = 90.0
    events_days: Days | None = None
    """None: as long as callbacks."""
    audit_days: Days = 0.0
    relay_days: Days = 14.0

    @property
    def days_of_events(self) -> float:
        """How long the event log is kept."""
        return self.journal_days if self.events_days is None else self.events_days


class InspectorSettings(Table):
    """How often each client is asked whether it is set as it should be; 0 is never."""

    every_seconds: Seconds = 300.0


class LogSettings(Table):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class ApiKeySettings(Table):
    """A key of the REST API: what it may do, and the hash that it is known by.

    It is for all accounts where it names none, and for good without a time.
    """

    role: Role
    sha256: Sha256
    accounts: List[Name] = ()
    expires_at: Moment | None = None

    @property
    def expires_ms(self) -> int | None:
        """When it expires, in Unix milliseconds."""
        return None if self.expires_at is None else int(self.expires_at.timestamp() * 1000)


class ApiSettings(Table):
    """Who may use the REST API."""

    keys: dict[Name, ApiKeySettings] = Field(default_factory=dict)


class Settings(BaseSettings):
    """The whole configuration, checked; `service.settings.load` makes it."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    reconciler: ReconcilerSettings = ReconcilerSettings()
    retention: RetentionSettings = RetentionSettings()
    inspector: InspectorSettings = InspectorSettings()
    log: LogSettings = LogSettings()
    policy: PolicySettings = PolicySettings()
    apps: dict[Name, AppSettings] = Field(default_factory=dict)
    accounts: dict[Name, AccountSettings] = Field(default_factory=dict)
    relays: dict[Name, RelaySettings] = Field(default_factory=dict)
    alerts: AlertSettings = AlertSettings()
    api: ApiSettings = ApiSettings()
    console: ConsoleSettings = ConsoleSettings()

    @classmethod
    def settings_customise_sources(
        cls, *_: Any, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the source of what is passed: `load` alone reads a file and the environment."""
        return (sources["init_settings"],)

    @property
    def onprem_accounts(self) -> dict[str, OnPremAccountSettings]:
        """The accounts with a WhatsApp client of their own."""
        accounts = self.accounts.items()
        return {name: a for name, a in accounts if isinstance(a, OnPremAccountSettings)}

    @property
    def cloud_accounts(self) -> dict[str, CloudAccountSettings]:
        """The accounts of the Cloud API."""
        accounts = self.accounts.items()
        return {name: a for name, a in accounts if isinstance(a, CloudAccountSettings)}

    def accounts_of(self, app: str) -> dict[str, str]:
        """Return the accounts of an app, by the id of their phone number."""
        accounts = self.cloud_accounts.items()
        return {account.phone_number_id: name for name, account in accounts if account.app == app}

    @property
    def open_to_loopback_only(self) -> bool:
        """Whether there is no API key, so that only this machine may call.

        What other machines can reach has a key, and an authenticated webhook: see `checks`.
        """
        return not self.api.keys

    @property
    def hosts(self) -> dict[str, str]:
        """The hosts that the service listens on, by the key that names each."""
        hosts = {"server.host": self.server.host}
        if self.server.internal:
            hosts["server.internal.host"] = self.server.internal.host
        return hosts

    @property
    def public_hosts(self) -> tuple[str, ...]:
        """The keys of the listening hosts that other machines can reach."""
        return tuple(key for key, host in self.hosts.items() if not is_loopback(host))

    def webhook_url(self, account: str, at: str) -> str:
        """Return the webhook URL of an account, where the service is found at a URL."""
        configured = self.accounts[account]
        if isinstance(configured, CloudAccountSettings):
            app = self.apps[configured.app]
            url = f"{at}/webhooks/{configured.app}"
            token = app.webhook_token if app.auth == "token" else None
        else:
            url, token = f"{at}/webhooks/{account}", configured.webhook_token
        return url if token is None else f"{url}/{token.get_secret_value()}"

    def registered_url(self, account: str) -> str | None:
        """Return the URL that is to be registered for the callbacks of an account.

        It is the declared one, else that of the account at the public URL; None where neither is
        known.
        """
        if (declared := self.accounts[account].webhook_url) is not None:
            return declared.get_secret_value()
        public = self.server.public_url
        return self.webhook_url(account, public) if public else None

    def policies(self, account: str) -> Policies:
        """Return what the changes of an account are decided by. KeyError: no such account."""
        configured = self.accounts[account]
        policies = self.policy.for_account(configured.policy)
        if not isinstance(configured, CloudAccountSettings):
            return policies
        return replace(
            policies, local=True, first_use=FIRST_USE if configured.trust_first_use else None
        )

    def deprecated_keys(self) -> list[str]:
        """Return one line for each key that is set and has no effect any more."""
        line = (
            "server.max_connections has no effect any more: "
            "limit connections in the proxy in front (docs/operations.md)"
        )
        return [line] if "max_connections" in self.server.model_fields_set else []

    def redacted(self) -> dict[str, Any]:
        """Return the tree for people to read, each secret that is set as an ellipsis."""
        return self.model_dump(mode="json")
