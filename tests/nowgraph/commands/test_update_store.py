"""Members of a group keep one graph in Redis: what any of them suffers, it ends as the log says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np
import pytest
import redis

from nowgraph.commands.update_store import GROUP
from online_sampler import Sampler, SamplingPlan
from online_sampler.redis_sampler import RedisSampler
from stream.dead_letters import list_dead_letters
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.errors import StoreError
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.redis.view import RedisView
from temporal_graph.schema import Schema, parse_schema

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

SCHEMA = """
version: 1
name: group
tables:
  customers: {primary_key: {customer_id: integer}}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    known_time: broker
    columns: {amount: numerical, shop: categorical}
    links: {customer_id: customers}
sources:
  - {topic: TOPIC, table: payments, format: json}
"""
PARTITIONS, CUSTOMERS = 4, 30
PLAN = SamplingPlan.from_dict({"num_neighbors": [{"hop1": 64}, {"hop2": 4}]})
BEGIN_US = 1_700_000_000_000_000


@pytest.fixture
def topic(kafka_topic: Callable[..., str]) -> str:
    """Where the payments are."""
    return kafka_topic(PARTITIONS)


@pytest.fixture
def schema_path(topic: str, tmp_path: Path) -> Path:
    """The schema, with the topic."""
    path = tmp_path / "schema.yaml"
    path.write_text(SCHEMA.replace("TOPIC", topic))
    return path


def publish(settings: StreamSettings, topic: str, numbers: range) -> None:
    """Payments by key: those of a customer are in one partition."""
    with EventProducer(settings) as producer:
        for number in numbers:
            customer = number % CUSTOMERS
            row = {"payment_id": number, "at": BEGIN_US + number, "amount": float(number), "shop": f"s{number % 5}"}
            value = json.dumps({**row, "customer_id": customer}).encode()
            producer.send(topic, value=value, partition=customer % PARTITIONS)
        assert producer.flush(20) == 0


def answers(sampler: Any) -> list[Any]:
    """Around every customer: the payments, amounts and shops."""
    cutoffs = np.full(CUSTOMERS, BEGIN_US * 2)
    found = sampler.sample_keys("customers", list(range(CUSTOMERS)), cutoffs)
    cells, view = found.columns["payments"], sampler.view
    shops = view.strings("payments", "shop", cells.coded[:, 0])
    keys = view.keys("payments", found.row[found.table == 1])
    return [found.seed_offset.tolist(), keys, cells.numerical[:, 0].tolist(), shops]


def log_alone(settings: StreamSettings, schema: Schema, topic: str, count: int) -> list[Any]:
    """The answers of a graph in RAM that reads the whole log."""
    graph, source = TemporalGraph.create(schema, arena_bytes=1 << 28), KafkaSource([topic], settings=settings)
    decoder, read = Decoder(schema, None, settings=settings), 0
    while read < count:
        batch = source.poll(10_000, 1.0)
        if len(batch):
            decoded = decoder.decode(batch)
            graph.apply(decoded.events, broker_time_us=decoded.broker_time_us)
            read += len(batch)
    source.close()
    return answers(Sampler(graph.view(), PLAN))


def refused(settings: StreamSettings, topic: str) -> list[str]:
    """Why records of the topic are dead letters."""
    where = StreamSettings(kafka_bootstrap=settings.kafka_bootstrap)  # the command's, not this test's
    return [stored.letter.reason for stored in list_dead_letters(where, topic=topic)]


def member(schema_path: Path, store: str, settings: StreamSettings) -> subprocess.Popen[bytes]:
    """A member as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "nowgraph.cli", "update", "--schema", schema_path, "--store", store,
         "--bootstrap-servers", settings.kafka_bootstrap, "--metrics-port", "0", "--quiet"],
    )  # fmt: skip


def wait_until_read(view: RedisView, topic: str, count: int) -> None:
    """Returns once the positions say that so many records were read."""
    deadline_s, read = time.monotonic() + 90, -1
    while read < count:
        assert time.monotonic() < deadline_s, f"{read} of {count} records"
        try:
            read = sum(at for (name, _), at in view.state().positions.items() if name == topic)
        except StoreError:
            read = -1
        time.sleep(0.05)


def test_a_member_alone_keeps_the_whole_graph(
    run_json: Callable, redis_server: Any, kafka_settings: StreamSettings, topic: str, schema_path: Path
) -> None:
    """It reads every partition, a second start goes on where the first stood, and an emptied Redis is filled again."""
    schema = parse_schema(schema_path.read_text())
    command = (
        "update", "--schema", schema_path, "--store", redis_server.url, "--until-caught-up", "--quiet",
        "--bootstrap-servers", kafka_settings.kafka_bootstrap, "--metrics-port", 0,
    )  # fmt: skip
    publish(kafka_settings, topic, range(600))
    with EventProducer(kafka_settings) as producer:  # the graph refuses it: it happens long after the broker had it
        row = {"payment_id": 9_999, "at": 4 * BEGIN_US, "customer_id": 0, "amount": 0.0, "shop": "later"}
        producer.send(topic, value=json.dumps(row).encode(), partition=0).result(10)
    first = run_json(*command)
    assert first["applied"] == 600
    assert refused(kafka_settings, topic) == ["future"]
    publish(kafka_settings, topic, range(600, 700))
    assert (run_json(*command)["applied"], run_json(*command)["applied"]) == (100, 0)
    expected = log_alone(kafka_settings, schema, topic, 700)
    with RedisView.open(redis_server.url, schema) as view:
        assert answers(RedisSampler(view, PLAN)) == expected
        redis_server.kill()
        redis_server.start()
        again = run_json(*command)
        assert again["applied"] == 700
        assert again["store"] != first["store"]
        assert answers(RedisSampler(view, PLAN)) == expected


def test_a_store_that_is_emptied_while_a_member_starts_is_filled(
    run_json: Callable,
    redis_server: Any,
    kafka_settings: StreamSettings,
    topic: str,
    schema_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever replaced the graph that the member has just opened: it joins again, and reads the whole log."""
    publish(kafka_settings, topic, range(50))
    expect, emptied = RedisGraph.expect, []

    def emptied_before(graph: RedisGraph, ends: dict[tuple[str, int], int]) -> None:
        if not emptied:
            with redis.Redis.from_url(redis_server.url) as client:
                emptied.append(client.flushdb())
        expect(graph, ends)

    monkeypatch.setattr(RedisGraph, "expect", emptied_before)
    found = run_json(
        "update", "--schema", schema_path, "--store", redis_server.url, "--until-caught-up", "--quiet",
        "--bootstrap-servers", kafka_settings.kafka_bootstrap, "--metrics-port", 0,
    )  # fmt: skip
    assert (emptied, found["applied"]) == ([True], 50)


def test_two_graphs_of_one_log_each_hold_all_of_it(
    run_json: Callable, redis_server: Any, kafka_settings: StreamSettings, topic: str, schema_path: Path
) -> None:
    """A graph in another Redis, such as the one to move to, takes no record away from the first, nor that from it."""
    schema = parse_schema(schema_path.read_text())
    publish(kafka_settings, topic, range(200))
    first = member(schema_path, redis_server.url, kafka_settings)
    try:
        with RedisView.open(redis_server.url, schema) as view:
            wait_until_read(view, topic, 200)
            second = run_json(
                "update", "--schema", schema_path, "--store", f"{redis_server.url[:-1]}1", "--until-caught-up",
                "--quiet", "--bootstrap-servers", kafka_settings.kafka_bootstrap, "--metrics-port", 0,
            )  # fmt: skip
            assert second["applied"] == 200
            publish(kafka_settings, topic, range(200, 300))
            wait_until_read(view, topic, 300)
    finally:
        first.kill()
        first.wait()


def test_options_of_an_arena_mean_nothing_to_a_store(run_command: Callable, schema_path: Path) -> None:
    """They are refused, and so is neither of the two, or both."""
    base = ("update", "--schema", schema_path, "--bootstrap-servers", "127.0.0.1:1")
    for more in (
        ("--store", "redis://127.0.0.1:1", "--standby"),
        ("--store", "redis://127.0.0.1:1", "--arena", "a"),
        (),
    ):
        assert "--store" in run_command(*base, *more, exit_code=2).stderr


def visit(settings: StreamSettings, group: str, topic: str, *, stay_s: float) -> None:
    """Joins a group, waits until it is given partitions, and leaves so long after it came; reads and writes nothing."""
    given: list[Any] = []
    guest = confluent_kafka.Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": group})
    guest.subscribe([topic], on_assign=lambda _, places: given.extend(places))
    came_s = time.monotonic()
    while not given or time.monotonic() < came_s + stay_s:
        assert time.monotonic() < came_s + 90, "the group gave this member nothing"
        guest.poll(0.1)
    guest.close()


@pytest.mark.faults
def test_partitions_that_move_every_two_seconds_leave_the_logs_graph(
    redis_cluster: Any, kafka_settings: StreamSettings, topic: str, schema_path: Path
) -> None:
    """Another joins and leaves the group of two members, ten times, while records come: all of them are in the graph as
    one reader sees them, and each that is none is a dead letter, once.
    """
    turns, first, each = 10, 300, 150  # a customer's payments fit into a neighborhood
    schema = parse_schema(schema_path.read_text())
    members = [member(schema_path, redis_cluster.url, kafka_settings) for _ in range(2)]
    try:
        publish(kafka_settings, topic, range(first))
        with RedisView.open(redis_cluster.url, schema) as view, EventProducer(kafka_settings) as producer:
            wait_until_read(view, topic, first)
            group = GROUP + view.state().graph
            for turn in range(turns):
                begin = first + turn * each
                publish(kafka_settings, topic, range(begin, begin + each // 2))
                producer.send(topic, value=b"{", partition=turn % PARTITIONS).result(20)
                visit(kafka_settings, group, topic, stay_s=2.0)
                publish(kafka_settings, topic, range(begin + each // 2, begin + each))
            count = first + turns * (each + 1)
            wait_until_read(view, topic, count)
            assert answers(RedisSampler(view, PLAN)) == log_alone(kafka_settings, schema, topic, count)
            assert refused(kafka_settings, topic) == ["invalid_json"] * turns
            assert [one.poll() for one in members] == [None, None]
    finally:
        for process in members:
            process.kill()
            process.wait()


@pytest.mark.faults
def test_members_killed_frozen_and_back_leave_the_logs_graph(
    redis_cluster: Any, kafka_settings: StreamSettings, topic: str, schema_path: Path
) -> None:
    """A member frozen while it writes is replaced and, thawed, writes nothing; one killed is replaced; Redis emptied
    under both is filled again. The graph is that of the log, as one reader of all of it sees it.
    """
    schema = parse_schema(schema_path.read_text())
    first = member(schema_path, redis_cluster.url, kafka_settings)
    second = member(schema_path, redis_cluster.url, kafka_settings)
    try:
        publish(kafka_settings, topic, range(5_000))
        with RedisView.open(redis_cluster.url, schema) as view:
            wait_until_read(view, topic, 1_000)
            first.send_signal(signal.SIGSTOP)
            publish(kafka_settings, topic, range(5_000, 8_000))
            wait_until_read(view, topic, 8_000)
            first.send_signal(signal.SIGCONT)
            publish(kafka_settings, topic, range(8_000, 10_000))
            wait_until_read(view, topic, 9_000)
            second.kill()
            wait_until_read(view, topic, 10_000)
            expected = log_alone(kafka_settings, schema, topic, 10_000)
            assert answers(RedisSampler(view, PLAN)) == expected
            second.wait()
            second = member(schema_path, redis_cluster.url, kafka_settings)
            redis_cluster.flush()
            publish(kafka_settings, topic, range(10_000, 10_100))
            wait_until_read(view, topic, 10_100)
            assert answers(RedisSampler(view, PLAN)) == log_alone(kafka_settings, schema, topic, 10_100)
            assert first.poll() is None
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
