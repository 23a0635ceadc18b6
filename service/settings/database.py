"""Where everything is kept: a SQLite file, or a database of a PostgreSQL server."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import AfterValidator, model_validator

from service.settings.types import Secret, Table, authorities

_SQLITE = "sqlite:///"
_POSTGRES = "postgresql://"
_FORM = (
    "must be postgresql://USER@HOST:PORT/DATABASE, or postgresql://USER@/DATABASE?host=FOLDER for "
    "a Unix socket; write characters that mean something in a URL as %XX"
)
_OPTIONS = ("host", "port", "sslmode", "sslrootcert")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PASSWORD = re.compile(
    r"(postgres[a-z]*://[^:@/?#]*):([^/?#]*)(@[^@/?#]*(?:[/?#].*)?)", re.IGNORECASE
)
"""The URL before a password, the password, and what comes after it."""


def _database_url(value: str) -> str:
    if value.lower().startswith("postgres"):
        return _postgres_url(value)
    path = value.removeprefix(_SQLITE)
    if path == value or not path or not path.isprintable() or path.endswith("/"):
        raise ValueError(
            "must be sqlite:///PATH, or sqlite:////PATH from the root, "
            "or postgresql://USER@HOST:PORT/DATABASE"
        )
    if path.startswith(":") or "?" in path or "#" in path:
        raise ValueError("must name a file on disk, and nothing else: no :memory:, no options")
    return value


def _postgres_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(_FORM) from None
    if not value.startswith(_POSTGRES) or not re.fullmatch("[!-~]+", value) or "#" in value:
        raise ValueError(_FORM)
    # What is still taken for a password was not recognized as one: it has characters that end it.
    if parts.password is not None or parts.netloc.count("@") > 1 or port == 0:
        raise ValueError(_FORM)
    if "," in parts.netloc:
        raise ValueError("must name one host")
    if not re.fullmatch("/[^/]+", parts.path):
        raise ValueError(f"names no database: {_FORM}")
    options = _options(parts.query)
    if bool(parts.hostname) == ("host" in options) or (port and "port" in options):
        raise ValueError(_FORM)
    if port and not parts.hostname:
        raise ValueError("the port of a Unix socket is the option port: ?host=FOLDER&port=5433")
    return value


def _options(query: str) -> dict[str, str]:
    """Return the options of a query, each of which the driver knows."""
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs) or not options.keys() <= {*_OPTIONS}:
        raise ValueError(f"its options are {', '.join(_OPTIONS)}, each once")
    if not options.get("host", "/").startswith("/"):
        raise ValueError("the option host is the folder of a Unix socket, from the root")
    if not re.fullmatch("[1-9][0-9]{0,4}", options.get("port", "5432")):
        raise ValueError("the option port must be a number")
    mode = options.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise ValueError(f"the option sslmode must be one of {', '.join(_SSL_MODES)}")
    if mode.startswith("verify") and "sslrootcert" not in options:
        raise ValueError(
            f"sslmode={mode} needs the option sslrootcert: a file of authorities, PEM, "
            "such as /etc/ssl/certs/ca-certificates.crt"
        )
    if "sslrootcert" in options:
        try:
            authorities(Path(options["sslrootcert"]))
        except ValueError as error:
            raise ValueError(f"the option sslrootcert: {error}") from None
    return options


class DatabaseSettings(Table):
    """Where everything is kept.

    A password that the URL has is moved to `password`, so that the URL may be shown.
    """

    url: Annotated[str, AfterValidator(_database_url)] = "sqlite:///var/ackgate.db"
    password: Secret | None = None
    create: Literal["if-missing", "never"] = "if-missing"

    @model_validator(mode="before")
    @classmethod
    def _move_password(cls, values: Any) -> Any:
        url = values.get("url") if isinstance(values, dict) else None
        found = _PASSWORD.fullmatch(url) if isinstance(url, str) else None
        if found is None:
            return values
        if "password" in values:
            raise ValueError("two passwords: set database.password, or that in database.url")
        return {**values, "url": found[1] + found[3], "password": unquote(found[2])}

    @property
    def is_postgres(self) -> bool:
        """Whether it is a database of a PostgreSQL server."""
        return self.url.startswith(_POSTGRES)

    @property
    def full_url(self) -> str:
        """The URL with the password in it, for nobody but the driver."""
        if self.password is None:
            return self.url
        parts = urlsplit(self.url)
        user, _, host = parts.netloc.rpartition("@")
        password = quote(self.password.get_secret_value(), safe="")
        return parts._replace(netloc=f"{user}:{password}@{host}").geturl()

    @property
    def may_create(self) -> bool:
        """Whether a start may make a new database."""
        return self.create != "never"
