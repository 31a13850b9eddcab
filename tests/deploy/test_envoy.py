"""Envoy's own configuration, run by the real Envoy in front of live servers: shares, mirror, health, drain, limits."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
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
# Long enough for Envoy's health check, once a second, to see a server that says it drains.
NOTICE_S = 1.5


def settings(notice_s: float) -> ServerSettings:
    """Free ports, and a deadline that a loaded machine can hold."""
    return ServerSettings(
        port=0, metrics_port=0, deadline_default_ms=20_000, drain_notice_s=notice_s, drain_grace_s=5.0
    )


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


@dataclass
class Front:
    """Envoy before live servers, by the cluster each stands in."""

    envoy: Any
    servers: dict[str, list[BackgroundServer]]


@pytest.fixture
def front(
    world_of: Callable[[str], Any], tmp_path: Path, envoy_before: Callable[..., AbstractContextManager[Any]]
) -> Iterator[Front]:
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
        yield Front(stack.enter_context(envoy_before(tmp_path, ports)), servers)


def seen(server: BackgroundServer, method: str = "Score") -> int:
    """How many requests for a method a server has taken, whatever it answered."""
    return int(
        sum(
            sample.value
            for family in server.server.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "nowgraph_requests_total" and sample.labels.get("method") == method
        )
    )


def scores(host: dict[str, Any]) -> dict[str, Any]:
    """The route that scores take, to change."""
    route: dict[str, Any] = host["routes"][1]["route"]
    return route


def test_shares_mirror_and_a_drain_under_load(front: Front) -> None:
    """Weights and mirror follow a replaced file, and a server that drains is left without one failed request."""
    with front.envoy.stub() as stub:
        assert len(versions(stub, 40)) == 1  # as it comes: all to the stable servers
        stable_version = next(iter(versions(stub, 1)))

        def canary(host: dict[str, Any]) -> None:
            for cluster, weight in zip(scores(host)["weighted_clusters"]["clusters"], (95, 5), strict=True):
                cluster["weight"] = weight

        front.envoy.route(canary)
        first = versions(stub, 400)
        # 5 % of 400 are 20: 40 and more, or none, would be four standard deviations away.
        assert 0 < 400 - first[stable_version] < 40
        assert seen(front.servers["nowgraph_shadow"][0]) == 0

        def half_and_mirror(host: dict[str, Any]) -> None:
            for cluster in scores(host)["weighted_clusters"]["clusters"]:
                cluster["weight"] = 50
            scores(host)["request_mirror_policies"][0]["runtime_fraction"]["default_value"]["numerator"] = 100

        front.envoy.route(half_and_mirror)
        half = versions(stub, 200)
        assert 60 < half[stable_version] < 140
        front.envoy.until(lambda: seen(front.servers["nowgraph_shadow"][0]) == 200)
        drain_under_load(front)


def drain_under_load(front: Front) -> None:
    """Callers score without a pause while one of two servers drains."""
    answered: list[int] = []
    failed: list[grpc.RpcError] = []
    stop = threading.Event()

    def call(number: int) -> None:
        with front.envoy.stub() as stub:
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
    front.envoy.until(lambda: len(answered) > left + 50)
    stop.set()
    for caller in callers:
        caller.join()
    assert failed == []
    assert seen(staying) > before
    assert front.envoy.healthy("nowgraph_stable") == 1


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


@pytest.fixture
def failing_front(
    envoy_before: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> Callable[..., AbstractContextManager[tuple[Any, list[Failing]]]]:
    """Envoy over two servers that fail as they are asked to, and one that always does."""

    @contextmanager
    def start(*, tokens: int | None = None) -> Iterator[tuple[Any, list[Failing]]]:
        servers = [Failing(), Failing(), Failing(broken=True)]
        try:
            with envoy_before(tmp_path, {"nowgraph_stable": [one.port for one in servers]}, tokens=tokens) as envoy:
                yield envoy, servers
        finally:
            for server in servers:
                server.server.stop(None).wait()

    return start


def codes(envoy: Any, code: str, count: int) -> Counter[str]:
    """The codes that a caller gets from servers that answer with one."""
    got: Counter[str] = Counter()
    with envoy.stub() as stub:
        for _ in range(count):
            try:
                stub.Score(service_pb2.ScoreRequest(request_id=code), timeout=20)
                got["OK"] += 1
            except grpc.RpcError as error:
                got[error.code().name] += 1
    return got


def test_what_counts_against_a_server_and_what_is_asked_again(failing_front: Callable[..., Any]) -> None:
    """One that fails all it is asked is left out; of the others only UNAVAILABLE is asked again."""
    ejected = "cluster.nowgraph_stable.outlier_detection.ejections_active"
    with failing_front() as (envoy, servers):
        # Before its first health check a server is asked nothing, and fails nothing.
        envoy.until(lambda: codes(envoy, "OK", 100)["INTERNAL"] == 0 and envoy.stat(ejected) == 1)
        for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT"):
            assert codes(envoy, code, 60) == {code: 60}
            assert sum(server.calls[code] for server in servers) == 60, code
        assert codes(envoy, "UNAVAILABLE", 2) == {"UNAVAILABLE": 2}
        assert [server.calls["UNAVAILABLE"] > 0 for server in servers] == [True, True, False]
        assert envoy.stat(ejected) == 1
        assert codes(envoy, "OK", 20) == {"OK": 20}


def test_a_flood_is_refused_as_exhausted(failing_front: Callable[..., Any]) -> None:
    """Beyond the front's own rate a caller hears RESOURCE_EXHAUSTED, on which it backs off, and no server is asked."""
    with failing_front(tokens=10) as (envoy, servers):
        assert codes(envoy, "INTERNAL", 30) == {"INTERNAL": 10, "RESOURCE_EXHAUSTED": 20}
        assert sum(server.calls["INTERNAL"] for server in servers) == 10


def test_a_refusal_says_when_to_ask_again(failing_front: Callable[..., Any]) -> None:
    """gRPC's own for a server, CANCELLED and no more, is RESOURCE_EXHAUSTED with a hint; so is the front's.

    What another answer says is left as it is.
    """
    asked = ("CANCELLED",) * 12 + ("INVALID_ARGUMENT",) * 2
    heard = []
    with failing_front(tokens=len(asked)) as (envoy, _), envoy.stub() as stub:
        for code in (*asked, "OK", "OK"):
            error = stub.Score.future(service_pb2.ScoreRequest(request_id=code), timeout=20).exception()
            hint_ms = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
            heard.append((error.code().name, None if hint_ms is None else 250 <= int(hint_ms) <= 375))
    refused = ("RESOURCE_EXHAUSTED", True)
    cancelled, invalid, limited = heard[:12], heard[12:14], heard[14:]
    assert refused in cancelled  # which server a call has is drawn; the one that always fails says INTERNAL
    assert set(cancelled) <= {refused, ("INTERNAL", None)}
    assert set(invalid) <= {("INVALID_ARGUMENT", None), ("INTERNAL", None)}
    assert limited == [refused] * 2


def test_events_are_never_mirrored(front: Front) -> None:
    """A shadow that also took Ingest would publish each event a second time."""

    def mirror(host: dict[str, Any]) -> None:
        scores(host)["request_mirror_policies"][0]["runtime_fraction"]["default_value"]["numerator"] = 100

    front.envoy.route(mirror)
    with front.envoy.stub() as stub:
        with pytest.raises(grpc.RpcError) as raised:
            stub.Ingest(service_pb2.IngestRequest(), timeout=20)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # these servers have no Kafka
        stub.Score(request(1), timeout=20)
    shadow = front.servers["nowgraph_shadow"][0]
    front.envoy.until(lambda: seen(shadow) == 1)  # mirrored in order: Ingest would have come before
    assert seen(shadow, "Ingest") == 0


def test_the_commands_that_ask_and_drain_envoy_are_understood(failing_front: Callable[..., Any]) -> None:
    """Compose's health check and the pod's preStop speak to the admin interface: ready until drained, then GOAWAY."""
    service = yaml.safe_load((FOLDER.parent / "compose" / "compose.yaml").read_text())["services"]["envoy"]
    front_yaml = (FOLDER.parent / "kubernetes" / "canary" / "front" / "front.yaml").read_text()
    pod = next(yaml.safe_load_all(front_yaml))["spec"]["template"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    with failing_front() as (envoy, _):
        port = envoy.admin.rpartition(":")[2]

        def run(command: list[str]) -> str:
            words = [word.replace("9901", port).replace("sleep 20", "head -1 <&3") for word in command]
            return subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout

        run(service["healthcheck"]["test"][1:])
        assert run(drain).startswith("HTTP/1.1 200")
        with pytest.raises(subprocess.CalledProcessError):  # HTTP/1.0 it refuses
            run([word.replace("HTTP/1.1", "HTTP/1.0") for word in service["healthcheck"]["test"][1:]])
