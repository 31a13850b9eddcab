"""Counting floors: decayed counts of everybody and of oneself."""

from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.finetune.ranking.floors_counts import DAY_US, Columns, Popular, Repeat
from graph_transformer.finetune.ranking.histories import Histories, Interactions
from graph_transformer.finetune.ranking.questions import RankingQuestions


def questions(*time_us: int) -> RankingQuestions:
    """Questions of one user at these times."""
    times, count = np.array(time_us, dtype=np.int64), len(time_us)
    zeros = np.zeros(count, dtype=np.int64)
    return RankingQuestions(zeros, times, times, times, np.arange(count + 1), zeros)


def seen(*rows: tuple[int, int]) -> Interactions:
    """(item, day) of one user."""
    item, day = (np.array(each, dtype=np.int64) for each in zip(*rows, strict=True))
    zeros = np.zeros(len(item), dtype=np.int64)
    return Interactions(np.arange(len(item)), zeros, item, day * DAY_US, day * DAY_US, np.full(len(item), 10**16))


NONE = Histories(np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def test_popular_is_as_of_each_question() -> None:
    """The best is 1, an item that comes later 0 until then; a row that changed counts once, from when it was there."""
    rows = seen((4, 1), (4, 1), (9, 1), (7, 3))
    twice = Interactions(
        *(np.append(getattr(rows, name), getattr(rows, name)[-1]) for name in rows.__dataclass_fields__)
    )
    columns = Columns(rows)
    popular = Popular.fitted(columns, twice, 1_000 * DAY_US)
    found = popular.scores(questions(2 * DAY_US, 3 * DAY_US), NONE)
    assert found[0] == pytest.approx([1.0, 0.0, 0.5])
    assert found[1] == pytest.approx([1.0, 0.5, 0.5], rel=1e-2)
    assert columns.of(np.array([7])).tolist() == [1]


def test_one_that_was_had_twice_may_be_worth_less_than_a_recent_one() -> None:
    """Each time counts by its age at the question."""
    columns = Columns(seen((4, 1), (9, 1)))
    history = Histories(np.array([0, 3]), np.array([4, 4, 9]), np.array([0, 0, 9]) * DAY_US)
    found = Repeat(columns, 3 * DAY_US).scores(questions(9 * DAY_US), history)
    assert found[0] == pytest.approx([2 / 8, 1.0])
