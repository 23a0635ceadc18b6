"""The compose file: its keys are those of the specification, and it fits image and README."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from service.settings.database import DatabaseSettings
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


@pytest.fixture
def on_postgres() -> dict[str, Any]:
    """What goes over it for a PostgreSQL server beside the service."""
    file = FILE.with_name("compose.postgres.yml")
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_the_one_for_postgresql_adds_a_server_that_the_service_waits_for(
    on_postgres: dict[str, Any], service: dict[str, Any]
) -> None:
    assert on_postgres.keys() == {"services", "secrets", "volumes"}
    over, server = (on_postgres["services"][name] for name in ("ackgate", "postgres"))
    assert over.keys() == {"environment", "secrets", "depends_on"}
    assert not over["environment"].keys() & service["environment"].keys()
    assert over["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert server["healthcheck"]["test"][1] == "pg_isready"
    assert "ports" not in server
    assert {one.partition(":")[0] for one in server["volumes"]} == on_postgres["volumes"].keys()


def test_the_one_for_postgresql_names_the_database_that_its_server_makes(
    on_postgres: dict[str, Any],
) -> None:
    over, server = (on_postgres["services"][name] for name in ("ackgate", "postgres"))
    for name in over["environment"]:
        path = name.removeprefix("ACKGATE_").lower().split("__")
        assert is_known([*path[:-1], path[-1].removesuffix("_file")])
    made = server["environment"]
    url = DatabaseSettings(url=over["environment"]["ACKGATE_DATABASE__URL"]).url
    assert url == f"postgresql://{made['POSTGRES_USER']}@postgres/{made['POSTGRES_DB']}"
    (secret,) = on_postgres["secrets"]
    assert over["secrets"] == server["secrets"] == [secret]
    file = f"/run/secrets/{secret}"
    assert over["environment"]["ACKGATE_DATABASE__PASSWORD_FILE"] == file
    assert made["POSTGRES_PASSWORD_FILE"] == file
