"""The way from a file and the environment to the checked tree, or to one line of error."""

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.settings.accounts import KIND
from service.settings.checks import problems
from service.settings.errors import SettingsError
from service.settings.keys import Key, root
from service.settings.sources import NOT_YET, Tree, read, variable
from service.settings.tree import Settings

DEFAULT_FILE = "config/ackgate.toml"


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the configuration: `path`, else $ACKGATE_CONFIG, else config/ackgate.toml.

    Whatever is wrong is a SettingsError of one line. Files of secrets, certificates and
    authorities are opened, so that what starts has all it needs.
    """
    file = path or Path(environ.get("ACKGATE_CONFIG") or DEFAULT_FILE)
    tree = read(file, environ)
    _refuse_what_is_not_built(tree)
    settings = _validated(tree)
    for key, problem in problems(settings):
        raise tree.error(key, problem)
    return settings


def _refuse_what_is_not_built(tree: Tree) -> None:
    for table in sorted(NOT_YET & tree.values.keys()):
        names = tree.values[table]
        key = f"{table}.{next(iter(names))}" if isinstance(names, dict) and names else table
        raise tree.error(key, "not supported yet; remove it")
    database = tree.values.get("database")
    url = database.get("url") if isinstance(database, dict) else None
    if isinstance(url, str) and url.lower().startswith("postgres"):
        raise tree.error("database.url", "PostgreSQL is not supported yet; use sqlite:///PATH")


def _validated(tree: Tree) -> Settings:
    # Through JSON, since strict types there are TOML's own: a list is a tuple, text is a path.
    values = json.dumps(tree.values, default=str)
    try:
        return Settings.model_validate_json(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    # A misspelt key comes before the required one that it leaves missing.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    raise _refused(tree, first)


class _Place(NamedTuple):
    """Where an error is: in the file, and in the tree of keys. `kind` is that of its table."""

    parts: tuple[int | str, ...]
    table: Key | None
    key: Key | None
    kind: str | None


def _refused(tree: Tree, detail: ErrorDetails) -> SettingsError:
    place = _place(detail["loc"])
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place.parts)
    key = "".join(parts)[1:]
    match detail["type"]:
        case "extra_forbidden":
            return tree.error(key, f"unknown key{_suggestion(place)}")
        case "missing" if "[" in key:
            return tree.error(key, "missing; set it")
        case "missing":
            return tree.error(key, f"missing; set it, or {variable(key)} in the environment")
        case "union_tag_invalid" | "union_tag_not_found":
            known = " or ".join(place.key.kinds if place.key else ())
            return tree.error(f"{key}.{KIND}", f"must be {known}")
        case "value_error":
            return tree.error(key, str(detail["ctx"]["error"]))
        case _:
            problem = detail["msg"].replace("Input should", "must")
            return tree.error(key, problem.replace("an object", "a table"))


def _place(loc: tuple[int | str, ...]) -> _Place:
    """Follow a place of pydantic's, which also names kinds of tables, and faults of names."""
    parts: list[int | str] = []
    table: Key | None = None
    key: Key | None = root()
    kind = None
    for part in loc:
        if part == "[key]":
            continue
        if key is not None and part in key.kinds:
            key, kind = key.kinds[str(part)], str(part)
            continue
        parts.append(part)
        table, key = key, key and (key.elements if isinstance(part, int) else key.child(part))
    return _Place(tuple(parts), table, key, kind)


def _suggestion(place: _Place) -> str:
    if place.kind is not None and _is_of_some_kind(place.parts):
        return f" where {KIND} is {place.kind}; remove it, or set another {KIND}"
    close = get_close_matches(str(place.parts[-1]), place.table.children if place.table else (), 1)
    return f"; did you mean {close[0]}?" if close else "; correct or remove it"


def _is_of_some_kind(parts: tuple[int | str, ...]) -> bool:
    key: Key | None = root()
    for part in parts:
        key = key and (key.elements if isinstance(part, int) else key.child(part))
    return key is not None
