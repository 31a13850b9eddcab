from __future__ import annotations

import numpy as np
import pytest

from loadtests.bench_graph import EVENTS_PER_NODE, SPAN_US, START_US, pieces, powerlaw_events

COUNT = 10_000


def test_how_much_is_drawn_at_once_changes_no_event() -> None:
    """The events of a seed are the same whether they are drawn whole or piece by piece, a last short one among them."""
    whole, parts = powerlaw_events(COUNT, piece=COUNT), powerlaw_events(COUNT, piece=333)
    for column in ("user", "merchant", "event_time_us"):
        assert np.array_equal(getattr(whole, column), getattr(parts, column))
    assert not np.array_equal(whole.user, powerlaw_events(COUNT, seed=2).user)


def test_events_are_those_of_the_definition_drawn_whole() -> None:
    """Users are drawn by the square, merchants by the fourth power, and then the times, in this order of one stream."""
    random = np.random.default_rng(1)
    nodes = COUNT // EVENTS_PER_NODE
    keys = []
    for power in (2.0, 4.0):
        ranks = (nodes * random.random(COUNT) ** power).astype(np.int64)
        keys.append(random.permutation(nodes)[ranks])
    times = START_US + np.sort(random.integers(0, SPAN_US, COUNT))
    events = powerlaw_events(COUNT)
    assert np.array_equal(events.user, keys[0])
    assert np.array_equal(events.merchant, keys[1])
    assert np.array_equal(events.event_time_us, times)


def test_columns_take_sixteen_bytes_an_event_and_a_batch_is_as_the_graph_takes_it() -> None:
    """Hundreds of millions of events fit: keys take half a word each, and are widened a batch at a time."""
    events = powerlaw_events(COUNT)
    assert sum(column.nbytes for column in (events.user, events.merchant, events.event_time_us)) == 16 * COUNT
    batch = events.batch(slice(10, 30))
    assert batch.user.dtype == batch.merchant.dtype == batch.event_time_us.dtype == np.int64
    assert np.array_equal(batch.merchant, events.merchant[10:30])


@pytest.mark.parametrize(("count", "size"), [(0, 4), (8, 4), (9, 4), (3, 4)])
def test_pieces_cover_everything_once(count: int, size: int) -> None:
    """Slices follow one another from the first to the last number, none longer than it may be."""
    found = [number for part in pieces(count, size) for number in range(count)[part]]
    assert found == list(range(count))
    assert all(part.stop - part.start <= size for part in pieces(count, size))
