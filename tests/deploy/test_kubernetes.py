"""The manifests: right by the schemas of Kubernetes, and they fit image, configuration and page."""

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.api.routes import OPEN
from service.settings import Settings, load
from service.settings.sources import is_known
from tests.docs.conftest import blocks
from tests.docs.test_dockerfile import last
from tests.docs.test_pages import SECRETS

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
VERSIONS = ("1.27", "1.31", "1.37")
"""The oldest release that knows all keys, one between, and the newest whose schemas there are."""

FREE = {"labels", "annotations", "matchLabels", "data", "requests", "limits"}
FREE_OF_SERVICES = {"selector"}
"""Mappings with keys of one's own choice."""

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    return [
        manifest
        for file in sorted(FOLDER.rglob("*.yml"))
        for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]


def of_kind(kind: str) -> Manifest:
    [found] = [manifest for manifest in manifests() if manifest["kind"] == kind]
    return found


@pytest.fixture
def pod() -> Manifest:
    return dict(of_kind("Deployment")["spec"]["template"]["spec"])


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    [found] = pod["containers"]
    return dict(found)


def configuration() -> str:
    """Return the file of the configuration, as the ConfigMap has it."""
    [(name, text)] = of_kind("ConfigMap")["data"].items()
    assert name == Path(environment_of_the_image()["ACKGATE_CONFIG"]).name
    return str(text)


def environment_of_the_image() -> dict[str, str]:
    return dict(re.findall(r'(\w+)="?([^" ]+)', last("ENV")))


def named_secrets() -> dict[str, str]:
    """Return the files with secrets that the configuration names, by the kind of secret."""
    found = re.findall(r'^(\w+)_file = "(.+)"$', configuration(), re.MULTILINE)
    return {path: key for key, path in found}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The configuration as a pod has it, with made-up secrets."""
    text = configuration()
    for path, key in named_secrets().items():
        file = tmp_path / Path(path).name
        file.write_text(SECRETS[key])
        text = text.replace(path, str(file))
    (tmp_path / "ackgate.toml").write_text(text)
    return load(tmp_path / "ackgate.toml", {})


named = pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: manifest["kind"])


@named
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_key_and_takes_every_value(manifest: Manifest, version: str) -> None:
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def mappings(manifest: Manifest) -> list[Manifest]:
    """Return all mappings whose keys are Kubernetes' own."""
    free = FREE | (FREE_OF_SERVICES if manifest["kind"] == "Service" else set())

    def within(value: Any) -> Iterator[Manifest]:
        if isinstance(value, dict):
            yield value
            for key, inner in value.items():
                if key not in free:
                    yield from within(inner)
        if isinstance(value, list):
            for inner in value:
                yield from within(inner)

    return [*within(manifest)]


@named
def test_a_misspelt_key_would_be_noticed_wherever_it_is(manifest: Manifest) -> None:
    number = len(mappings(manifest))
    assert number > 1
    for place in range(number):
        wrong = copy.deepcopy(manifest)
        mappings(wrong)[place]["mispelt"] = "1"
        with pytest.raises(kubernetes_validate.ValidationError, match="mispelt"):
            kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_service_takes_the_configuration(settings: Settings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "check-config", "--config"]
    checked = subprocess.run(
        [*command, str(tmp_path / "ackgate.toml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert settings.database.url.startswith("postgresql://")
    assert not settings.open_to_loopback_only


def test_configuration_and_secrets_are_mounted_where_they_are_looked_for(
    pod: Manifest, container: Manifest
) -> None:
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys() == {"configuration", "secrets"}
    assert all(mount["readOnly"] for mount in mounts.values())
    assert volumes["configuration"]["configMap"]["name"] == of_kind("ConfigMap")["metadata"]["name"]
    config = Path(environment_of_the_image()["ACKGATE_CONFIG"])
    assert mounts["configuration"]["mountPath"] == str(config.parent)
    assert {str(Path(path).parent) for path in named_secrets()} == {mounts["secrets"]["mountPath"]}


def test_the_page_makes_the_secret_with_each_file_that_the_configuration_names(
    pod: Manifest,
) -> None:
    [secret] = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
    [shown] = [b.text for b in blocks("sh") if f"create secret generic {secret} " in b.text]
    assert set(re.findall(r"--from-file=(\S+)", shown)) == {Path(p).name for p in named_secrets()}


def test_the_group_of_the_pod_can_read_the_secrets_and_nobody_else(pod: Manifest) -> None:
    [mode] = [v["secret"]["defaultMode"] for v in pod["volumes"] if "secret" in v]
    assert mode == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_it_runs_as_the_user_of_the_image_and_may_do_no_more_than_the_restricted_pods(
    pod: Manifest, container: Manifest
) -> None:
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    assert last("USER") == f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["readOnlyRootFilesystem"] is True
    assert of_container["capabilities"] == {"drop": ["ALL"]}
    account = of_kind("ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False


def test_the_ports_are_those_that_the_configuration_listens_on(
    container: Manifest, settings: Settings
) -> None:
    assert settings.server.internal is not None
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"webhooks": settings.server.port, "internal": settings.server.internal.port}
    assert {settings.server.host, settings.server.internal.host} == {"0.0.0.0"}
    served = of_kind("Service")["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in served} == ports
    rules = of_kind("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == ports.keys()


def test_probes_ask_for_what_the_service_has_at_its_internal_port(container: Manifest) -> None:
    paths = {route.path for route in OPEN if route.method == "GET"}
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    for probe in probes.values():
        assert probe["httpGet"]["port"] == "internal"
        assert probe["httpGet"]["path"] in paths
    asked = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    assert asked["readiness"] == "/health/ready"
    assert asked["liveness"] == asked["startup"] == "/health/live"


def test_a_migration_may_take_half_an_hour_before_a_pod_or_the_rollout_is_given_up(
    container: Manifest,
) -> None:
    probe = container["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= 1800
    assert of_kind("Deployment")["spec"]["progressDeadlineSeconds"] > allowed


def test_a_stop_may_take_as_long_as_the_service_takes(pod: Manifest, settings: Settings) -> None:
    server = settings.server
    assert pod["terminationGracePeriodSeconds"] > server.drain_seconds + server.shutdown_seconds


def test_an_upgrade_takes_no_pod_away_before_another_is_ready() -> None:
    spec = of_kind("Deployment")["spec"]
    assert spec["replicas"] >= 3
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert of_kind("PodDisruptionBudget")["spec"]["maxUnavailable"] < spec["replicas"]


def test_everything_is_about_the_pods_of_the_deployment(pod: Manifest) -> None:
    spec = of_kind("Deployment")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [
        spec["selector"]["matchLabels"],
        of_kind("Service")["spec"]["selector"],
        of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod["topologySpreadConstraints"]),
    ]
    assert all(selector == labels for selector in selectors)


def test_from_outside_webhooks_are_reached_and_nothing_else() -> None:
    spec = of_kind("Ingress")["spec"]
    [path] = [path for rule in spec["rules"] for path in rule["http"]["paths"]]
    assert path["path"] == "/webhooks/"
    service = of_kind("Service")
    backend = path["backend"]["service"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": "webhooks"}}
    assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_the_variables_that_kubernetes_would_add_for_the_service_are_kept_away(
    pod: Manifest, container: Manifest
) -> None:
    assert pod["enableServiceLinks"] is False
    for variable in container.get("env", []):
        assert is_known(variable["name"].removeprefix("ACKGATE_").lower().split("__"))
