"""Popular and new items: nothing of the future, stale by less than a bucket, whatever the order of arrival."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_transformer.ranking import popularity
from graph_transformer.ranking.popularity import (
    BUCKET_MAX_US,
    BUCKETS_PER_HALF_LIFE,
    SNAPSHOT_ITEMS,
    NewItems,
    Popularity,
)
from temporal_graph.time_rule import ALWAYS_US

BUCKET_US = 1_000
HALF_LIFE_US = BUCKET_US * BUCKETS_PER_HALF_LIFE


def ints(*values: int) -> np.ndarray:
    """int64 of these."""
    return np.array(values, dtype=np.int64)


def test_an_interaction_counts_at_the_end_of_its_bucket() -> None:
    """Not at the last cut-off of the bucket, at the boundary it does, and halves in a half-life."""
    found = Popularity(HALF_LIFE_US)
    found.take(ints(4, -1), ints(1_500, 1_500))
    assert found.top(1_999, 5)[0].tolist() == []
    item, score = found.top(2_000, 5)
    assert item.tolist() == [4]
    assert score[0] == pytest.approx(2 ** (-500 / HALF_LIFE_US))
    assert found.top(1_500 + HALF_LIFE_US, 5)[1][0] == pytest.approx(0.5)
    assert found.top(1_999, 5)[0].tolist() == []


def test_a_long_half_life_is_stale_by_a_day_at_most() -> None:
    """Of ten years a bucket would be two weeks: it is a day."""
    found = Popularity(3_650 * BUCKET_MAX_US)
    found.take(ints(4), ints(1))
    assert found.top(BUCKET_MAX_US - 1, 5)[0].tolist() == []
    assert found.top(BUCKET_MAX_US, 5)[0].tolist() == [4]


def test_one_at_the_boundary_counts_at_it() -> None:
    """Its visible time is the cut-off itself: seen; one microsecond before: not."""
    found = Popularity(HALF_LIFE_US)
    found.take(ints(4), ints(2_000))
    assert found.top(2_000, 5)[0].tolist() == [4]
    assert found.top(1_999, 5)[0].tolist() == []


def test_recent_interactions_outweigh_old_ones() -> None:
    """Two of a half-life and more ago are less than one of now; equal counts stand in the order of rows."""
    found = Popularity(HALF_LIFE_US)
    found.take(ints(1, 1, 3, 2), ints(0, 0, HALF_LIFE_US + BUCKET_US, HALF_LIFE_US + BUCKET_US))
    assert found.top(HALF_LIFE_US, 5)[0].tolist() == [1]
    assert found.top(HALF_LIFE_US + BUCKET_US, 5)[0].tolist() == [2, 3, 1]
    assert found.top(HALF_LIFE_US + BUCKET_US, 2)[0].tolist() == [2, 3]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(-20_000, 2_000_000)), max_size=30),
    st.lists(st.integers(-30_000, 3_000_000), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_top_is_the_decayed_count_of_what_was_visible(
    interactions: list[tuple[int, int]], cutoffs: list[int], parts: int
) -> None:
    """Whatever the order of cut-offs: sums over all that was visible by the last boundary, and nothing later."""
    found = Popularity(HALF_LIFE_US)
    for part in range(parts):
        taken = interactions[part::parts]
        found.take(ints(*(item for item, _ in taken)), ints(*(time for _, time in taken)))
    for cutoff in cutoffs:
        expected = np.zeros(7)
        for item, time in interactions:
            if time <= cutoff // BUCKET_US * BUCKET_US:
                expected[item] += 2.0 ** ((time - cutoff) / HALF_LIFE_US)
        item, score = found.top(cutoff, 10)
        assert sorted(item.tolist()) == np.flatnonzero(expected).tolist()
        assert score == pytest.approx(expected[item])
        assert (np.diff(score) <= 0).all()


def test_a_late_interaction_counts_from_the_newest_snapshot_on() -> None:
    """What was told of the past stays; the next answer has it."""
    found = Popularity(HALF_LIFE_US)
    found.take(ints(1, 1, 1), ints(900, 5_900, 5_900))
    assert found.top(6_000, 5)[0].tolist() == [1]
    found.take(ints(2), ints(1_500))
    assert found.top(6_000, 5)[0].tolist() == [1, 2]
    assert found.top(2_000, 5)[0].tolist() == [1]


def test_counts_bear_centuries() -> None:
    """Times thousands of half-lives apart neither overflow nor are lost."""
    found = Popularity(HALF_LIFE_US)
    times = [0, 400 * HALF_LIFE_US, 700 * HALF_LIFE_US, 10_000 * HALF_LIFE_US]
    found.take(ints(0, 1, 2, 3), ints(*times))
    for item, time in enumerate(times):
        top, score = found.top(time, 1)
        assert (top.tolist(), score.tolist()) == ([item], [1.0])


def test_snapshots_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones are thinned: an answer about the past is older, and never from later."""
    monkeypatch.setattr(popularity, "SNAPSHOTS_MAX", 8)
    found = Popularity(HALF_LIFE_US)
    for step in range(40):
        found.take(ints(step), ints(step * BUCKET_US))
        assert found.top(step * BUCKET_US, 1)[0].tolist() == [step]
    assert len(found._ends) <= 8
    for step in range(40):
        assert found.top(step * BUCKET_US, 1)[0].max(initial=0) <= step


def test_longer_lists_than_are_kept_are_refused() -> None:
    """A snapshot has so many items and no more."""
    found = Popularity(1)
    found.take(np.arange(2 * SNAPSHOT_ITEMS), np.arange(2 * SNAPSHOT_ITEMS) // 7)
    assert len(found.top(10_000, SNAPSHOT_ITEMS)[0]) <= SNAPSHOT_ITEMS
    with pytest.raises(ValueError, match="1000"):
        found.top(10_000, SNAPSHOT_ITEMS + 1)
    with pytest.raises(ValueError, match="half_life_us"):
        Popularity(0)


def test_the_newest_items_are_those_visible_last() -> None:
    """At an item's own microsecond it is the newest, one before it is not there; later arrivals find their place."""
    found = NewItems()
    assert found.newest(5, 3).tolist() == []
    found.take(ints(3, 1, 2), ints(30, 10, ALWAYS_US))
    assert [found.newest(time, 5).tolist() for time in (9, 10, 29, 30)] == [[], [1], [1], [3, 1]]
    found.take(ints(5, 4), ints(10, 20))
    assert found.newest(30, 5).tolist() == [3, 4, 5, 1]
    assert found.newest(30, 2).tolist() == [3, 4]
    assert found.newest(30, 0).tolist() == []
