"""The configuration: one typed tree, from a TOML file with the environment on top."""

from service.settings.accounts import (
    AccountSettings,
    AppSettings,
    CloudAccountSettings,
    ContactsSettings,
    OnPremAccountSettings,
)
from service.settings.errors import SettingsError
from service.settings.keys import keys
from service.settings.load import load
from service.settings.policy import PolicyOverrides, PolicySettings, RuleSettings
from service.settings.tree import (
    ApiKeySettings,
    ApiSettings,
    DatabaseSettings,
    InspectorSettings,
    InternalServerSettings,
    LogSettings,
    ReconcilerSettings,
    RetentionSettings,
    Role,
    ServerSettings,
    Settings,
)

__all__ = [
    "AccountSettings",
    "ApiKeySettings",
    "ApiSettings",
    "AppSettings",
    "CloudAccountSettings",
    "ContactsSettings",
    "DatabaseSettings",
    "InspectorSettings",
    "InternalServerSettings",
    "LogSettings",
    "OnPremAccountSettings",
    "PolicyOverrides",
    "PolicySettings",
    "ReconcilerSettings",
    "RetentionSettings",
    "Role",
    "RuleSettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "keys",
    "load",
]
