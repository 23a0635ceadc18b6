"""`make test` and `make test-all` share the tests by marks; what the second needs, CI installs."""

import ast
import re
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import installed
from tests.docs.conftest import ROOT, read


def recipe(target: str) -> str:
    found = re.search(rf"^{target}:.*\n\t(.+)$", read("Makefile"), re.MULTILINE)
    assert found is not None
    return found[1]


def asked_for() -> set[str]:
    """Return the programs that tests ask `installed` for."""
    calls = [
        node
        for file in (ROOT / "tests").rglob("*.py")
        if file != Path(__file__)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "installed"
    ]
    return {ast.literal_eval(call.args[0]) for call in calls}


def test_make_test_leaves_out_what_is_slow_or_needs_tools_and_make_test_all_nothing() -> None:
    assert '-m "not slow and not tools and not postgres"' in recipe("test")
    assert " -m " not in recipe("test-all")


def test_a_program_that_is_missing_fails_its_test_and_is_named() -> None:
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        installed("no-such-program")


def test_a_postgresql_that_is_missing_fails_its_test_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(postgres.VARIABLE, raising=False)
    monkeypatch.setattr(postgres, "programs", lambda: None)
    with pytest.raises(pytest.fail.Exception, match="install the package postgresql, or name"):
        postgres.need_programs()
    assert "missing+=(postgresql)" in read(".ci/run")


def test_a_postgresql_that_is_named_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(postgres.VARIABLE, "postgresql://me:secret@db/postgres")
    assert postgres.which_server() == f"postgresql://me:***@db/postgres ({postgres.VARIABLE})"


def test_ci_runs_every_test_and_installs_every_program_that_they_ask_for() -> None:
    ci = read(".ci/run")
    assert re.search(r"^make test-all$", ci, re.MULTILINE)
    assert asked_for() == set(re.findall(r"\b([a-z-]+):[a-z-]+", ci)), "one too many or too few"
