"""The keys of the configuration, read off the tree: what may be set, and how text becomes it."""

import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, Tag

from service.settings.tree import Settings

UNIONS = {Union, types.UnionType}


@dataclass(frozen=True, slots=True)
class Key:
    """A place in the tree. A table has `children` or is `keyed_by_name`; all else is a value.

    A table of several `kinds` has the keys of all of them as its children.
    """

    is_text: bool = False
    is_secret: bool = False
    kinds: "dict[str, Key]" = field(default_factory=dict)
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
    kinds = {_tag(one): _key(one) for one in get_args(plain)} if origin in UNIONS else {}
    if kinds:
        children = {name: key for kind in kinds.values() for name, key in kind.children.items()}
        return Key(children=children, kinds=kinds)
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
    if get_origin(annotation) in UNIONS and types.NoneType in get_args(annotation):
        return _plain(next(a for a in get_args(annotation) if a is not types.NoneType))
    return annotation


def _tag(annotation: Any) -> str:
    """Return the name of one kind of a table, as pydantic has it in the places of errors."""
    return next(extra.tag for extra in get_args(annotation)[1:] if isinstance(extra, Tag))
