"""The accounts: WhatsApp clients of the On-Premises API, and numbers of apps of the Cloud API."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from service.model.budget import Budget
from service.settings.gate import GateSettings
from service.settings.policy import AccountPolicy
from service.settings.types import (
    AuthorityFile,
    BearerToken,
    ClientUrl,
    MetaId,
    Name,
    PhoneNumber,
    Secret,
    SomeSeconds,
    Table,
    Username,
    WebhookToken,
)

CLOUD_URL = "https://graph.facebook.com/v25.0"


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


class OnPremAccountSettings(Table):
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


class CloudAccountSettings(Table):
    """One phone number of the Cloud API; the door for its callbacks is that of its app."""

    kind: Literal["cloud"]
    app: Name
    phone_number_id: MetaId
    waba_id: MetaId | None = None
    base_url: ClientUrl = CLOUD_URL
    access_token: BearerToken
    ca_file: AuthorityFile | None = None
    verify_tls: bool = True
    trust_first_use: bool = True
    phone_number: PhoneNumber | None = None
    timeout_seconds: SomeSeconds = 60.0
    policy: AccountPolicy = AccountPolicy()
    gate: GateSettings = GateSettings()


class AppSettings(Table):
    """One app of the Cloud API: what its callbacks are signed with, and its handshake.

    While the secret is changed, callbacks signed with `app_secret_previous` are taken too.
    """

    app_secret: Secret
    app_secret_previous: Secret | None = None
    verify_token: Secret


KIND = "kind"
DEFAULT_KIND = "onprem"


def _kind(account: Any) -> str:
    """Tell the kind of an account, as it is read and as it is shown."""
    kind = account.get(KIND, DEFAULT_KIND) if isinstance(account, dict) else DEFAULT_KIND
    return str(getattr(account, KIND, kind))


AccountSettings = Annotated[
    Annotated[OnPremAccountSettings, Tag("onprem")] | Annotated[CloudAccountSettings, Tag("cloud")],
    Discriminator(_kind),
]
