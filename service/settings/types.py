"""The types of values that the configuration knows, each with the reason it gives for refusing."""

import ipaddress
import re
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
)

T = TypeVar("T")
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_LOOPBACK_6 = ipaddress.ip_address("::1")
DAY = 86_400.0
YEAR = 366 * DAY


class Table(BaseModel):
    """A table of the configuration: every key is known, and no value is converted silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the host: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # What `address.is_loopback` says of ::ffff:127.0.0.1 depends on Python's version.
    return address == _LOOPBACK_6 or address in _LOOPBACK


def host_of(url: str) -> str:
    """Return the host of an absolute URL; empty if it has none."""
    return urlsplit(url).hostname or ""


def _matching(pattern: str, problem: str) -> AfterValidator:
    """Return a validator of text, secret or not, that has to match the pattern as a whole."""

    def check(value: T) -> T:
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _text(value: T) -> T:
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if not text.strip() or not text.isprintable():
        raise ValueError("must be text, not empty and without control characters")
    return value


def _username(value: str) -> str:
    if ":" in value:
        raise ValueError("must not hold a colon: HTTP Basic authentication ends the name there")
    return _text(value)


def _url(value: str) -> str:
    try:
        parts = urlsplit(_text(value))
        port = parts.port
    except ValueError:
        raise ValueError("must be an absolute http or https URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or " " in value:
        raise ValueError("must be an absolute http or https URL")
    if "@" in parts.netloc or "?" in value or "#" in value:
        raise ValueError("must be a URL without user name, query and fragment")
    return value.rstrip("/")


def _client_url(value: str) -> str:
    url = _url(value)
    if url.lower().startswith("http:") and not is_loopback(host_of(url)):
        raise ValueError("must be https: plain http is for a loopback host alone")
    return url


def _with_query(check: Callable[[str], str]) -> AfterValidator:
    """Return a validator of a URL that may have a query: many systems have their token there."""

    def checked(value: SecretStr) -> SecretStr:
        check(value.get_secret_value().partition("?")[0])
        if "#" in value.get_secret_value() or " " in _text(value).get_secret_value():
            raise ValueError("must be a URL without user name and fragment")
        return value

    return AfterValidator(checked)


def _readable(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        raise ValueError("the file does not exist") from None
    except (OSError, ValueError):
        raise ValueError("the file can't be read") from None
    return path


def authorities(path: Path) -> Path:
    """Return the path of a file of certificates. Raises ValueError where it is none."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(_readable(path))
    except ssl.SSLError:
        raise ValueError("the file holds no certificate in PEM form") from None
    return path


def _moment(value: object) -> datetime:
    """Return a time that TOML read, or that is text; a time without an offset may be any."""
    problem = "must be a time with its offset, such as 2027-01-31T00:00:00Z"
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(problem) from None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ValueError(problem)
    return at


def _lower_case(value: SecretStr) -> SecretStr:
    return SecretStr(value.get_secret_value().lower())


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, _matching("[a-z0-9_]+", "names are made of a-z, 0-9 and _")]
Alias = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,139}",
        "must be a wa_id or its beginning: letters and digits, no plus sign",
    ),
]
PhoneNumber = Annotated[
    str,
    _matching(
        r"\+[1-9][0-9]{4,14}",
        "must be a plus sign, the country code and the number, digits only",
    ),
]
MetaId = Annotated[
    str, _matching("[0-9]{1,32}", "must be an id as Meta shows it, digits only, in quotes")
]
Username = Annotated[str, AfterValidator(_username)]
Url = Annotated[str, AfterValidator(_url)]
ClientUrl = Annotated[str, AfterValidator(_client_url)]

Hidden = Annotated[SecretStr, PlainSerializer(lambda _: "…")]
Secret = Annotated[Hidden, AfterValidator(_text)]
WebhookToken = Annotated[
    Hidden,
    _matching(
        "[A-Za-z0-9._~-]{16,512}", "must have at least 16 characters, of A-Z a-z 0-9 . _ ~ -"
    ),
]
WebhookUrl = Annotated[Hidden, _with_query(_client_url)]
DestinationUrl = Annotated[Hidden, _with_query(_url)]
HeaderName = Annotated[
    str, _matching("[A-Za-z0-9-]{1,64}", "must be the name of a header: letters, digits and -")
]
BearerToken = Annotated[
    Hidden, _matching("[!-~]{1,4096}", "must be text of ASCII, not empty and without spaces")
]
Sha256 = Annotated[
    Hidden,
    _matching("[0-9a-fA-F]{64}", "must be the SHA-256 of the key, 64 hexadecimal digits"),
    AfterValidator(_lower_case),
]

# Strict types take a Path and a tuple alone, but the file and the environment hold text and lists.
ReadableFile = Annotated[Path, Field(strict=False), AfterValidator(_readable)]
AuthorityFile = Annotated[Path, Field(strict=False), AfterValidator(authorities)]
List = Annotated[tuple[T, ...], Field(strict=False)]

Moment = Annotated[datetime, BeforeValidator(_moment)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Count = Annotated[int, Field(ge=1, le=2**40)]
# Bounded, so that adding them to a time never leaves the calendar.
Seconds = Annotated[float, Field(ge=0, le=DAY)]
SomeSeconds = Annotated[float, Field(gt=0, le=DAY)]
