"""How the callbacks of each door are read: as they arrive, and when they are replayed."""

from collections.abc import Callable, Mapping
from functools import partial

from service.dialects import cloud, onprem
from service.model.events import Reading
from service.settings import CloudAccountSettings, Settings
from service.store.database import APP_MARK

Dialect = Callable[[str, str, bytes], Mapping[str, Reading]]
"""Content type, content encoding and body to the reading for each account that is concerned.

Under the empty name: what can be told of no account.
"""


def in_journal(app: str) -> str:
    """Return what the journal calls an app."""
    return f"{APP_MARK}{app}"


def reader_of(settings: Settings, name: str) -> Dialect:
    """Return how a callback is read that the journal has under this name.

    An account of the Cloud API is read as its app is; one that is configured no more as one of the
    On-Premises API.
    """
    if name.startswith(APP_MARK):
        return reader_of_app(settings, name.removeprefix(APP_MARK))
    account = settings.accounts.get(name)
    if isinstance(account, CloudAccountSettings):
        return reader_of_app(settings, account.app)
    return partial(_read_onprem, name)


def reader_of_app(settings: Settings, app: str) -> Dialect:
    """Return how the callbacks of an app are read."""
    return partial(_read_cloud, settings.accounts_of(app))


def _read_onprem(
    account: str, content_type: str, content_encoding: str, body: bytes
) -> Mapping[str, Reading]:
    return {account: onprem.read(content_type, content_encoding, body)}


def _read_cloud(
    accounts: Mapping[str, str], content_type: str, content_encoding: str, body: bytes
) -> Mapping[str, Reading]:
    return cloud.read(content_type, content_encoding, body, accounts)
