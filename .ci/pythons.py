"""Run the unit, contract and property tests on every other Python, from 3.11 on, that is here.

The tests run on one Python by `make test`; each further minor version gets a virtual environment of
its own, `.venv-3.12`. With `--newest` the newest of them alone is tried. Pythons are looked for in
the PATH and among those of pyenv.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
OLDEST = (3, 11)
MARKS = "not slow and not tools and not postgres"
TESTS = ("tests/unit", "tests/contract", "tests/property")
ASK = """
import json, platform, sys, sysconfig
from importlib.util import find_spec
usual = platform.python_implementation() == "CPython"
usual = usual and not sysconfig.get_config_var("Py_GIL_DISABLED")
venv = all(find_spec(name) for name in ("venv", "ensurepip"))
print(json.dumps([usual, sys.version_info[:3], venv]))
"""


class Python(NamedTuple):
    """A Python of this machine; the one with the highest version is the last in order."""

    version: tuple[int, ...]
    has_venv: bool
    path: Path

    @property
    def minor(self) -> str:
        """Its minor version, such as 3.12."""
        return ".".join(map(str, self.version[:2]))


def candidates() -> Iterator[Path]:
    """Give every file that may be a Python 3."""
    for folder in os.get_exec_path():
        yield from Path(folder).glob("python3.[0-9]*")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from pyenv.glob("versions/*/bin/python3")


def ask(path: Path) -> Python | None:
    """Ask a Python who it is; None where it is none of ours, or only a shim that leads nowhere."""
    try:
        ran = subprocess.run([path, "-c", ASK], capture_output=True, timeout=30, check=True)
        usual, version, has_venv = json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Python(tuple(version), has_venv, path) if usual and tuple(version) >= OLDEST else None


def others() -> dict[str, Python]:
    """Give the newest Python of each minor version but ours, rather one with venv."""
    found = [python for path in set(candidates()) if (python := ask(path))]
    found.sort(key=lambda python: (python.has_venv, python))
    ours = "{}.{}".format(*sys.version_info)
    return {python.minor: python for python in found if python.minor != ours}


def run_tests(python: Python) -> bool:
    """Install the locks for a Python, and run the tests on it."""
    venv = f".venv-{python.minor}"
    install = ["make", "--silent", "install", f"PYTHON={python.path}", f"VENV={venv}"]
    test = [f"{venv}/bin/pytest", "-q", "-n", "auto", "-m", MARKS, *TESTS]
    return all(subprocess.call(command, cwd=ROOT) == 0 for command in (install, test))


def main() -> None:
    """Try one after another, and exit with 1 where one fails."""
    failed = []
    found = sorted(others().items(), key=lambda item: item[1].version)
    for minor, python in found[-1:] if "--newest" in sys.argv[1:] else found:
        if not python.has_venv:
            print(f"Python {minor}: skipped, as {python.path} has no venv", flush=True)
            continue
        print(f"Python {minor}: {python.path}", flush=True)
        if not run_tests(python):
            failed.append(minor)
    if failed:
        sys.exit(f"failed on Python {', '.join(failed)}")


if __name__ == "__main__":
    main()
