"""The image keeps its promises, as far as they can be read off the Dockerfile."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, continued lines joined and comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def last(name: str) -> str:
    """The argument of the final stage's last instruction of that name."""
    return [rest for found, rest in stages()[-1] if found == name][-1]


def installs() -> list[str]:
    return [rest for stage in stages() for name, rest in stage if "pip install" in rest]


def test_every_stage_starts_from_the_same_pinned_image() -> None:
    images = {stage[0][1].split()[0] for stage in stages()}
    assert images == {"python:3.13-slim-trixie"}
    assert len(stages()) > 1


def test_all_that_is_installed_comes_from_the_locks_with_hashes() -> None:
    assert len(installs()) == 3
    for command in installs():
        from_lock = "--require-hashes" in command and "--requirement" in command
        own_wheel = "--no-index --no-deps /wheels/*.whl" in command
        assert from_lock or own_wheel
        assert "--no-deps" in command
    copied = {rest.split()[0] for stage in stages() for name, rest in stage if name == "COPY"}
    assert "requirements/postgres.txt" in copied


def test_the_python_of_the_image_is_one_that_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minor = stages()[0][0][1].removeprefix("python:").partition("-")[0]
    assert f"Programming Language :: Python :: {minor}" in project["classifiers"]


def test_the_final_stage_builds_and_installs_nothing() -> None:
    assert not [rest for name, rest in stages()[-1] if name == "RUN" and "pip" in rest]


def test_it_runs_as_a_numeric_user_that_is_not_root() -> None:
    user, group = (int(part) for part in last("USER").split(":"))
    assert user >= 10_000
    assert group >= 10_000


def test_its_one_volume_is_where_relative_paths_land_and_is_the_users_alone() -> None:
    volumes = [rest for stage in stages() for name, rest in stage if name == "VOLUME"]
    assert volumes == [last("WORKDIR")] == ["/var/lib/ackgate"]
    made = last("RUN")
    assert "--owner=10001 --group=10001 --mode=0700 /var/lib/ackgate" in made
    order = [name for name, _ in stages()[-1]]
    assert order.index("RUN") < order.index("VOLUME") < order.index("USER")


def test_it_writes_no_bytecode_beside_the_volume() -> None:
    assert "PYTHONDONTWRITEBYTECODE=1" in last("ENV")


def test_its_configuration_is_where_the_environment_says() -> None:
    assert "ACKGATE_CONFIG=/etc/ackgate/ackgate.toml" in last("ENV")
    assert ("COPY", "config/ackgate.toml /etc/ackgate/ackgate.toml") in stages()[-1]


def test_signals_reach_the_service_as_no_shell_stands_between() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["ackgate"]
    assert json.loads(last("CMD")) == ["serve"]


def test_its_health_check_is_the_script_that_is_copied() -> None:
    command = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert ("COPY", f"deploy/healthcheck.py {command[1]}") in stages()[-1]
    assert command[0] == "python"


def test_every_file_that_is_copied_exists_and_is_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    for stage in stages():
        for name, rest in stage:
            if name == "COPY" and not rest.startswith("--from"):
                sources = rest.split()[:-1]
                assert set(sources) <= let_in
                assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("path", ["var", ".venv", ".git", "tests", "config/development.toml"])
def test_nothing_else_is_let_in(path: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert not [x for x in ignored if x.startswith("!") and fnmatch.fnmatch(path, x[1:])]
