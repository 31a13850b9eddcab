"""Figures of lists: by hand where they can be drawn, against their definitions where they can not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.metrics import Measured
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions, questions_before
from graph_transformer.finetune.task_file import Anchors
from temporal_graph.view import GraphView

from .conftest import Shop

Bind = Callable[[str], BoundQuery]
S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"


def measured(view: GraphView, query: BoundQuery, *, from_us: int, new_within_us: int = 5 * S) -> Measured:
    """The questions from a time on, with what measuring them needs."""
    ranked = query.target("next").ranked
    assert ranked is not None
    found = questions_before(view, query, Anchors(before="orders", last_us=10**15))
    questions, interactions = found.select(found.time_us >= from_us - 1), Interactions.of(view, ranked)
    seen = interactions.histories(questions)
    return Measured(questions, seen, Presence(view, "items"), interactions, from_us, new_within_us)


def lists_of(*lists: list[int]) -> np.ndarray:
    """int64 [n, longest], filled with -1."""
    width = max(len(each) for each in lists)
    return np.array([each + [-1] * (width - len(each)) for each in lists], dtype=np.int64)


def test_figures_of_one_basket(opened: Shop, bound: Bind) -> None:
    """Of two wanted items one stands second of three: each figure by its definition."""
    view = opened([(7, 0, 10 * S), (7, 1, 10 * S)], items=[0, 0, 0, 0])
    rows = view.row_index("items", [2, 1, 3])
    made = measured(view, bound(NEXT), from_us=0).measure(rows[None], 3)
    ideal = 1.0 + 1.0 / math.log2(3)
    assert (made.count, made.k, made.hit_rate, made.recall, made.mrr) == (1, 3, 1.0, 0.5, 0.5)
    assert made.ndcg == pytest.approx(1.0 / math.log2(3) / ideal)
    assert made.map == pytest.approx(0.25)
    assert (made.coverage, made.unseen) == (0.75, 1.0)
    assert measured(view, bound(NEXT), from_us=0).measure(rows[None, :1], 1).hit_rate == 0.0


@given(st.data())
def test_figures_follow_their_definitions(data: st.DataObject) -> None:
    """For any lists and any wanted items."""
    count, k, items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4)), 8
    wanted = [sorted(data.draw(st.sets(st.integers(0, items - 1), min_size=1))) for _ in range(count)]
    lists = [data.draw(st.lists(st.integers(0, items - 1), unique=True, max_size=6)) for _ in range(count)]
    nothing, zeros = np.zeros(0, dtype=np.int64), np.zeros(count, dtype=np.int64)
    offset = np.cumsum([0, *(len(each) for each in wanted)])
    questions = RankingQuestions(np.arange(count), zeros, zeros, zeros, offset, np.concatenate(wanted))
    interactions = Interactions(*[nothing] * 6)
    full = lists_of(*lists, [0] * k)[:-1]
    made = Measured(questions, interactions.histories(questions), _Always(items), interactions, 0, 0).measure(full, k)  # type: ignore[arg-type]
    expected = [_by_hand(each, set(items), k) for each, items in zip(lists, wanted, strict=True)]
    mean = np.mean(expected, axis=0)
    assert (made.hit_rate, made.ndcg, made.mrr, made.map, made.recall) == pytest.approx(tuple(mean))
    assert made.parts["new"].ndcg == pytest.approx(made.ndcg)
    assert made.parts["repeats"].count == 0


class _Always:
    """Items that are always there."""

    timeless = True

    def __init__(self, items: int) -> None:
        self.first_us = np.zeros(items)

    def at(self, row: np.ndarray, _: np.ndarray) -> np.ndarray:
        """All of them."""
        return np.ones(row.shape, dtype=bool)


def _by_hand(ranked: list[int], wanted: set[int], k: int) -> tuple[float, ...]:
    hits = [place for place, item in enumerate(ranked[:k]) if item in wanted]
    best = sum(1.0 / math.log2(place + 2) for place in range(min(k, len(wanted))))
    precision = sum((order + 1) / (place + 1) for order, place in enumerate(hits))
    return (
        float(bool(hits)),
        sum(1.0 / math.log2(place + 2) for place in hits) / best,
        1.0 / (hits[0] + 1) if hits else 0.0,
        precision / min(k, len(wanted)),
        len(hits) / len(wanted),
    )


def test_repeats_and_new_items_are_ranked_among_themselves(opened: Shop, bound: Bind) -> None:
    """A repeat behind three new items is the first of the repeats; who wants no repeat is not asked for one."""
    view = opened([(7, 0, 5 * S), (7, 0, 10 * S), (7, 1, 10 * S), (8, 2, 11 * S)], items=[0] * 5)
    rows = view.row_index("items", [3, 4, 2, 0, 1])
    made = measured(view, bound(NEXT), from_us=10 * S).measure(np.stack([rows, rows]), 2)
    assert (made.count, made.ndcg) == (2, 0.0)
    assert (made.parts["repeats"].count, made.parts["repeats"].ndcg) == (1, 1.0)
    assert (made.parts["new"].count, made.parts["new"].hit_rate) == (2, 0.0)
    assert measured(view, bound(NEXT), from_us=10 * S).measure(np.stack([rows, rows]), 3).parts["new"].hit_rate == 0.5


def test_cold_users_and_items_are_told_apart(opened: Shop, bound: Bind) -> None:
    """Those first seen at the split's first microsecond are cold, those seen just before it are not."""
    start_us = 10 * S
    view = opened([(7, 0, start_us - 1), (7, 1, start_us), (8, 0, start_us), (7, 0, start_us + S)], items=[0, 0])
    zero, one = view.row_index("items", [0, 1])
    made = measured(view, bound(NEXT), from_us=start_us).measure(np.array([[zero, one]] * 3), 2)
    assert made.count == 3
    assert (made.parts["cold_users"].count, made.parts["cold_users"].mrr) == (1, 1.0)
    assert (made.parts["cold_items"].count, made.parts["cold_items"].mrr) == (1, 0.5)


def test_shares_say_what_lists_are_made_of(opened: Shop, bound: Bind) -> None:
    """New: visible within the time before the question; unseen: not in the user's history."""
    view = opened([(7, 0, 5 * S), (7, 1, 10 * S)], items=[S, 5 * S - 1, 5 * S])
    rows = view.row_index("items", [0, 1, 2])
    made = measured(view, bound(NEXT), from_us=10 * S).measure(rows[None], 3)
    assert made.new_items == pytest.approx(1 / 3)
    assert made.unseen == pytest.approx(2 / 3)


def test_lists_that_are_none_are_refused(opened: Shop, bound: Bind) -> None:
    """Too short, of other questions, or with an item twice; the empty places at the end may repeat."""
    view = opened([(7, 0, 10 * S)])
    split = measured(view, bound(NEXT), from_us=0)
    assert split.measure(np.array([[0, -1, -1]]), 3).hit_rate == 1.0
    for lists in ([[0, 1]], [[0, 1, 2], [0, 1, 2]], [[0, 1, 0]]):
        with pytest.raises(ValueError, match="lists"):
            split.measure(np.array(lists), 3)


def test_undefined_figures_are_null(opened: Shop, bound: Bind) -> None:
    """As JSON, and as a dash for people."""
    made = measured(opened([(7, 0, 10 * S)], items=[0]), bound(NEXT), from_us=0).measure(np.array([[0]]), 1)
    assert json.loads(json.dumps(made.to_dict()))["parts"]["repeats"]["ndcg"] is None
    assert made.figures()["repeats NDCG@1"] == "-"
    assert made.figures()["NDCG@1"] == "1.0000"
