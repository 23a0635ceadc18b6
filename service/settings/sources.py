"""Where values come from: the TOML file, the environment on top, and the files of secrets."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.settings.errors import SettingsError, UnusableFileError
from service.settings.keys import Key, root

PREFIX = "ACKGATE_"
NOT_YET = {"relays"}
_NAME = re.compile(r"[a-z0-9_]+")
_MAX_SECRET_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Tree:
    """Values not yet checked, and for each that isn't from the file the place it came from."""

    file: str
    values: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)

    def error(self, key: str, problem: str) -> SettingsError:
        """Return the error about a key, with the place to mend: the file or a variable."""
        within = (p for k, p in self.places.items() if key == k or key.startswith(f"{k}["))
        return SettingsError(key, problem, next(within, self.file))


def read(file: Path, environ: Mapping[str, str]) -> Tree:
    """Gather every value. A SettingsError names what can't be read, or has no place in the tree."""
    tree = Tree(str(file), _toml(file))
    _overlay(tree, environ)
    _read_secret_files(tree, root(), tree.values, "")
    return tree


def variable(key: str) -> str:
    """Return the name of the environment variable for a key."""
    return PREFIX + key.upper().replace(".", "__")


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "no such configuration file; name one with --config or in ACKGATE_CONFIG"
    except OSError as error:
        problem = f"the configuration file can't be read: {error.strerror}"
    except tomllib.TOMLDecodeError as error:
        problem = f"not TOML: {error}"
    except (ValueError, RecursionError):
        problem = "not TOML: it must be UTF-8 text, with numbers and nesting of a usual size"
    raise UnusableFileError(str(file), problem)


def _overlay(tree: Tree, environ: Mapping[str, str]) -> None:
    """Put the environment on top. Setting a secret in one form there outdoes the file's other."""
    found = [n for n in sorted(environ) if n.startswith(PREFIX) and "__" in n[len(PREFIX) :]]
    for name in found:
        path = name.removeprefix(PREFIX).lower().split("__")
        dotted = ".".join(path)
        place = f"environment variable {name}"
        key = _known(path, place)
        if key is None or key.is_table or name != name.upper():
            raise SettingsError(dotted, _unknown(path, key), place)
        table = _table(tree, path[:-1])
        twin = _twin(path)
        if _known(twin, place) and ".".join(twin) not in tree.places:
            table.pop(twin[-1], None)
        table[path[-1]] = _value(key, environ[name], dotted, place)
        tree.places[dotted] = place


def _known(path: list[str], place: str) -> Key | None:
    """Return the key at the path; None when the tree has no such place."""
    key: Key | None = root()
    for depth, name in enumerate(path, start=1):
        if key is None:
            return None
        if key.keyed_by_name and not _NAME.fullmatch(name):
            raise SettingsError(".".join(path[:depth]), "names are made of a-z, 0-9 and _", place)
        key = key.child(name)
    return key


def _unknown(path: list[str], key: Key | None) -> str:
    if path[0] in NOT_YET:
        return "not supported yet; remove it"
    if key is None:
        return "unknown key; correct or remove it"
    return "a table; set its keys one by one" if key.is_table else "write the name in capitals"


def _twin(path: list[str]) -> list[str]:
    """Return the other form of a secret's key: the value's for the file's, and the reverse."""
    name = path[-1]
    twin = name.removesuffix("_file") if name.endswith("_file") else f"{name}_file"
    return [*path[:-1], twin]


def _table(tree: Tree, path: list[str]) -> dict[str, Any]:
    """Return the table at the path, made where it is missing."""
    table = tree.values
    for depth, name in enumerate(path, start=1):
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise tree.error(".".join(path[:depth]), "must be a table")
        table = inner
    return table


def _value(key: Key, text: str, dotted: str, place: str) -> Any:
    """Return what the text of a variable stands for: as it is, or a number, boolean or list."""
    if key.is_text:
        if not text.isprintable():
            raise SettingsError(dotted, "must be text without control characters", place)
        return text
    try:
        return _parsed(text.strip())
    except (ValueError, RecursionError):
        raise SettingsError(
            dotted, "must be a number, true, false, or a list in JSON or TOML", place
        ) from None


def _parsed(text: str) -> Any:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        value = json.loads(text)
    except ValueError:
        # One value alone: a line break could begin another key.
        value = tomllib.loads(f"value = {' '.join(text.splitlines())}")["value"]
    json.dumps(value, ensure_ascii=False, default=str).encode()  # no lone surrogates
    return value


def _read_secret_files(tree: Tree, key: Key, table: dict[str, Any], path: str) -> None:
    """Replace each `…_file` of the tree by the secret that the file holds."""
    for name in list(table):
        child, dotted = key.child(name), f"{path}.{name}".removeprefix(".")
        secret = name.removesuffix("_file")
        if name != secret and (known := key.children.get(secret)) and known.is_secret:
            if secret in table:
                raise tree.error(dotted, f"given twice: set this or {secret}, not both")
            table[secret] = _secret(tree, dotted, table.pop(name))
            tree.places[dotted.removesuffix("_file")] = f"the file that {dotted} names"
        elif child and isinstance(table[name], dict):
            _read_secret_files(tree, child, table[name], dotted)


def _secret(tree: Tree, dotted: str, file: Any) -> str:
    """Return what the file holds, without its last line break."""
    if not isinstance(file, str) or not file:
        raise tree.error(dotted, "must be the path of a file")
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_MAX_SECRET_BYTES + 1)
        text = content.decode().rstrip("\r\n")
    except FileNotFoundError:
        raise tree.error(dotted, "the file does not exist") from None
    except (OSError, ValueError):
        raise tree.error(dotted, "the file can't be read as text") from None
    if not text:
        raise tree.error(dotted, "the file is empty; it must hold the secret")
    if len(content) > _MAX_SECRET_BYTES:
        raise tree.error(dotted, "the file is too large to hold a secret")
    return text
