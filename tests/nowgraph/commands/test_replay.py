"""`nowgraph replay` brings every row of files where it was told to, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nowgraph.assembly import history_source, privacy_of
from protos.nowgraph.v1.row_event_pb2 import RowEvent
from stream.decode import Decoder
from stream.embedded_broker import EmbeddedBroker
from stream.kafka_source import KafkaSource
from stream.settings import StreamSettings
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

PRIVATE = """
version: 1
name: private
tables:
  payments:
    primary_key: {id: integer}
    time_column: at
    columns: {card: {kind: categorical, private: true}}
"""


def test_into_an_arena_the_graph_stays_for_readers(
    run_json: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """Every payment is a row that a reader of the folder finds; the order of the files does not change the graph."""
    rows = pq.read_metadata(town[0]).num_rows
    arenas = tmp_path / "one", tmp_path / "two"
    schema = example / "schema.yaml"
    first = run_json("replay", *town, "--schema", schema, "--arena", arenas[0], "--quiet")
    second = run_json("replay", *reversed(town), "--schema", schema, "--arena", arenas[1], "--quiet")
    assert (first["rows"], first["applied"], first["dead letters"]) == (2 * rows, 2 * rows, 0)
    assert first["graph"] == second["graph"]
    view = GraphView.attach(load_schema(schema), arenas[0])
    assert view.row_count("transactions") == rows
    assert len(view.outcomes("transactions", "tx_fraud").row) == rows
    view.close()


def test_rows_that_do_not_fit_are_set_aside_and_counted(
    run_json: Callable, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is no JSON and a row without a key: two dead letters in the file, the good row in the graph."""
    monkeypatch.chdir(tmp_path)
    good = {
        "transaction_id": 1,
        "tx_datetime": "2018-04-01T00:00:00Z",
        "customer_id": 1,
        "terminal_id": 2,
        "tx_amount": 3,
    }
    lines = [json.dumps(good), "{no json", json.dumps({"tx_amount": 1.0})]
    (tmp_path / "transactions.jsonl").write_text("\n".join(lines) + "\n")
    done = run_json("replay", "transactions.jsonl", "--schema", example / "schema.yaml", "--arena", "arena", "--quiet")
    assert (done["rows"], done["applied"], done["dead letters"]) == (3, 1, 2)
    letters = [json.loads(line) for line in (tmp_path / "dead-letters.jsonl").read_text().splitlines()]
    assert [letter["offset"] for letter in letters] == [1, 2]


@pytest.mark.integration
def test_to_kafka_every_row_is_a_row_event(run_json: Callable, example: Path, town: tuple[Path, Path]) -> None:
    """As many records as rows arrive on the topic, in partitions by their row's key."""
    rows = pq.read_metadata(town[0]).num_rows
    with EmbeddedBroker({"events": 2}) as broker:
        done = run_json(
            "replay", town[0], "--schema", example / "schema.yaml", "--bootstrap-servers", broker.bootstrap,
            "--topic", "events", "--quiet",
        )  # fmt: skip
        assert (done["rows"], done["published"]) == (rows, rows)
        source = KafkaSource(["events"], settings=StreamSettings(kafka_bootstrap=broker.bootstrap))
        assert source.lag_records() == rows
        source.close()


@pytest.mark.integration
def test_private_values_are_hashed_once(run_json: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row replayed to Kafka decodes to the event that its file gives: no hash of a hash, no value in the clear."""
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", "a secret of sixteen bytes or more")
    (tmp_path / "schema.yaml").write_text(PRIVATE)
    (tmp_path / "payments.jsonl").write_text('{"id": 1, "at": "2024-01-01T00:00:00Z", "card": "4111"}\n')
    schema, settings = load_schema(tmp_path / "schema.yaml"), StreamSettings()
    decoder = Decoder(schema, privacy_of(schema, settings))
    wanted = history_source(schema, [tmp_path / "payments.jsonl"], settings).poll(1, 1.0).decoded
    with EmbeddedBroker({"events": 1}) as broker:
        run_json(
            "replay", tmp_path / "payments.jsonl", "--schema", tmp_path / "schema.yaml",
            "--bootstrap-servers", broker.bootstrap, "--topic", "events", "--quiet",
        )  # fmt: skip
        source = KafkaSource(["events"], settings=StreamSettings(kafka_bootstrap=broker.bootstrap))
        batch = source.poll(1, 10.0)
        source.close()
    cells = [RowEvent.FromString(event).cells for event in (*wanted.events, *decoder.decode(batch).events)]
    assert cells[0] == cells[1]
    assert b"4111" not in batch.values[0]


def test_a_place_to_go_to_is_needed_and_only_one(
    run_command: Callable, example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """Neither Kafka nor an arena, or both: an error that says so. So is a file that is not there."""
    schema = example / "schema.yaml"
    arena = str(tmp_path / "arena")
    for where in ((), ("--arena", arena, "--bootstrap-servers", "b:1")):
        assert "either" in run_command("replay", town[0], "--schema", schema, *where, exit_code=2).stderr
    missing = run_command("replay", "transactions.parquet", "--schema", schema, "--arena", arena, exit_code=2)
    assert "transactions.parquet" in missing.stderr


def test_at_a_multiple_of_real_time_rows_keep_their_distance(
    run_json: Callable, run_command: Callable, tmp_path: Path
) -> None:
    """An hour of events at 3,600 times its speed takes a second; a speed of nothing is refused."""
    (tmp_path / "schema.yaml").write_text(PRIVATE.replace(", private: true", ""))
    rows = [{"id": hour, "at": f"2018-04-01T0{hour}:00:00Z", "card": "a"} for hour in (1, 2)]
    (tmp_path / "payments.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ("replay", tmp_path / "payments.jsonl", "--schema", tmp_path / "schema.yaml", "--quiet", "--arena")
    found = run_json(*options, tmp_path / "arena", "--speed", "3600")
    assert found["applied"] == 2
    assert found["seconds"] >= 1.0
    assert "speed" in run_command(*options, tmp_path / "other", "--speed", "0", exit_code=2).stderr
