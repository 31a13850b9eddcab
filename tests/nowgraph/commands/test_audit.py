"""`nowgraph audit` computes recorded answers again: the same bits, of the graph as it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from graph_transformer.checkpoint import Checkpoint
from graph_updater.embedded import UpdaterThread
from graph_updater.settings import UpdaterSettings
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.assembly import embedded_server, live_source, updater_of
from nowgraph.audit import recorded_answers
from nowgraph.client import Client
from stream.dead_letters import DeadLetters
from stream.embedded_broker import EmbeddedBroker
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import Snapshots

pytestmark = pytest.mark.integration

MINUTE_US = 60_000_000
TOPICS = {"transactions": 2, "transaction_events": 2, "nowgraph.predictions": 2, "nowgraph.dead-letters": 1}


@dataclass
class Living:
    """A server whose graph grows while it answers, with snapshots of it, and the log of both."""

    client: Client
    stream: StreamSettings
    folder: Path
    snapshots: Path
    start_us: int
    ingested: int = 0

    def grow(self, count: int) -> Any:
        """Payments of customer 3 come in; returns the last one's token."""
        for _ in range(count):
            self.ingested += 1
            cells = {"customer_id": 3, "terminal_id": 3, "tx_amount": float(self.ingested)}
            at_us = self.start_us + (100 + self.ingested) * MINUTE_US
            token = self.client.ingest("transactions", 1_000 + self.ingested, cells, event_time=at_us)
        return token

    @property
    def options(self) -> tuple[object, ...]:
        """What an audit of it is told."""
        return (
            "--checkpoint", self.folder, "--bootstrap-servers", self.stream.kafka_bootstrap, "--quiet",
            "--history", self.folder / "history",
        )  # fmt: skip


@pytest.fixture
def living(trained: Callable[[str], Path], world: Any, tmp_path: Path) -> Iterator[Callable[[str], Living]]:
    """Starts one for a task."""
    with ExitStack() as stack:

        def start(task: str) -> Living:
            folder, snapshots = trained(task), tmp_path / "snapshots"
            broker = stack.enter_context(EmbeddedBroker(TOPICS))
            stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
            producer = stack.enter_context(EventProducer(stream))
            graph = stack.enter_context(TemporalGraph.create(load_schema(folder / "schema.yaml"), arena_bytes=1 << 28))
            source, logs = live_source(graph, [folder / "history"], stream, gaps="error")
            letters, settings = (
                DeadLetters(producer, settings=stream),
                UpdaterSettings(snapshot_interval_s=0.02, snapshot_keep=1_000),
            )
            updater = updater_of(
                graph, source, letters, stream, settings=settings, logs=logs, snapshots=Snapshots(snapshots)
            )
            stack.enter_context(UpdaterThread(updater))
            serving = ServerSettings(port=0, metrics_port=0, fixed_shape=True, deadline_default_ms=20_000)
            server = stack.enter_context(
                BackgroundServer(lambda: embedded_server(graph, folder, serving, stream=stream, producer=producer))
            )
            client = stack.enter_context(Client(server.target, timeout_s=20))
            until_s = time.monotonic() + 20
            while not Snapshots(snapshots).inventory()[0]:
                assert time.monotonic() < until_s
                time.sleep(0.01)
            return Living(client, stream, folder, snapshots, world.start_us)

        yield start


@pytest.mark.parametrize(
    ("task", "table", "key"), [("fraud", "transactions", 9_000_000), ("spend", "customers", 3)], ids=["event", "entity"]
)
def test_a_recorded_answer_comes_out_with_the_same_bits(
    run_json: Callable, run_command: Callable, living: Callable[[str], Living], tmp_path: Path, task: str, table: str,
    key: int,
) -> None:  # fmt: skip
    """At its position in the log, from the log's beginning and from a snapshot; at another one it is another answer."""
    one = living(task)
    at_us = one.start_us + 1_000 * MINUTE_US
    cells = {"customer_id": 3, "tx_amount": 4.0} if task == "fraud" else None
    for name in ("first", "second", "third"):
        one.client.score(table, key, cells, event_time=at_us, request_id=name, freshness_token=one.grow(5))
    one.grow(5)

    names = [word for name in ("first", "second", "third") for word in ("--request-id", name)]
    whole = run_json("audit", *one.options, *names)
    assert whole["equal"]
    assert len({answer["recorded"] for answer in whole["answers"]}) == 3  # what came in between has changed it
    tail = run_json("audit", *one.options[:-2], *names, "--snapshots", one.snapshots)  # history is in each of them
    assert [answer["again"] for answer in tail["answers"]] == [answer["again"] for answer in whole["answers"]]
    assert tail["equal"]

    first, second, _ = recorded_answers(one.stream, ["first", "second", "third"])
    moved = replace_position(first, second)
    (tmp_path / "moved.json").write_text(json_format.MessageToJson(moved, indent=None) + "\n")
    refused = run_command("audit", *one.options, "--prediction", tmp_path / "moved.json", exit_code=1)
    assert "Answers differ" in refused.stdout


def replace_position(prediction: Any, other: Any) -> Any:
    """The record as if it had been made where the other one was."""
    moved = type(prediction)()
    moved.CopyFrom(prediction)
    moved.response.graph_position.CopyFrom(other.response.graph_position)
    return moved


def test_what_cannot_be_computed_again_is_said(
    run_command: Callable, living: Callable[[str], Living], tmp_path: Path
) -> None:
    """Another model than the one that answered, an answer that is not there, a log that is not whole; and options."""
    one = living("fraud")
    one.client.score("transactions", 9_000, {"customer_id": 3}, request_id="first", freshness_token=one.grow(1))
    asked = ("audit", *one.options)

    def refused(*words: object) -> str:
        return str(run_command(*asked, *words, exit_code=2).stderr)

    assert "has no answer to second" in refused("--request-id", "first", "--request-id", "second")
    assert "either --request-id or --prediction" in refused()
    assert "either --checkpoint or --registry" in refused("--request-id", "first", "--registry", tmp_path)
    assert "one Prediction a line" in run_command("audit", "--help").stdout
    (tmp_path / "no.json").write_text("{}\nnothing\n")
    assert "no.json:2: no Prediction" in refused("--prediction", tmp_path / "no.json")
    (record,) = recorded_answers(one.stream, ["first"])
    record.response.graph_position.partitions[-1].next_offset += 1_000
    (tmp_path / "later.json").write_text(json_format.MessageToJson(record, indent=None))
    assert "no record came after" in refused("--prediction", tmp_path / "later.json", "--timeout", 1)
    again(one.folder)
    assert "was answered by model" in refused("--request-id", "first")


def again(folder: Path) -> None:
    """The same model with other weights, in its place."""
    from graph_transformer.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(folder)
    replace(checkpoint, weights={name: one * 1.1 for name, one in checkpoint.weights.items()}).save(folder)


def test_the_version_that_an_answer_names_is_taken_from_the_registry(
    run_json: Callable, run_command: Callable, living: Callable[[str], Living], tmp_path: Path
) -> None:
    """Whatever is live there now."""
    one, registry = living("fraud"), tmp_path / "registry"
    one.client.score("transactions", 9_000, {"customer_id": 3}, request_id="first", freshness_token=one.grow(1))
    run_json("models", "push", one.folder, "--registry", registry, "--without-golden")
    options = ("--request-id", "first", "--registry", registry, *one.options[2:])
    assert run_json("audit", *options, "--schema", one.folder / "schema.yaml")["equal"]
    assert "--registry needs --schema" in run_command("audit", *options, exit_code=2).stderr


@pytest.mark.kafka
def test_a_log_that_lost_its_beginning_is_refused(
    run_command: Callable, trained: Callable[[str], Path], kafka_settings: StreamSettings,
    kafka_topic: Callable[[int], str], tmp_path: Path,
) -> None:  # fmt: skip
    """An answer of which the log has lost what was before is not computed on what is left: its place is named."""
    from confluent_kafka import TopicPartition, admin

    folder, topics = trained("fraud"), {}
    text = (folder / "schema.yaml").read_text()
    for source in load_schema(folder / "schema.yaml").sources:
        topics[source.topic] = kafka_topic(1)
        text = text.replace(f"topic: {source.topic},", f"topic: {topics[source.topic]},")
    schema, topic = tmp_path / "schema.yaml", next(iter(topics.values()))
    schema.write_text(text)
    with EventProducer(kafka_settings) as producer:
        for _ in range(10):
            producer.send(topic, value=b"{}").result(20)
    client = admin.AdminClient({"bootstrap.servers": kafka_settings.kafka_bootstrap})
    for future in client.delete_records([TopicPartition(topic, 0, 6)]).values():
        future.result(20)
    answer = {
        "modelVersion": Checkpoint.load(folder, load_schema(schema)).version, "task": "fraud",
        "graphPosition": {"partitions": [{"topic": topic, "nextOffset": "8"}]},
    }  # fmt: skip
    (tmp_path / "answer.json").write_text(json.dumps({"response": answer}) + "\n")
    refused = run_command(
        "audit", "--checkpoint", folder, "--schema", schema, "--prediction", tmp_path / "answer.json", "--quiet",
        "--bootstrap-servers", kafka_settings.kafka_bootstrap, exit_code=2,
    )  # fmt: skip
    assert f"the log no longer has {topic}/0 before offset 6: " in refused.stderr
