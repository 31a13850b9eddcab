"""A log of payments that outlives the updater, and updaters that are killed over it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nowgraph.demo.player import payment_record
from nowgraph.payments_data import PaymentColumns, load_payments
from stream.embedded_broker import EmbeddedBroker
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.snapshots import Snapshots

TOPICS = {"transactions": 2, "fraud_reports": 1, "nowgraph.dead-letters": 1}


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A log that outlives the updater."""
    with EmbeddedBroker(TOPICS) as running:
        yield running


@pytest.fixture
def other_broker() -> Iterator[EmbeddedBroker]:
    """Another log."""
    with EmbeddedBroker(TOPICS) as running:
        yield running


@pytest.fixture
def publish(town: tuple[Path, Path]) -> Callable[[EmbeddedBroker, range], None]:
    """Publishes the town's payments of these numbers as JSON over both partitions."""
    payments: PaymentColumns = load_payments(town[0].parent / "raw")

    def publish(broker: EmbeddedBroker, numbers: range) -> None:
        with EventProducer(StreamSettings(kafka_bootstrap=broker.bootstrap)) as producer:
            for number in numbers:
                producer.send("transactions", value=payment_record(payments, number), partition=number % 2)
            assert producer.flush(10) == 0

    return publish


@pytest.fixture
def killed_updater(
    example: Path, broker: EmbeddedBroker, publish: Callable[[EmbeddedBroker, range], None], tmp_path: Path
) -> Callable[..., Path]:
    """Where an updater left snapshots; it was killed, whatever it did, once one held so many payments, then so many."""
    snapshots = tmp_path / "snapshots"

    def killed(*counts: int, schema: Path | None = None) -> Path:
        process = subprocess.Popen(
            [sys.executable, "-m", "nowgraph.cli", "update", "--schema", schema or example / "schema.yaml",
             "--arena", tmp_path / "arena", "--snapshots", snapshots, "--snapshot-every", "50ms",
             "--bootstrap-servers", broker.bootstrap, "--metrics-port", "0", "--quiet"],
        )  # fmt: skip
        try:
            deadline_s = time.monotonic() + 60
            for first, count in zip((0, *counts), counts, strict=False):
                publish(broker, range(first, count))
                while _applied(snapshots) < count:
                    assert process.poll() is None
                    assert time.monotonic() < deadline_s
                    time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=20)
        return snapshots

    return killed


def _applied(folder: Path) -> int:
    """Payments of the newest snapshot."""
    found, _ = Snapshots(folder).inventory()
    return sum(at for (topic, _), at in found[0].offsets.items() if topic == "transactions") if found else 0
