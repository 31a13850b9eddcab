"""The manifests: valid by Kubernetes' own schemas, and their parts fit together and to the program they run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS = ("base", "embedded", "production", "production-tls", "shared-node", "canary")
Object = dict[str, Any]
Accepts = Callable[[Sequence[str]], None]
Check = Callable[[Object], None]

# kustomize is part of kubectl, which no package index has; without it whole files are checked, and overlays are not.
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed: no overlays")


@cache
def rendered(overlay: str) -> tuple[Object, ...]:
    """The objects of an overlay, as kubectl would apply them."""
    command = ["kubectl", "kustomize", str(FOLDER / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def whole_files() -> list[Object]:
    """The objects that stand complete in files: what kustomizations name as resources."""
    found = []
    for path in sorted(FOLDER.rglob("kustomization.yaml")):
        for name in yaml.safe_load(path.read_text(encoding="utf-8")).get("resources", []):
            if name.endswith(".yaml"):
                found += list(yaml.safe_load_all((path.parent / name).read_text(encoding="utf-8")))
    return found


def of_kind(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def workloads(objects: Sequence[Object]) -> dict[str, Object]:
    """Deployments and DaemonSets by name."""
    return of_kind(objects, "Deployment") | of_kind(objects, "DaemonSet")


def containers(workload: Object) -> dict[str, Object]:
    """All containers of a workload's pod by name, sidecars and those that come before included."""
    pod = workload["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*pod.get("initContainers", []), *pod["containers"]]}


def selects(selector: Object, workload: Object) -> bool:
    """Whether matchLabels pick a workload's pods."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return bool(selector.items() <= labels.items())


def quantity(text: str) -> float:
    """Kubernetes' 9Gi, 500m and 20k as a number."""
    match = re.fullmatch(r"(\d+)(m|k|Mi|Gi)?", str(text))
    assert match is not None, text
    factors = {None: 1.0, "m": 1e-3, "k": 1e3, "Mi": 2.0**20, "Gi": 2.0**30}
    return float(match[1]) * factors[match[2]]


def test_whole_files_are_valid(check_object: Check) -> None:
    """Each object of a file is what the API takes, with no key that it does not know; and the check can fail."""
    import kubernetes_validate

    objects = whole_files()
    assert {"Deployment", "DaemonSet", "Service", "NetworkPolicy", "HorizontalPodAutoscaler"} <= {
        one["kind"] for one in objects
    }
    for one in objects:
        check_object(one)
    broken = yaml.safe_load(yaml.safe_dump(of_kind(objects, "Deployment")["nowgraph"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check_object(broken)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_valid(overlay: str, check_object: Check) -> None:
    """kustomize renders it, each object is valid, and no two objects of a kind share a name."""
    objects = rendered(overlay)
    for one in objects:
        check_object(one)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    for one in objects:
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "nowgraph"


def all_containers(objects: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    """Every container with its pod."""
    for workload in workloads(objects).values():
        for container in containers(workload).values():
            yield workload["spec"]["template"]["spec"], container


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_may_more_than_it_needs(overlay: str) -> None:
    """Nobody's user, a root that cannot be written, no capabilities, RuntimeDefault, limits; exceptions by name."""
    for pod, container in all_containers(rendered(overlay)):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert "ALL" in context["capabilities"]["drop"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        if (overlay, container["name"]) != ("shared-node", "folder"):  # gives the node's folder away, and ends
            assert {"runAsNonRoot", "runAsUser"}.isdisjoint(context)
            assert "add" not in context["capabilities"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        assert overlay == "shared-node" or not any("hostPath" in volume for volume in volumes.values())


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_settings_and_ports_are_the_programs(
    overlay: str, accepts: Accepts, known_variables: set[str]
) -> None:
    """Each command line is one that nowgraph takes, each variable is a setting, and probes ask ports that are there."""
    objects = rendered(overlay)
    maps = of_kind(objects, "ConfigMap")
    for _, container in all_containers(objects):
        given: set[str] = {one["name"] for one in container.get("env", [])}
        for source in container.get("envFrom", []):
            given |= set(maps[source["configMapRef"]["name"]]["data"])
        assert given <= known_variables | {"ARENA_BYTES"}
        if "args" in container:
            accepts(container["args"])
            used = {name for word in container["args"] for name in re.findall(r"\$\((\w+)\)", word)}
            assert used <= given
        names = {port["name"] for port in container.get("ports", [])}
        numbers = {port["containerPort"] for port in container.get("ports", [])}
        for probe in (container.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")):
            if "exec" in probe:
                accepts(probe["exec"]["command"][1:])
            elif "grpc" in probe:
                assert probe["grpc"]["port"] in numbers
            elif probe:
                assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in names


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_times_and_memory_add_up(overlay: str) -> None:
    """A pod is killed only after its drain; a server may start for as long as it may wait; the arena has its memory."""
    objects = rendered(overlay)
    maps = of_kind(objects, "ConfigMap")
    for name, workload in workloads(objects).items():
        pod = workload["spec"]["template"]["spec"]
        found = containers(workload)
        if "server" not in found:
            continue
        server = found["server"]
        data = maps[server["envFrom"][0]["configMapRef"]["name"]]["data"]
        settings = {key.removeprefix("NOWGRAPH_SERVER_"): value for key, value in data.items()}
        drain_s = float(settings["DRAIN_NOTICE_S"]) + float(settings["DRAIN_GRACE_S"])
        assert pod["terminationGracePeriodSeconds"] > server["lifecycle"]["preStop"]["sleep"]["seconds"] + drain_s
        startup = server["startupProbe"]
        starting_s = startup["periodSeconds"] * startup["failureThreshold"]
        assert float(settings["ATTACH_TIMEOUT_S"]) <= starting_s < workload["spec"]["progressDeadlineSeconds"]
        arena = next((one for one in pod["volumes"] if one["name"] == "arena"), {})
        if "emptyDir" in arena:
            assert arena["emptyDir"]["medium"] == "Memory"
            size = quantity(arena["emptyDir"]["sizeLimit"])
            assert size >= 2 * float(settings["ARENA_BYTES"]), name
            assert quantity(found["updater"]["resources"]["limits"]["memory"]) > size
        else:
            assert ("hostPath" in arena) == (overlay == "shared-node")


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_pick_whom_they_mean(overlay: str) -> None:
    """Each selector picks pods, each of one workload; services' ports are ports of those pods."""
    objects = rendered(overlay)
    found = workloads(objects)
    for name, service in of_kind(objects, "Service").items():
        picked = [one for one in found.values() if selects(service["spec"]["selector"], one)]
        assert len(picked) == 1, name
        ports = {port["name"] for one in containers(picked[0]).values() for port in one.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for name, budget in of_kind(objects, "PodDisruptionBudget").items():
        assert sum(selects(budget["spec"]["selector"]["matchLabels"], one) for one in found.values()) == 1, name
    for one in found.values():
        assert sum(selects(one["spec"]["selector"]["matchLabels"], other) for other in found.values()) == 1
        for spread in one["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"]["matchLabels"], one)
        policies = of_kind(objects, "NetworkPolicy").values()
        assert any(selects(policy["spec"]["podSelector"]["matchLabels"], one) for policy in policies)
    for monitor in of_kind(objects, "ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        picked_services = [
            one for one in of_kind(objects, "Service").values() if wanted <= one["metadata"].get("labels", {}).items()
        ]
        ports = {port["name"] for one in picked_services for port in one["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


@needs_kubectl
def test_the_autoscaler_reads_metrics_that_are_made() -> None:
    """Its target is there, each metric comes of a rule of the adapter, and each rule of a metric that a program has."""
    from graph_updater.metrics import UpdaterMetrics
    from model_server.metrics import Metrics

    objects = rendered("production")
    scaler = of_kind(objects, "HorizontalPodAutoscaler")["nowgraph"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in workloads(objects)
    assert "replicas" not in workloads(objects)["nowgraph"]["spec"]
    adapter = yaml.safe_load((FOLDER / "components" / "autoscaling" / "adapter_values.yaml").read_text())
    made = {rule["name"]["as"]: rule["seriesQuery"].partition("{")[0] for rule in adapter["rules"]["custom"]}
    assert {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]} == set(made)
    registries = (Metrics().registry, UpdaterMetrics().registry)
    families = {family.name for registry in registries for family in registry.collect()}
    for series in made.values():
        assert series.removesuffix("_sum") in families, series


@needs_kubectl
def test_every_dashboard_is_deployed() -> None:
    """What Grafana's sidecar is given are all files of deploy/grafana, as they are."""
    data = of_kind(rendered("production"), "ConfigMap")["nowgraph-dashboards"]["data"]
    files = (REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json")
    assert data == {path.name: path.read_text(encoding="utf-8") for path in files}


@needs_kubectl
def test_the_front_sends_to_services_that_are_there() -> None:
    """Envoy's clusters are services of the overlay; its routes are deploy/envoy's but for shares; shadows are apart."""
    objects = rendered("canary")
    data = of_kind(objects, "ConfigMap")["nowgraph-front"]["data"]
    services = of_kind(objects, "Service")
    bootstrap = yaml.safe_load(data["envoy.yaml"])
    assert bootstrap == yaml.safe_load((REPOSITORY / "deploy" / "envoy" / "envoy.yaml").read_text())
    for cluster in bootstrap["static_resources"]["clusters"]:
        address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        assert address["port_value"] in {port["port"] for port in services[address["address"]]["spec"]["ports"]}
    beside = (REPOSITORY / "deploy" / "envoy" / "routes.yaml").read_text()
    routes, plain = yaml.safe_load(data["routes.yaml"]), yaml.safe_load(beside)
    shares = [routes_of["resources"][0]["virtual_hosts"][0]["routes"][1]["route"] for routes_of in (routes, plain)]
    weights = [{one["name"]: one["weight"] for one in route["weighted_clusters"]["clusters"]} for route in shares]
    assert weights == [{"nowgraph_stable": 95, "nowgraph_canary": 5}, {"nowgraph_stable": 100, "nowgraph_canary": 0}]
    for route in shares:
        route["weighted_clusters"] = route["request_mirror_policies"] = None
    assert routes == plain
    maps = of_kind(objects, "ConfigMap")
    topics = {}
    for name, workload in workloads(objects).items():
        if "server" in containers(workload):
            source = containers(workload)["server"]["envFrom"][0]["configMapRef"]["name"]
            topics[name] = maps[source]["data"].get("NOWGRAPH_PREDICTIONS_TOPIC")
    assert topics == {"nowgraph": None, "nowgraph-canary": None, "nowgraph-shadow": "nowgraph.predictions.shadow"}


def test_the_operator_s_rules_are_those_of_prometheus() -> None:
    """prometheus_rule.yaml is made of deploy/prometheus; after a change there `make manifests` makes it again."""
    script = REPOSITORY / "scripts" / "generate_prometheus_rule.py"
    done = subprocess.run(
        [sys.executable, "-P", str(script), "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
