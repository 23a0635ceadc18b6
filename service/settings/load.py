"""The way from a file and the environment to the checked tree, or to one line of error."""

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

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
    accounts = tree.values.get("accounts")
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        if isinstance(account, dict) and account.get("kind") == "cloud":
            raise tree.error(f"accounts.{name}.kind", "cloud is not supported yet; use onprem")
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


def _refused(tree: Tree, detail: ErrorDetails) -> SettingsError:
    loc = tuple(part for part in detail["loc"] if part != "[key]")
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)[1:]
    match detail["type"]:
        case "extra_forbidden":
            return tree.error(key, f"unknown key; {_suggestion(loc)}")
        case "missing" if "[" in key:
            return tree.error(key, "missing; set it")
        case "missing":
            return tree.error(key, f"missing; set it, or {variable(key)} in the environment")
        case "value_error":
            return tree.error(key, str(detail["ctx"]["error"]))
        case _:
            problem = detail["msg"].replace("Input should", "must")
            return tree.error(key, problem.replace("an object", "a table"))


def _suggestion(loc: tuple[int | str, ...]) -> str:
    table: Key | None = root()
    for part in loc[:-1]:
        table = table and (table.elements if isinstance(part, int) else table.child(part))
    close = get_close_matches(str(loc[-1]), table.children if table else (), n=1)
    return f"did you mean {close[0]}?" if close else "correct or remove it"
