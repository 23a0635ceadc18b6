"""Installing the peers, each into a folder of its own under `tools/bench/.peers`."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parent / ".peers"
SECONDS = 600.0
STAMP = ".installed"


class NotInstalledError(Exception):
    """A peer can't be had here; the text says why, in one line."""


def python_of(name: str) -> Path:
    """Give the Python of a peer's own environment, made where it is missing."""
    folder = FOLDER / name
    locked = HERE / name / "requirements.txt"
    python = folder / "bin" / "python"
    if not _is_fresh(folder, locked):
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        install = "-m pip install --quiet --disable-pip-version-check --no-deps --require-hashes"
        _run([str(python), *install.split(), "--requirement", str(locked)])
        _run([str(python), "-m", "pip", "check"])
        _stamp(folder, locked)
    return python


def node_of(name: str) -> Path:
    """Give the folder of a Node peer, with its modules."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotInstalledError("node and npm are not installed")
    folder, locked = FOLDER / name, HERE / name / "package-lock.json"
    if not _is_fresh(folder, locked):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE / name, folder, ignore=shutil.ignore_patterns("node_modules"))
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], folder)
        _stamp(folder, locked)
    for file in (HERE / name).glob("*.js"):
        shutil.copy(file, folder)
    return folder


def program(name: str) -> str:
    """Give the path of a program of the system, which is not ours to install."""
    found = shutil.which(name)
    if found is None:
        raise NotInstalledError(f"the program {name} is not installed: apt-get install {name}")
    return found


def _digest(locked: Path) -> str:
    return hashlib.sha256(locked.read_bytes()).hexdigest()


def _is_fresh(folder: Path, locked: Path) -> bool:
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text() == _digest(locked)


def _stamp(folder: Path, locked: Path) -> None:
    (folder / STAMP).write_text(_digest(locked))


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, timeout=SECONDS, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        last = lines[-1][:200] if lines else f"status {error.returncode}"
        raise NotInstalledError(f"it can't be installed: {last}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"it can't be installed: {type(error).__name__}") from None
