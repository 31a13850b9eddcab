"""Floors see what the questions see, list what exists, and are chosen on validation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking import floors
from graph_transformer.finetune.ranking.evaluation_tables import measured_split
from graph_transformer.finetune.ranking.floors import FLOORS, Lister, measure_floors
from graph_transformer.finetune.ranking.floors_counts import HALF_LIVES_US, Columns, Popular, Repeat
from graph_transformer.finetune.ranking.metrics import Measured
from graph_transformer.finetune.ranking.questions import questions_before
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.splits import Interval, Splits
from temporal_graph.view import GraphView

from .conftest import Shop

Bind = Callable[[str], BoundQuery]
DAY_US = 86_400_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"


@pytest.fixture
def split(bound: Bind) -> Callable[..., Measured]:
    """Makes the measured split of all questions from a day on."""

    def made(view: GraphView, day: int) -> Measured:
        query = bound(NEXT)
        ranked = query.target("next").ranked
        assert ranked is not None
        interval = Interval(day * DAY_US - 1, 1000 * DAY_US)
        questions = questions_before(view, query, Anchors(before="orders", last_us=10**16))
        return measured_split(view, ranked, Splits(interval), questions, interval, new_within_us=DAY_US)

    return made


def keys_of(view: GraphView, lists: np.ndarray) -> list[list[object]]:
    """The keys that are listed."""
    return [list(view.keys("items", each[each >= 0])) for each in lists]


def test_own_items_come_before_popular_ones(opened: Shop, split: Callable[..., Measured]) -> None:
    """The more recent of two first; what the user never had fills up, unless it does not exist yet."""
    orders = [(7, 0, 1 * DAY_US), (7, 1, 2 * DAY_US), *[(8, 2, 2 * DAY_US)] * 5, (7, 3, 9 * DAY_US)]
    view = opened(orders, items=[0, 0, 0, 9 * DAY_US])
    part = split(view, 9)
    columns = Columns(part.interactions)
    popular = Popular.fitted(columns, part.interactions, HALF_LIVES_US[-1])
    repeat = Repeat(columns, 3 * DAY_US)
    assert keys_of(view, Lister(part, popular, exclude_seen=False).lists(repeat)) == [[1, 0, 2]]
    assert keys_of(view, Lister(part, popular, exclude_seen=True).lists(repeat)) == [[2]]
    assert keys_of(view, Lister(part, popular, exclude_seen=False).lists(popular))[0][0] == 2


def test_a_floor_knows_nothing_of_later(opened: Shop, split: Callable[..., Measured]) -> None:
    """Orders at the question's own time or later, and items that appear then, change no list."""
    orders = [(user, (user + place) % 5, (1 + place) * DAY_US) for user in range(6) for place in range(3)]
    asked = [(0, 4, 9 * DAY_US)]
    later = [(user, 5, 9 * DAY_US + 1) for user in range(9)] + [(0, 6, 9 * DAY_US), (3, 0, 9 * DAY_US)]
    for name in FLOORS:
        found = []
        for more in ([], later):
            view = opened([*orders, *asked, *more], items=[0] * 6)
            part = split(view, 9)
            lister, floor = floors._made(part, name, HALF_LIVES_US[0], HALF_LIVES_US[0], False)
            lists = lister.lists(floor)
            found.append(keys_of(view, lists[part.questions.user == view.row_index("users", [0])[0]][:1]))
        assert found[0] == found[1], name
        assert found[0][0]


def test_a_floor_of_a_graph_that_ended_ends_with_it(opened: Shop, bound: Bind) -> None:
    """What others did after the end, and before the split, changes no list; one's own comes as a session."""
    query = bound(NEXT)
    ranked = query.target("next").ranked
    assert ranked is not None
    interval = Interval(8 * DAY_US, 10 * DAY_US)
    splits = Splits(Interval(0, 5 * DAY_US), test=interval, frozen_us=5 * DAY_US)
    orders = [(user, (user + place) % 5, (1 + place) * DAY_US) for user in range(6) for place in range(3)]
    orders += [(0, 4, 6 * DAY_US), (0, 3, 9 * DAY_US)]
    later = [(user, item, 6 * DAY_US) for user in range(10, 30) for item in (1, 4)]
    for name in FLOORS:
        found = []
        for more in ([], later):
            view = opened([*orders, *more], items=[0] * 5)
            questions = questions_before(view, query, Anchors(before="orders", last_us=10**16))
            part = measured_split(view, ranked, splits, questions, interval, new_within_us=DAY_US)
            lister, floor = floors._made(part, name, HALF_LIVES_US[0], HALF_LIVES_US[0], False)
            found.append(keys_of(view, lister.lists(floor)))
        assert found[0] == found[1], name
        assert found[0][0]


def test_items_lead_to_items(opened: Shop, split: Callable[..., Measured]) -> None:
    """Five users went from 0 to 1, and one to 2; a popular pair elsewhere does not matter to who had 0."""
    orders = [(user, 0, DAY_US) for user in range(6)] + [(user, 1, 2 * DAY_US) for user in range(5)]
    orders += [(5, 2, 2 * DAY_US)] + [(user, item, DAY_US) for user in range(10, 20) for item in (3, 4)]
    orders += [(50, 0, 8 * DAY_US), (50, 1, 9 * DAY_US)]
    view = opened(orders, items=[0] * 10)
    part = split(view, 9)
    for name in ("item_knn", "co_visitation", "ease"):
        lister, floor = floors._made(part, name, HALF_LIVES_US[-1], HALF_LIVES_US[-1], True)
        assert keys_of(view, lister.lists(floor))[0][:2] == [1, 2], name


def test_who_has_no_history_gets_what_is_popular(opened: Shop, split: Callable[..., Measured]) -> None:
    """Every floor answers a first question as the popular one does."""
    orders = [(user, item, DAY_US) for user in range(4) for item in range(user + 1)] + [(50, 3, 9 * DAY_US)]
    view = opened(orders, items=[0] * 10)
    part = split(view, 9)
    lists = []
    for name in FLOORS:
        lister, floor = floors._made(part, name, HALF_LIVES_US[-1], HALF_LIVES_US[-1], False)
        lists.append(lister.lists(floor).tolist())
    assert all(each == lists[0] for each in lists)
    assert keys_of(view, np.array(lists[0])) == [[0, 1, 2, 3]]


def test_half_lives_are_chosen_on_validation(
    opened: Shop, split: Callable[..., Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only what is recent comes again the shortest is taken, and every floor is measured on the test."""
    orders = [(user, day // 10, day * DAY_US) for day in range(1, 100) for user in range(2)]
    view = opened(orders, items=[0] * 10)
    validation = split(view, 50)
    assert floors._chosen(validation, "popular", 1, False) == HALF_LIVES_US[0]
    monkeypatch.setattr(floors, "CHUNK_SCORES", 7)
    found = measure_floors(split(view, 90), k=1, exclude_seen=False, validation=validation)
    assert set(found) == set(FLOORS)
    unchosen = measure_floors(split(view, 90), k=1, exclude_seen=False, names=("popular", "repeat"))
    for name in ("popular", "repeat"):
        assert found[name].hit_rate > 0.6
        assert unchosen[name].hit_rate < 0.2
