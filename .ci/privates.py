"""Check that `service/` uses its libraries by their documented interfaces alone.

ruff's SLF001 does not see the private attributes that a class takes from a library's class, and
knows no undocumented modules. Findings are:

* `self._name` in a class with a base of a library, where the class does not define `_name` itself;
  and a `_name` that it defines over one of that base's;
* `x._name` of anything but the class itself, also by `getattr(x, "_name")`;
* an import of a module that is not on the list of documented ones, of a name that its module does
  not export, or of a name that begins with an underscore.

It reads the sources of the service, and imports the libraries to look at their classes.
"""

import ast
import builtins
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = "service"

EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("service/webhooks/listener.py", "aiohttp.web.RequestHandler"): (
        "aiohttp's page for a request that it can't read repeats the line at fault, which may hold "
        "a token or a number; no documented parameter leaves it out"
    ),
}
"""Allowed all the same: the file and the name, with the reason. There may be three."""
MAX_EXCEPTIONS = 3

KNOWN: frozenset[str] = frozenset()
"""Files whose findings are not reported: what they use is being taken out."""

SUBMODULES: Mapping[str, tuple[str, ...]] = {
    "aiohttp": ("abc", "typedefs", "web"),
    "aiosqlite": (),
    "asyncpg": (),
    "alembic": ("config", "op", "operations", "runtime.migration", "script"),
    "apprise": (),
    "collections": ("abc",),
    "concurrent": ("futures",),
    "cryptography": (
        "exceptions",
        "hazmat.primitives.asymmetric.ec",
        "hazmat.primitives.hashes",
        "hazmat.primitives.serialization",
        "x509",
        "x509.oid",
    ),
    "email": ("utils",),
    "importlib": ("metadata", "resources"),
    "itsdangerous": (),
    "jinja2": (),
    "multidict": (),
    "orjson": (),
    "os": ("path",),
    "phonenumbers": (),
    "prometheus_client": ("core", "exposition", "openmetrics.exposition", "registry"),
    "pydantic": ("fields", "json_schema"),
    "pydantic_core": (),
    "pydantic_settings": (),
    "rich": ("box", "console", "markup", "progress", "table", "text"),
    "sqlalchemy": (
        "dialects.postgresql",
        "dialects.sqlite",
        "engine",
        "event",
        "exc",
        "ext.asyncio",
        "pool",
    ),
    "structlog": ("contextvars", "dev", "processors", "stdlib", "typing"),
    "trustme": (),
    "typer": ("core", "main"),
    "typing_extensions": (),
    "urllib": ("parse", "request"),
    "uvloop": (),
    "yarl": (),
}
"""The libraries with their documented submodules; of Python's own, those with submodules."""
MODULES = {*SUBMODULES, *(f"{top}.{one}" for top, below in SUBMODULES.items() for one in below)}

UNDOCUMENTED = frozenset({"aiohttp.web.RequestHandler", "ctypes"})
"""What may not be used though it is exported, or though it is a module of Python's."""

OF_NAMED_TUPLES = frozenset({"_asdict", "_field_defaults", "_fields", "_make", "_replace"})
OF_ENUMS = frozenset({"_generate_next_value_", "_ignore_", "_missing_", "_name_", "_value_"})
DOCUMENTED = OF_NAMED_TUPLES | OF_ENUMS
"""Names that begin with an underscore and are documented."""

BY_NAME = frozenset({"delattr", "getattr", "hasattr", "setattr"})


class Finding(NamedTuple):
    """A use of what is not documented."""

    path: str
    line: int
    name: str
    what: str


def is_private(name: str) -> bool:
    """Return whether a name is private to the class or module that defines it."""
    is_magic = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and name != "_" and not is_magic and name not in DOCUMENTED


class Source:
    """A module of the service: its classes, and what the names that it imports stand for."""

    def __init__(self, name: str, path: str, text: str) -> None:
        self.name = name
        self.path = path
        self.tree = ast.parse(text)
        nodes = list(ast.walk(self.tree))
        self.classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        self.imports: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                for one in node.names:
                    first = one.name.partition(".")[0]
                    self.imports[one.asname or first] = one.name if one.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module:
                for one in node.names:
                    self.imports[one.asname or one.name] = f"{node.module}.{one.name}"

    def dotted(self, node: ast.expr) -> str | None:
        """Return the full name of an expression that begins with an imported name."""
        match node:
            case ast.Name(id=name):
                return self.imports.get(name)
            case ast.Attribute(value=value, attr=attr):
                start = self.dotted(value)
                return None if start is None else f"{start}.{attr}"
            case ast.Subscript(value=value):
                return self.dotted(value)
        return None


class Own(NamedTuple):
    """What the service's own part of a class defines, and the classes of libraries above it."""

    names: frozenset[str]
    parents: frozenset[str]
    foreign: tuple[type, ...]


class Checker:
    """Checks modules of the service, which may derive classes from one another's."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = {source.name: source for source in sources}
        self._own_of: dict[ast.ClassDef, Own] = {}

    def check(self) -> Iterator[Finding]:
        """Yield the findings in all modules."""
        for source in self._sources.values():
            found = {*self._names(source), *self._attributes(source, source.tree, None)}
            yield from sorted(found)

    def _names(self, source: Source) -> Iterator[Finding]:
        """Yield what is imported, or reached from an imported module, and is not documented."""
        for node in ast.walk(source.tree):
            match node:
                case ast.Import(names=names):
                    dotted = [one.name for one in names]
                case ast.ImportFrom(module=str(module), names=names):
                    dotted = [f"{module}.{one.name}" for one in names]
                case ast.Attribute():
                    dotted = [name] if (name := source.dotted(node)) else []
                case ast.Call(args=[ast.Constant(value=str(name)), *_]) if (
                    source.dotted(node.func) == "importlib.import_module"
                ):
                    dotted = [name]
                case _:
                    continue
            for name in dotted:
                if (found := undocumented(name)) is not None:
                    yield Finding(source.path, node.lineno, found[0], " ".join(found))

    def _attributes(
        self, source: Source, node: ast.AST, within: ast.ClassDef | None
    ) -> Iterator[Finding]:
        """Yield the private attributes below a node that are not those of the class around it."""
        if isinstance(node, ast.ClassDef):
            within = node
            own = self._own(source, node)
            for base in own.foreign:
                for name in sorted(own.names & privates(base)):
                    what = f"{node.name}.{name} is defined over that of {base.__name__}"
                    yield Finding(source.path, node.lineno, name, what)
        match node:
            case ast.Attribute(value=value, attr=str(name)) if is_private(name):
                yield from self._access(source, value, name, node.lineno, within)
            case ast.Call(
                func=ast.Name(id=function), args=[value, ast.Constant(value=str(name)), *_]
            ) if function in BY_NAME and is_private(name):
                yield from self._access(source, value, name, node.lineno, within)
        for child in ast.iter_child_nodes(node):
            yield from self._attributes(source, child, within)

    def _access(
        self,
        source: Source,
        value: ast.expr,
        name: str,
        line: int,
        within: ast.ClassDef | None,
    ) -> Iterator[Finding]:
        own = Own(frozenset(), frozenset(), ()) if within is None else self._own(source, within)
        match value:
            case ast.Name(id="self" | "cls" | "mcs") if within is not None:
                is_own = name in own.names or not own.foreign
            case ast.Call(func=ast.Name(id="super")) if within is not None:
                is_own = name in own.parents or not own.foreign
            case _:
                imported = source.dotted(value) or PACKAGE
                is_own = name in own.names and imported.partition(".")[0] == PACKAGE
        if not is_own:
            what = f"{ast.unparse(value)}.{name} is private"
            yield Finding(source.path, line, name, what)

    def _own(self, source: Source, node: ast.ClassDef) -> Own:
        """Follow the bases of a class up to those that libraries define."""
        if node in self._own_of:
            return self._own_of[node]
        parents: set[str] = set()
        foreign: list[type] = []
        for base in node.bases:
            found = self._find(source, base)
            if isinstance(found, type):
                foreign.append(found)
            elif found is not None:
                above = self._own(*found)
                parents |= above.names
                foreign += above.foreign
        own = Own(defined(node) | parents, frozenset(parents), tuple(foreign))
        self._own_of[node] = own
        return own

    def _find(self, source: Source, base: ast.expr) -> tuple[Source, ast.ClassDef] | type | None:
        """Return the class that a base is: the service's with its module, or a library's."""
        if isinstance(base, ast.Subscript):
            base = base.value
        if isinstance(base, ast.Name) and base.id in source.classes:
            return source, source.classes[base.id]
        dotted = source.dotted(base)
        if dotted is None:
            found = getattr(builtins, base.id, None) if isinstance(base, ast.Name) else None
            return found if isinstance(found, type) else None
        while dotted.startswith(f"{PACKAGE}."):
            module, _, name = dotted.rpartition(".")
            if module not in self._sources:
                return None
            other = self._sources[module]
            if name in other.classes:
                return other, other.classes[name]
            dotted = other.imports.get(name, "")
        found = resolved(dotted)
        return found if isinstance(found, type) else None


def undocumented(dotted: str) -> tuple[str, str] | None:
    """Return the part of a full name that may not be used, and why; None where all may be."""
    module, *parts = dotted.split(".")
    if module == PACKAGE:
        private = [part for part in parts if is_private(part)]
        return (private[0], "is private") if private else None
    while parts and is_module(f"{module}.{parts[0]}"):
        module = f"{module}.{parts.pop(0)}"
    name = ".".join((module, *parts[:1]))
    if any(is_private(part) for part in name.split(".")):
        return name, "is private"
    if not {module, name}.isdisjoint(UNDOCUMENTED):
        return name, "is not documented"
    if module not in MODULES and module not in sys.stdlib_module_names:
        return module, "is no documented module"
    exported = getattr(resolved(module), "__all__", parts)
    return (name, "is not exported") if {*parts[:1]} - {"*", *exported} else None


def is_module(name: str) -> bool:
    """Return whether a full name is that of a module; a known one need not be installed."""
    known = any(f"{module}.".startswith(f"{name}.") for module in MODULES)
    return known or isinstance(resolved(name), ModuleType)


def defined(node: ast.ClassDef) -> frozenset[str]:
    """Return the names that a class defines: in its body, by its slots, by assignment to self."""
    names: set[str] = set()
    for statement in node.body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(statement.name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=targets, value=value):
                found = {one.id for one in targets if isinstance(one, ast.Name)}
                names |= found
                if "__slots__" in found:
                    constants = [n for n in ast.walk(value) if isinstance(n, ast.Constant)]
                    names |= {one.value for one in constants if isinstance(one.value, str)}
    changed = {id(n.target) for n in ast.walk(node) if isinstance(n, ast.AugAssign)}
    for child in ast.walk(node):
        match child:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                if id(child) not in changed:
                    names.add(name)
    return frozenset(names)


@cache
def privates(cls: type) -> frozenset[str]:
    """Return the private names that a library's class or its bases define, or use of themselves."""
    names: set[str] = set()
    for one in cls.__mro__:
        names |= vars(one).keys()
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError):
            continue  # written in C
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), attr=name):
                    names.add(name)
    return frozenset(filter(is_private, names))


@cache
def resolved(dotted: str) -> object:
    """Return what a dotted name stands for in the libraries; None where it can't be imported."""
    try:
        return pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError, ValueError):
        return None


def sources(root: Path) -> Iterator[Source]:
    """Read all modules of the service."""
    for file in sorted((root / PACKAGE).rglob("*.py")):
        path = file.relative_to(root)
        parts = path.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Source(name, path.as_posix(), file.read_text(encoding="utf-8"))


def main() -> int:
    """Print the findings that are neither excepted nor known."""
    found = list(Checker(sources(ROOT)).check())
    excepted = {(one.path, one.name) for one in found} & EXCEPTIONS.keys()
    wrong = [f"{path}: no use of {name} to except" for path, name in EXCEPTIONS.keys() - excepted]
    if len(EXCEPTIONS) > MAX_EXCEPTIONS:
        wrong.append(f"{len(EXCEPTIONS)} exceptions: at most {MAX_EXCEPTIONS}")
    wrong += [
        f"{one.path}:{one.line}: {one.what}"
        for one in found
        if (one.path, one.name) not in excepted and one.path not in KNOWN
    ]
    print("\n".join(wrong) if wrong else "Only documented interfaces of libraries are used.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
