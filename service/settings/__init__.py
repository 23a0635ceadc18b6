"""The configuration: one typed tree, from a TOML file with the environment on top."""

from service.settings.errors import SettingsError
from service.settings.keys import keys
from service.settings.load import load
from service.settings.policy import PolicyOverrides, PolicySettings, RuleSettings
from service.settings.tree import (
    AccountSettings,
    ApiKeySettings,
    ApiSettings,
    ContactsSettings,
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
    "ContactsSettings",
    "DatabaseSettings",
    "InspectorSettings",
    "InternalServerSettings",
    "LogSettings",
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
