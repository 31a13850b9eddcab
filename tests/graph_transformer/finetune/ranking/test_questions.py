"""Questions just before interactions: when they are asked, what follows, and what of it is known when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.labels import make_labels
from graph_transformer.finetune.ranking.questions import RankingQuestions, questions_before, questions_of_labels
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.splits import Interval
from temporal_graph.view import GraphView

from .conftest import Shop, order_event

Bind = Callable[[str], BoundQuery]
S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, {}, seconds) RANK TOP 3 FOR EACH users.user_id"
BEFORE = Anchors(before="orders", last_us=10**15)


def lists(found: RankingQuestions) -> list[list[int]]:
    """The items of each question."""
    return [part.tolist() for part in np.split(found.item, found.item_offset[1:-1])]


def asked(view: GraphView, found: RankingQuestions) -> list[tuple[Any, int]]:
    """Who is asked, by key, and when."""
    return list(zip(view.keys("users", found.user), found.time_us.tolist(), strict=True))


def test_a_basket_is_one_question_one_microsecond_before_it(opened: Shop, bound: Bind) -> None:
    """Two orders at one time are one question; its answer is the basket, an item that is bought twice once."""
    view = opened([(7, 0, 10 * S), (7, 1, 10 * S), (7, 1, 10 * S), (7, 2, 20 * S), (8, 2, 15 * S)])
    found = questions_before(view, bound(NEXT.format(1)), BEFORE)
    assert asked(view, found) == [(7, 10 * S - 1), (8, 15 * S - 1), (7, 20 * S - 1)]
    assert [view.keys("items", np.array(each)) for each in lists(found)] == [[0, 1], [2], [2]]
    assert found.cutoff_time_us.tolist() == found.time_us.tolist()
    assert found.known_time_us.tolist() == (found.time_us + S).tolist()


def test_the_window_holds_what_follows(opened: Shop, bound: Bind) -> None:
    """An event at the window's end is in it, one a microsecond later is not."""
    for at_us, count in ((12 * S - 1, 2), (12 * S, 1)):
        view = opened([(7, 0, 10 * S), (7, 1, at_us)])
        assert len(lists(questions_before(view, bound(NEXT.format(2)), BEFORE))[0]) == count


def test_a_window_that_is_not_over_has_no_answer_yet(opened: Shop, bound: Bind) -> None:
    """Unless the file says until when the data are whole, the newest questions are left out."""
    view = opened([(7, 0, 10 * S), (7, 1, 12 * S - 1)])
    for seconds, times in ((1, [10 * S - 1]), (2, [10 * S - 1]), (3, [])):
        found = questions_before(view, bound(NEXT.format(seconds)), Anchors(before="orders"))
        assert found.time_us.tolist() == times
    limited = Anchors(before="orders", first_us=10 * S, last_us=12 * S)
    assert questions_before(view, bound(NEXT.format(3)), limited).time_us.tolist() == [12 * S - 2]


def test_what_is_known_late_delays_the_answer(opened: Shop, bound: Bind) -> None:
    """An order that is reported late, or taken back late; what was taken back is no answer and no question."""
    late = order_event(90, 7, 1, 10 * S, known_us=50 * S)
    view = opened([(7, 0, 10 * S), (8, 0, 11 * S), (8, 1, 11 * S)], more=[late, order_event(1, None, None, 60 * S)])
    found = questions_before(view, bound(NEXT.format(1)), BEFORE)
    assert asked(view, found) == [(7, 10 * S - 1), (8, 11 * S - 1)]
    assert [len(each) for each in lists(found)] == [2, 1]
    assert found.known_time_us.tolist() == [50 * S, 60 * S]
    assert len(found.known_by(50 * S)) == 1
    assert len(found.known_by(50 * S - 1)) == 0
    as_known = questions_before(view, bound(NEXT.format(1)), BEFORE, known_by_us=50 * S - 1)
    assert [len(each) for each in lists(as_known)] == [1, 2]


def test_orders_of_nobody_ask_nothing(opened: Shop, bound: Bind) -> None:
    """A row without a user is history of its item alone."""
    view = opened([(None, 0, 10 * S), (7, 0, 12 * S)])
    assert asked(view, questions_before(view, bound(NEXT.format(1)), BEFORE)) == [(7, 12 * S - 1)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orders=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 12)), min_size=1, max_size=25),
    seconds=st.integers(1, 5),
)
def test_each_answer_is_what_the_query_says_at_that_time(
    opened: Shop, bound: Bind, orders: list[tuple[int, int, int]], seconds: int
) -> None:
    """At every cut-off the items are those of the label that is made for a fixed anchor there."""
    view, query = opened([(user, item, at * S) for user, item, at in orders]), bound(NEXT.format(seconds))
    found = questions_before(view, query, BEFORE)
    assert len(found) == len({(user, at) for user, _, at in orders})
    for place, items in enumerate(lists(found)):
        made = questions_of_labels(make_labels(view, query, found.time_us[[place]]))
        same = made.select(made.user == found.user[place])
        assert lists(same) == [items]
        assert same.known_time_us.tolist() == [found.known_time_us[place]]


def test_questions_are_chosen_with_their_items(opened: Shop, bound: Bind) -> None:
    """By an interval of times, its start in and its end out, by positions, by a mask."""
    view = opened([(7, 0, 10 * S), (7, 1, 10 * S), (8, 2, 15 * S), (7, 3, 20 * S)])
    found = questions_before(view, bound(NEXT.format(1)), BEFORE)
    assert lists(found.interval(Interval(15 * S - 1, 20 * S - 1))) == [lists(found)[1]]
    assert lists(found.select(np.array([2, 0]))) == [lists(found)[2], lists(found)[0]]
    assert found.select(np.zeros(3, dtype=bool)).item.tolist() == []
    assert found.question.tolist() == [0, 0, 1, 2]


def test_a_graph_that_ended_leaves_the_rest_to_the_session(opened: Shop, bound: Bind) -> None:
    """What the user did between the end and the question comes as a session, oldest first; nothing of others does."""
    view = opened([(7, 0, 10 * S), (7, 1, 12 * S), (8, 3, 13 * S), (7, 2, 14 * S), (7, 3, 20 * S)])
    query = bound(NEXT.format(1))
    found, ranked = questions_before(view, query, BEFORE), query.target("next").ranked
    assert ranked is not None
    assert found.frozen(None, view, ranked) is found
    frozen = found.frozen(11 * S, view, ranked)
    assert frozen.time_us.tolist() == found.time_us.tolist()
    assert frozen.cutoff_time_us.tolist() == [10 * S - 1, *[11 * S] * 4]
    assert frozen.sessions is not None
    session = frozen.select(np.array([4])).sessions
    assert session is not None
    assert frozen.sessions.offset.tolist() == [0, 0, 0, 0, 1, 3]
    assert view.keys("items", session.item) == [1, 2]
    assert session.event_time_us.tolist() == [12 * S, 14 * S]
    assert view.keys("orders", session.interaction) == [1, 3]


@pytest.mark.parametrize(
    ("query", "anchors", "path"),
    [
        ("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id", BEFORE, "anchors.before"),
        (NEXT.format(1), Anchors(before="items"), "anchors.before"),
        (NEXT.format(1) + " WHERE COUNT(orders.*, -3, 0) > 0", BEFORE, "anchors.before"),
        (NEXT.format(1), Anchors(before="orders", step_us=S), "anchors.step"),
    ],
)
def test_anchors_that_do_not_fit_are_refused(
    opened: Shop, bound: Bind, query: str, anchors: Anchors, path: str
) -> None:
    """Interactions say when a ranking is asked, of everyone who has some."""
    with pytest.raises(TaskError) as refused:
        questions_before(opened([]), bound(query), anchors)
    assert refused.value.path == path


def test_no_interactions_no_questions(opened: Shop, bound: Bind) -> None:
    """An empty graph asks nothing, at any anchors."""
    view, query = opened([]), bound(NEXT.format(1))
    assert len(questions_before(view, query, BEFORE)) == 0
    assert len(questions_of_labels(make_labels(view, query, np.array([5 * S])))) == 0


def test_questions_travel_as_labels(opened: Shop, bound: Bind) -> None:
    """A table of labels made of questions gives them back; items the graph lacks are left out, and empty questions."""
    view, query = opened([(7, 0, 10 * S), (7, 1, 10 * S), (8, 2, 15 * S)]), bound(NEXT.format(1))
    found = questions_before(view, query, BEFORE)
    labels = found.to_labels(query.target("next"))
    again = questions_of_labels(labels)
    assert (lists(again), asked(view, again)) == (lists(found), asked(view, found))
    labels.item[:2] = [-1, -1]  # type: ignore[index]  # a ranking's labels have items
    assert lists(questions_of_labels(labels)) == [lists(found)[1]]
