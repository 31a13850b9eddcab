import numpy as np
import pytest

from graph_transformer.ranking import visited as module
from graph_transformer.ranking.visited import Visited
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.fixture(params=["in the tail", "sorted in"])
def visited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Visited:
    """Empty, and sorting in at once or never."""
    monkeypatch.setattr(module, "TAIL_MAX", 1_000 if request.param == "in the tail" else 0)
    return Visited()


def test_counts_are_of_what_was_visible(visited: Visited) -> None:
    """An interaction counts at its own microsecond and not one before; items that nobody took have none."""
    visited.take(ints(3, 3, 1, -1), ints(20, 10, 15, 12))

    assert visited.counts(ints(3, 3, 3, 1, 0, 9), ints(9, 10, 20, 14, 99, 99)).tolist() == [0, 1, 2, 0, 0, 0]
    assert visited.counts(ints(3, 1), ints(99, 99)).tolist() == [2, 1]


def test_last_and_first_times(visited: Visited) -> None:
    """The last is as of the cut-off, whatever came later; the first is of all; both say so where there is none."""
    visited.take(ints(3, 3, 1), ints(20, 10, 15))

    assert visited.last_us(ints(3, 3, 3, 0), ints(9, 19, 20, 99)).tolist() == [ALWAYS_US, 10, 20, ALWAYS_US]
    assert visited.first_us(ints(3, 1, 0, 9)).tolist() == [10, 15, TIME_MAX_US, TIME_MAX_US]


def test_what_arrives_late_counts_too(visited: Visited) -> None:
    """Interactions may come in any order and in several calls; the answer is that of all of them at once."""
    random = np.random.default_rng(0)
    item, time_us = random.integers(0, 6, 60), random.integers(0, 40, 60)
    for part in np.array_split(np.arange(60), 7):
        visited.take(item[part], time_us[part])

    asked, cutoff_us = random.integers(0, 8, 200), random.integers(-1, 42, 200)
    wanted = [int(((item == one) & (time_us <= until)).sum()) for one, until in zip(asked, cutoff_us, strict=True)]
    last = [
        max(time_us[(item == one) & (time_us <= until)].tolist(), default=ALWAYS_US)
        for one, until in zip(asked, cutoff_us, strict=True)
    ]
    assert visited.counts(asked, cutoff_us).tolist() == wanted
    assert visited.last_us(asked, cutoff_us).tolist() == last
