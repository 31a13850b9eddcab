import numpy as np
import pytest

from graph_transformer.ranking.asked import Asked
from graph_transformer.ranking.sessions import SessionItems
from online_sampler.errors import SeedError

from .conftest import Shop, order_event

NOW_US = 1_000


def asked(*users: int) -> Asked:
    return Asked.plain(np.array(users), np.full(len(users), NOW_US), exclude_seen=False)


def test_sessions_become_items_oldest_first(shop: Shop) -> None:
    """Each question has its own, in the order of their times; an item that the graph does not know is -1."""
    session = (order_event(901, 1, "item 4", 990), order_event(902, 1, "item 7", 995), order_event(903, 1, "?", 996))

    found = SessionItems(shop.view, shop.task).read(
        asked(1, 2, -1), (session, (), (order_event(904, 9, "item 2", 991),))
    )

    rows = shop.view.row_index("items", ["item 4", "item 7", "item 2"]).tolist()
    assert found.session.offset.tolist() == [0, 3, 3, 4]
    assert found.session.row.tolist() == [*rows[:2], -1, rows[2]]
    assert found.session_time_us.tolist() == [990, 995, 996, 991]
    assert found.events[0] == session


def test_what_the_graph_has_is_no_session(shop: Shop) -> None:
    """A click that Kafka delivered in the meantime stands in the history already and is not counted twice."""
    click = order_event(901, 1, "item 4", 990)
    shop.graph.apply([click])

    found = SessionItems(shop.view, shop.task).read(asked(1), ((click,),))

    assert found.session.row.tolist() == []


def test_an_event_of_the_future_is_refused(shop: Shop) -> None:
    """A session may know nothing that happened after the question."""
    with pytest.raises(SeedError):
        SessionItems(shop.view, shop.task).read(asked(1), ((order_event(901, 1, "item 4", NOW_US + 1),),))
