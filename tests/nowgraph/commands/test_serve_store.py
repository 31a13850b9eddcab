"""`nowgraph serve --store`: Kafka to score with the graph in Redis, each part a process, and Redis killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nowgraph.client import Client, ClientError, UnavailableError
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = [pytest.mark.integration, pytest.mark.kafka]
WAIT_S = 120
CUSTOMER, CARD = 424_242, "4999-0000-1111"


@pytest.fixture
def started(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands as processes that end with the test."""
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", world.secret)
    monkeypatch.setenv("NOWGRAPH_SERVER_DEADLINE_DEFAULT_MS", "20000")  # one that a loaded machine can hold
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "nowgraph.cli", *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_what_the_group_writes_the_servers_answer_from(
    world: Any,
    redis_server: Any,
    kafka_settings: StreamSettings,
    kafka_topic: Callable[..., str],
    started: Callable[..., subprocess.Popen[str]],
    free_port: Callable[[], int],
    tmp_path: Path,
    workers: int,
) -> None:
    """An event that was published is in the answer that asks for it; with Redis killed there is none, and why is said;
    an empty one is filled again by the updater, and the servers answer as before, without being touched.
    """
    topics = {name: kafka_topic(1) for name in ("transactions", "transaction_events")}
    text = world.schema_text
    for name, topic in topics.items():
        text = text.replace(f"topic: {name},", f"topic: {topic},")
    (tmp_path / "schema.yaml").write_text(text)
    with EventProducer(kafka_settings) as producer:
        for number in range(20):
            event = world.event(number, world.start_us + number, customer=number % 5)
            producer.publish_event(topics["transaction_events"], event, hashed=True)
        assert producer.flush(20) == 0
    common = ("--schema", tmp_path / "schema.yaml", "--store", redis_server.url, "--bootstrap-servers",
              kafka_settings.kafka_bootstrap, "--metrics-port", 0)  # fmt: skip
    port = free_port()
    server = started(
        "serve", "--checkpoint", world.checkpoint, *common, "--port", port, "--workers", workers, "--quiet"
    )
    updater = started("update", *common, "--quiet")  # the server waits for its graph
    with Client(f"127.0.0.1:{port}", timeout_s=20) as client:
        asked_us = world.start_us + 10**10

        def history(customer: int) -> int:
            cells = {"customer_id": customer}
            return client.score("transactions", 10**6, cells, event_time=asked_us + 10**9).history_count

        def wait_for(*histories: int) -> None:
            deadline_s, seen = time.monotonic() + WAIT_S, [-1]
            while seen != list(histories):
                assert time.monotonic() < deadline_s, seen
                assert (server.poll(), updater.poll()) == (None, None)
                try:
                    seen = [history(3), history(CUSTOMER)]
                except ClientError:
                    time.sleep(0.1)

        wait_for(4, 0)
        for number in range(3):
            cells = {"tx_amount": 10.0 + number, "customer_id": CUSTOMER, "terminal_id": 77, "card_number": CARD}
            token = client.ingest("transactions", 50_000 + number, cells, event_time=asked_us + number)
            score = client.score(
                "transactions", 10**6, {"customer_id": CUSTOMER}, event_time=asked_us + 10**9, freshness_token=token
            )
            assert score.history_count == number + 1
            assert score.graph_position.offsets[token.topic, token.partition] > token.offset

        redis_server.kill()
        with pytest.raises(UnavailableError, match="the graph's store in Redis"):
            history(3)
        redis_server.start()
        wait_for(4, 3)
    for process in (server, updater):
        process.send_signal(signal.SIGTERM)
    assert (server.wait(timeout=60), updater.wait(timeout=60)) == (0, 0)
