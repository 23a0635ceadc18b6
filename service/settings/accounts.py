"""The accounts and apps, and what can be set for each: policy, gate and contact checks."""

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from service.model.budget import Budget
from service.model.gate import CLEARS_WHEN, UNKNOWN, Rules
from service.model.policy import Mode, Policies, Policy, Rule
from service.settings.types import (
    YEAR,
    Alias,
    AuthorityFile,
    BearerToken,
    ClientUrl,
    Count,
    HeaderName,
    List,
    MetaId,
    Name,
    PhoneNumber,
    Secret,
    SomeSeconds,
    Table,
    Username,
    WebhookToken,
    WebhookUrl,
)

SIGNATURE_HEADER = "X-Hub-Signature-256"
CLOUD_URL = "https://graph.facebook.com/v25.0"


def _gate_code(value: str) -> str:
    if value == UNKNOWN:
        raise ValueError(f"{UNKNOWN} blocks where unknown_sendable is false, else it warns")
    if value not in CLEARS_WHEN:
        raise ValueError("must be a code of the gate, as docs/api.md lists them")
    return value


Delay = Annotated[float, Field(ge=0, le=YEAR)]
Window = Annotated[float, Field(gt=0, le=YEAR)]
GateCode = Annotated[str, AfterValidator(_gate_code)]


class PolicyOverrides(Table):
    """The keys of a policy, of which any may be left to the policy above."""

    mode: Mode | None = None
    delay_seconds: Delay | None = None
    max_changes: Count | None = None
    per_seconds: Window | None = None

    def over(self, base: Policy, name: str) -> Policy:
        """Return the base with the keys that are set here, under a name of its own."""
        own = self.model_dump(include=set(PolicyOverrides.model_fields), exclude_none=True)
        return replace(base, **own, name=name)


class RuleSettings(PolicyOverrides):
    """A rule: for these users, these keys."""

    name: Name
    wa_ids: List[Alias] = ()
    wa_id_prefixes: List[Alias] = ()


class AccountPolicy(PolicyOverrides):
    """An account's own policy: any of the keys, and rules that come before the general ones."""

    rules: List[RuleSettings] = ()


class PolicySettings(Table):
    """The general policy."""

    mode: Mode = "manual"
    delay_seconds: Delay = 0.0
    max_changes: Count = 3
    per_seconds: Window = 86_400.0
    rules: List[RuleSettings] = ()

    def for_account(self, own: AccountPolicy) -> Policies:
        """Return what an account's changes are decided by, its own keys and rules first."""
        general = Policy(name="default", **self.model_dump(exclude={"rules"}))
        default = own.over(general, "default")
        rules = [
            Rule(rule.over(default, rule.name), frozenset(rule.wa_ids), rule.wa_id_prefixes)
            for rule in (*own.rules, *self.rules)
        ]
        return Policies(tuple(rules), default)


class GateSettings(Table):
    """The gate of one account: which reasons block, and which only warn."""

    warn: List[GateCode] = ()
    block: List[GateCode] = ()
    unknown_sendable: bool = True

    @cached_property
    def rules(self) -> Rules:
        """What the model goes by."""
        unknown = frozenset() if self.unknown_sendable else frozenset({UNKNOWN})
        return Rules(frozenset(self.warn), frozenset(self.block) | unknown)


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
    """One WhatsApp client of the On-Premises API, and the webhook endpoint of its callbacks."""

    kind: Literal["onprem"] = "onprem"
    base_url: ClientUrl
    username: Username
    password: Secret
    ca_file: AuthorityFile | None = None
    verify_tls: bool = True
    webhook_token: WebhookToken | None = None
    webhook_auth: Literal["token", "proxy"] = "token"
    webhook_url: WebhookUrl | None = None
    phone_number: PhoneNumber | None = None
    timeout_seconds: SomeSeconds = 60.0
    max_in_flight: Annotated[int, Field(ge=1, le=1_024)] = 16
    policy: AccountPolicy = AccountPolicy()
    gate: GateSettings = GateSettings()
    contacts: ContactsSettings = ContactsSettings()


class CloudAccountSettings(Table):
    """One phone number of the Cloud API; its callbacks come to the webhook endpoint of its app."""

    kind: Literal["cloud"]
    app: Name
    phone_number_id: MetaId
    waba_id: MetaId | None = None
    base_url: ClientUrl = CLOUD_URL
    access_token: BearerToken
    token_header: HeaderName = "Authorization"  # noqa: S105 - the name of a header
    ca_file: AuthorityFile | None = None
    verify_tls: bool = True
    trust_first_use: bool = True
    check_settings: bool = True
    webhook_url: WebhookUrl | None = None
    phone_number: PhoneNumber | None = None
    timeout_seconds: SomeSeconds = 60.0
    max_in_flight: Annotated[int, Field(ge=1, le=1_024)] = 64
    policy: AccountPolicy = AccountPolicy()
    gate: GateSettings = GateSettings()


def _kind(account: Any) -> str:
    """Return the kind of an account, as it is read (a dict) and as it is dumped (an object)."""
    if isinstance(account, dict):
        return str(account.get("kind", "onprem"))
    return str(getattr(account, "kind", "onprem"))


ACCOUNT_KINDS = {"onprem": OnPremAccountSettings, "cloud": CloudAccountSettings}
AccountSettings = Annotated[
    Annotated[OnPremAccountSettings, Tag("onprem")] | Annotated[CloudAccountSettings, Tag("cloud")],
    Discriminator(_kind),
]


class AppSettings(Table):
    """One app of the Cloud API: what its callbacks are signed with, and its handshake.

    While the secret is changed, callbacks signed with `app_secret_previous` are taken too. A
    provider that doesn't pass on Meta's signature signs in a header of its own, or not at all; then
    a token in the webhook URL takes the signature's place. `checks` says which keys it needs.
    """

    auth: Literal["signature", "token"] = "signature"
    app_secret: Secret | None = None
    app_secret_previous: Secret | None = None
    signature_header: HeaderName = SIGNATURE_HEADER
    webhook_token: WebhookToken | None = None
    verify_token: Secret | None = None

    @property
    def secrets(self) -> list[bytes]:
        """What callbacks may be signed with, the one that is in use first."""
        known = (self.app_secret, self.app_secret_previous)
        return [secret.get_secret_value().encode() for secret in known if secret is not None]
