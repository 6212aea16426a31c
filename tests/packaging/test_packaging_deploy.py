"""What a deployment is made of: the compose file, what it mounts, and the manifests for Kubernetes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from catalog import load
from pipeline.settings import Settings
from tests.packaging.environments import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
MANIFESTS = {
    (manifest["kind"], manifest["metadata"]["name"]): manifest
    for manifest in yaml.safe_load_all((ROOT / "ops" / "kubernetes" / "stagepost.yaml").read_text())
}
POD = MANIFESTS["StatefulSet", "stagepost"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


KUBERNETES = json.loads((ROOT / "tests" / "schemas" / "kubernetes-1.33.json").read_text())


def _validate(manifest: dict[str, Any]) -> None:
    """Raise `ValidationError` where Kubernetes' schema of that kind does not allow it."""
    Draft202012Validator({**KUBERNETES, "$ref": f"#/$defs/{manifest['kind']}"}).validate(manifest)


def _mounted(service: str) -> dict[str, Path]:
    """The files of ours that a service sees, by where it sees them."""
    mounts = (volume.split(":") for volume in COMPOSE[service]["volumes"])
    return {mount[1]: ROOT / mount[0] for mount in mounts if mount[0].startswith(".")}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_compose_brings_up_all_four() -> None:
    """Kafka in KRaft mode, a worker, Prometheus with our alerts, Grafana with our dashboard; reached from here only."""
    assert COMPOSE.keys() == {"kafka", "worker", "prometheus", "grafana"}
    assert COMPOSE["kafka"]["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    for name, service in COMPOSE.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert ":latest" not in service.get("image", ":fixed")
    for path in (*_mounted("prometheus").values(), *_mounted("grafana").values()):
        assert path.is_file(), path


def test_the_worker_of_compose_has_no_rights() -> None:
    """Its root is read-only, it keeps no capability, and it has time to end its work; its settings are sound."""
    worker = COMPOSE["worker"]
    assert (worker["read_only"], worker["cap_drop"]) == (True, ["ALL"])
    assert worker["tmpfs"] == ["/tmp"]
    settings = Settings.from_env(worker["environment"])
    assert int(worker["stop_grace_period"].rstrip("s")) > settings.drain_timeout_s


def test_prometheus_may_read_the_worker() -> None:
    """The token that Prometheus sends is one of the worker's, and its rules are where its configuration says."""
    mounted = _mounted("prometheus")
    prometheus = _yaml(mounted["/etc/prometheus/prometheus.yml"])
    (scrape,) = prometheus["scrape_configs"]
    digest = hashlib.sha256(scrape["authorization"]["credentials"].encode()).hexdigest()
    environment = COMPOSE["worker"]["environment"]
    assert environment["STREAMING_ADMIN_TOKENS"] == f"operator:{digest}"
    assert scrape["static_configs"] == [{"targets": [f"worker:{Settings.from_env(environment).web_port}"]}]
    assert prometheus["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert _yaml(mounted["/etc/prometheus/alerts.yml"])["groups"]


def test_grafana_finds_its_dashboard() -> None:
    """The dashboard lies in the folder that the provider reads, and there is a Prometheus for it."""
    mounted = _mounted("grafana")
    (provider,) = _yaml(mounted["/etc/grafana/provisioning/dashboards/stagepost.yml"])["providers"]
    (source,) = _yaml(mounted["/etc/grafana/provisioning/datasources/stagepost.yml"])["datasources"]
    folder = provider["options"]["path"]
    dashboards = [path for place, path in mounted.items() if place.startswith(f"{folder}/")]
    assert [json.loads(path.read_text())["title"] for path in dashboards] == ["Stagepost"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=map("-".join, MANIFESTS))
def test_each_manifest_is_valid(manifest: dict[str, Any]) -> None:
    """Each is what Kubernetes' own schema of its kind allows, with no field that it does not know."""
    _validate(manifest)


def test_a_manifest_that_is_wrong_is_found() -> None:
    """The check can fail: a misspelt field is found."""
    wrong = {**MANIFESTS["PodDisruptionBudget", "stagepost"], "spec": {"maxUnavailible": 1}}
    with pytest.raises(ValidationError, match="maxUnavailible"):
        _validate(wrong)


def test_the_pod_has_no_rights() -> None:
    """No root, no capability, no way to more, a read-only root, no account at the API server."""
    security = CONTAINER["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["automountServiceAccountToken"] is False


def test_the_pod_is_probed_and_stopped_gently() -> None:
    """Alive by /health/live, ready by /health/ready; more time to end than its work may take; never all at once."""
    probes = {
        name: CONTAINER[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness", "startup")
    }
    assert probes == {"liveness": "/health/live", "readiness": "/health/ready", "startup": "/health/live"}
    assert POD["spec"]["terminationGracePeriodSeconds"] > Settings.model_fields["drain_timeout_s"].default
    budget = MANIFESTS["PodDisruptionBudget", "stagepost"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= POD["metadata"]["labels"].items()
    assert budget["maxUnavailable"] == 1


def test_the_settings_of_the_pod_are_sound(tmp_path: Path) -> None:
    """ConfigMap and Secret are settings that the worker takes, and their catalog is one; secrets are in the Secret."""
    plain = MANIFESTS["ConfigMap", "stagepost"]["data"]
    secret = MANIFESTS["Secret", "stagepost"]["stringData"]
    tokens = "ann:" + hashlib.sha256(b"token").hexdigest()
    settings = Settings.from_env({**plain, **secret, "STREAMING_ADMIN_TOKENS": tokens})
    assert not [name for name in plain if "PASSWORD" in name or "TOKEN" in name or "KEY" in name]
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert mounts["events"] == settings.catalog
    assert mounts["data"] == str(settings.data_dir)
    for name, text in MANIFESTS["ConfigMap", "stagepost-events"]["data"].items():
        (tmp_path / name).write_text(text)
    assert [definition.key for definition in load(str(tmp_path), namespace="streaming")] == ["order.placed"]
