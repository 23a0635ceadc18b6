"""The way from a file and the environment to the checked tree, or to one line of error."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from service.settings.accounts import ACCOUNT_KINDS
from service.settings.checks import missing, problems
from service.settings.database import DatabaseSettings
from service.settings.sources import (
    KEYS,
    EnvironmentSource,
    FileSource,
    SettingsError,
    children,
    general,
    is_known,
    values_below,
)
from service.settings.tree import Settings

DEFAULT_FILE = "config/ackgate.toml"
# For what pydantic says in terms of Python.
_SAY = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "path_type": "must be the path of a file",
}


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the configuration: `path`, else $ACKGATE_CONFIG, else config/ackgate.toml.

    Whatever is wrong is a SettingsError of one line. Files of secrets, certificates and
    authorities are opened, so that what starts has all it needs.
    """
    file = path or Path(environ.get("ACKGATE_CONFIG") or DEFAULT_FILE)
    sources = EnvironmentSource(environ), FileSource(file)
    try:
        # Passed here, for the hook of the class, settings_customise_sources, can't know which file.
        settings = Settings(_build_sources=(sources, {}))
        wrong = next(problems(settings), None)
    except ValidationError as error:
        wrong = _problem(error)
    if wrong is None:
        return settings
    key, problem = wrong
    places = {name: place for source in sources for name, place in source.places.items()}
    within = (places[name] for name in places if key == name or key.startswith(f"{name}["))
    raise SettingsError(key, problem, next(within, str(file)))


def database_at(
    url: str, password_file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> DatabaseSettings:
    """Check a database that the configuration doesn't name.

    Its password is in the file, else where the environment has `database.password`. It can't be in
    the URL, which other users of the machine may see. Whatever is wrong is a SettingsError.
    """
    given = {name: value for name, value in environ.items() if name in _PASSWORDS}
    if password_file is not None:
        given = {_PASSWORDS[1]: str(password_file)}
    values = EnvironmentSource(given)().get("database", {}) if url.startswith("postgres") else {}
    try:
        database = DatabaseSettings.model_validate({"url": url})
        if database.password is not None:
            raise SettingsError("", "the URL may hold no password: name a file of it", "command")
        return DatabaseSettings.model_validate({"url": url, **values})
    except ValidationError as error:
        raise SettingsError(*_problem(error), "command") from None


_PASSWORDS = ("ACKGATE_DATABASE__PASSWORD", "ACKGATE_DATABASE__PASSWORD_FILE")


def _problem(error: ValidationError) -> tuple[str, str]:
    """Return the key that is at fault first, and what is wrong with it."""
    details = error.errors(include_url=False, include_input=False)
    # A misspelt key comes before the required one that it leaves missing.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    # pydantic puts the kind of an account after its name, and "[key]" where a name is at fault.
    path = [part for part in first["loc"] if part != "[key]"]
    kind = str(path.pop(2)) if path[0] == "accounts" and path[2:] else None
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    match first["type"]:
        case "extra_forbidden":
            return key, _unknown(path, kind)
        case "missing" if "[" in key:
            return key, "missing; set it"
        case "missing":
            return key, missing(key)
        case "union_tag_invalid":
            return f"{key}.kind", f"must be {' or '.join(ACCOUNT_KINDS)}"
        case "value_error":
            return key, str(first["ctx"]["error"])
        case other:
            return key, _SAY.get(other) or first["msg"].replace("Input should", "must")


def _unknown(path: list[int | str], kind: str | None) -> str:
    """Return what to do about an unknown key, with its likely spelling among those of its kind."""
    if kind is not None and is_known(path):
        return f"unknown key where kind is {kind}; remove it, or set another kind"
    known = dict(values_below("accounts.NAME", ACCOUNT_KINDS[kind])) if kind else KEYS
    close = get_close_matches(str(path[-1]), children(general(path[:-1]), known), 1)
    return f"unknown key; {f'did you mean {close[0]}?' if close else 'correct or remove it'}"
