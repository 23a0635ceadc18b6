"""The keys of the configuration, read off the tree: what may be set, and how text becomes it."""

import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from service.settings.tree import Settings


@dataclass(frozen=True, slots=True)
class Key:
    """A place in the tree. A table has `children` or is `keyed_by_name`; all else is a value."""

    is_text: bool = False
    is_secret: bool = False
    children: "dict[str, Key]" = field(default_factory=dict)
    keyed_by_name: "Key | None" = None
    elements: "Key | None" = None

    @property
    def is_table(self) -> bool:
        """Whether other keys stand below, so that it has no value of its own."""
        return bool(self.children) or self.keyed_by_name is not None

    def child(self, name: str) -> "Key | None":
        """Return the key of that name below this one; None when there can't be one."""
        return self.keyed_by_name or self.children.get(name)


@cache
def root() -> Key:
    """Return the whole tree."""
    return _key(Settings)


def keys() -> Iterator[str]:
    """Yield every key that can be set: `accounts.NAME.password_file`, `policy.rules[].name`."""
    return _below("", root())


def _below(path: str, key: Key) -> Iterator[str]:
    for name, child in key.children.items():
        yield from _at(f"{path}.{name}".removeprefix("."), child)
    if key.keyed_by_name:
        yield from _at(f"{path}.NAME", key.keyed_by_name)


def _at(path: str, key: Key) -> Iterator[str]:
    if key.is_table:
        yield from _below(path, key)
    elif key.elements and key.elements.is_table:
        yield from _below(f"{path}[]", key.elements)
    else:
        yield path


def _key(annotation: Any) -> Key:
    plain = _plain(annotation)
    origin = get_origin(plain)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return Key(children=_fields(plain))
    if origin is dict:
        return Key(keyed_by_name=_key(get_args(plain)[1]))
    if origin is tuple:
        return Key(elements=_key(get_args(plain)[0]))
    return Key(
        is_text=plain in {str, SecretStr, Path} or origin is Literal,
        is_secret=plain is SecretStr,
    )


def _fields(table: type[BaseModel]) -> dict[str, Key]:
    fields: dict[str, Key] = {}
    for name, info in table.model_fields.items():
        fields[name] = _key(info.annotation)
        if fields[name].is_secret:
            fields[f"{name}_file"] = Key(is_text=True)
    return fields


def _plain(annotation: Any) -> Any:
    """Return the type without its constraints, and without None as its alternative."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return _plain(next(a for a in get_args(annotation) if a is not types.NoneType))
    return annotation
