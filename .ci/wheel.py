"""Build the sdist, a wheel from it alone, and try the wheel in a new virtual environment.

What is tried is what somebody has who installs Ackgate without a checkout: the locked dependencies
and the wheel. The simulator and the service run in a folder of their own, the demonstration shows
the main job with both, and SIGTERM ends them.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 60
CONFIG = """
[server]
port = {service}

[accounts.main]
base_url = "https://127.0.0.1:{simulator}"
username = "ackgate"
password = "development-only"
ca_file = "var/simulator-ca.pem"
webhook_token = "development-webhook-token"
phone_number = "+16315550100"

[accounts.main.policy]
mode = "auto"
delay_seconds = 3

[[accounts.main.policy.rules]]
name = "vip"
wa_id_prefixes = ["1631556"]
mode = "manual"
"""


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command to its end, and give what it says; what fails ends all."""
    ran = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {ran.returncode}\n{ran.stdout}")
    return ran.stdout


def build(folder: Path) -> tuple[Path, Path, Path]:
    """Build the sdist from the checkout and the wheel from the sdist; give them, and the source."""
    hatchling = (
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--directory",
        folder / "dist",
        "--target",
    )
    run(*hatchling, "sdist", cwd=ROOT)
    [sdist] = (folder / "dist").glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder)
    source = folder / sdist.name.removesuffix(".tar.gz")
    run(*hatchling, "wheel", cwd=source)
    [wheel] = (folder / "dist").glob("*.whl")
    return sdist, wheel, source


def see_that_all_is_there(source: Path) -> None:
    """See that the sdist holds what the repository tracks, and nothing else."""
    listed = run("git", "ls-files", cwd=ROOT)
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    differing = held.symmetric_difference({*listed.splitlines(), "PKG-INFO"})
    if differing:
        sys.exit(f"sdist and repository differ in {', '.join(sorted(differing)[:9])}")


def install(wheel: Path, source: Path, folder: Path) -> Path:
    """Install the locked dependencies and the wheel; give the folder of the commands."""
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    commands = folder / "venv/bin"
    locked = source / "requirements/runtime.txt"
    run(
        commands / "pip",
        "install",
        "--no-deps",
        "--require-hashes",
        "--requirement",
        locked,
        cwd=folder,
    )
    run(commands / "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    run(commands / "pip", "check", cwd=folder)
    return commands


@contextmanager
def started(
    command: list[str], is_up: Callable[[], bool], cwd: Path, env: dict[str, str]
) -> Iterator[None]:
    """Run a program for as long as it is needed, once it is up; SIGTERM has to end it with 0."""
    process = subprocess.Popen(command, cwd=cwd, env=env)
    try:
        deadline = time.monotonic() + SECONDS
        while not is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[1]} is not up: exit {process.poll()}")
            time.sleep(0.1)
        yield
        process.send_signal(signal.SIGTERM)
        if process.wait(SECONDS) != 0:
            sys.exit(f"{command[1]}: exit {process.returncode} after SIGTERM")
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def is_ready(port: int) -> bool:
    """Tell whether the service takes callbacks."""
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer,
    ):
        return bool(answer.status == 200)  # noqa: PLR2004
    return False


def try_out(commands: Path, folder: Path) -> None:
    """Run the simulator, the service and the demonstration."""
    service, simulator = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    env |= {
        "ACKGATE_URL": f"http://127.0.0.1:{service}",
        "ACKGATE_SIMULATOR_URL": f"https://127.0.0.1:{simulator}",
    }
    folder.mkdir()
    (folder / "ackgate.toml").write_text(CONFIG.format(service=service, simulator=simulator))
    ackgate = str(commands / "ackgate")
    webhook = f"http://127.0.0.1:{service}/webhooks/main/development-webhook-token"
    simulate = [ackgate, "simulate", "serve", "--port", str(simulator), "--webhook", webhook]
    serve = [ackgate, "serve", "--config", "ackgate.toml"]
    with (
        started(simulate, lambda: listens(simulator), folder, env),
        started(serve, lambda: is_ready(service), folder, env),
    ):
        print(run(ackgate, "simulate", "demo", cwd=folder, env=env))


def main() -> None:
    """Do all of it, and leave sdist and wheel in `dist`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdist, wheel, source = build(folder)
        if (ROOT / ".git").exists():
            see_that_all_is_there(source)
        print(f"trying {wheel.name} with the locked dependencies alone", flush=True)
        try_out(install(wheel, source, folder), folder / "run")
        for made in (sdist, wheel):
            (ROOT / "dist").mkdir(exist_ok=True)
            shutil.copy(made, ROOT / "dist")
    print(f"{sdist.name} and {wheel.name} are in dist/")


if __name__ == "__main__":
    main()
