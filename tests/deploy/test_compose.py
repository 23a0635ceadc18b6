"""The compose files: their keys are those of the specification; they fit image and README."""

import re
from ipaddress import ip_address, ip_network
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


@pytest.fixture
def replicas() -> dict[str, Any]:
    """What starts two replicas with all around them."""
    file = FILE.with_name("compose.replicas.yml")
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


KEYS_OF_REPLICAS = {
    "": {"name", "services", "networks", "secrets", "volumes"},
    "service": KEYS["service"] | {"depends_on", "healthcheck", "networks", "secrets", "shm_size"},
}


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    """Return the settings of Ackgate's in the environment of a service, by their keys."""
    found = {}
    for name, value in service["environment"].items():
        path = name.removeprefix("ACKGATE_").lower().split("__")
        assert is_known([*path[:-1], path[-1].removesuffix("_file")])
        found[".".join(path)] = value
    return found


def test_the_keys_of_the_one_with_replicas_are_those_of_the_specification(
    replicas: dict[str, Any],
) -> None:
    assert {key for key in replicas if not key.startswith("x-")} == KEYS_OF_REPLICAS[""]
    for service in replicas["services"].values():
        assert service.keys() <= KEYS_OF_REPLICAS["service"]
        mounted = {one.partition(":")[0] for one in service.get("volumes", [])}
        named = {one for one in mounted if not one.startswith(("/", "."))}
        assert named <= replicas["volumes"].keys()
        assert set(service.get("secrets", [])) <= replicas["secrets"].keys()
        assert set(service.get("depends_on", [])) <= replicas["services"].keys()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for file in mounted:
            assert not file.startswith("./") or (FILE.parent / file).is_file()


def test_each_replica_is_as_the_one_service_but_writes_to_no_disk(
    replicas: dict[str, Any], service: dict[str, Any], on_postgres: dict[str, Any]
) -> None:
    first, second = (replicas["services"][f"ackgate-{number}"] for number in (1, 2))
    assert {k: v for k, v in first.items() if k != "networks"} == {
        k: v for k, v in second.items() if k != "networks"
    }
    for key in KEYS["service"] - {"environment", "ports", "volumes"}:
        assert first[key] == service[key]
    assert all(volume.endswith(":ro") for volume in first["volumes"])
    assert "ports" not in first
    more = on_postgres["services"]["ackgate"]
    for name, value in (service["environment"] | more["environment"]).items():
        assert first["environment"][name] == value
    assert first["secrets"] == more["secrets"]
    assert first["depends_on"] == more["depends_on"]
    server = replicas["services"]["postgres"]
    assert server == on_postgres["services"]["postgres"]


def test_the_balancer_knows_the_addresses_and_ports_of_the_replicas(
    replicas: dict[str, Any],
) -> None:
    both = [replicas["services"][f"ackgate-{number}"] for number in (1, 2)]
    addresses = [one["networks"]["default"]["ipv4_address"] for one in both]
    [network] = replicas["networks"]["default"]["ipam"]["config"]
    assert all(ip_address(address) in ip_network(network["subnet"]) for address in addresses)
    internal = settings_of(both[0])["server.internal.port"]
    config = (FILE.parent / "nginx/replicas.conf").read_text(encoding="utf-8")
    servers = re.findall(r"^ +server ([\d.:]+) ", config, re.MULTILINE)
    assert servers == [f"{a}:{port}" for port in (8080, int(internal)) for a in addresses * 2]
    listened = re.findall(r"^ +listen (\d+);", config, re.MULTILINE)
    assert replicas["services"]["balancer"]["ports"] == [f"127.0.0.1:{p}:{p}" for p in listened]


def test_prometheus_asks_each_replica_and_has_the_alerts_and_grafana_the_dashboard(
    replicas: dict[str, Any],
) -> None:
    folder = FILE.parent
    config = yaml.safe_load((folder / "prometheus/replicas.yml").read_text(encoding="utf-8"))
    [job] = config["scrape_configs"]
    [targets] = [one["targets"] for one in job["static_configs"]]
    port = settings_of(replicas["services"]["ackgate-1"])["server.internal.port"]
    assert targets == [f"ackgate-1:{port}", f"ackgate-2:{port}"]
    assert job["job_name"] == "ackgate", "as the alerts name it"
    mounts = [one.split(":") for one in replicas["services"]["prometheus"]["volumes"]]
    assert [f"/etc/prometheus/{file}" for file in config["rule_files"]] == [
        there for here, there, *_ in mounts if here.endswith("rules.yml")
    ]
    mounts = [one.split(":") for one in replicas["services"]["grafana"]["volumes"]]
    places = {here: there for here, there, *_ in mounts}
    provider = folder / "grafana/provisioning/dashboards.yml"
    [dashboards] = yaml.safe_load(provider.read_text(encoding="utf-8"))["providers"]
    assert Path(places["./grafana/ackgate.json"]).parent == Path(dashboards["options"]["path"])
    sources = folder / "grafana/provisioning/datasources.yml"
    [source] = yaml.safe_load(sources.read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
