"""The threat model names a test for what it promises, and each of them is there."""

import ast
import re

from tests.docs.conftest import ROOT, read, table

PAGE = read("docs/threat-model.md")
ROWS = table(PAGE, "what is promised", "test")


def named() -> set[tuple[str, str]]:
    """Return the tests that the table names, each with its file; `::name` is of the file before."""
    found: set[tuple[str, str]] = set()
    for _, tests in ROWS:
        file = ""
        for before, name in re.findall(r"`([\w/.]*)::(\w+)`", tests):
            file = before or file
            found.add((file, name))
    return found


def functions(file: str) -> set[str]:
    path = ROOT / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_test_that_is_named_exists() -> None:
    files = {file: functions(file) for file, _ in named()}
    assert len(named()) > 50
    assert not sorted(f"{file}::{name}" for file, name in named() if name not in files[file])


def test_every_line_names_a_test() -> None:
    assert not [what for what, tests in ROWS if "::test_" not in tests]
