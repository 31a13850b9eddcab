"""A bounded source: all before the ends, nothing at or beyond them."""

from __future__ import annotations

import numpy as np
import pytest

from stream.batch import Batch, DeadLetter, Decoded, empty_batch
from stream.bounded_source import BoundedSource, before


def batch_of(topic: str, places: list[tuple[int, int]], decoded: Decoded | None = None) -> Batch:
    """Records by (partition, offset); a value says where it stood."""
    return Batch(
        topic,
        np.array([partition for partition, _ in places], np.int32),
        np.array([offset for _, offset in places], np.int64),
        np.zeros(len(places), np.int64),
        [None] * len(places),
        [f"{partition}/{offset}".encode() for partition, offset in places],
        headers=lambda at: [("at", str(at).encode())],
        decoded=decoded,
    )


class Log:
    """Gives batches in turn, then nothing."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.closed = False

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        return self.batches.pop(0) if self.batches else empty_batch()

    def lag_records(self) -> int:
        return 0

    @property
    def exhausted(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def test_what_lies_at_or_beyond_an_end_is_not_given() -> None:
    """The last record before the end is, the next one is not; partitions without an end give nothing."""
    log = Log(
        [batch_of("a", [(0, 4), (1, 0), (0, 5), (0, 6)]), batch_of("b", [(0, 0)]), batch_of("a", [(1, 1), (1, 2)])]
    )
    source = BoundedSource(log, {("a", 0): 6, ("a", 1): 2})
    first = source.poll(10, 0.0)
    assert first.values == [b"0/4", b"1/0", b"0/5"]
    assert first.headers(2) == [("at", b"2")]
    assert (source.exhausted, source.missing, source.lag_records()) == (False, {("a", 1): 1}, 1)
    assert len(source.poll(10, 0.0)) == 0
    assert source.poll(10, 0.0).values == [b"1/1"]
    assert source.exhausted
    source.close()
    assert log.closed


def test_an_end_at_the_beginning_is_reached_at_once() -> None:
    """Nothing is asked of a log that is to be read up to its first record."""
    assert BoundedSource(Log([]), {("a", 0): 0}).exhausted


def test_a_source_that_goes_on_has_passed_what_came_before() -> None:
    """From a snapshot's offsets on: a partition that has nothing more to give has come to its end."""
    log = Log([batch_of("a", [(0, 4)])])
    source = BoundedSource(log, {("a", 0): 5, ("a", 1): 2}, begin={("a", 0): 4, ("a", 1): 2})
    assert (source.missing, source.lag_records()) == ({("a", 0): 4}, 1)
    assert source.poll(10, 0.0).values == [b"0/4"]
    assert source.exhausted


def test_a_later_record_shows_that_an_end_in_a_gap_was_reached() -> None:
    """Offsets may be missing, as after a compaction: a record beyond the end is enough."""
    source = BoundedSource(Log([batch_of("a", [(0, 3), (0, 9)])]), {("a", 0): 7})
    assert source.poll(10, 0.0).values == [b"0/3"]
    assert source.exhausted


@pytest.mark.parametrize("end", range(5))
def test_what_was_decoded_goes_with_its_records(end: int) -> None:
    """Events, their records, times and dead letters: those of the records before the end."""
    dead = DeadLetter("a", 0, 2, 0, None, b"x", "bad", "")
    decoded = Decoded(
        [b"e0", b"e1a", b"e1b", b"e3"], np.array([0, 1, 1, 3], np.int32), np.arange(4, dtype=np.int64), [dead],
        event_time_us=np.arange(10, 14, dtype=np.int64),
    )  # fmt: skip
    found = before(batch_of("a", [(0, 0), (0, 1), (0, 2), (0, 3)], decoded), {("a", 0): end})
    assert len(found) == end
    assert found.decoded is not None
    assert found.decoded.events == [b"e0", b"e1a", b"e1b", b"e3"][: {0: 0, 1: 1, 2: 3, 3: 3, 4: 4}[end]]
    assert found.decoded.record_index.tolist() == [0, 1, 1, 3][: len(found.decoded.events)]
    assert found.decoded.event_time_us is not None
    assert found.decoded.event_time_us.tolist() == list(range(10, 10 + len(found.decoded.events)))
    assert found.decoded.dead == ([dead] if end > 2 else [])


def test_offsets_without_a_record_are_passed_up_to_the_end() -> None:
    """Marks of transactions at a log's end: it is reached, and no position is beyond it or of another partition."""
    log = Log([batch_of("a", [(0, 3)]), empty_batch({("a", 0): 9, ("b", 0): 2})])
    source = BoundedSource(log, {("a", 0): 5})
    assert source.poll(10, 0.0).values == [b"0/3"]
    assert source.missing == {("a", 0): 4}
    assert source.poll(10, 0.0).next_positions() == {("a", 0): 5}
    assert source.exhausted
