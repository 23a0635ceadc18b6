"""What `make install` says and does, with a Python that is a stand-in: nothing is downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
PYTHON = f"""#!/bin/sh
# Everything but venv is left to a real Python.
[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
[ -z "$WITHOUT_VENV" ] || {{ echo "No module named venv" >&2; exit 1; }}
mkdir -p "$3/bin"
cp pip "$3/bin/pip"
"""
PIP = """#!/bin/sh
echo "$*" >> pip.calls
[ "$1" != "$FAILS" ] || { echo "pip fails" >&2; exit 1; }
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make install` needs of a checkout, and a `python3` in `programs`."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/dev.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    for name, text in (("programs/python3", PYTHON), ("pip", PIP)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    return tmp_path


def install(folder: Path, *variables: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    path = f"{folder / 'programs'}:{os.environ['PATH']}"
    return subprocess.run(
        ["make", "install", *variables],
        cwd=folder,
        env={**inherited, "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_step_is_announced_before_it_is_taken(checkout: Path) -> None:
    ran = install(checkout)
    assert ran.returncode == 0, ran.stderr
    steps = [line for line in ran.stdout.splitlines() if " of 3: " in line]
    assert [step[:7] for step in steps] == ["1 of 3:", "2 of 3:", "3 of 3:"]
    assert ".venv" in steps[0]
    assert "requirements/dev.txt" in steps[1]


def test_the_lock_is_installed_as_it_is_and_what_is_installed_is_checked(checkout: Path) -> None:
    install(checkout)
    lock, own, check = (checkout / "pip.calls").read_text().splitlines()
    assert lock.startswith("install ")
    assert {"--no-deps", "--require-hashes", "requirements/dev.txt"} <= set(lock.split())
    assert "--quiet" not in lock
    assert {"--no-deps", "--no-build-isolation", "--editable"} <= set(own.split())
    assert check == "check"


@pytest.mark.parametrize("step", ["install", "check"])
def test_what_failed_is_tried_again_by_the_next_make(checkout: Path, step: str) -> None:
    assert install(checkout, FAILS=step).returncode != 0
    assert install(checkout).returncode == 0
    calls = (checkout / "pip.calls").read_text()
    install(checkout)
    assert (checkout / "pip.calls").read_text() == calls


@pytest.mark.parametrize("name", ["python3", "python3.12"])
def test_a_missing_venv_names_the_package_to_install(checkout: Path, name: str) -> None:
    (checkout / "programs/python3").rename(checkout / "programs" / name)
    ran = install(checkout, f"PYTHON={name}", WITHOUT_VENV="1")
    assert ran.returncode != 0
    assert f"apt-get install {name}-venv" in ran.stderr
    assert not (checkout / "pip.calls").exists()


@pytest.mark.parametrize("python", ["false", "no-such-python"])
def test_a_python_that_is_too_old_or_missing_is_one_clear_line(checkout: Path, python: str) -> None:
    ran = install(checkout, f"PYTHON={python}")
    assert ran.returncode != 0
    assert f"{python} is no Python 3.11 or later; choose one with make PYTHON=" in ran.stderr
    assert not (checkout / ".venv").exists()
