"""The compose file: its keys are those of the specification, and it fits image and README."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from service.settings.sources import is_known
from tests.docs.conftest import ROOT, read
from tests.docs.test_dockerfile import last

FILE = Path(__file__).parents[2] / "deploy/compose.yml"
KEYS = {
    "": {"name", "services", "volumes"},
    "service": {
        "image", "build", "restart", "stop_grace_period", "environment", "ports", "volumes",
        "read_only", "cap_drop", "security_opt", "ulimits", "logging",
    },
}  # fmt: skip
"""Of the compose specification's keys those that are used; a misspelt one would be ignored."""


@pytest.fixture
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


@pytest.fixture
def service(compose: dict[str, Any]) -> dict[str, Any]:
    return dict(compose["services"]["ackgate"])


def test_its_keys_are_those_of_the_specification(
    compose: dict[str, Any], service: dict[str, Any]
) -> None:
    assert compose.keys() == KEYS[""]
    assert service.keys() == KEYS["service"]
    assert compose["volumes"].keys() == {"ackgate"}


def test_it_builds_the_image_from_the_checkout(service: dict[str, Any]) -> None:
    context = (FILE.parent / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / "Dockerfile").is_file()


def test_it_says_what_the_readme_says(service: dict[str, Any]) -> None:
    run = " ".join(read("README.md").partition("docker run ")[2].partition("```")[0].split())
    assert f"--stop-timeout {service['stop_grace_period'].removesuffix('s')} " in run
    assert "--read-only " in run
    assert service["read_only"] is True
    for volume in service["volumes"]:
        assert f"-v {volume} " in run
    for port in service["ports"]:
        assert f"-p {port} " in run
    for name, value in service["environment"].items():
        assert f"-e {name}={value} " in run
        assert is_known(name.removeprefix("ACKGATE_").lower().split("__"))


def test_only_the_volume_of_the_image_is_written_to_and_only_loopback_is_published(
    service: dict[str, Any],
) -> None:
    written = [one.partition(":")[2] for one in service["volumes"] if not one.endswith(":ro")]
    assert written == [last("VOLUME")]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_a_stop_may_take_as_long_as_the_service_takes(service: dict[str, Any]) -> None:
    server = Settings.model_fields["server"].get_default(call_default_factory=True)
    allowed = float(service["stop_grace_period"].removesuffix("s"))
    assert allowed > server.drain_seconds + server.shutdown_seconds
