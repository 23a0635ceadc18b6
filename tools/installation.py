"""An installation of Ackgate in a folder: its configuration, its secrets, and its command."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.processes import Process, RunError, python

TOKEN = "webhook-token-of-the-tools"
KEY = "key-of-the-tools"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
APP_SECRET = "0123456789abcdef" * 2
WEBHOOK, CLOUD_WEBHOOK = f"/webhooks/main/{TOKEN}", "/webhooks/meta"
"""The paths of the webhook endpoints: of the On-Premises account, and of the Cloud API's app."""
CLOSED_URL = "http://127.0.0.1:9"
"""The discard port, on which nobody listens: for a client that is out of reach."""

_CONFIG = """
[server]
port = {port}
drain_seconds = {drain_seconds}
{server}
[database]
url = "{database}"
[log]
level = "warning"
format = "json"
[accounts.main]
base_url = "{base_url}"
username = "ackgate"
password = "development-only"
webhook_token = "{token}"
{account}
[accounts.main.policy]
{policy}
[api.keys.tools]
role = "admin"
sha256 = "{key}"
"""
_APP = f"""
[apps.meta]
app_secret = "{APP_SECRET}"
verify_token = "verify-token-of-the-tools"
"""
_CLOUD = """
[accounts.{name}]
kind = "cloud"
app = "meta"
phone_number_id = "{phone_number_id}"
base_url = "{base_url}"
access_token = "access-token-of-the-tools"
"""


@dataclass(frozen=True, slots=True)
class CloudAccount:
    """An account of the Cloud API, and its policy in TOML."""

    name: str
    phone_number_id: str
    policy: str = ""

    @property
    def config(self) -> str:
        """Its part of the configuration; nobody listens at its Graph API."""
        text = _CLOUD.format(
            name=self.name, phone_number_id=self.phone_number_id, base_url=CLOSED_URL
        )
        return f"{text}[accounts.{self.name}.policy]\n{self.policy}\n" if self.policy else text


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder with an On-Premises account `main`, a key of the API, and further Cloud accounts.

    `server`, `account` and `policy` are further lines of TOML for the server, for `main` and for
    its policy; `more` are further tables. The database is a file in the folder, unless
    `database_url` says where it is.
    """

    folder: Path
    base_url: str = CLOSED_URL
    ca_file: Path | None = None
    drain_seconds: float = 0
    server: str = ""
    account: str = ""
    policy: str = 'mode = "manual"'
    more: str = ""
    database_url: str | None = None
    cloud: Sequence[CloudAccount] = ()

    @property
    def database(self) -> Path:
        """The file of the database."""
        return self.folder / "ackgate.db"

    @property
    def config(self) -> Path:
        """The file of the configuration, once a command was asked for."""
        return self.folder / "ackgate.toml"

    def command(self, port: int) -> list[str]:
        """Write the configuration, and return the command that serves on a port."""
        return python("service", "serve", "--config", str(self._configure(port)))

    def create_database(self) -> None:
        """Create the database as `ackgate db upgrade` does, with no user in it."""
        command = python("service", "db", "upgrade", "--config", str(self._configure(port=0)))
        creating = Process(command, name="ackgate db upgrade")
        if creating.wait():
            raise RunError(f"the database can't be created: {creating.printed()}")

    def _configure(self, port: int) -> Path:
        ca_file = "" if self.ca_file is None else f'ca_file = "{self.ca_file}"\n'
        text = _CONFIG.format(
            port=port,
            drain_seconds=self.drain_seconds,
            server=self.server,
            database=self.database_url or f"sqlite:///{self.database}",
            base_url=self.base_url,
            token=TOKEN,
            account=ca_file + self.account,
            policy=self.policy,
            key=hashlib.sha256(KEY.encode()).hexdigest(),
        )
        if self.cloud:
            text += _APP + "".join(account.config for account in self.cloud)
        self.config.write_text(text + self.more)
        return self.config
