"""Components that none of the overlays has: each fits over one, and its parts fit together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed: no overlays")
Object = dict[str, Any]
Accepts = Callable[[Sequence[str]], None]
Over = Callable[[str, str], tuple[Object, ...]]


def of_kind(objects: Sequence[Object], *kinds: str) -> dict[str, Object]:
    """The objects of these kinds by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def workloads(objects: Sequence[Object]) -> dict[str, Object]:
    """Deployments and DaemonSets by name."""
    return of_kind(objects, "Deployment", "DaemonSet")


def containers(workload: Object) -> dict[str, Object]:
    """All containers of a workload's pod by name."""
    pod = workload["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*pod.get("initContainers", []), *pod["containers"]]}


def gibibytes(text: str) -> int:
    """Kubernetes' 9Gi as a number."""
    return int(text.removesuffix("Gi"))


def test_a_graph_may_begin_with_files(over: Over, accepts: Accepts) -> None:
    """The component `history` fits over production: its files are mounted and given to the updater, nobody else."""
    found = containers(workloads(over("production", "history"))["nowgraph"])
    accepts(found["updater"]["args"])
    assert found["updater"]["args"][-2:] == ["--history", "/history"]
    assert "/history" in {mount["mountPath"] for mount in found["updater"]["volumeMounts"]}
    assert "/history" not in {mount["mountPath"] for mount in found["server"]["volumeMounts"]}


def test_models_may_come_from_a_registry(over: Over, accepts: Accepts) -> None:
    """The component `registry` fits over production: serving.yaml can be read, and names folders that are mounted."""
    from model_server.config import parse_serving

    objects = over("production", "registry")
    deployed = workloads(objects)["nowgraph"]
    server = containers(deployed)["server"]
    accepts(server["args"])
    path = Path(server["args"][server["args"].index("--config") + 1])
    mounts = {mount["mountPath"]: mount["name"] for mount in server["volumeMounts"]}
    volume = next(one for one in deployed["spec"]["template"]["spec"]["volumes"] if one["name"] == mounts["/config"])
    config = parse_serving(of_kind(objects, "ConfigMap")[volume["configMap"]["name"]]["data"][path.name])
    for tenant in config.tenants:
        places = [tenant.schema_path, tenant.arena, *(Path(task.registry or "") for task in tenant.tasks)]
        assert {Path(*place.parts[:2]) for place in places} <= {Path(mount) for mount in mounts}


@pytest.mark.parametrize(
    ("overlay", "component", "name", "service"),
    [
        ("base", "standby", "nowgraph", "nowgraph"),
        ("production", "standby", "nowgraph", "nowgraph"),
        ("shared-node", "standby-node", "nowgraph-updater", "nowgraph-updater"),
    ],
)
def test_an_updater_may_have_a_standby(
    over: Over, accepts: Accepts, overlay: str, component: str, name: str, service: str
) -> None:
    """Two that run alike but for their metrics, on one arena and one place of snapshots; both are scraped."""
    objects = over(overlay, component)
    found = containers(workloads(objects)[name])
    updater, standby = found["updater"], found["standby"]
    accepts(standby["args"])
    assert standby["args"] == [*updater["args"], "--metrics-port", "9467"]
    assert updater["args"][-1] == "--standby"
    for part in ("env", "envFrom", "image", "securityContext", "volumeMounts", "restartPolicy"):
        assert standby.get(part) == updater.get(part), part
    assert [port["containerPort"] for port in standby["ports"]] == [9467]
    ports = {one["name"]: one["port"] for one in of_kind(objects, "Service")[service]["spec"]["ports"]}
    assert ports[standby["ports"][0]["name"]] == 9467
    rule = of_kind(objects, "NetworkPolicy")["nowgraph"]["spec"]["ingress"][1]
    assert {9465, 9467} <= {one["port"] for one in rule["ports"]}
    assert "monitoring" in str(rule["from"])
    for monitor in of_kind(objects, "ServiceMonitor").values():
        if monitor["metadata"]["name"] == "nowgraph":
            assert "standby-metrics" in {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}


@pytest.mark.parametrize(
    ("overlay", "component", "name"),
    [
        ("base", "columns", "nowgraph"),
        ("production", "columns", "nowgraph"),
        ("shared-node", "columns-node", "nowgraph-updater"),
    ],
)
def test_columns_may_lie_on_a_disk(over: Over, accepts: Accepts, overlay: str, component: str, name: str) -> None:
    """Their folder is one volume of a disk, written by the updater and read by servers under the same path."""
    objects = over(overlay, component)
    writer, reader = workloads(objects)[name], workloads(objects)["nowgraph"]
    updater, server = containers(writer)["updater"], containers(reader)["server"]
    accepts(updater["args"])
    folder = updater["args"][updater["args"].index("--columns") + 1]

    def mounted(container: Object, pod: Object) -> tuple[Object, Object]:
        mount = max(
            (one for one in container["volumeMounts"] if f"{folder}/".startswith(f"{one['mountPath']}/")),
            key=lambda one: len(one["mountPath"]),
        )
        volumes = pod["spec"]["template"]["spec"]["volumes"]
        return mount, next(one for one in volumes if one["name"] == mount["name"])

    (written, on), (read, of) = mounted(updater, writer), mounted(server, reader)
    assert not written.get("readOnly")
    assert read["readOnly"]
    if writer is reader:
        assert written["mountPath"] == read["mountPath"] == folder
        assert of == on
        claimed = on["ephemeral"]["volumeClaimTemplate"]["spec"]
        assert claimed["accessModes"] == ["ReadWriteOnce"]
        volumes = {one["name"]: one for one in writer["spec"]["template"]["spec"]["volumes"]}
        kept = gibibytes(volumes["snapshots"]["emptyDir"]["sizeLimit"])
        assert (
            kept >= 3 * gibibytes(claimed["resources"]["requests"]["storage"]) / 2
        )  # the newest three, of a generation
    else:
        assert folder == of["hostPath"]["path"] == on["hostPath"]["path"] + folder.removeprefix(written["mountPath"])
        assert read["mountPath"] == folder
