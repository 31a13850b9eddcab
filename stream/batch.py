"""What a source hands over (`Batch`) and what a decoder makes of it (`Decoded`): columns, not one object a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from temporal_graph.time_rule import ALWAYS_US

NO_TIMESTAMP_US = ALWAYS_US
"""The timestamp of a record that carries none, as the graph writes the absence of a time."""

FILE_TOPIC_PREFIX = "file:"
"""Begins the topic of rows that come from files; Kafka allows no colon there, so the two cannot be confused."""

Header = tuple[str, bytes | None]
Positions = dict[tuple[str, int], int]
"""The next offset of each (topic, partition): the first one that was not yet read."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot enter the graph: its exact bytes, where it stood, and why.

    `reason` is a short snake_case code to count by; `detail` says it to a person and holds no private value. The bytes
    are exact, so where the record held private values they are in it: who may read the topic it came from may read
    the dead letters, nobody else. `headers` are the record's own.
    """

    topic: str
    partition: int
    offset: int
    timestamp_us: int
    key: bytes | None
    value: bytes | None
    reason: str
    detail: str
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
    """Row events of a batch, in its order, and the records that gave none.

    `events` are serialized RowEvents [M]. `record_index` int32 [M] is the record in the batch that each came from: one
    record may give two events (a changed key) or none (a tombstone). `broker_time_us` int64 [M] is that record's
    timestamp. `event_time_us` int64 [M] is given where the decoder knew it at no cost, else None.
    """

    events: list[bytes]
    record_index: NDArray[np.int32]
    broker_time_us: NDArray[np.int64]
    dead: list[DeadLetter] = field(default_factory=list)
    event_time_us: NDArray[np.int64] | None = None
    ignored_fields: int = 0
    """Fields that the schema does not know, in all records together: counted, not kept."""
    skipped: int = 0
    """Records that say nothing by design, such as tombstones."""


def _no_headers(_: int) -> list[Header]:
    return []


@dataclass(frozen=True, slots=True)
class Batch:
    """N records of one topic, in the order of each partition.

    `partition` int32 [N], `offset` int64 [N], `timestamp_us` int64 [N] (UTC, `NO_TIMESTAMP_US` without one), `keys` and
    `values` are exact bytes or None. `headers(i)` reads those of record i when asked. `backfill` declares history,
    whose known time is its event time. `decoded` is set by sources that must decode in order to read (files). `passed`
    are positions reached without a record: offsets of a log that hold none, such as marks of transactions.
    """

    topic: str
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    timestamp_us: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Callable[[int], list[Header]] = _no_headers
    backfill: bool = False
    decoded: Decoded | None = None
    passed: Positions = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def next_positions(self) -> Positions:
        """Return the positions that hold once every record of this batch is applied."""
        positions = dict(self.passed)
        for partition in np.unique(self.partition).tolist():
            last = int(self.offset[self.partition == partition].max())
            positions[self.topic, partition] = last + 1
        return positions

    def dead_letter(self, index: int, reason: str, detail: str) -> DeadLetter:
        """Return record `index` as a dead letter, with its exact bytes."""
        return DeadLetter(
            topic=self.topic,
            partition=int(self.partition[index]),
            offset=int(self.offset[index]),
            timestamp_us=int(self.timestamp_us[index]),
            key=self.keys[index],
            value=self.values[index],
            reason=reason,
            detail=detail,
            headers=tuple(self.headers(index)),
        )


def empty_batch(passed: Positions | None = None) -> Batch:
    """Return what a poll gives when nothing came in time."""
    return Batch(
        "", np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), (), (), passed=dict(passed or {})
    )
