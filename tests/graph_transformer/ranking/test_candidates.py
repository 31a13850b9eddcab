from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from graph_transformer.ranking.asked import Asked, Ragged
from graph_transformer.ranking.candidates import Retrieved, Retriever, among, newest
from graph_transformer.ranking.catalog import Catalog
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.lists import Source
from graph_transformer.target import Ranked
from online_sampler.co_visits import CoVisitWalk, Histories
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.view import GraphView

from .store import at, event, item, opened, order, orders

RANKED = Ranked("orders", "user_id", "item_id", "items", 3)
CONFIG = RankingConfig(co_visit=5, far=5, popular=0, new=0, nearest=5, history=4, new_within="1d", half_life="1d")
NAMES = ["a", "b", "c", "d", "e", "f"]
DAY = 86_400.0


@pytest.fixture
def graph() -> Iterator[TemporalGraph]:
    """User 1 has a; others go from a to b, and from b to c; d is new on the second day, e was deleted."""
    events = [item(name, 0) for name in "abcef"] + [item("d", DAY)]
    events += orders([(1, "a", 10), (2, "a", 20), (2, "b", 30), (3, "b", 40), (3, "c", 50), (4, "a", 60), (4, "e", 70)])
    events.append(event("items", "e", at(80), pb.OPERATION_DELETE))
    with opened(events) as made:
        yield made


class Store:
    """A retriever over the graph, with names for rows."""

    def __init__(self, view: GraphView, config: RankingConfig) -> None:
        self.view = view
        self.catalog = Catalog(view, RANKED, config)
        self.catalog.refresh()
        self.retriever = Retriever(CoVisitWalk(view, "orders", "user_id", "item_id"), self.catalog, config)
        self.row = {name: int(view.row_index("items", [name])[0]) for name in NAMES}
        self.name = {row: name for name, row in self.row.items()}

    def asked(self, seconds: float, *users: int, exclude_seen: bool = False) -> Asked:
        user = self.view.row_index("users", list(users))
        return Asked.plain(user, np.full(len(users), at(seconds)), exclude_seen=exclude_seen)

    def found(self, asked: Asked, nearest: Ragged | None = None) -> list[dict[str, Source]]:
        found = self.retriever.retrieve(asked, nearest or Ragged.none(len(asked)))
        check(found)
        lists: list[dict[str, Source]] = [{} for _ in range(len(asked))]
        for question, one, source in zip(found.question, found.item, found.source, strict=True):
            lists[question][self.name[one]] = Source(int(source))
        return lists


def check(found: Retrieved) -> None:
    """Every candidate once, by question, and with its tokens."""
    assert len(set(zip(found.question.tolist(), found.item.tolist(), strict=True))) == len(found)
    assert np.array_equal(np.repeat(np.arange(len(found.offset) - 1), np.diff(found.offset)), found.question)
    assert len(found.tokens.there) == len(found)


def test_walks_reach_two_and_four_links_far(graph: TemporalGraph) -> None:
    """From a to b over others who had both, and on to c; what was deleted is reached by nobody."""
    store = Store(graph.view(), CONFIG)

    back = Source.HISTORY | Source.CO_VISIT  # from b others lead back to a
    assert store.found(store.asked(99, 1)) == [{"a": back, "b": Source.CO_VISIT, "c": Source.CO_VISIT}]
    assert store.found(store.asked(75, 1))[0]["e"] == Source.CO_VISIT
    near = Store(graph.view(), replace(CONFIG, far=0))
    assert near.found(near.asked(99, 1)) == [{"a": Source.HISTORY, "b": Source.CO_VISIT}]


def test_nothing_later_than_the_cut_off_is_seen(graph: TemporalGraph) -> None:
    """Each question sees the walks of its own time, one microsecond makes the difference."""
    store = Store(graph.view(), CONFIG)
    asked = store.asked(0, 1, 1, 1)
    asked = replace(asked, cutoff_time_us=np.array([at(10) - 1, at(30) - 1, at(30)]))

    first, second, third = store.found(asked)

    assert first == {}
    assert second == {"a": Source.HISTORY}
    assert third["b"] == Source.CO_VISIT


def test_popular_and_new_items_serve_nobody_too(graph: TemporalGraph) -> None:
    """Without any history there is what is popular by then, and what became visible within the last day."""
    config = replace(CONFIG, popular=2, new=1)
    store = Store(graph.view(), config)

    (found,) = store.found(replace(store.asked(DAY + 600, 1), user=np.array([-1])))

    assert found["a"] == Source.POPULAR
    assert found["d"] == Source.NEW
    assert store.found(replace(store.asked(DAY - 1, 1), user=np.array([-1])))[0].get("d") is None
    assert "d" not in store.found(replace(store.asked(2 * DAY, 1), user=np.array([-1])))[0]


def test_a_session_counts_as_the_newest_history(graph: TemporalGraph) -> None:
    """Nobody with b in his session is walked to c; an item that the graph does not know is passed over."""
    store = Store(graph.view(), CONFIG)
    asked = replace(store.asked(99, 1), user=np.array([-1]))
    asked = asked.with_sessions(Ragged.of([[-1, store.row["b"]]]), np.array([at(97), at(98)]), ((b"", b""),))

    (found,) = store.found(asked)

    assert found["b"] & Source.HISTORY
    assert found["c"] == Source.CO_VISIT


def test_what_is_left_out_stays_out(graph: TemporalGraph) -> None:
    """Neither what the user had nor what the question names comes, by whatever way; near and deleted ones neither."""
    store = Store(graph.view(), CONFIG)
    asked = replace(store.asked(99, 1, exclude_seen=True), without=Ragged.of([[store.row["b"]]]))

    near = Ragged.of([[store.row[name] for name in ("a", "b", "c", "d", "e", "f")]])

    assert store.found(asked, near) == [{"c": Source.CO_VISIT | Source.NEAREST, "f": Source.NEAREST}]


def test_given_items_are_ranked_alone(graph: TemporalGraph) -> None:
    """Where a question names candidates there are no others; their other sources are told, the future is left out."""
    store = Store(graph.view(), CONFIG)
    given = Ragged.of([[store.row["b"], store.row["d"], store.row["f"]], []])
    asked = replace(store.asked(99, 1, 1), given=given, is_given=np.array([True, False]))

    first, second = store.found(asked)

    assert first == {"b": Source.GIVEN | Source.CO_VISIT, "f": Source.GIVEN}
    assert set(second) == {"a", "b", "c"}


def test_rows_that_came_after_the_catalog_looked_are_for_the_next_call(graph: TemporalGraph) -> None:
    """The graph may grow between the look at it and the walk: nothing breaks, and after the next look it is there."""
    store = Store(graph.view(), CONFIG)
    graph.apply([item("z", 90), order(50, 5, "a", 91), order(51, 5, "z", 92), order(52, 1, "z", 93)])
    asked = store.asked(99, 1)

    before = store.found(asked)
    store.catalog.refresh()
    store.name[int(store.view.row_index("items", ["z"])[0])] = "z"
    after = store.found(asked)

    assert "z" not in before[0]
    assert after[0]["z"] & Source.HISTORY


def test_the_newest_known_entries_are_walked_from() -> None:
    """As many as the limit, newest first; those of unknown items neither count nor stay."""
    histories = Histories(
        np.array([0, 3, 3, 5]), np.arange(5), np.array([4, -1, 6, 7, 8]), np.arange(5)[::-1], np.arange(5)[::-1]
    )

    found = newest(histories, 2)
    one = newest(histories, 1)

    assert (found.offset.tolist(), found.item.tolist()) == ([0, 2, 2, 4], [4, 6, 7, 8])
    assert (one.offset.tolist(), one.item.tolist()) == ([0, 1, 1, 2], [4, 7])


def test_pairs_among_others() -> None:
    """Question and item must both agree; unknown items stand nowhere."""
    found = among(np.array([0, 0, 1]), np.array([3, 4, 3]), np.array([0, 1]), np.array([3, -1]))

    assert found.tolist() == [True, False, False]
    assert among(np.array([0]), np.array([3]), np.array([], dtype=int), np.array([], dtype=int)).tolist() == [False]
