"""The alerts: who is told of issues, and when something has lasted so long that it is one."""

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, SecretStr

from service.settings.types import Hidden, Table

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")


class AlertUrl(NamedTuple):
    """An Apprise URL. `line` and `scheme` are what may be shown of it."""

    line: int
    scheme: str
    text: str


def alert_urls(text: str) -> list[AlertUrl]:
    """Return the Apprise URLs of a text, one a line, each once; lines with # are comments.

    Raises ValueError, which names the line and holds nothing of it.
    """
    urls: dict[str, AlertUrl] = {}
    for number, written in enumerate(text.splitlines(), 1):
        line = written.strip()
        if not line or line.startswith("#"):
            continue
        found = _SCHEME.match(line)
        if found is None or not line.isprintable():
            raise ValueError(f"line {number} must be an Apprise URL, such as ntfys://host/topic")
        urls.setdefault(line, AlertUrl(number, found[1].lower(), line))
    if not urls:
        raise ValueError("must hold an Apprise URL, one a line")
    return list(urls.values())


def _of_urls(value: SecretStr) -> SecretStr:
    alert_urls(value.get_secret_value())
    return value


AlertUrls = Annotated[Hidden, AfterValidator(_of_urls)]
Minutes = Annotated[float, Field(gt=0, le=527_040)]


class AlertSettings(Table):
    """Who is told of issues; nobody without URLs. The issues are there all the same."""

    urls: AlertUrls | None = None
    pending_minutes: Minutes = 60.0
    relay_behind_minutes: Minutes = 15.0

    @property
    def destinations(self) -> list[AlertUrl]:
        """The URLs, in their order."""
        return [] if self.urls is None else alert_urls(self.urls.get_secret_value())
