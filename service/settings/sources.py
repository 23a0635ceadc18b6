"""Where values come from: the TOML file, the environment on top, and the files of secrets."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from service.settings.tree import Settings

PREFIX = "ACKGATE_"
_MAX_SECRET_BYTES = 65_536


class SettingsError(Exception):
    """The configuration can't be used. Its text is one line, and never holds a value.

    Values are left out altogether, secret or not: a password ends up in the wrong field easily.
    """

    def __init__(self, key: str, problem: str, place: str) -> None:
        """Say what is wrong with `key`, and in which file or environment variable.

        Without a key the place itself, the configuration file, can't be used.
        """
        # Nothing that would break, colour or flood the line.
        key, problem, place = (
            "".join(c if c.isprintable() else "?" for c in text)[:500]
            for text in (key, problem, place)
        )
        super().__init__(f"{key}: {problem} (in {place})" if key else f"{place}: {problem}")
        self.key = key


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def values_below(path: str, annotation: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of values at a path and below it, each with its type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from values_below(path, arguments[0])
    elif origin in {Union, UnionType}:
        for one in arguments:
            if one is not NoneType:
                yield from values_below(path, one)
    elif origin is dict:
        yield from values_below(f"{path}.NAME", arguments[1])
    elif _is_table(annotation):
        for name, field in annotation.model_fields.items():
            yield from values_below(f"{path}.{name}".removeprefix("."), field.annotation)
    else:
        yield path, origin or annotation
        if annotation is SecretStr:
            yield f"{path}_file", Path
        if origin is tuple and _is_table(arguments[0]):
            yield from values_below(f"{path}[]", arguments[0])


KEYS = dict(values_below("", Settings))
"""Every key with its type: `accounts.NAME.password`, `policy.rules`, `policy.rules[].name`."""
_KEYED_BY_NAME = {key[: found.start()] for key in KEYS for found in re.finditer(r"\.NAME", key)}


def keys() -> Iterator[str]:
    """Yield every key that can be set: `accounts.NAME.password_file`, `policy.rules[].name`."""
    return (key for key in KEYS if not any(other.startswith(f"{key}[") for other in KEYS))


def general(path: Iterable[int | str]) -> str:
    """Return the key of a path as `KEYS` has it: NAME for names, [] for places in a list."""
    key = ""
    for part in path:
        if isinstance(part, int):
            key += "[]"
        else:
            key += f".{'NAME' if key[1:] in _KEYED_BY_NAME else part}"
    return key[1:]


def children(key: str, known: Iterable[str] = KEYS) -> set[str]:
    """Return the names of what can be set below a key, none if it isn't a table."""
    below = f"{key}." if key else ""
    rest = (other.removeprefix(below) for other in known if other.startswith(below))
    return {re.split(r"[.\[]", other)[0] for other in rest}


def is_known(path: Iterable[int | str]) -> bool:
    """Return whether a value or a table can stand at the path."""
    key = general(path)
    return key in KEYS or bool(children(key))


class Source(PydanticBaseSettingsSource):
    """A source that knows, for each key that isn't simply in the file, where its value is from."""

    def __init__(self) -> None:
        super().__init__(Settings)
        self.places: dict[str, str] = {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return no value: those of all fields are returned together."""
        return None, field_name, False


class EnvironmentSource(Source):
    """The environment: `ACKGATE_SERVER__PORT` is `server.port`.

    pydantic-settings' own source passes over a variable that leads to no key, and takes what stands
    below a table of names for JSON, so that a password of digits would become a number.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._environ = environ

    def __call__(self) -> dict[str, Any]:
        """Return the tree of the variables. SettingsError: one has no place in it, or no value."""
        values: dict[str, Any] = {}
        for name in sorted(self._environ):
            path = name.removeprefix(PREFIX).lower().split("__")
            if not name.startswith(PREFIX) or len(path) == 1:
                continue
            place = f"environment variable {name}"
            self.places[".".join(path)] = place
            try:
                self._put(values, name, path)
            except ValueError as problem:
                raise SettingsError(".".join(path), str(problem), place) from None
        return values

    def _put(self, table: dict[str, Any], name: str, path: list[str]) -> None:
        """Put the value of a variable into the tree. ValueError: what is wrong with it."""
        kind = KEYS.get(general(path))
        if kind is None and is_known(path):
            raise ValueError("a table; set its keys one by one")
        if kind is None:
            raise ValueError("unknown key; correct or remove it")
        if name != name.upper():
            raise ValueError("write the name in capitals")
        if not all(re.fullmatch("[a-z0-9_]+", part) for part in path):
            raise ValueError("names are made of a-z, 0-9 and _")
        value = _value(kind, self._environ[name])
        *tables, key = path
        for inner in tables:
            table = table.setdefault(inner, {})
        if secret := _secret_of(path):
            # In the order of the names, the variable of the secret itself came before.
            if secret in table:
                raise ValueError(f"given twice: set this or {secret}, not both")
            key, value = secret, _content(value)
            self.places[".".join([*tables, key])] = f"the file that {'.'.join(path)} names"
        table[key] = value


class FileSource(Source):
    """The TOML file. pydantic-settings' own source would take a missing file for an empty one."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def __call__(self) -> dict[str, Any]:
        """Return the tree of the file. SettingsError: it can't be read, nor a file it names."""
        values = self._toml()
        return self._with_secrets(values, self.current_state, [])

    def _toml(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            problem = "no such configuration file; name one with --config or in ACKGATE_CONFIG"
        except OSError as error:
            problem = f"the configuration file can't be read: {error.strerror}"
        except tomllib.TOMLDecodeError as error:
            problem = f"not TOML: {error}"
        except (ValueError, RecursionError):
            problem = "not TOML: it must be UTF-8 text, with numbers and nesting of a usual size"
        raise SettingsError("", problem, str(self._file))

    def _with_secrets(
        self, table: dict[str, Any], above: dict[str, Any], path: list[str]
    ) -> dict[str, Any]:
        """Return the table with each `…_file` replaced by the secret that the file holds.

        `above` is what the environment sets in this table. A secret that it sets, in either form,
        is not looked for here.
        """
        read: dict[str, Any] = {}
        for name, value in table.items():
            here = [*path, name]
            if isinstance(value, dict) and children(general(here)):
                read[name] = self._with_secrets(value, above.get(name, {}), here)
            elif isinstance(above.get(name), dict):
                # Merged with what the environment sets, the value would vanish without a word.
                raise self._error(here, "must be a table")
            elif not (secret := _secret_of(here)):
                read[name] = value
            elif secret not in above:
                if secret in table:
                    raise self._error(here, f"given twice: set this or {secret}, not both")
                try:
                    read[secret] = _content(value)
                except ValueError as problem:
                    raise self._error(here, str(problem)) from None
                self.places[".".join([*path, secret])] = f"the file that {'.'.join(here)} names"
        return read

    def _error(self, path: list[str], problem: str) -> SettingsError:
        return SettingsError(".".join(path), problem, str(self._file))


def _value(kind: Any, text: str) -> Any:
    """Return what the text of a variable stands for: as it is, or a number, boolean or list."""
    if kind in {str, SecretStr, Path, Literal}:
        return text
    text = text.strip()
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        # One value alone: a line break could begin another key.
        return tomllib.loads(f"value = {' '.join(text.splitlines())}")["value"]
    except (ValueError, RecursionError):
        raise ValueError("must be a number, true, false, or a list in JSON or TOML") from None


def _secret_of(path: list[str]) -> str | None:
    """Return the name of the secret that a `…_file` holds; None for any other key."""
    secret = path[-1].removesuffix("_file")
    is_secret = secret != path[-1] and KEYS.get(general([*path[:-1], secret])) is SecretStr
    return secret if is_secret else None


def _content(file: Any) -> str:
    """Return what a file of a secret holds, without its last line break."""
    if not isinstance(file, str) or not file:
        raise ValueError("must be the path of a file")
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_MAX_SECRET_BYTES + 1)
        text = content.decode().rstrip("\r\n")
    except FileNotFoundError:
        raise ValueError("the file does not exist") from None
    except (OSError, ValueError):
        raise ValueError("the file can't be read as text") from None
    if not text:
        raise ValueError("the file is empty; it must hold the secret")
    if len(content) > _MAX_SECRET_BYTES:
        raise ValueError("the file is too large to hold a secret")
    return text
