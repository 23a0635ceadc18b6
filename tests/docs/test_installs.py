"""No command of ours that installs resolves anything: locks as they are, with hashes, then checked.

A pip that resolves a lock anew may want what the lock doesn't have; see the changelog.
"""

import ast
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.docs.conftest import ROOT

ABOUT_COMMANDS = {"tests/docs/test_dockerfile.py", "tests/docs/test_installs.py"}
"""These speak of commands, and run none."""
_PIP = re.compile(r"(?:.*/)?pip[\d.]*")
_INSTALLING = {"install", "wheel", "download", "sync"}
_RESOLVING_PROGRAMS = re.compile(r"\b(?:pipx|easy_install|uv (?:sync|add|run|tool)|npm install)\b")


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("no repository tells which files are ours")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def pieces(name: str, text: str) -> Iterator[str]:
    """Give what may be a command: statements of Python, lines of all else, code of the docs."""
    if not re.search(r"pip|uv |easy_install|npm", text):
        return
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.stmt) and not hasattr(node, "body"):
                yield ast.unparse(node)
        return
    if name.endswith(".md"):
        fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
        text = "\n".join([*fenced, *spans])
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        yield from re.split(r"&&|\|\||[;|]", re.sub(r"(?:^|\s)#.*", "", line))


def words(piece: str) -> list[str]:
    return [word for word in re.split(r"[\s'\"`,()\[\]{}@*]+", piece) if word]


def what_pip_does(piece: str) -> list[str]:
    """Give the words that follow pip; none where it isn't called."""
    found = words(piece)
    at = [i for i, word in enumerate(found) if _PIP.fullmatch(word)]
    return found[at[0] + 1 :] if at else []


def installs(piece: str) -> bool:
    rest = what_pip_does(piece)
    return any(word.partition(".")[0] in _INSTALLING for word in rest)


def resolves(piece: str) -> bool:
    """Tell whether a command may look for versions: all but what is ours comes from a lock."""
    if _RESOLVING_PROGRAMS.search(piece):
        return True
    if not installs(piece):
        return False
    given = {word.partition("=")[0] for word in what_pip_does(piece)}
    ours = "--no-index" in given or {"--no-build-isolation", "."} <= given
    return "--no-deps" not in given or not (ours or "--require-hashes" in given)


def commands() -> dict[str, list[str]]:
    """Give every piece of our files, by the file."""
    return {
        name: list(pieces(name, (ROOT / name).read_text(encoding="utf-8", errors="ignore")))
        for name in tracked()
        if name not in ABOUT_COMMANDS
    }


def test_no_command_of_ours_resolves() -> None:
    wrong = {
        (name, piece) for name, found in commands().items() for piece in found if resolves(piece)
    }
    assert not wrong


def test_every_lock_that_is_installed_is_checked_afterwards() -> None:
    counts = {}
    for name, found in commands().items():
        locks = sum("--require-hashes" in what_pip_does(piece) for piece in found)
        checks = sum(what_pip_does(piece)[:1] == ["check"] for piece in found)
        if locks:
            counts[name] = (locks, checks)
    assert {name: checks for name, (_, checks) in counts.items()} == {
        name: locks for name, (locks, _) in counts.items()
    }
    assert {"Makefile", "Dockerfile", ".ci/wheel.py", "tools/bench/peers.py"} <= set(counts)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Makefile", "\t$(BIN)/pip install --require-hashes --requirement requirements/dev.txt"),
        ("Makefile", "\t$(BIN)/pip install --no-deps \\\n\t\t--requirement requirements/dev.txt"),
        ("Dockerfile", "RUN python -m venv x && x/bin/pip3 install --require-hashes -r y.txt"),
        ("Dockerfile", "RUN pip wheel --wheel-dir /wheels ."),
        ("x.sh", "python3 -m pip --quiet install --no-deps ackgate"),
        ("x.sh", "pip install --no-deps --no-build-isolation ackgate"),
        ("x.sh", "uv pip sync requirements/dev.txt"),
        ("x.sh", "uv run pytest"),
        ("README.md", "```sh\npip install ackgate\n```\n"),
        ("README.md", "Try `pip install ackgate`."),
        ("x.py", "run([python, '-m', 'pip', 'install',\n     'ackgate'])"),
        ("x.py", "def f():\n    run([python, '-m', 'pip', *install, '--requirement', locked])"),
    ],
)
def test_a_command_that_resolves_would_be_found(name: str, text: str) -> None:
    assert any(map(resolves, pieces(name, text)))
