"""Build the sdist, a wheel from it alone, and try the wheel in a new virtual environment.

That environment is what the SBOM is made from.

What is tried is what somebody has who installs Ackgate without a checkout: the locked dependencies
and the wheel. Without the extras the service runs, and the simulator and a configuration with
alerts say what they lack. With the extra for alerts such a configuration is accepted. With that of
the simulator, the simulator and the service run in a folder of their own, the demonstration shows
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

import sbom

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
    """Run a command to its end, and return what it prints; one that fails ends all."""
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
    """Build the sdist from the checkout, the wheel from the sdist; return both and the source."""
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


def check_completeness(source: Path) -> None:
    """Check that the sdist holds what the repository tracks, and nothing else."""
    listed = run("git", "ls-files", cwd=ROOT)
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    differing = held.symmetric_difference({*listed.splitlines(), "PKG-INFO"})
    if differing:
        sys.exit(f"sdist and repository differ in {', '.join(sorted(differing)[:9])}")


def install_locked(commands: Path, lock: Path) -> None:
    """Install what a lock holds, as it is."""
    pip = (commands / "pip", "install", "--no-deps", "--require-hashes", "--requirement")
    run(*pip, lock, cwd=commands)
    run(commands / "pip", "check", cwd=commands)


def install(wheel: Path, source: Path, folder: Path) -> Path:
    """Install the wheel with the runtime's lock; return the folder of the commands."""
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    commands = folder / "venv/bin"
    run(commands / "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    install_locked(commands, source / "requirements/runtime.txt")
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
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Return whether somebody listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def is_ready(port: int) -> bool:
    """Return whether the service takes callbacks."""
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer,
    ):
        return bool(answer.status == 200)  # noqa: PLR2004
    return False


def prepare(folder: Path, config: str) -> tuple[int, int, dict[str, str]]:
    """Write the configuration; return the two ports and the environment of the commands."""
    service, simulator = free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    env |= {
        "ACKGATE_URL": f"http://127.0.0.1:{service}",
        "ACKGATE_SIMULATOR_URL": f"https://127.0.0.1:{simulator}",
    }
    folder.mkdir()
    (folder / "ackgate.toml").write_text(config.format(service=service, simulator=simulator))
    return service, simulator, env


def try_without_simulator(ackgate: str, folder: Path) -> None:
    """Check that the service runs without the extra, and that the simulator names it."""
    config = CONFIG.replace('ca_file = "var/simulator-ca.pem"', "verify_tls = false")
    service, _, env = prepare(folder, config)
    run(ackgate, "--help", cwd=folder, env=env)
    run(ackgate, "simulate", "--help", cwd=folder, env=env)
    serve = [ackgate, "serve", "--config", "ackgate.toml"]
    with started(serve, lambda: is_ready(service), folder, env):
        pass
    refused = subprocess.run(
        [ackgate, "simulate", "serve", "--port", "0"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if refused.returncode != 1 or "ackgate[simulator]" not in refused.stderr:
        sys.exit(f"simulate without its extra: exit {refused.returncode}\n{refused.stderr}")


def try_alerts(ackgate: str, folder: Path, *, installed: bool) -> None:
    """Check that a configuration with alerts is accepted with the extra, and else names it."""
    _, _, env = prepare(folder, '[alerts]\nurls = "ntfys://ntfy.example.com/topic"\n')
    checked = subprocess.run(
        [ackgate, "check-config", "--config", "ackgate.toml"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    is_right = checked.returncode == 0 if installed else "ackgate[alerts]" in checked.stderr
    if not is_right:
        sys.exit(f"a configuration with alerts: exit {checked.returncode}\n{checked.stderr}")


def try_out(ackgate: str, folder: Path) -> None:
    """Run the simulator, the service and the demonstration."""
    service, simulator, env = prepare(folder, CONFIG)
    webhook = f"http://127.0.0.1:{service}/webhooks/main/development-webhook-token"
    simulate = [ackgate, "simulate", "serve", "--port", str(simulator), "--webhook", webhook]
    serve = [ackgate, "serve", "--config", "ackgate.toml"]
    with (
        started(simulate, lambda: listens(simulator), folder, env),
        started(serve, lambda: is_ready(service), folder, env),
    ):
        print(run(ackgate, "simulate", "demo", cwd=folder, env=env))


def main() -> None:
    """Do all of it, and leave sdist, wheel and SBOM in `dist`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdist, wheel, source = build(folder)
        if (ROOT / ".git").exists():
            check_completeness(source)
        print(f"trying {wheel.name} with the locked dependencies", flush=True)
        commands = install(wheel, source, folder)
        bill = sbom.write(commands / "python", folder, source)
        ackgate = str(commands / "ackgate")
        try_without_simulator(ackgate, folder / "service")
        try_alerts(ackgate, folder / "no-alerts", installed=False)
        install_locked(commands, source / "requirements/alerts.txt")
        try_alerts(ackgate, folder / "alerts", installed=True)
        install_locked(commands, source / "requirements/simulator.txt")
        try_out(ackgate, folder / "simulator")
        for made in (sdist, wheel, bill):
            (ROOT / "dist").mkdir(exist_ok=True)
            shutil.copy(made, ROOT / "dist")
    print(f"{sdist.name}, {wheel.name} and {bill.name} are in dist/")


if __name__ == "__main__":
    main()
