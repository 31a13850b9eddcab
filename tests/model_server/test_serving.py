from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graph_transformer.checkpoint import Checkpoint
from model_server.attached import Took, wait_for_graph
from model_server.background import BackgroundServer
from model_server.config import ServingConfig, parse_serving
from model_server.errors import NotConfiguredError
from model_server.models.channel import Channel
from model_server.models.errors import ModelRefused, Reason
from model_server.models.pushing import push
from model_server.models.registry import Registry
from model_server.server import Server
from model_server.serving import Around, names_of, sources_of
from model_server.settings import ServerSettings
from nowgraph.client import Client, ClientError
from stream.errors import ConfigurationError
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.view import GraphView

pytestmark = pytest.mark.integration
ARENA_BYTES = 64 << 20
SETTINGS = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000, models_poll_s=0.05)
CELLS = {"customer_id": 3, "terminal_id": 1, "tx_amount": 3.0}
FIRST, SECOND = "the first tenant's secret, long", "the second tenant's secret, long"
CONFIG = """
version: 1
tenants:
  - name: north
    schema: schema.yaml
    arena: north
    secret_env: FIRST
    tasks:
      - {name: fraud, registry: registry}
      - {checkpoint: SPEND}
  - name: south
    schema: schema.yaml
    arena: south
    secret_env: SECOND
    quota_rows_per_s: 3
    tasks: [{checkpoint: FRAUD}]
"""


def around(**changes: Any) -> Around:
    """What a process brings beside the file."""
    given: dict[str, Any] = {
        "predictions_topic": "predictions",
        "secret_of": {"FIRST": FIRST.encode(), "SECOND": SECOND.encode()}.get,
        "wait_for_graph": partial(wait_for_graph, timeout_s=5.0),
        "attach": GraphView.attach,
        "publishes": False,
    }
    return Around(**given | changes)


@pytest.fixture
def config(world_of: Callable[[str], Any], tmp_path: Path) -> Iterator[ServingConfig]:
    """Two tenants with graphs of their own, the second one with fewer payments; north's fraud is a registry's."""
    fraud, spend = world_of("fraud"), world_of("spend")
    (tmp_path / "schema.yaml").write_text(fraud.schema_text)
    registry = Registry(tmp_path / "registry")
    version = push(registry, fraud.checkpoint, fraud.graph.view(), count=4)[0].version
    registry.change("fraud", "live", lambda _: Channel.first(version))
    with ExitStack() as stack:
        for tenant, payments in (("north", 5), ("south", 2)):
            graph = stack.enter_context(
                TemporalGraph.create(fraud.schema, arena=tmp_path / tenant, arena_bytes=ARENA_BYTES)
            )
            events = [fraud.event(number, fraud.start_us + number, customer=3) for number in range(payments)]
            graph.apply(events, backfill=True)
        text = CONFIG.replace("SPEND", str(spend.checkpoint)).replace("FRAUD", str(fraud.checkpoint))
        text = text.replace("registry: registry", f"registry: {tmp_path / 'registry'}")
        yield parse_serving(text, folder=tmp_path)


def test_one_process_serves_tenants_with_tasks_of_their_own(config: ServingConfig, world: Any) -> None:
    """Each tenant's answers rest on its own graph, each task on its own model, and health names them all."""
    sources = sources_of(config, SETTINGS, around())
    assert [name.partition("@")[0] for name in names_of(sources)] == ["north/fraud", "north/spend", "south/fraud"]
    asked_us = world.start_us + 10**9
    with BackgroundServer(lambda: Server(sources, SETTINGS)) as running, ExitStack() as stack:

        def client(tenant: str, task: str = "") -> Client:
            return stack.enter_context(Client(running.target, tenant=tenant, task=task, timeout_s=20))

        score = client("north", "fraud").score("transactions", 99, CELLS, event_time=asked_us)
        assert score.model_version == names_of(sources)[0].partition("@")[2]
        assert client("north", "spend").score("customers", 3).value is not None
        assert client("south").score("transactions", 99, CELLS, event_time=asked_us).task == "fraud"
        for tenant, task, why in (("", "fraud", "tenant"), ("west", "", "tenant"), ("north", "churn", "task")):
            with pytest.raises(ClientError) as caught:
                client(tenant, task).score("transactions", 99, CELLS)
            assert (caught.value.code, caught.value.field) == ("NOT_FOUND", why)
        greedy = client("south")
        with pytest.raises(ClientError, match="quota") as refused:
            [greedy.score("transactions", 99, CELLS, event_time=asked_us) for _ in range(50)]
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        channel = stack.enter_context(grpc.insecure_channel(running.target))
        for name in ("", "north/fraud", "north/spend", "south/fraud"):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        total = running.server.metrics.families.registry.total
        assert total("nowgraph_requests_total", tenant="north", task="spend", code="OK") == 1
        assert total("nowgraph_shed_total", tenant="south", buffer="quota") == 1
        running.server._tenants[0].read_gauges()
        running.server._tenants[1].read_gauges()
        assert total("nowgraph_graph_events", tenant="north") == 5
        assert total("nowgraph_graph_events", tenant="south") == 2


def test_a_live_model_that_must_not_answer_stops_the_start(config: ServingConfig, tmp_path: Path) -> None:
    """There is no old model to go on with: the process says why it does not serve."""
    folder = next(one for one in (tmp_path / "registry" / "fraud").iterdir() if one.name != "channels")
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ModelRefused) as caught:
        sources_of(config, SETTINGS, around())
    assert caught.value.reason is Reason.CORRUPT


def test_each_tenant_has_its_own_secret(config: ServingConfig) -> None:
    """Private values of two tenants are hashed by two secrets; one that lacks is found at the start."""
    north, south = sources_of(config, SETTINGS, around())
    assert north.privacy is not south.privacy
    with pytest.raises(ConfigurationError, match="private"):
        sources_of(config, SETTINGS, around(secret_of={"FIRST": FIRST.encode()}.get))


def test_events_of_two_tenants_are_not_mixed(config: ServingConfig) -> None:
    """Tenants that would publish to one topic are refused, before an event of one is in the other's graph."""
    with pytest.raises(NotConfiguredError, match="'north' and 'south' would both ingest into"):
        sources_of(config, SETTINGS, around(publishes=True))


def test_a_task_is_the_one_it_is_said_to_be(config: ServingConfig, tmp_path: Path) -> None:
    """A folder with another task's model is refused by both names."""
    south = config.tenants[1]
    tasks = (south.tasks[0].model_copy(update={"name": "churn"}),)
    wrong = config.model_copy(update={"tenants": (south.model_copy(update={"tasks": tasks}),)})
    with pytest.raises(NotConfiguredError, match="of task 'fraud', not of 'churn'"):
        sources_of(wrong, SETTINGS, around())


def test_one_store_serves_the_tasks_of_a_tenant_and_its_channel_is_followed(
    world_of: Callable[[str], Any], redis_server: Any, tmp_path: Path
) -> None:
    """In place of an arena a graph in Redis, connected to once for all tasks; a promoted version answers from it."""
    fraud, spend = world_of("fraud"), world_of("spend")
    (tmp_path / "schema.yaml").write_text(fraud.schema_text)
    registry = Registry(tmp_path / "registry")
    versions = [push(registry, fraud.checkpoint, None, count=0)[0].version]
    registry.change("fraud", "live", lambda _: Channel.first(versions[0]))
    tasks = [{"name": "fraud", "registry": str(tmp_path / "registry")}, {"checkpoint": str(spend.checkpoint)}]
    tenant = {"schema": "schema.yaml", "store": redis_server.url, "secret_env": "FIRST", "tasks": tasks}
    config = parse_serving(yaml.safe_dump({"version": 1, "tenants": [tenant]}), folder=tmp_path)
    settings = SETTINGS.model_copy(update={"store_timeout_ms": 5_000})
    took = Took(settings)
    with RedisGraph.open(redis_server.url, fraud.schema) as graph, ExitStack() as stack:
        graph.expect({})
        graph.apply([fraud.event(n, fraud.start_us + n, customer=3) for n in range(5)], positions={("events", 0): 5})
        stack.callback(took.close)
        sources = sources_of(config, settings, around(wait_for_graph=took.wait_for_graph, attach=took.attach))
        assert len(took.stores) == 1
        running = stack.enter_context(BackgroundServer(lambda: Server(sources, settings)))
        client = stack.enter_context(Client(running.target, task="fraud", timeout_s=20))
        spending = stack.enter_context(Client(running.target, task="spend", timeout_s=20))

        def version() -> str:
            return client.score("transactions", 99, {"tx_amount": 3.0}).model_version

        assert spending.score("customers", 3).value is not None
        assert version() == versions[0]
        checkpoint = Checkpoint.load(fraud.checkpoint)
        replace(checkpoint, weights={k: v * 1.1 for k, v in checkpoint.weights.items()}).save(tmp_path / "again")
        versions.append(push(registry, tmp_path / "again", None, count=0)[0].version)
        registry.change("fraud", "live", lambda _: Channel.first(versions[1]))
        until_s = time.monotonic() + 30
        while version() != versions[1]:
            assert time.monotonic() < until_s
            time.sleep(0.02)
