"""The kinds of values that the configuration knows, each with the reason it gives for refusing."""

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,512}")
_BEARER_TOKEN = re.compile(r"[!-~]{1,4096}")
_META_ID = re.compile(r"[0-9]{1,32}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,139}")
_NAME = re.compile(r"[a-z0-9_]+")
_PHONE_NUMBER = re.compile(r"\+[1-9][0-9]{4,14}")
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_LOOPBACK_6 = ipaddress.ip_address("::1")

DAY = 86_400.0
YEAR = 366 * DAY


class Table(BaseModel):
    """A table of the configuration: every key is known, and its values are what they look like."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the host: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address == _LOOPBACK_6 or address in _LOOPBACK


def host_of(url: str) -> str:
    """Return the host of an absolute URL; empty if it has none."""
    return urlsplit(url).hostname or ""


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be text, not empty and without control characters")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("names are made of a-z, 0-9 and _")
    return value


def _alias(value: str) -> str:
    if not _ALIAS.fullmatch(value):
        raise ValueError("must be a wa_id or its beginning: letters and digits, no plus sign")
    return value


def _phone_number(value: str) -> str:
    if not _PHONE_NUMBER.fullmatch(value):
        raise ValueError("must be a plus sign, the country code and the number, digits only")
    return value


def _meta_id(value: str) -> str:
    if not _META_ID.fullmatch(value):
        raise ValueError("must be an id as Meta shows it, digits only, in quotes")
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


def _readable(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        raise ValueError("the file does not exist") from None
    except (OSError, ValueError):
        raise ValueError("the file can't be read") from None
    return path


def _authorities(path: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(_readable(path))
    except ssl.SSLError:
        raise ValueError("the file holds no certificate in PEM form") from None
    return path


def _secret(value: SecretStr) -> SecretStr:
    _text(value.get_secret_value())
    return value


def _webhook_token(value: SecretStr) -> SecretStr:
    if not _TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("must have at least 16 characters, of A-Z a-z 0-9 . _ ~ -")
    return value


def _bearer_token(value: SecretStr) -> SecretStr:
    if not _BEARER_TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("must be text of ASCII, not empty and without spaces")
    return value


def _sha256(value: SecretStr) -> SecretStr:
    if not _SHA256.fullmatch(value.get_secret_value()):
        raise ValueError("must be the SHA-256 of the key, 64 hexadecimal digits")
    return SecretStr(value.get_secret_value().lower())


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, AfterValidator(_name)]
Alias = Annotated[str, AfterValidator(_alias)]
PhoneNumber = Annotated[str, AfterValidator(_phone_number)]
MetaId = Annotated[str, AfterValidator(_meta_id)]
Username = Annotated[str, AfterValidator(_username)]
Url = Annotated[str, AfterValidator(_url)]
ClientUrl = Annotated[str, AfterValidator(_client_url)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
AuthorityFile = Annotated[Path, AfterValidator(_authorities)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
WebhookToken = Annotated[SecretStr, AfterValidator(_webhook_token)]
BearerToken = Annotated[SecretStr, AfterValidator(_bearer_token)]
Sha256 = Annotated[SecretStr, AfterValidator(_sha256)]

Port = Annotated[int, Field(ge=0, le=65_535)]
Count = Annotated[int, Field(ge=1, le=2**40)]
# Bounded, so that adding them to a time never leaves the calendar.
Seconds = Annotated[float, Field(ge=0, le=DAY)]
SomeSeconds = Annotated[float, Field(gt=0, le=DAY)]
