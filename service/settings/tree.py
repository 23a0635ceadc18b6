"""The tree of the configuration: every key with its type, its bounds and its default."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from service.model.budget import Budget
from service.model.policy import Policies
from service.settings.gate import GateSettings
from service.settings.policy import AccountPolicy, PolicySettings
from service.settings.types import (
    AuthorityFile,
    ClientUrl,
    Count,
    Name,
    PhoneNumber,
    Port,
    ReadableFile,
    Seconds,
    Secret,
    Sha256,
    SomeSeconds,
    Table,
    Text,
    Url,
    Username,
    WebhookToken,
    is_loopback,
)

Role = Literal["gate", "reader", "operator", "admin"]
_SQLITE = "sqlite:///"


def _database_url(value: str) -> str:
    path = value.removeprefix(_SQLITE)
    if path == value or not path or not path.isprintable() or path.endswith("/"):
        raise ValueError("must be sqlite:///PATH, or sqlite:////PATH from the root")
    if path.startswith(":") or "?" in path or "#" in path:
        raise ValueError("must name a file on disk, and nothing else: no :memory:, no options")
    return value


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
    max_in_flight_bytes: Count = 67_108_864
    max_queue: Count = 4_096
    internal: InternalServerSettings | None = None


class DatabaseSettings(Table):
    """Where everything is kept."""

    url: Annotated[str, AfterValidator(_database_url)] = "sqlite:///var/ackgate.db"

    @property
    def path(self) -> Path:
        """The SQLite file; a relative path counts from the working directory."""
        return Path(self.url.removeprefix(_SQLITE))


class ReconcilerSettings(Table):
    """How fast the client is asked: by the slow sweep, and about everybody after a restore."""

    sweep_after_seconds: Annotated[float, Field(gt=0, le=31_622_400)] = 3_600.0
    sweep_per_second: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    verify_per_second: Annotated[float, Field(gt=0, le=1_000)] = 20.0


class RetentionSettings(Table):
    """How long callbacks are kept as they came; 0 is for ever."""

    journal_days: Annotated[float, Field(ge=0, le=36_600)] = 30.0
    quarantined_days: Annotated[float, Field(ge=0, le=36_600)] = 90.0


class ContactsSettings(Table):
    """How numbers are checked: what it may cost, how long an answer may take, what is renewed."""

    free_checks: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1_000
    checks_per_message: Annotated[float, Field(ge=0, le=1_000)] = 1.0
    window_days: Annotated[int, Field(ge=1, le=366)] = 30
    force_cost: Annotated[float, Field(ge=1, le=1_000)] = 3.0
    warn_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    require_opt_in: bool = False
    answer_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 4
    renew: bool = True
    renew_before_hours: Annotated[float, Field(gt=0, le=144)] = 12.0
    active_days: Annotated[float, Field(gt=0, le=366)] = 7.0

    @property
    def budget(self) -> Budget:
        """What may be spent on checks."""
        return Budget(
            self.free_checks,
            self.checks_per_message,
            self.window_days,
            self.force_cost,
            self.warn_at,
        )


class InspectorSettings(Table):
    """How often each client is asked whether it is set as it should be; 0 is never."""

    every_seconds: Seconds = 300.0


class AccountSettings(Table):
    """One WhatsApp client of the On-Premises API, and the door for its callbacks."""

    kind: Literal["onprem"] = "onprem"
    base_url: ClientUrl
    username: Username
    password: Secret
    ca_file: AuthorityFile | None = None
    verify_tls: bool = True
    webhook_token: WebhookToken | None = None
    phone_number: PhoneNumber | None = None
    timeout_seconds: SomeSeconds = 60.0
    max_in_flight: Annotated[int, Field(ge=1, le=1_024)] = 16
    policy: AccountPolicy = AccountPolicy()
    gate: GateSettings = GateSettings()
    contacts: ContactsSettings = ContactsSettings()


class ApiKeySettings(Table):
    """A key of the REST API: what it may do, and the hash that it is known by."""

    role: Role
    sha256: Sha256


class ApiSettings(Table):
    """Who may use the REST API."""

    keys: dict[Name, ApiKeySettings] = Field(default_factory=dict)


class LogSettings(Table):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Table):
    """The whole configuration, checked; `service.settings.load` makes it."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    reconciler: ReconcilerSettings = ReconcilerSettings()
    retention: RetentionSettings = RetentionSettings()
    inspector: InspectorSettings = InspectorSettings()
    log: LogSettings = LogSettings()
    policy: PolicySettings = PolicySettings()
    accounts: dict[Name, AccountSettings] = Field(default_factory=dict)
    api: ApiSettings = ApiSettings()

    @property
    def open_to_loopback_only(self) -> bool:
        """Whether an API key or a webhook token is missing, so that only this machine may call."""
        return not self.api.keys or self.account_without_token is not None

    @property
    def account_without_token(self) -> str | None:
        """The name of the first account whose door has no secret; None when each has one."""
        return next((n for n, a in self.accounts.items() if a.webhook_token is None), None)

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

    def door(self, account: str, at: str) -> str:
        """Return the webhook URL of an account, where the service is found at a URL."""
        token = self.accounts[account].webhook_token
        url = f"{at}/webhooks/{account}"
        return url if token is None else f"{url}/{token.get_secret_value()}"

    def policies(self, account: str) -> Policies:
        """Return what the changes of an account are decided by. KeyError: no such account."""
        return self.policy.for_account(self.accounts[account].policy)

    def redacted(self) -> dict[str, Any]:
        """Return the tree for people to read, each secret that is set as an ellipsis."""
        shown: dict[str, Any] = _shown(self.model_dump())
        return shown


def _shown(value: Any) -> Any:
    match value:
        case dict():
            return {key: _shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner) for inner in value]
        case SecretStr():
            return "…"
        case Path():
            return str(value)
        case _:
            return value
