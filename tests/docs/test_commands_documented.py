"""The page of commands names each with its options; every command that a page shows exists."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from service.cli import app
from tests.docs.conftest import PAGES, ROOT, bare, blocks, read, sections, spans, table

PAGE = read("docs/commands.md")
TREE: Any = get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    if command.invoke_without_command and path:
        yield " ".join(path), command
    for name in command.list_commands(None):
        yield from walk(command.get_command(None, name), (*path, name))


COMMANDS = dict(walk(TREE))


def options(command: Any) -> set[str]:
    of_it = [p for p in command.params if p.param_type_name == "option"]
    return {name for p in of_it for name in (*p.opts, *p.secondary_opts)}


def arguments(command: Any) -> int:
    return sum(p.param_type_name == "argument" for p in command.params)


def words(heading: str) -> tuple[str, list[str]]:
    """The command that a heading names, and its arguments."""
    parts = bare(heading).split()[1:]
    given = [part for part in parts if part.strip("[]…").isupper()]
    return " ".join(part for part in parts if part not in given), given


SHARED = {bare(row[1]).split()[0] for row in table(PAGE, "of", "option")}


def test_every_command_is_documented_with_its_arguments_and_no_other() -> None:
    named = {name: len(given) for name, given in ((n, list(g)) for (n, *g) in _named())}
    assert named == {name: arguments(command) for name, command in COMMANDS.items()}


def _named() -> Iterator[tuple[str, ...]]:
    for head in sections(PAGE, 3):
        name, given = words(head)
        yield (name, *given)


def section(name: str) -> str:
    return next(body for head, body in sections(PAGE, 3).items() if words(head)[0] == name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_and_no_other(name: str) -> None:
    rows = re.findall(r"^\| (`--.*?) \|", section(name), re.MULTILINE)
    own = {option for row in rows for option in re.findall(r"--[a-z-]+", row)}
    assert own == options(COMMANDS[name]) - {*SHARED, "--help"}


def resolve(line: str) -> str | None:
    """Tell what is wrong with a command line; None where nothing is."""
    found, name = TREE, []
    rest = line.split()
    while rest and hasattr(found, "list_commands") and not rest[0].startswith("-"):
        word = rest.pop(0)
        found = found.get_command(None, word)
        name.append(word)
        if found is None:
            return f"no command {' '.join(name)}"
    known = options(found) | {"--help", "--version"}
    wrong = [word for word in rest if word.startswith("--") and word not in known]
    return f"{' '.join(name)} has no {wrong[0]}" if wrong else None


def shown() -> Iterator[str]:
    """Every line of a page that calls `ackgate`."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\.venv/bin/)?ackgate (.*)", line)
            if found:
                yield " ".join(shlex.split(found[1], comments=True))
    for page in PAGES:
        for span in spans(page.read_text(encoding="utf-8")):
            found = re.match(r"(?:\.venv/bin/)?ackgate ([a-z-].*)", span)
            if found:
                yield found[1]


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    lines = set(shown())
    assert len(lines) > 20
    assert not [wrong for wrong in map(resolve, lines) if wrong]


def targets() -> set[str]:
    found = re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    return set(found)


def test_every_target_of_make_is_documented_and_no_other() -> None:
    rows = table(read("CONTRIBUTING.md"), "target", "does")
    assert {bare(row[0]).removeprefix("make ") for row in rows} == targets()


def test_every_target_that_is_shown_exists() -> None:
    lines = [line for block in blocks("sh") for line in block.text.splitlines()]
    lines += [span for page in PAGES for span in spans(page.read_text(encoding="utf-8"))]
    named = {name for line in lines for name in re.findall(r"(?:^| )make ([a-z]+)", line)}
    assert {"run", "install"} <= named
    assert not named - targets()
