from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson

from stream.batch import Batch
from stream.quality.config import QualityTask
from stream.quality.feed import Feed
from stream.quality.records import Outcome
from stream.settings import StreamSettings
from temporal_graph.schema import parse_schema

START_US = 1_672_531_200_000_000
SCHEMA = """
version: 1
name: payments
tables:
  transactions:
    primary_key: {id: integer}
    time_column: at
    columns: {tx_fraud: {kind: boolean, outcome: true}, tx_amount: numerical}
sources: [{topic: transactions, table: transactions, format: json}]
"""


def batch(topic: str, *values: bytes) -> Batch:
    n = len(values)
    stamps = np.full(n, -(2**63), dtype=np.int64)
    return Batch(topic, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), stamps, [None] * n, list(values))


def test_topics_are_told_apart_and_time_moves_with_every_event(fraud: QualityTask) -> None:
    """An event that is no outcome moves the watermark all the same; what readers skip is in the report."""
    feed = Feed([fraud], parse_schema(SCHEMA), stream=StreamSettings(predictions_topic="p"))
    assert feed.topics == ("p", "transactions")
    assert feed.take(batch("transactions", orjson.dumps({"id": 1, "at": START_US}))) == []
    assert feed.report().watermark_us == START_US
    found = feed.take(batch("transactions", orjson.dumps({"id": 1, "at": START_US + 1_000_000, "tx_fraud": True})))
    assert found == [Outcome("fraud", (1,), START_US + 1_000_000, (1.0,))]
    assert feed.take(batch("p", b"\xff", b"\xff")) == []
    assert feed.take(batch("transactions", b"{")) == []
    assert feed.report().skipped == {"undecodable": 3}
    assert feed.report().taken == {"outcomes": 1}


def test_one_feed_measures_several_tasks(fraud: QualityTask) -> None:
    """Each task of the graph has outcomes of its own from the same event."""
    feed = Feed([fraud, replace(fraud, name="again")], parse_schema(SCHEMA))
    found = feed.take(batch("transactions", orjson.dumps({"id": 1, "at": START_US, "tx_fraud": False})))
    assert sorted(one.task for one in found if isinstance(one, Outcome)) == ["again", "fraud"]
