"""Item-to-item floors against their definitions, on a handful of interactions."""

from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.finetune.ranking import floors_items
from graph_transformer.finetune.ranking.floors_counts import Columns
from graph_transformer.finetune.ranking.floors_items import (
    BACKWARD,
    COSINE_SHRINK,
    EASE_PENALTY,
    HISTORY_DECAY,
    ItemFloor,
    co_visitation,
    ease,
    item_neighbors,
)
from graph_transformer.finetune.ranking.histories import Histories, Interactions
from graph_transformer.finetune.ranking.questions import RankingQuestions


def interactions(*rows: tuple[int, int, int]) -> Interactions:
    """(user, item, time), by user and time."""
    user, item, time = (
        np.array(each, dtype=np.int64) for each in zip(*sorted(rows, key=lambda r: r[::2]), strict=True)
    )
    return Interactions(np.arange(len(user)), user, item, time, time, np.full(len(user), 10**15))


SEEN = interactions((0, 10, 1), (0, 11, 2), (0, 12, 2), (1, 10, 1), (1, 11, 5), (1, 10, 6), (2, 12, 3), (-1, 11, 1))
COLUMNS = Columns(SEEN)


def scores(floor: ItemFloor, *history: int) -> np.ndarray:
    """The scores of one question with these items, oldest first."""
    one, zero = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    questions = RankingQuestions(zero, one, one, one, np.array([0, 1]), np.array([10]))
    item = np.array(history, dtype=np.int64)
    found: np.ndarray = floor.scores(questions, Histories(np.array([0, len(item)]), item, np.arange(len(item))))[0]
    return found


def had() -> np.ndarray:
    """Users by items, of known users."""
    return np.array([[1, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=np.float64)


def test_neighbors_are_the_cosine_of_who_had_them() -> None:
    """Shrunk, an item its own neighbor; an item that is twice in the history counts once."""
    together, degree = had().T @ had(), had().sum(axis=0)
    cosine = together / (np.sqrt(np.outer(degree, degree)) + COSINE_SHRINK)
    floor = item_neighbors(COLUMNS, SEEN)
    assert scores(floor, 10) == pytest.approx(cosine[0], rel=1e-6)
    assert scores(floor, 10, 12, 10) == pytest.approx(cosine[0] + cosine[2], rel=1e-6)


def test_co_visits_fall_with_places_and_go_forward() -> None:
    """By hand: 1 / places apart along the time, less against it, both ways at one time; rows sum to one."""
    weight = np.zeros((3, 3))
    for first, later, gap in ((0, 1, 1), (0, 2, 2), (0, 1, 1), (1, 0, 1), (0, 0, 2)):
        weight[first, later] += 1.0 / gap
        weight[later, first] += BACKWARD / gap
    weight[1, 2] += 1.0
    weight[2, 1] += 1.0
    weight /= weight.sum(axis=1, keepdims=True)
    floor = co_visitation(COLUMNS, SEEN)
    for item in range(3):
        assert scores(floor, 10 + item) == pytest.approx(weight[item], rel=1e-6)
    assert scores(floor, 11, 10) == pytest.approx(weight[0] + HISTORY_DECAY * weight[1], rel=1e-6)


def test_pairs_beyond_the_window_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places apart count in a window of two, not in one of one."""
    rows = interactions((0, 10, 1), (0, 11, 2), (0, 12, 3))
    for window, expected in ((1, 0.0), (2, 1 / 3)):
        monkeypatch.setattr(floors_items, "WINDOW", window)
        assert scores(co_visitation(Columns(rows), rows), 10)[2] == pytest.approx(expected)


def test_ease_is_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The regression of each item on the others; of too many items the most frequent are kept, others have no score."""
    inverse = np.linalg.inv(had().T @ had() + EASE_PENALTY * np.eye(3))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    assert scores(ease(COLUMNS, SEEN), 10) == pytest.approx(weights[0], rel=1e-3)
    assert scores(ease(COLUMNS, SEEN), 10, 11) == pytest.approx(weights[0] + weights[1], rel=1e-3)
    monkeypatch.setattr(floors_items, "EASE_ITEMS_MAX", 2)
    part = had()[:, :2]
    inverse = np.linalg.inv(part.T @ part + EASE_PENALTY * np.eye(2))
    kept = scores(ease(COLUMNS, SEEN), 10)
    assert kept[1] == pytest.approx(-inverse[0, 1] / inverse[1, 1], rel=1e-3)
    assert kept[2] == 0.0


def test_nothing_seen_gives_no_scores() -> None:
    """Before anybody did anything every floor is silent."""
    nothing = SEEN.select(np.zeros(len(SEEN), dtype=bool))
    for fitted in (item_neighbors, co_visitation, ease):
        assert scores(fitted(COLUMNS, nothing), 10).tolist() == [0.0, 0.0, 0.0]
