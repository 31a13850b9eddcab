"""What measuring quality costs: records a second of CPU time, memory of a row, time of a report.

    python loadtests/bench_quality.py [--rows 200000] [--json]

Bytes as they stand in topics go through the feed that both shells use; fetching them is Kafka's part.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.batch import NO_TIMESTAMP_US, Batch
from stream.quality.config import DAY_US, HOUR_US, AnswerKind, QualitySettings, QualityTask
from stream.quality.feed import Feed
from temporal_graph.schema import parse_schema

START_US = 1_672_531_200_000_000
STEP_US = 10_000
BATCH = 2_000
SCHEMA = """
version: 1
name: payments
tables:
  transactions:
    primary_key: {transaction_id: integer}
    time_column: tx_datetime
    columns: {tx_amount: numerical, tx_fraud: {kind: boolean, outcome: true}}
sources:
  - {topic: transactions, table: transactions, format: json}
  - {topic: reports, table: transactions, format: json, operation: upsert, event_time: known_at, known_time: known_at}
"""
TASK = QualityTask(
    name="fraud",
    kind=AnswerKind.BINARY,
    table="transactions",
    event_level=True,
    label_delay_us=HOUR_US,
    outcome="tx_fraud",
    absence_is_negative=True,
    inputs=("tx_amount",),
)


def prediction(number: int, probability: float) -> bytes:
    """A record of the predictions topic."""
    record = service_pb2.Prediction(answered_time_us=START_US + number * STEP_US)
    record.row.table, record.row.event_time_us = "transactions", START_US + number * STEP_US
    record.row.key.parts.add(integer=number)
    record.row.cells.add(column="tx_amount", number=float(number % 100))
    record.response.task, record.response.model_version = "fraud", "v1"
    record.response.kind, record.response.probability = service_pb2.TARGET_KIND_BINARY, probability
    return record.SerializeToString()


def payment(number: int, _: float) -> bytes:
    """An event that says nothing of outcomes."""
    time_us = START_US + number * STEP_US
    return orjson.dumps({"transaction_id": number, "tx_datetime": time_us, "tx_amount": 1.5})


def report(number: int, chance: float) -> bytes:
    """An outcome."""
    known_us = START_US + number * STEP_US + HOUR_US
    return orjson.dumps({"transaction_id": number, "tx_fraud": chance < 0.1, "known_at": known_us})


def fed(feed: Feed, topic: str, make: Callable[[int, float], bytes], rows: int) -> float:
    """Records a second of CPU time; making them does not count."""
    chances, spent_s = np.random.default_rng(1).random(rows), 0.0
    for start in range(0, rows, BATCH):
        values = [make(number, float(chances[number])) for number in range(start, min(start + BATCH, rows))]
        n = len(values)
        stamps = np.full(n, NO_TIMESTAMP_US, dtype=np.int64)
        batch = Batch(topic, np.zeros(n, np.int32), np.arange(start, start + n), stamps, [None] * n, list(values))
        before_s = time.process_time()
        feed.take(batch)
        spent_s += time.process_time() - before_s
    return rows / spent_s


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = arguments.rows
    feed = Feed([TASK], parse_schema(SCHEMA), settings=QualitySettings(windows_us=(30 * DAY_US,), rows_max=rows))
    before = resident_bytes()
    figures = {"predictions a second": fed(feed, feed.predictions_topic, prediction, rows)}
    figures["bytes a row"] = (resident_bytes() - before) / rows
    figures["outcomes a second"] = fed(feed, "reports", report, rows)
    figures["other events a second"] = fed(feed, "transactions", payment, rows)
    feed.monitor.advance(START_US + rows * STEP_US + HOUR_US)
    before_s = time.process_time()
    measured = feed.report().measured[0]
    figures["report, s"] = time.process_time() - before_s
    assert measured.examples == rows
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    table = Table(title=f"{rows:,} rows", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.0f}" if value > 10 else f"{value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
