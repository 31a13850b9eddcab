"""``nowgraph erase``: through Kafka into a running updater, its arena's file, its snapshots and a rebuild."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import Result

from nowgraph.commands.erase import erasure
from nowgraph.errors import UsageError
from protos.nowgraph.v1 import row_event_pb2 as pb
from stream.embedded_broker import EmbeddedBroker
from stream.privacy import Privacy
from stream.producer import EventProducer
from stream.settings import EVENTS_TOPIC, StreamSettings
from temporal_graph.errors import SchemaError
from temporal_graph.schema import parse_schema
from temporal_graph.snapshots import SnapshotError, Snapshots

SCHEMA = """
version: 1
name: people
tables:
  people:
    primary_key: {id: integer}
    columns: {name: text}
  orders:
    primary_key: {shop: string, number: integer}
    time_column: at
    columns: {note: text}
    links: {person: {table: people, erase: true}}
sources:
  - {topic: nowgraph.events, table: people, format: protobuf}
  - {topic: nowgraph.events, table: orders, format: protobuf}
"""
SECRET = "0123456789abcdef0123"


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """The log."""
    with EmbeddedBroker({EVENTS_TOPIC: 2, "nowgraph.dead-letters": 1}) as running:
        yield running


def history() -> list[pb.RowEvent]:
    """Two people with an order each."""
    events = []
    for person, name in ((1, "Ada Lovelace"), (2, "Grace Hopper")):
        row = pb.RowEvent(table="people", operation=pb.OPERATION_INSERT)
        row.key.parts.add(integer=person)
        row.cells.add(column="name", text=name)
        order = pb.RowEvent(table="orders", operation=pb.OPERATION_INSERT, event_time_us=1_700_000_000_000_000)
        order.key.parts.add(text="shop")
        order.key.parts.add(integer=person)
        order.cells.add(column="note", text=f"{name}'s order")
        order.cells.add(column="person", integer=person)
        events += [row, order]
    return events


def held(place: Path, text: str) -> bool:
    """Whether any file under a folder holds the text; a file may go while it is looked for."""
    for path in place.rglob("*"):
        try:
            if path.is_file() and text.encode() in path.read_bytes():
                return True
        except FileNotFoundError:
            continue
    return False


def copied(place: Path, copies: Path) -> bool:
    """Whether a copy of snapshots that come and go meanwhile is of whole ones that name the person."""
    shutil.rmtree(copies, ignore_errors=True)
    subprocess.run(["cp", "-r", str(place), str(copies)], check=False, stderr=subprocess.DEVNULL)
    for unfinished in copies.glob(".making-*"):
        shutil.rmtree(unfinished)
    snapshots = Snapshots(copies)
    found, refused = snapshots.inventory()
    try:
        for each in found:
            snapshots.verify(each)
    except SnapshotError:
        return False
    return bool(found) and not refused and held(copies, "Ada")


@pytest.mark.integration
def test_a_person_is_erased_everywhere(
    run_json: Callable, broker: EmbeddedBroker, until: Callable[..., None], tmp_path: Path
) -> None:
    """The arena's file and all snapshots lose every byte, the command says what went, and a rebuild forgets as well."""
    schema, arena, place = tmp_path / "schema.yaml", tmp_path / "arena", tmp_path / "snapshots"
    schema.write_text(SCHEMA)
    with EventProducer(StreamSettings(kafka_bootstrap=broker.bootstrap)) as producer:
        for each in history():
            producer.publish_event(EVENTS_TOPIC, each).result(10)
    options = ("--schema", schema, "--bootstrap-servers", broker.bootstrap)
    size = ("--arena-bytes", 64 << 20)
    updater = subprocess.Popen(
        [str(each) for each in (sys.executable, "-m", "nowgraph.cli", "update", *options, "--arena", arena, *size,
         "--snapshots", place, "--snapshot-every", "100ms", "--metrics-port", 0, "--quiet")],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: held(place, "Ada Lovelace") and (arena / "current").exists())
        assert held(arena, "Ada Lovelace")
        copies = tmp_path / "copies"
        until(lambda: copied(place, copies))
        done = run_json("erase", "people", 1, *options, "--arena", arena)
        assert done["removed"] == {
            "people": {"rows": 1, "versions": 1, "links": 0, "strings": 1},
            "orders": {"rows": 1, "versions": 1, "links": 1, "strings": 1},
        }
        assert done["changed"]
        assert not run_json("erase", "people", 1, *options, "--arena", arena, "--until", "2001-01-01")["changed"]
        assert not held(arena, "Ada")
        assert held(arena, "Grace Hopper's order")
        until(lambda: not held(place, "Ada"))
        until(lambda: held(place, "Grace Hopper's order"))
    finally:
        updater.send_signal(signal.SIGTERM)
        assert updater.wait(timeout=20) == 0
    assert run_json("verify", *options, *size, "--snapshots", place, "--quiet")["equal"]
    rebuild = ("--until-caught-up", "--metrics-port", 0, "--arena", tmp_path / "whole", *size, "--quiet")
    run_json("update", *options, *rebuild)
    assert not held(tmp_path / "whole", "Ada")
    assert held(copies, "Ada")
    again = run_json("erase", "people", 1, "--schema", schema, "--snapshots", copies, *size)
    assert len(again["snapshots rewritten"]) == len(Snapshots(copies).inventory()[0]) > 0
    assert not held(copies, "Ada")


def test_a_private_key_is_hashed_before_it_leaves(tmp_path: Path) -> None:
    """As at the door: the event names the digits that the graph knows, never the key."""
    schema = parse_schema(SCHEMA.replace("    columns: {name", "    private: [id]\n    columns: {name"))
    settings = StreamSettings(privacy_secret=SECRET)  # type: ignore[arg-type]
    event = erasure(schema, settings, "people", ["4711"], 5)
    assert event.key.parts[0].text == Privacy(schema, SECRET.encode()).hash(4711)
    assert (event.operation, event.event_time_us) == (pb.OPERATION_ERASE, 5)


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ("people", ["ada"], "people.id: expected an integer"),
        ("people", ["1", "2"], r"each part of its key \(id\), found 2"),
        ("orders", ["shop"], r"each part of its key \(shop, number\), found 1"),
    ],
)
def test_a_key_that_is_none_is_refused(table: str, key: list[str], says: str) -> None:
    """Before anything is published."""
    with pytest.raises(UsageError, match=says):
        erasure(parse_schema(SCHEMA), StreamSettings(), table, key, 5)


def test_a_table_that_is_none_is_refused() -> None:
    """With those that are."""
    with pytest.raises(SchemaError, match="nobody"):
        erasure(parse_schema(SCHEMA), StreamSettings(), "nobody", ["1"], 5)


def test_a_time_that_no_updater_takes_is_refused(run_command: Callable[..., Result], tmp_path: Path) -> None:
    """Before anything is published: it would become a dead letter, and be called erased."""
    schema = SCHEMA.replace("time_column: at", "time_column: at\n    known_time: broker\n    future: 1m")
    (tmp_path / "schema.yaml").write_text(schema)
    command = ("erase", "orders", "shop", 1, "--schema", tmp_path / "schema.yaml", "--until", "2999-01-01")
    refused = run_command(*command, "--bootstrap-servers", "127.0.0.1:1", exit_code=2).stderr
    assert "60 s in the future" in refused


def test_where_to_erase_must_be_said(run_command: Callable[..., Result], tmp_path: Path) -> None:
    """Neither Kafka nor snapshots: an error, and no silence."""
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    command = ("erase", "people", 1, "--schema", tmp_path / "schema.yaml")
    assert "says where to erase" in run_command(*command, exit_code=2).stderr
    waiting = run_command(*command, "--arena", tmp_path, "--snapshots", tmp_path, exit_code=2)
    assert "is waited for" in waiting.stderr


@pytest.mark.integration
def test_a_person_is_erased_from_a_graph_in_redis(
    run_json: Callable, broker: EmbeddedBroker, tmp_path: Path, redis_server: Any
) -> None:
    """The member of the group that reads the erasure does it, counts what went, and leaves no byte of it."""
    schema = tmp_path / "schema.yaml"
    schema.write_text(SCHEMA)
    with EventProducer(StreamSettings(kafka_bootstrap=broker.bootstrap)) as producer:
        for each in history():
            producer.publish_event(EVENTS_TOPIC, each).result(10)
    options = ("--schema", schema, "--bootstrap-servers", broker.bootstrap)
    update = ("update", *options, "--store", redis_server.url, "--until-caught-up", "--metrics-port", 0, "--quiet")

    def rows() -> bytes:
        with redis.Redis.from_url(redis_server.url) as client:
            return b"".join(bytes(client.get(key) or b"") for key in client.keys("*") if client.type(key) == b"string")

    assert run_json(*update)["applied"] == 4
    assert b"Ada Lovelace's order" in rows()
    run_json("erase", "people", 1, *options)
    assert run_json(*update)["applied"] == 1
    assert b"Ada" not in rows()
    assert b"Grace Hopper's order" in rows()
