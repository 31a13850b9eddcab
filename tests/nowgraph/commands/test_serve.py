"""`nowgraph serve` answers: as one process with its own graph, and beside an updater's arena."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nowgraph.client import Client, ClientError
from nowgraph.loading import load_files
from stream.embedded_broker import EmbeddedBroker
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import Snapshots

pytestmark = pytest.mark.integration

TASK = """
version: 1
name: fraud
table: transactions
outcome: tx_fraud
kind: binary
splits: {train: {start: 2018-04-01, end: 2018-04-20}}
sampling_plan:
  num_neighbors: [{hop1: {default: 1}}, {hop2: {default: 8}}]
model: {width: 16, layers: 1, heads: 4}
training: {steps: 3, batch: 32}
"""
CELLS = {"customer_id": 1, "terminal_id": 2, "tx_amount": 30.0}
AFTER_US = 1_525_200_000_000_000  # 2018-05-01: after the town's month


@pytest.fixture(scope="module")
def checkpoint(town: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A model of three steps: what it says is nothing, that it says something is enough."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "task.yaml").write_text(TASK)
    history = [word for path in town for word in ("--history", str(path))]
    subprocess.run(
        [sys.executable, "-m", "nowgraph.cli", "train", "--schema",
         str(repository / "examples" / "payments" / "schema.yaml"), "--task", str(folder / "task.yaml"),
         "--output", str(folder / "model"), "--quiet", *history],
        check=True, timeout=120, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return folder / "model"


def started(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nowgraph.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


@contextmanager
def running(*arguments: object, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until the block ends, then takes SIGTERM and must succeed."""
    process = started(*arguments, environment=environment)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def score_when_ready(target: str, *processes: subprocess.Popen[str]) -> int:
    """Waits until the server answers, and returns how much history it saw."""
    deadline_s = time.monotonic() + 90
    with Client(target, timeout_s=5.0) as client:
        while True:
            try:
                return client.score("transactions", 10**9, CELLS, event_time=AFTER_US).history_count
            except ClientError:
                for process in processes:
                    assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline_s
                time.sleep(0.2)


def test_one_process_loads_history_and_answers(example: Path, town: tuple[Path, Path], checkpoint: Path) -> None:
    """Embedded broker, graph and server in one: it says where it serves, and its answer rests on the history.

    One scrape shows the server and the updater, and spans go where the standard variables say.
    """
    history = [word for path in town for word in ("--history", path)]
    tracing = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with running(
        "serve", "--schema", example / "schema.yaml", "--checkpoint", checkpoint, "--bootstrap-servers", "embedded",
        "--port", 0, "--metrics-port", 0, "--json", *history, environment=tracing,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        where = json.loads("".join(iter_document(process)))
        assert where["kafka"].startswith("127.0.0.1:")
        assert score_when_ready(where["grpc"], process) > 0
        with urllib.request.urlopen(f"http://127.0.0.1:{where['metrics_port']}/metrics", timeout=5) as response:
            scraped = response.read().decode()
        for name in ("nowgraph_requests_total{", "nowgraph_events_applied_total ", "process_open_fds "):
            assert f"\n{name}" in scraped
        assert any('"name": "nowgraph.v1.PredictionService/Score"' in line for line in process.stdout)


def test_an_exporter_that_is_not_there_is_said(
    run_command: Callable, example: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt OTEL_TRACES_EXPORTER stops server and updater before they begin, with the names that there are."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otpl")
    schema = ("--schema", example / "schema.yaml", "--arena", tmp_path)
    for command in (("serve", "--checkpoint", checkpoint), ("update", "--bootstrap-servers", "embedded")):
        result = run_command(*command, *schema, exit_code=2)
        assert "OTEL_TRACES_EXPORTER otpl" in result.stderr
        assert "otlp_proto_grpc" in result.stderr


def test_files_alone_are_served_as_predict_answers_them(
    trained: Callable[[str], Path], run_json: Callable, world: Any, tmp_path: Path
) -> None:
    """Schema from the checkpoint's folder, history from files, no Kafka: an entity's answer is the file's, bit by bit.

    What to try next is shown; ingesting is refused, because there is no log.
    """
    folder = trained("spend")
    history = [word for path in sorted((folder / "history").iterdir()) for word in ("--history", path)]
    asked_us = world.start_us + 45 * 60_000_000
    asked = {"customer_id": [3], "anchor_time": pa.array([asked_us], pa.timestamp("us"))}
    pq.write_table(pa.table(asked), tmp_path / "asked.parquet")
    run_json(
        "predict", "--checkpoint", folder, *history, "--input", tmp_path / "asked.parquet",
        "--output", tmp_path / "answers.parquet", "--fixed-shape",
    )  # fmt: skip
    (offline,) = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    with running(
        "serve", "--checkpoint", folder, "--port", 0, "--metrics-port", 0, "--fixed-shape", *history
    ) as process:
        assert process.stderr is not None
        target = next(line for line in process.stderr if line.startswith("Serving on ")).split()[2].rstrip(",")
        hint = next(line for line in process.stderr if line.strip())
        assert "Client" in hint
        assert target in hint
        with Client(target, timeout_s=20) as client:
            score = client.score("customers", 3, event_time=asked_us)
            with pytest.raises(ClientError, match="without Kafka"):
                client.ingest("transactions", 1, {"tx_amount": 1.0}, event_time=asked_us)
    assert (score.value, score.history_count) == (offline["value"], offline["history_count"])
    assert [{"level": level, "value": value} for level, value in score.quantiles.items()] == offline["quantiles"]


def test_a_rankings_checkpoint_is_served_as_lists(shop: Any, ranking_checkpoint: Path, tmp_path: Path) -> None:
    """The same command: the checkpoint's task decides. Its hint asks for a list, and a click is in the next one."""
    folder = tmp_path / "model"
    shutil.copytree(ranking_checkpoint, folder)
    (folder / "schema.yaml").write_text(shop.schema_text)
    listed = pa.array([shop.start_us + n * shop.day_us for n in range(10)], pa.timestamp("us"))
    items = {"item_id": list(range(10)), "listed_at": listed, "color": ["red", "blue"] * 5, "tags": [["a"]] * 10}
    clicks = {"click_id": list(range(10)), "clicked_at": listed, "user_id": [n % 3 for n in range(10)]}
    (tmp_path / "history").mkdir()
    pq.write_table(pa.table(items), tmp_path / "history" / "items.parquet")
    pq.write_table(pa.table(clicks | {"item_id": list(range(10))}), tmp_path / "history" / "clicks.parquet")
    with running(
        "serve", "--checkpoint", folder, "--history", tmp_path / "history", "--bootstrap-servers", "embedded",
        "--port", 0, "--metrics-port", 0,
        environment={"NOWGRAPH_PRIVACY_SECRET": shop.secret},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        target = next(line for line in process.stderr if line.startswith("Serving on ")).split()[2].rstrip(",")
        assert ").rank(" in next(line for line in process.stderr if line.strip())
        at_us = shop.start_us + 20 * shop.day_us
        with Client(target, timeout_s=20) as client:
            before = client.rank(2, k=10, event_time=at_us)
            token = client.ingest("clicks", 100, {"user_id": 2, "item_id": 5}, event_time=at_us)
            after = client.rank(2, k=10, event_time=at_us, freshness_token=token)
            with pytest.raises(ClientError, match="next_click"):
                client.score("users", 2)
    assert set(before.keys) == set(range(10))
    assert (before.history_count, after.history_count, after.newest_age_us) == (3, 4, 0)


def iter_document(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of the first JSON document on standard output."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if line.startswith("}"):
            return
    raise AssertionError(process.communicate()[1])


def test_beside_an_updater_it_reads_the_same_arena(
    example: Path, town: tuple[Path, Path], checkpoint: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The server may start first: it waits for the graph, and then answers from what the updater keeps."""
    schema, arena, port = example / "schema.yaml", tmp_path / "arena", free_port()
    history = [word for path in town for word in ("--history", path)]
    with (
        running(
            "serve", "--schema", schema, "--checkpoint", checkpoint, "--arena", arena, "--port", port,
            "--metrics-port", 0,
        ) as server,
        running(
            "update", "--schema", schema, "--arena", arena, "--bootstrap-servers", "embedded", "--metrics-port", 0,
            "--quiet", *history,
        ) as updater,
    ):  # fmt: skip
        assert score_when_ready(f"127.0.0.1:{port}", server, updater) > 0


def test_a_restart_is_a_snapshot_and_the_tail_of_the_log(
    trained: Callable[[str], Path], world: Any, tmp_path: Path
) -> None:
    """A process that is killed goes on from its own newest snapshot: neither history nor what it held is read again."""
    folder, snapshots = trained("fraud"), tmp_path / "snapshots"
    topics = {"transactions": 1, "transaction_events": 2, "nowgraph.predictions": 1, "nowgraph.dead-letters": 1}
    at_us = world.start_us + 10**10
    with EmbeddedBroker(topics) as broker, EventProducer(StreamSettings(kafka_bootstrap=broker.bootstrap)) as producer:
        command = (
            "serve", "--checkpoint", folder, "--history", folder / "history", "--bootstrap-servers", broker.bootstrap,
            "--snapshots", snapshots, "--snapshot-every", "50ms", "--port", 0, "--metrics-port", 0, "--json",
        )  # fmt: skip
        first = started(*command)
        try:
            where = json.loads("".join(iter_document(first)))
            with Client(where["grpc"], timeout_s=20) as client:
                for number in range(20):
                    client.ingest("transactions", 1_000 + number, CELLS, event_time=at_us + number)
            until_s = time.monotonic() + 30
            while held(snapshots) < 60 + 5 + 20:
                assert time.monotonic() < until_s
                time.sleep(0.02)
        finally:
            first.kill()
            first.communicate()
        for number in range(5):
            producer.publish_event("transaction_events", world.event(2_000 + number, at_us, customer=1), hashed=True)
        assert producer.flush(10) == 0
        with running(*command) as second:
            where = json.loads("".join(iter_document(second)))
            applied = scraped(where["metrics_port"], "nowgraph_events_applied_total")
            assert (applied, scraped(where["metrics_port"], "nowgraph_ready_seconds") > 0) == (5, True)
            with Client(where["grpc"], timeout_s=20) as client:
                score = client.score("transactions", 9_000, CELLS, event_time=at_us + 10**9)
            assert score.graph_position.sequence == 60 + 5 + 20 + 5


def held(snapshots: Path) -> int:
    """How many records the newest snapshot holds."""
    found, _ = Snapshots(snapshots).inventory()
    return sum(found[0].offsets.values()) if found else 0


def scraped(port: int, name: str) -> float:
    """A value that the process tells Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_options_that_contradict_each_other_are_refused(run_command: Callable, example: Path, tmp_path: Path) -> None:
    """No source of events at all, or history for a graph that belongs to an updater."""
    options = ("serve", "--schema", example / "schema.yaml", "--checkpoint", tmp_path)
    refused = run_command(*options, exit_code=2).stderr
    assert "--history" in refused
    assert "--bootstrap-servers" in refused
    result = run_command(*options, "--arena", tmp_path, "--history", tmp_path / "x", exit_code=2)
    assert "the updater loads history" in result.stderr
    result = run_command(*options, "--store", "redis://redis:6379", "--history", tmp_path / "x", exit_code=2)
    assert "the updater loads history" in result.stderr
    for other in (("--arena", tmp_path), ("--bootstrap-servers", "embedded"), ("--history", tmp_path)):
        assert "snapshots" in run_command(*options, *other, "--snapshots", tmp_path, exit_code=2).stderr
    for other in (("--arena", tmp_path), ("--history", tmp_path)):  # before the graph is waited for or loaded
        refused = run_command(*options, *other, "--device", "cuda:97", exit_code=2).stderr
        assert "NOWGRAPH_SERVER_DEVICE" in refused
        assert "cuda:97" in refused


def test_a_registrys_channel_is_followed(trained: Callable[[str], Path], run_json: Callable, tmp_path: Path) -> None:
    """Two tasks by serving.yaml beside an arena: a promoted version answers seconds later, without a restart."""
    fraud, spend, registry = trained("fraud"), trained("spend"), tmp_path / "registry"
    history = ("--history", fraud / "history")
    first = run_json("models", "push", fraud, "--registry", registry, *history, "--quiet")["version"]
    run_json("models", "promote", "fraud", first, "--registry", registry)
    tasks = [{"name": "fraud", "registry": str(registry)}, {"checkpoint": str(spend)}]
    tenant = {"schema": str(fraud / "schema.yaml"), "arena": str(tmp_path / "arena"), "tasks": tasks}
    config = {"version": 1, "server": {"models_poll_s": 0.1, "port": 0, "metrics_port": 0}, "tenants": [tenant]}
    (tmp_path / "serving.yaml").write_text(json.dumps(config))
    with TemporalGraph.create(load_schema(fraud / "schema.yaml"), arena=tmp_path / "arena") as graph:
        load_files(graph, [fraud / "history"], quiet=True, dead_letters=tmp_path / "dead-letters.jsonl")
        with running("--log-level", "info", "serve", "--config", tmp_path / "serving.yaml") as process:
            target = f"127.0.0.1:{port_of(process)}"
            with Client(target, task="fraud", timeout_s=20) as client, Client(target, task="spend") as spending:
                assert client.score("transactions", 10**9, CELLS).model_version == first
                assert spending.score("customers", 3).value is not None
                second = pushed_again(fraud, tmp_path, registry, run_json)
                run_json("models", "promote", "fraud", second, "--registry", registry)
                until_s = time.monotonic() + 60
                while client.score("transactions", 10**9, CELLS).model_version != second:
                    assert time.monotonic() < until_s
                    time.sleep(0.05)


def test_one_process_takes_its_model_from_a_registry(
    trained: Callable[[str], Path], run_json: Callable, tmp_path: Path
) -> None:
    """History from files, the model from a channel: what is live there answers."""
    folder, registry = trained("fraud"), tmp_path / "registry"
    version = run_json("models", "push", folder, "--registry", registry, "--without-golden")["version"]
    run_json("models", "promote", "fraud", version, "--registry", registry)
    with running(
        "serve", "--registry", registry, "--task", "fraud", "--schema", folder / "schema.yaml",
        "--history", folder / "history", "--port", 0, "--metrics-port", 0, "--json",
    ) as process:  # fmt: skip
        where = json.loads("".join(iter_document(process)))
        with Client(where["grpc"], timeout_s=20) as client:
            assert client.score("transactions", 10**9, CELLS).model_version == version


def test_one_place_says_which_models_are_served(run_command: Callable, tmp_path: Path) -> None:
    """A folder, a registry or serving.yaml, and what a registry cannot say is asked for by name."""
    for options, said in (
        ((), "one of --checkpoint, --registry and --config"),
        (("--checkpoint", tmp_path, "--registry", tmp_path), "one of --checkpoint"),
        (("--registry", tmp_path), "--registry needs --task"),
        (("--config", tmp_path / "serving.yaml", "--arena", tmp_path), "stand in that file"),
        (("--config", tmp_path / "serving.yaml", "--store", "redis://redis:6379"), "stand in that file"),
        (("--checkpoint", tmp_path, "--arena", tmp_path, "--store", "redis://redis:6379"), "one of the two"),
        (("--config", tmp_path / "serving.yaml"), "No such file"),
    ):
        assert said in run_command("serve", *options, exit_code=2).stderr


def pushed_again(folder: Path, tmp_path: Path, registry: Path, run_json: Callable) -> str:
    """Pushes the same model with other weights; gives its version."""
    from graph_transformer.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(folder)
    weights = {name: tensor * 1.1 for name, tensor in checkpoint.weights.items()}
    replace(checkpoint, weights=weights).save(tmp_path / "again")
    version: str = run_json("models", "push", tmp_path / "again", "--registry", registry, "--without-golden")["version"]
    return version


def port_of(process: subprocess.Popen[str]) -> int:
    """The port that the log says it serves on."""
    assert process.stderr is not None
    for line in process.stderr:
        if "serving" in line and "port" in line and (found := re.search(r"\bport\W+(\d+)", line)):
            return int(found[1])
    raise AssertionError(f"the server ended with {process.wait()}")
