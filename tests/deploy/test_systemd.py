"""The systemd unit: what systemd says of it, and that it fits what the service does."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.conftest import installed
from tests.docs.conftest import blocks, read

UNIT = Path(__file__).parents[2] / "deploy/systemd/ackgate.service"
EXPOSED = 1.5
"""What `systemd-analyze security` may give at most, of 10."""


@pytest.fixture
def unit() -> configparser.ConfigParser:
    # Some keys come twice; none of those that are looked at here.
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.read(UNIT)
    return parsed


@pytest.fixture
def here(tmp_path: Path, unit: configparser.ConfigParser) -> Path:
    """Give the unit with a program that exists, as systemd looks for it."""
    program = unit["Service"]["ExecStart"].split()[0]
    command = Path(sys.executable).with_name("ackgate")
    assert command.exists()
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(program, str(command)))
    return copy


def test_a_stop_may_take_as_long_as_the_service_takes(unit: configparser.ConfigParser) -> None:
    server = Settings.model_fields["server"].get_default(call_default_factory=True)
    allowed = float(unit["Service"]["TimeoutStopSec"])
    assert allowed > server.drain_seconds + server.shutdown_seconds


def test_a_wrong_configuration_is_not_tried_again(
    unit: configparser.ConfigParser, tmp_path: Path
) -> None:
    config = tmp_path / "ackgate.toml"
    config.write_text("nonsense = 1")
    command = [sys.executable, "-m", "service", "serve", "--config", str(config)]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert str(ran.returncode) == unit["Service"]["RestartPreventExitStatus"]


def test_the_program_is_where_the_documentation_installs_it(
    unit: configparser.ConfigParser,
) -> None:
    program, *rest = unit["Service"]["ExecStart"].split()
    folder = program.removesuffix("/bin/ackgate")
    shown = "\n".join(block.text for block in blocks("sh") if block.page.name == "operations.md")
    assert f"-m venv {folder}\n" in shown
    assert rest == ["serve", "--config", "/etc/ackgate/ackgate.toml"]
    assert unit["Service"]["WorkingDirectory"] == f"/var/lib/{unit['Service']['StateDirectory']}"
    assert "deploy/systemd/ackgate.service" in read("docs/operations.md")


@pytest.mark.tools
def test_systemd_finds_no_fault_with_the_unit(here: Path) -> None:
    command = [installed("systemd-analyze"), "verify", "--man=no", str(here)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.tools
def test_systemd_finds_the_unit_hardly_exposed(here: Path) -> None:
    command = [
        *(installed("systemd-analyze"), "security", "--offline=true", "--no-pager"),
        *(f"--threshold={round(10 * EXPOSED)}", str(here)),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
