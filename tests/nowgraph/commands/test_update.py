"""`nowgraph update` keeps the graph in an arena: history, then Kafka, nothing missing and nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nowgraph.demo.player import payment_record
from nowgraph.payments_data import PaymentColumns, load_payments
from stream.embedded_broker import EmbeddedBroker
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

pytestmark = pytest.mark.integration

TOPICS = {"transactions": 2, "fraud_reports": 1, "nowgraph.dead-letters": 1}


@pytest.fixture
def payments(town: tuple[Path, Path]) -> PaymentColumns:
    """The town's payments as columns."""
    return load_payments(town[0].parent / "raw")


def publish(settings: StreamSettings, payments: PaymentColumns, numbers: range) -> None:
    """Publishes payments as JSON over both partitions."""
    with EventProducer(settings) as producer:
        for number in numbers:
            producer.send("transactions", value=payment_record(payments, number), partition=number % 2)
        assert producer.flush(10) == 0


def test_history_from_files_goes_on_at_the_offsets_given(
    run_json: Callable, example: Path, payments: PaymentColumns, tmp_path: Path
) -> None:
    """Two thirds from a file and the rest from Kafka behind older records: the graph is that of one file alone."""
    count = len(payments) // 3 * 3
    payments = payments.where(payments.transaction_id < count)
    cut = count * 2 // 3
    for name, chosen in (("part", payments.transaction_id < cut), ("whole", payments.transaction_id >= 0)):
        (tmp_path / name).mkdir()
        payments.where(chosen).write_transactions(tmp_path / name / "transactions.parquet")
    schema = example / "schema.yaml"
    whole = run_json("replay", tmp_path / "whole" / "transactions.parquet", "--schema", schema,
                     "--arena", tmp_path / "a", "--quiet")  # fmt: skip
    with EmbeddedBroker(TOPICS) as broker:
        settings = StreamSettings(kafka_bootstrap=broker.bootstrap)
        # What the file holds was on Kafka too: 20 older records in each partition, which must not come again.
        publish(settings, payments, range(cut - 40, cut))
        publish(settings, payments, range(cut, count))
        found = run_json(
            "update", "--schema", schema, "--arena", tmp_path / "b", "--bootstrap-servers", broker.bootstrap,
            "--history", tmp_path / "part" / "transactions.parquet", "--from", "transactions/0=20",
            "--from", "transactions/1=20", "--until-caught-up", "--metrics-port", 0, "--quiet",
        )  # fmt: skip
    assert (found["applied"], found["duplicate"]) == (count, 0)
    assert found["graph"] == whole["graph"]


def test_a_graph_is_served_only_once_its_history_is_in_it(
    run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """With empty topics, too, catching up means that every row of the files is applied."""
    rows = sum(pq.read_metadata(path).num_rows for path in town)
    history = [word for path in town for word in ("--history", path)]
    found = run_json(
        "update", "--schema", example / "schema.yaml", "--arena", tmp_path / "arena", "--bootstrap-servers", "embedded",
        "--until-caught-up", "--metrics-port", 0, "--quiet", *history,
    )  # fmt: skip
    assert found["applied"] == rows


def test_every_start_is_a_new_generation_with_the_same_graph(
    run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """A reader of the first start learns that it was superseded; the rebuilt graph has the same canonical hash."""
    schema = example / "schema.yaml"
    options = (
        "update", "--schema", schema, "--arena", tmp_path / "arena", "--bootstrap-servers", "embedded",
        "--until-caught-up", "--metrics-port", 0, "--quiet", "--history", town[0],
    )  # fmt: skip
    first = run_json(*options)
    view = GraphView.attach(load_schema(schema), tmp_path / "arena")
    assert not view.superseded
    second = run_json(*options)
    assert (first["generation"], second["generation"]) == (1, 2)
    assert first["graph"] == second["graph"]
    assert view.superseded
    assert view.row_count("transactions") == pq.read_metadata(town[0]).num_rows
    view.close()


def test_columns_move_to_the_disk_by_the_schema_alone(
    run_json: Callable, run_command: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """The graph stays the same by hash, and readers with the old schema go on; without a folder the table is named."""
    old, new = example / "schema.yaml", tmp_path / "schema.yaml"
    new.write_text(
        old.read_text().replace("    time_column: tx_datetime\n", "    time_column: tx_datetime\n    storage: disk\n")
    )
    history = [word for path in town for word in ("--history", path)]
    options = (
        "update", "--arena", tmp_path / "arena", "--bootstrap-servers", "embedded", "--until-caught-up",
        "--metrics-port", 0, "--quiet", *history,
    )  # fmt: skip
    before = run_json(*options, "--schema", old)
    refused = run_command(*options, "--schema", new, exit_code=2)
    assert "the columns of transactions are to lie on disk" in refused.stderr
    assert "--columns" in refused.stderr
    after = run_json(*options, "--schema", new, "--columns", tmp_path / "disk")
    assert after["graph"] == before["graph"]
    assert len(list((tmp_path / "disk").glob("*/gen-*.columns"))) == 1
    view = GraphView.attach(load_schema(old), tmp_path / "arena")
    assert not np.isnan(view.versions("transactions").numerical).any()
    view.close()


def test_a_wrong_offset_is_refused(run_command: Callable, example: Path, tmp_path: Path) -> None:
    """--from needs topic/partition=offset; the error shows how."""
    for wrong in ("transactions", "transactions/0", "transactions/x=1", "=1", "/0=1"):
        result = run_command(
            "update", "--schema", example / "schema.yaml", "--arena", tmp_path / "arena", "--from", wrong,
            "--bootstrap-servers", "embedded", "--quiet", exit_code=2,
        )  # fmt: skip
        assert "topic/partition=offset" in result.stderr


def test_a_process_serves_readers_until_it_is_told_to_stop(
    example: Path, payments: PaymentColumns, town: tuple[Path, Path], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Readers find the graph once it has caught up, see what arrives, metrics answer, and SIGTERM ends it cleanly."""
    schema = example / "schema.yaml"
    rows = pq.read_metadata(town[0]).num_rows
    with EmbeddedBroker(TOPICS) as broker:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "nowgraph.cli", "update", "--schema", schema, "--arena", tmp_path / "arena",
             "--bootstrap-servers", broker.bootstrap, "--history", town[1], "--metrics-port", str(port), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            view = _attached(schema, tmp_path / "arena", process)
            publish(StreamSettings(kafka_bootstrap=broker.bootstrap), payments, range(50))
            deadline_s = time.monotonic() + 20
            while sum(at for (topic, _), at in view.position().offsets.items() if topic == "transactions") < 50:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            assert view.row_count("customers") > 0
            assert len(view.outcomes("transactions", "tx_fraud").row) == rows
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert b"nowgraph_events_applied_total" in answer.read()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["applied"] == rows + 50
    assert "Traceback" not in err


def test_a_start_waits_for_its_broker(example: Path, tmp_path: Path) -> None:
    """While the broker is away the start says so and goes on waiting; when it comes, the graph is made."""
    with EmbeddedBroker(TOPICS) as broker:
        broker.set_down(down=True)
        process = _starting(example, tmp_path, broker.bootstrap, patience_s=300, more=["--until-caught-up"])
        try:
            _until_it_waits(process)
            broker.set_down(down=False)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["generation"] == 1


def test_a_start_told_to_stop_while_it_waits_ends_cleanly(example: Path, tmp_path: Path) -> None:
    """Exit code 0 and what was done: nothing; the arena has no generation, and the next start makes the first."""
    process = _starting(example, tmp_path, "127.0.0.1:1", patience_s=300)
    try:
        _until_it_waits(process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["applied"] == 0
    assert "Traceback" not in err
    assert not list((tmp_path / "arena").glob("gen-*"))


def test_a_broker_that_does_not_come_is_an_error(example: Path, tmp_path: Path) -> None:
    """Once the patience is over, one line says where nobody answered."""
    process = _starting(example, tmp_path, "127.0.0.1:1", patience_s=0)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    said = [line for line in err.splitlines() if line.startswith("nowgraph: ")]
    assert len(said) == 1
    assert "127.0.0.1:1" in said[0]
    assert "waiting_for_kafka" not in err


def _starting(
    example: Path, tmp_path: Path, bootstrap: str, *, patience_s: float, more: Sequence[str] = ()
) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "nowgraph.cli", "update", "--schema", example / "schema.yaml", "--metrics-port", "0",
        "--arena", tmp_path / "arena", "--bootstrap-servers", bootstrap, "--quiet", "--json", *more,
    ]  # fmt: skip
    patience = {"NOWGRAPH_BROKER_TIMEOUT_S": "0.5", "NOWGRAPH_START_PATIENCE_S": str(patience_s)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **patience}
    )


def _until_it_waits(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "waiting_for_kafka" in line:
            return
    raise AssertionError("".join(said))


def _attached(schema: Path, arena: Path, process: subprocess.Popen[str]) -> GraphView:
    from temporal_graph.errors import ArenaError

    deadline_s = time.monotonic() + 60
    while True:
        try:
            return GraphView.attach(load_schema(schema), arena)
        except ArenaError:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
