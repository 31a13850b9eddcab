"""Labels against a plain reading of their definition, and by hand at both sides of every boundary in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query import BoundQuery, labels
from graph_transformer.finetune.query.labels import LabelTable, make_labels
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent, ReferenceGraph
from temporal_graph.schema import Schema
from temporal_graph.time_rule import TIME_MAX_US

Make = Callable[..., ReferenceEvent]
Bind = Callable[[str], BoundQuery]
Grown = Callable[..., TemporalGraph]
Labels = dict[int, tuple[Any, int]]

SECOND_US = 1_000_000
T = 100 * SECOND_US
TIMES = [T - 3 * SECOND_US, T - 2 * SECOND_US, T - 1, T, T + 1, T + SECOND_US, T + 2 * SECOND_US, T + 2 * SECOND_US + 1]
USERS = (1, 2)


def labels_at(graph: TemporalGraph, bound: BoundQuery, time_us: int = T, *, known_by_us: int | None = None) -> Labels:
    """The label and its known time of each user asked at one anchor."""
    found = make_labels(graph.view(), bound, np.array([time_us]), known_by_us=known_by_us)
    assert (found.anchor_time_us == time_us).all()
    keys = graph.view().keys(bound.entity, found.row)
    return dict(zip(keys, zip(found.label.tolist(), found.known_time_us.tolist(), strict=True), strict=True))


# What a label is, word for word: `value` of the orders of a user in the window, from the twin's states.


@dataclass(frozen=True)
class Plain:
    """A target in words: the cell aggregated (None: the whole row), which rows count, and what becomes of them."""

    query: str
    cell: str | None
    reduce: Callable[[list[Any]], Any]
    counts: Callable[[dict[str, Any]], bool] = lambda _: True


TARGETS = [
    Plain("COUNT(orders.*, 0, 2, seconds)", None, len),
    Plain("COUNT(orders.price, 0, 2, seconds)", "price", len),
    Plain("SUM(orders.price, 0, 2, seconds)", "price", sum),
    Plain("AVG(orders.price, 0, 2, seconds)", "price", lambda found: sum(found) / len(found) if found else None),
    Plain("MIN(orders.price, 0, 2, seconds)", "price", lambda found: min(found, default=None)),
    Plain("MAX(orders.price, 0, 2, seconds)", "price", lambda found: max(found, default=None)),
    Plain("FIRST(orders.price, 0, 2, seconds)", "price", lambda found: found[0] if found else None),
    Plain("LAST(orders.price, 0, 2, seconds)", "price", lambda found: found[-1] if found else None),
    Plain("COUNT_DISTINCT(orders.price, 0, 2, seconds)", "price", lambda found: len(set(found))),
    Plain(
        "SUM(orders.price WHERE orders.paid = TRUE, 0, 2, seconds)", "price", sum, lambda row: row.get("paid") is True
    ),
    Plain(
        "COUNT(orders.* WHERE NOT orders.price > 1, 1, 2, seconds)",
        None,
        len,
        lambda row: row.get("price") is not None and not row["price"] > 1,
    ),
]


@st.composite
def order_events(draw: st.DrawFn) -> ReferenceEvent:
    """One event of few orders of two users at few times, late or not, any operation."""
    at_us = draw(st.sampled_from(TIMES))
    cells = {
        "price": st.sampled_from([None, 0.0, 1.0, 2.5]),
        "paid": st.sampled_from([None, True, False]),
        "user_id": st.sampled_from([(1,), (1,), (2,), None]),
    }
    return ReferenceEvent(
        "orders",
        draw(st.sampled_from(["insert", "insert", "upsert", "delete"])),
        (draw(st.sampled_from([1, 2, 3])),),
        at_us,
        at_us + draw(st.sampled_from([0, 0, 1, SECOND_US])),
        draw(st.fixed_dictionaries({}, optional=cells)),
    )


class Twin:
    """The rows a label counts at any state of knowledge, read from the plain twin."""

    def __init__(self, shop: Schema, events: list[ReferenceEvent]) -> None:
        self.graph = ReferenceGraph(shop)
        self.graph.apply(events, backfill=True)
        self.times = sorted({max(each.event_time_us, each.known_time_us or 0) for each in events})
        dumped = self.graph.dump()["orders"]
        self.first_visible = {key: min(max(v[0], v[1]) for v in row["versions"]) for key, row in dumped.items()}

    def counted(self, plain: Plain, user: int, low: int, high: int, cutoff_us: int) -> list[tuple[Any, ...]]:
        """(event time, first visible, key, value) of the rows in (low, high] in the state at a cut-off, in order."""
        found = []
        for key in self.graph.keys("orders"):
            state = self.graph.state("orders", key, cutoff_us)
            if isinstance(state, str) or state.get("user_id") != (user,) or not plain.counts(state):
                continue
            event_us = self.graph.shown_version("orders", key, cutoff_us)[1]
            value = 1 if plain.cell is None else state.get(plain.cell)
            if value is not None and low < event_us <= high:
                found.append((event_us, self.first_visible[f"[{key[0]}]"], key[0], value))
        return sorted(found)

    def label(self, plain: Plain, user: int, known_by_us: int) -> tuple[Any, int]:
        """The label of a user, and the time from which on nothing it rests on changes any more."""
        low, high = T + (SECOND_US if "1, 2, sec" in plain.query else 0), T + 2 * SECOND_US
        final = self.counted(plain, user, low, high, known_by_us)
        known_us = high
        for time_us in reversed([each for each in self.times if each <= known_by_us]):
            before = self.counted(plain, user, low, high, time_us - 1)
            valued = plain.cell is not None and not plain.query.startswith("COUNT(")
            if [row[: 4 if valued else 3] for row in before] != [row[: 4 if valued else 3] for row in final]:
                known_us = max(known_us, time_us)
                break
        return plain.reduce([row[-1] for row in final]), known_us


@settings(max_examples=150, deadline=None)
@given(
    st.lists(order_events(), min_size=1, max_size=8),
    st.sampled_from(TARGETS),
    st.sampled_from([None, T, T + SECOND_US, T + 2 * SECOND_US, T + 3 * SECOND_US]),
)
def test_labels_are_what_the_definition_says(
    shop: Schema,
    grown: Grown,
    bound: Bind,
    user: Make,
    events: list[ReferenceEvent],
    plain: Plain,
    known_by: int | None,
) -> None:
    """Value, presence and known time of every label equal a plain reading of the rows' states, for each function."""
    twin = Twin(shop, events)
    query = bound(f"PREDICT {plain.query} FOR EACH users.user_id")
    with grown([user(key) for key in USERS] + events) as graph:
        found = labels_at(graph, query, known_by_us=known_by)
    expected = {key: twin.label(plain, key, TIME_MAX_US - 1 if known_by is None else known_by) for key in USERS}
    assert found == {key: label for key, label in expected.items() if label[0] is not None}


@settings(max_examples=100, deadline=None)
@given(st.lists(order_events(), min_size=1, max_size=8), st.sampled_from(TARGETS))
def test_a_label_that_changes_later_is_first_known_as_it_stood(
    grown: Grown, bound: Bind, user: Make, events: list[ReferenceEvent], plain: Plain
) -> None:
    """What is known at the end of the window is the label of that moment, whatever the future brings, and not earlier.

    Were a label missing until a late report, its absence would tell that one is coming.
    """
    query = bound(f"PREDICT {plain.query} FOR EACH users.user_id")
    end_us = T + 2 * SECOND_US
    with grown([user(key) for key in USERS] + events) as graph:
        ever = make_labels(graph.view(), query, np.array([T]))
        then = make_labels(graph.view(), query, np.array([T]), known_by_us=end_us)
    known = ever.known_by(end_us)
    assert (known.row.tolist(), known.label.tolist()) == (then.row.tolist(), then.label.tolist())
    assert (known.known_time_us == end_us).all()
    assert len(ever.known_by(end_us - 1)) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(order_events(), min_size=1, max_size=8), st.sampled_from(TARGETS))
def test_where_is_judged_by_what_stood_at_the_anchor(
    shop: Schema, grown: Grown, bound: Bind, user: Make, events: list[ReferenceEvent], plain: Plain
) -> None:
    """WHERE sees of each row the state as of t, whatever became known later; entities it leaves open are not asked."""
    twin = Twin(shop, events)
    past = plain.query.replace("0, 2", "-2, 0").replace("1, 2", "-1, 0")
    query = bound(f"PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id WHERE {past} > 0.5")
    low = T - SECOND_US if "-1, 0" in past else T - 2 * SECOND_US
    with grown([user(key) for key in USERS] + events) as graph:
        asked = set(labels_at(graph, query))
    stood = {key: plain.reduce([row[-1] for row in twin.counted(plain, key, low, T, T)]) for key in USERS}
    assert asked == {key for key, value in stood.items() if value is not None and value > 0.5}


# Both sides of each boundary, per kind of task: an order 1 µs after the window does not count, one at its end does, and
# one at the anchor belongs to the past.

END = T + 2 * SECOND_US
KINDS = {
    "binary": ("COUNT(orders.*, 0, 2, seconds) > 0", 0.0, 1.0),
    "regression": ("SUM(orders.price, 0, 2, seconds)", 0.0, 7.0),
    "forecast": ("SUM(orders.price, 0, 1, seconds) FORECAST 2 TIMEFRAMES", [0.0, 0.0], [0.0, 7.0]),
    "multiclass": ("LAST(orders.status, 0, 2, seconds)", None, 0.0),
    "multilabel": ("LIST_DISTINCT(orders.status, 0, 2, seconds)", None, [1.0]),
    "ranking": ("LIST_DISTINCT(orders.item_id, 0, 2, seconds) RANK TOP 3", None, 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_label_sees_beyond_its_window(kind: str, grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """Of each kind: an event 1 µs after t, or at t + end, is in the label; at t, or 1 µs after t + end, it is not."""
    target, without, with_ = KINDS[kind]
    first = [7.0, 0.0] if kind == "forecast" else with_
    query = bound(f"PREDICT {target} FOR EACH users.user_id")
    assert query.kind == kind
    cells: dict[str, Any] = {"user": 1, "price": 7.0, "status": "open", "item": "a"}
    for at_us, expected in ((T, without), (T + 1, first), (END, with_), (END + 1, without)):
        with grown([user(1), order(1, at_us, **cells)]) as graph:
            found = labels_at(graph, query)
        assert found == ({} if expected is None else {1: (expected, END)}), at_us


def test_windows_of_a_forecast_follow_each_other_exactly(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """An event at the end of a step counts in it, 1 µs later in the next."""
    query = bound("PREDICT SUM(orders.price, 0, 1, seconds) FORECAST 2 TIMEFRAMES FOR EACH users.user_id")
    for at_us, expected in ((T + 1, [7, 0]), (T + SECOND_US, [7, 0]), (T + SECOND_US + 1, [0, 7])):
        with grown([user(1), order(1, at_us, user=1, price=7.0)]) as graph:
            assert labels_at(graph, query) == {1: (expected, END)}


def test_an_event_at_the_anchor_is_the_past_of_where(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """WHERE (-2, 0] counts an order at t and not 1 µs later, nor at t - 2 s; nor one at t that is known 1 µs later."""
    query = bound(
        "PREDICT COUNT(orders.*, 0, 2, seconds) FOR EACH users.user_id WHERE COUNT(orders.*, -2, 0, seconds) = 1"
    )
    for at_us, known_us, asked in (
        (T, T, True),
        (T + 1, T + 1, False),
        (T - 2 * SECOND_US, T - 2 * SECOND_US, False),
        (T - 2 * SECOND_US + 1, T, True),
        (T, T + 1, False),
    ):
        with grown([user(1), order(1, at_us, known_us, user=1)]) as graph:
            assert (1 in labels_at(graph, query)) is asked, (at_us, known_us)


def test_an_event_level_label_is_known_from_its_report(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """A fraud is a label from its report on: not by 1 µs before it; before the report the row has no label at all."""
    query = bound("PREDICT orders.fraud FOR EACH orders.order_id WHERE orders.price > 5")
    assert query.event_level
    events = [
        user(1),
        order(1, T, user=1, price=7.0),
        order(1, T + 50, operation="upsert", fraud=True),
        order(2, T + 1, user=1, price=3.0, fraud=True),
        order(3, T + 2, user=1, price=8.0, fraud=False),
    ]
    with grown(events) as graph:
        view = graph.view()
        found = make_labels(view, query, np.array([], dtype=np.int64))
        assert (view.keys("orders", found.row), found.label.tolist()) == ([1, 3], [1.0, 0.0])
        assert (found.anchor_time_us.tolist(), found.known_time_us.tolist()) == ([T, T + 2], [T + 50, T + 2])
        assert view.keys("orders", make_labels(view, query, found.row, known_by_us=T + 49).row) == [3]
        assert view.keys("orders", make_labels(view, query, found.row, known_by_us=T + 50).row) == [1, 3]
        examples = found.to_examples()
    assert examples.cutoff_time_us.tolist() == [T - 1, T + 1]


def test_where_of_a_row_sees_only_what_it_brings(grown: Grown, bound: Bind, order: Make) -> None:
    """A price that is set after the event does not decide whether the row is asked."""
    query = bound("PREDICT orders.fraud FOR EACH orders.order_id WHERE orders.price > 5")
    with grown([order(1, T, price=1.0, fraud=True), order(1, T + 1, operation="upsert", price=9.0)]) as graph:
        assert len(make_labels(graph.view(), query, np.array([], dtype=np.int64))) == 0


def test_an_entity_with_a_time_is_asked_from_its_own_on(shop: Schema, grown: Grown, bound: Bind) -> None:
    """A card exists at its visible time and not 1 µs before, nor after its deletion; a bare one never does."""
    query = bound("PREDICT COUNT(orders.*, 0, 1, seconds) FOR EACH cards.card_id")
    card = ReferenceEvent("cards", "insert", (1,), T, T)
    gone = ReferenceEvent("cards", "delete", (1,), T + 10, T + 10)
    bare = ReferenceEvent("orders", "insert", (5,), T - 9, T - 9, {"card_id": (2,)})
    with grown([card, gone, bare]) as graph:
        assert [set(labels_at(graph, query, T + shift)) for shift in (-1, 0, 9, 10)] == [set(), {1}, {1}, set()]


def test_users_named_only_by_orders_are_asked(grown: Grown, bound: Bind, order: Make) -> None:
    """A row of a timeless table that only a foreign key names is an entity; a static condition leaves it open."""
    with grown([order(1, T + 1, user=9)]) as graph:
        assert labels_at(graph, bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id"))[9][0] == 1.0
        query = bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id WHERE NOT users.age > 3")
        assert labels_at(graph, query) == {}


def test_static_cells_are_those_of_the_anchor(grown: Grown, bound: Bind, user: Make) -> None:
    """A user who moves is asked by the country of the time, at both sides of the move."""
    query = bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id WHERE users.country = 'fr'")
    with grown([user(1, country="de"), user(1, T, country="fr")]) as graph:
        assert [set(labels_at(graph, query, T + shift)) for shift in (-1, 0)] == [set(), {1}]


def test_a_later_report_on_another_column_does_not_delay(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """The known time is that of the counted cells: a status reported late delays what rests on it, and only that."""
    events = [user(1), order(1, T + 1, user=1, price=2.0), order(1, END + 9, operation="upsert", status="back")]
    with grown(events) as graph:
        assert labels_at(graph, bound("PREDICT SUM(orders.price,0,2,seconds) FOR EACH users.user_id")) == {
            1: (2.0, END)
        }
        query = bound("PREDICT COUNT(orders.* WHERE orders.status = 'back', 0, 2, seconds) > 0 FOR EACH users.user_id")
        assert labels_at(graph, query) == {1: (1.0, END + 9)}
        assert labels_at(graph, query, known_by_us=END + 8) == {1: (0.0, END)}


def test_assuming_keeps_those_whose_future_fulfils_it(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """Only entities that will order are asked; the label waits for the assumption's window as well."""
    query = bound(
        "PREDICT SUM(orders.price, 0, 1, seconds) FOR EACH users.user_id ASSUMING COUNT(orders.*, 0, 2, seconds) > 0"
    )
    with grown([user(1), user(2), order(1, END, user=1, price=2.0), order(2, END + 1, user=2, price=2.0)]) as graph:
        assert labels_at(graph, query) == {1: (0.0, END)}


def test_an_outcome_of_an_entity_without_time(grown: Grown, bound: Bind, user: Make) -> None:
    """It is asked of those for whom it is not known yet at t, and known from its report; known ones are not asked."""
    query = bound("PREDICT users.vip FOR EACH users.user_id")
    with grown([user(1), user(1, T + 5, vip=True), user(2, vip=True), user(3)]) as graph:
        assert [labels_at(graph, query, T + shift) for shift in (0, 4, 5)] == [{1: (1.0, T + 5)}, {1: (1.0, T + 5)}, {}]


def test_classes_are_those_that_occur_or_those_given(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """Texts in order; with given classes the indices are theirs, and labels of no class are left out."""
    query = bound("PREDICT LAST(orders.status, 0, 2, seconds) FOR EACH users.user_id")
    events = [user(1), user(2), order(1, T + 1, user=1, status="sent"), order(2, T + 1, user=2, status="back")]
    with grown(events) as graph:
        view = graph.view()
        found = make_labels(view, query, np.array([T]))
        assert (found.target.classes, found.label.tolist()) == (("back", "sent"), [1.0, 0.0])
        given_ = make_labels(view, query, np.array([T]), classes=("sent", "new"))
        assert (view.keys("users", given_.row), given_.label.tolist()) == ([1], [0.0])


def test_elements_of_a_multicategorical_are_the_classes(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """A list of sets is the union of their elements."""
    query = bound("PREDICT LIST_DISTINCT(orders.labels, 0, 2, seconds) FOR EACH users.user_id")
    events = [user(1), order(1, T + 1, user=1, labels=["b", "a"]), order(2, T + 2, user=1, labels=["c", "a"])]
    with grown([*events, order(3, T + 1, user=2, labels=["c"])]) as graph:
        found = make_labels(graph.view(), query, np.array([T]))
    assert found.target.classes == ("a", "b", "c")
    assert found.label.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_ranking_keeps_the_rows_of_each_list(grown: Grown, bound: Bind, user: Make, order: Make) -> None:
    """The items are rows of the link's parent, each once; a user without any is not asked."""
    query = bound("PREDICT LIST_DISTINCT(orders.item_id, 0, 2, seconds) RANK TOP 5 FOR EACH users.user_id")
    bought = [(1, "a"), (1, "b"), (1, "a"), (3, "b")]
    events = [order(n, T + 1 + n, user=who, item=what) for n, (who, what) in enumerate(bought)]
    with grown([user(1), user(2), user(3), *events]) as graph:
        view = graph.view()
        found = make_labels(view, query, np.array([T, T + 10 * SECOND_US]))
        assert found.item_offset is not None
        assert found.item is not None
        assert (found.item_table, found.item_offset.tolist()) == ("items", [0, 2, 3])
        assert view.keys("items", found.item) == ["a", "b", "b"]


def test_two_links_and_timeless_children(grown: Grown, bound: Bind, user: Make) -> None:
    """VIA chooses the link; rows without time are counted without a window."""
    events = [
        user(1),
        user(2),
        ReferenceEvent("transfers", "insert", (7,), T + 1, T + 1, {"from_id": (1,), "to_id": (2,)}),
    ]
    fact = ReferenceEvent("facts", "insert", (1,), cells={"user_id": (2,), "weight": 1.0})
    sent = "PREDICT COUNT(transfers.* VIA from_id, 0, 1, seconds) FOR EACH users.user_id"
    with grown([*events[:2], fact]) as graph:
        query = bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id WHERE COUNT(facts.*) = 1")
        assert set(labels_at(graph, query)) == {2}
        assert labels_at(graph, bound(sent)) == dict.fromkeys((1, 2), (0.0, T + SECOND_US))


def test_no_anchors_give_an_empty_table(grown: Grown, bound: Bind, user: Make) -> None:
    """It has the target and no rows."""
    with grown([user(1)]) as graph:
        found = make_labels(graph.view(), bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id"), np.array([]))
    assert isinstance(found, LabelTable)
    assert (len(found), found.label.shape) == (0, (0,))


def test_there_is_a_most_of_labels(grown: Grown, bound: Bind, user: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the limit is refused, with what to do; as many as it are made."""
    query = bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id")
    monkeypatch.setattr(labels, "LABELS_MAX", 4)
    with grown([user(1), user(2)]) as graph:
        assert len(make_labels(graph.view(), query, np.array([T, T + 1]))) == 4
        with pytest.raises(TaskError, match="fewer anchors"):
            make_labels(graph.view(), query, np.array([T, T + 1, T + 2]))
