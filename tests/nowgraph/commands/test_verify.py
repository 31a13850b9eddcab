"""`nowgraph verify` builds the graph anew from the log and compares."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from graph_updater.dead_letter_file import DeadLetterFile
from graph_updater.embedded import UpdaterThread
from graph_updater.settings import UpdaterSettings
from nowgraph.assembly import live_source, updater_of
from nowgraph.commands.verify import lost_beginnings
from nowgraph.demo.player import payment_record
from nowgraph.payments_data import load_payments
from stream.embedded_broker import EmbeddedBroker
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import Snapshots

pytestmark = pytest.mark.integration


def test_a_snapshot_is_the_log(
    run_json: Callable, example: Path, broker: EmbeddedBroker, publish: Callable, killed_updater: Callable
) -> None:
    """Up to where it stands, although the log has gone on; nothing is written. One that can't be used is named."""
    place = killed_updater(100)
    publish(broker, range(100, 150))
    found = run_json("verify", "--schema", example / "schema.yaml", "--snapshots", place, "--quiet",
                     "--bootstrap-servers", broker.bootstrap)  # fmt: skip
    assert found["equal"]
    assert found["hash of the rebuild"] == found["hash of the snapshot"]
    assert found["dead letters"] == 0
    assert found["can't be used"] == ""
    newer = Path(place) / "29990101T000000.000000Z-1"
    newer.mkdir()
    (newer / "manifest.json").write_text('{"version": 999}')
    (Path(place) / "29990101T000000.000000Z-2").mkdir()  # of a process that died
    found = run_json("verify", "--schema", example / "schema.yaml", "--snapshots", place, "--quiet",
                     "--bootstrap-servers", broker.bootstrap)  # fmt: skip
    assert found["equal"]
    assert found["can't be used"] == f"{newer.name}: its manifest has version 999, expected 2"


def test_what_retention_forgets_is_forgotten_on_both_sides(
    run_json: Callable, example: Path, broker: EmbeddedBroker, killed_updater: Callable, tmp_path: Path
) -> None:
    """Whenever its passes fell in the updater that left the snapshot: compared is what the log and the schema keep."""
    schema = tmp_path / "schema.yaml"
    text = (example / "schema.yaml").read_text()
    schema.write_text(text.replace("time_column: tx_datetime", "time_column: tx_datetime\n    retention: {age: 1h}"))
    place = killed_updater(100, 200, schema=schema)
    found = run_json("verify", "--schema", schema, "--snapshots", place, "--quiet",
                     "--bootstrap-servers", broker.bootstrap)  # fmt: skip
    assert found["equal"]


def test_a_snapshot_that_is_not_the_log_is_found_out(
    run_command: Callable, example: Path, other_broker: EmbeddedBroker, publish: Callable, killed_updater: Callable,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Of another log the hashes differ, exit code 1; of a log that lacks records it is said where."""
    place = killed_updater(100)
    options = ("--schema", example / "schema.yaml", "--bootstrap-servers", other_broker.bootstrap, "--quiet")
    publish(other_broker, range(60))
    result = run_command("verify", *options, "--snapshots", place, "--timeout", 1, exit_code=2)
    assert "no record came after transactions/0=30, transactions/1=30" in result.stderr
    publish(other_broker, range(160, 200))
    result = run_command("verify", *options, "--snapshots", place, exit_code=1)
    assert "The two differ" in result.stdout
    result = run_command("verify", *options, "--snapshots", tmp_path / "nothing", exit_code=2)
    assert "no snapshot that can be used" in result.stderr


def test_what_a_log_has_lost_is_what_a_graph_lacks() -> None:
    """Only records between where the graph stands and where it is to stand count, of partitions that the log has."""
    begins = {("t", 0): 6, ("t", 1): 0, ("t", 2): 6, ("t", 3): 6, ("t", 4): 6}
    ends = {("t", 0): 10, ("t", 1): 10, ("t", 2): 3, ("t", 3): 0, ("t", 4): 10, ("t", 5): 10}
    assert lost_beginnings({("t", 4): 6}, ends, begins) == {("t", 0): 6, ("t", 2): 6}
    assert lost_beginnings({("t", 4): 5, ("t", 0): 6}, ends, begins) == {("t", 2): 6, ("t", 4): 6}


@pytest.mark.kafka
def test_a_log_that_lost_its_beginning_is_refused(
    run_json: Callable, run_command: Callable, example: Path, town: tuple[Path, Path], kafka_settings: StreamSettings,
    kafka_topic: Callable[[int], str], tmp_path: Path,
) -> None:  # fmt: skip
    """The partition and its first offset are named, exit code 2; where history stood in its place it is the same."""
    from confluent_kafka import TopicPartition, admin

    payments, topic = load_payments(town[0].parent / "raw"), kafka_topic(2)
    schema = tmp_path / "schema.yaml"
    text = (example / "schema.yaml").read_text().replace("{topic: transactions,", f"{{topic: {topic},")
    schema.write_text(text.replace("{topic: fraud_reports,", f"{{topic: {kafka_topic(1)},"))
    with EventProducer(kafka_settings) as producer:
        for number in range(20):
            producer.send(topic, value=payment_record(payments, number), partition=number % 2).result(20)
    history = tmp_path / "transactions.parquet"
    payments.where(payments.transaction_id < 20).write_transactions(history)
    of_log = _snapshots(schema, kafka_settings, tmp_path / "of log", [], records=20)
    of_both = _snapshots(schema, kafka_settings, tmp_path / "of both", [history], records=40)
    options = ("verify", "--schema", schema, "--bootstrap-servers", kafka_settings.kafka_bootstrap, "--quiet")
    assert run_json(*options, "--snapshots", of_log)["equal"]
    client = admin.AdminClient({"bootstrap.servers": kafka_settings.kafka_bootstrap})
    for future in client.delete_records([TopicPartition(topic, 0, 4)]).values():
        future.result(20)
    refused = run_command(*options, "--snapshots", of_log, exit_code=2)
    assert f"the log no longer has {topic}/0 before offset 4: " in refused.stderr
    verified = run_command(*options, "--snapshots", of_both, "--history", history, "--json")
    assert json.loads(verified.stdout)["equal"]
    assert "log_without_its_beginning" in verified.stderr


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_refused(
    run_command: Callable, example: Path, town: tuple[Path, Path], kafka_settings: StreamSettings,
    kafka_topic: Callable[[int], str], replace_topic: Callable[[str], None], tmp_path: Path,
) -> None:  # fmt: skip
    """By `verify`, and by an updater that goes on from a snapshot, though its position is one that the topic has."""
    payments, topic = load_payments(town[0].parent / "raw"), kafka_topic(1)
    schema = tmp_path / "schema.yaml"
    text = (example / "schema.yaml").read_text().replace("{topic: transactions,", f"{{topic: {topic},")
    schema.write_text(text.replace("{topic: fraud_reports,", f"{{topic: {kafka_topic(1)},"))

    def publish(count: int) -> None:
        with EventProducer(kafka_settings) as producer:
            for number in range(count):
                producer.send(topic, value=payment_record(payments, number), partition=0).result(20)

    publish(5)
    place = _snapshots(schema, kafka_settings, tmp_path / "snapshots", [], records=5)
    replace_topic(topic)
    publish(9)
    options = ("--schema", schema, "--bootstrap-servers", kafka_settings.kafka_bootstrap, "--snapshots", place)
    arena = ("--arena", tmp_path / "arena", "--metrics-port", 0, "--until-caught-up")
    for command in (("verify", *options), ("update", *options, *arena)):
        refused = run_command(*command, "--quiet", exit_code=2)
        assert f"topic '{topic}' was deleted and made anew" in refused.stderr
    assert run_command("update", *options[:-2], *arena, "--quiet", "--json").exit_code == 0


def _snapshots(schema: Path, stream: StreamSettings, place: Path, history: list[Path], *, records: int) -> Path:
    """Where an updater left one that holds so many records."""
    settings = UpdaterSettings(snapshot_interval_s=0.05)
    with TemporalGraph.create(load_schema(schema), arena_bytes=1 << 28) as graph:
        source, logs = live_source(graph, history, stream)
        with DeadLetterFile(place.with_suffix(".dead")) as dead:
            updater = updater_of(graph, source, dead, stream, settings=settings, logs=logs, snapshots=Snapshots(place))
            with UpdaterThread(updater):
                deadline_s = time.monotonic() + 60
                while _held(place) < records:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.02)
    return place


def _held(place: Path) -> int:
    found, _ = Snapshots(place).inventory()
    return sum(found[0].offsets.values()) if found else 0
