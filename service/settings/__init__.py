"""The configuration: every key that can be set, and how the tree of keys is read and checked.

`load` makes `Settings` of a TOML file and the environment, or raises a `SettingsError` of one line.
What a setting does stands where it is used; here belongs only what makes its value right.
"""

from service.settings.accounts import (
    AppSettings,
    CloudAccountSettings,
    ContactsSettings,
    OnPremAccountSettings,
)
from service.settings.alerts import AlertSettings, AlertUrl
from service.settings.changes import needing_restart
from service.settings.console import ConsoleProxySettings, ConsoleRole, ConsoleSettings
from service.settings.load import database_at, load
from service.settings.relays import RelaySettings
from service.settings.sources import SettingsError, keys
from service.settings.tree import (
    ApiKeySettings,
    RetentionSettings,
    Role,
    ServerSettings,
    Settings,
)

__all__ = [
    "AlertSettings",
    "AlertUrl",
    "ApiKeySettings",
    "AppSettings",
    "CloudAccountSettings",
    "ConsoleProxySettings",
    "ConsoleRole",
    "ConsoleSettings",
    "ContactsSettings",
    "OnPremAccountSettings",
    "RelaySettings",
    "RetentionSettings",
    "Role",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "database_at",
    "keys",
    "load",
    "needing_restart",
]
