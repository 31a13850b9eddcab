from __future__ import annotations

import numpy as np

from stream.batch import NO_TIMESTAMP_US, Batch, empty_batch
from temporal_graph.time_rule import ALWAYS_US


def batch() -> Batch:
    """Three records of two partitions."""
    return Batch(
        topic="t",
        partition=np.array([1, 0, 1], np.int32),
        offset=np.array([7, 3, 8]),
        timestamp_us=np.array([10, 20, NO_TIMESTAMP_US]),
        keys=[b"a", None, b"c"],
        values=[b"1", b"2", None],
    )


def test_next_positions_are_one_beyond_the_last_of_each_partition() -> None:
    """Only partitions that are in the batch get a position, one after their last record."""
    assert batch().next_positions() == {("t", 0): 4, ("t", 1): 9}
    assert empty_batch().next_positions() == {}


def test_a_dead_letter_is_its_record() -> None:
    """The exact bytes, a missing value too, and the place of the record, with the reason given."""
    letter = batch().dead_letter(2, "late", "too late")
    assert (letter.topic, letter.partition, letter.offset, letter.key, letter.value) == ("t", 1, 8, b"c", None)
    assert (letter.reason, letter.detail, letter.timestamp_us) == ("late", "too late", ALWAYS_US)


def test_a_batch_knows_its_length_and_has_no_headers_unless_given() -> None:
    """The length is that of its records; the empty batch has none."""
    assert len(batch()) == 3
    assert len(empty_batch()) == 0
    assert batch().headers(0) == []
