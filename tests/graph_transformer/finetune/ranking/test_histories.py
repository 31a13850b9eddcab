"""What a question sees of its user's interactions, against the plain rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.questions import RankingQuestions, questions_before
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.ranking.asked import among

from .conftest import Shop, order_event

S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"


def asked(user: list[int], cutoff_us: list[int]) -> RankingQuestions:
    """Questions of these users at these times, with an item each."""
    times, count = np.array(cutoff_us), len(user)
    return RankingQuestions(np.array(user), times, times, times, np.arange(count + 1), np.zeros(count, dtype=np.int64))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=20
    ),
    st.integers(0, 20),
)
def test_a_history_is_what_was_visible(
    opened: Shop, bound: Callable[[str], BoundQuery], orders: list[tuple[int, int, int, int]], cutoff_us: int
) -> None:
    """By event time, of the user alone, each when its later clock had passed."""
    events = [order_event(key, user, item, at, at + late) for key, (user, item, at, late) in enumerate(orders)]
    view, ranked = opened([], more=events), bound(NEXT).target("next").ranked
    assert ranked is not None
    users = view.row_count("users")
    found = Interactions.of(view, ranked).histories(asked(list(range(users)), [cutoff_us] * users))
    for row, user in enumerate(view.keys("users", np.arange(users))):
        part = slice(found.offset[row], found.offset[row + 1])
        mine = sorted(at for who, _, at, late in orders if who == user and at + late <= cutoff_us)
        assert found.event_time_us[part].tolist() == mine
        assert found.place[part].tolist() == list(range(len(mine)))[::-1]
        items = sorted(item for who, item, at, late in orders if who == user and at + late <= cutoff_us)
        assert sorted(view.keys("items", found.item[part])) == items  # type: ignore[type-var]  # keys are integers


def test_nobody_has_no_history(opened: Shop, bound: Callable[[str], BoundQuery]) -> None:
    """Interactions without a user are those of their items; a question of nobody sees none of them."""
    view, ranked = opened([(None, 0, 5), (7, 0, 6)]), bound(NEXT).target("next").ranked
    assert ranked is not None
    interactions = Interactions.of(view, ranked)
    assert interactions.histories(asked([-1, 0], [9, 9])).offset.tolist() == [0, 0, 1]
    assert [len(interactions.visible(time)) for time in (4, 5, 6)] == [0, 1, 2]
    assert interactions.first_us["item"].tolist() == [5]


def test_a_session_is_the_newest_of_a_history(opened: Shop, bound: Callable[[str], BoundQuery]) -> None:
    """What a frozen graph lacks is there all the same, in its order."""
    view, query = opened([(7, 0, 10 * S), (7, 1, 12 * S), (7, 2, 14 * S)]), bound(NEXT)
    ranked = query.target("next").ranked
    assert ranked is not None
    found = questions_before(view, query, Anchors(before="orders", last_us=20 * S))
    interactions = Interactions.of(view, ranked)
    frozen = interactions.histories(found.frozen(11 * S, view, ranked))
    whole = interactions.histories(found)
    for own in ("offset", "item", "event_time_us"):
        assert getattr(frozen, own).tolist() == getattr(whole, own).tolist()


def test_pairs_are_found_among_others() -> None:
    """Of the same question only; no item is in no list."""
    lists = np.array([[3, 5, -1], [5, 3, 9]])
    found = among(np.arange(2)[:, None], lists, np.array([0, 1]), np.array([5, 9]))
    assert found.tolist() == [[False, True, False], [False, False, True]]
    nothing = np.zeros(0, dtype=np.int64)
    assert not among(np.arange(2)[:, None], lists, nothing, nothing).any()
