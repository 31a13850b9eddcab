"""Contributions of rows, and their aggregation over windows; `test_labels.py` holds both against the definition."""

from __future__ import annotations

from collections.abc import Callable

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.aggregate import Aggregated, Contributions, aggregate, contributions_of
from graph_transformer.finetune.query.rows import States
from graph_transformer.finetune.query.syntax import Function, Unit, Window
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent
from temporal_graph.time_rule import TIME_MAX_US

Make = Callable[..., ReferenceEvent]
Bind = Callable[[str], BoundQuery]
Grown = Callable[..., TemporalGraph]


def made(graph: TemporalGraph, bound: BoundQuery, known_by_us: int | None = None) -> Contributions:
    """The contributions of the query's one aggregation."""
    (aggregation,) = bound.aggregations.values()
    return contributions_of(States(graph.view(), aggregation.table), bound, aggregation, known_by_us=known_by_us)


def spans(found: Contributions) -> list[tuple[int, int, int, bool]]:
    """(value, from, to, final) of each contribution."""
    columns = (found.value.data.astype(int), found.from_us, found.to_us, found.final)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_states_that_add_the_same_are_one_contribution(grown: Grown, bound: Bind, order: Make) -> None:
    """A change elsewhere continues it, a change of the value ends it, and so does a deletion."""
    query = bound("PREDICT SUM(orders.price, 0, 1) FOR EACH users.user_id")
    events = [
        order(1, 10, user=1, price=3.0),
        order(1, 20, operation="upsert", status="sent"),
        order(1, 30, operation="upsert", price=4.0),
        order(1, 40, operation="delete"),
    ]
    with grown(events) as graph:
        assert spans(made(graph, query)) == [(3, 10, 30, False), (4, 30, 40, False)]
        assert spans(made(graph, query, 39)) == [(3, 10, 30, False), (4, 30, TIME_MAX_US, True)]
        assert spans(made(graph, query, 29)) == [(3, 10, TIME_MAX_US, True)]
        assert spans(made(graph, query, 9)) == []
        counted = bound("PREDICT COUNT(orders.price, 0, 1) FOR EACH users.user_id")
        assert spans(made(graph, counted)) == [(1, 10, 40, False)]


def test_a_row_that_moves_leaves_one_entity_for_another(grown: Grown, bound: Bind, order: Make) -> None:
    """Its contribution to the first ends when that to the second begins."""
    query = bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id")
    with grown([order(1, 10, user=1), order(1, 30, operation="upsert", user=2)]) as graph:
        found = made(graph, query)
    assert spans(found) == [(1, 10, 30, False), (1, 30, TIME_MAX_US, True)]
    assert found.entity[0] != found.entity[1]


def over(graph: TemporalGraph, bound: BoundQuery, function: Function, **options: int | None) -> Aggregated:
    """One aggregation of all entities over ten seconds from time 0."""
    entities = graph.view().row_count("users")
    window = Window(0, 10, Unit.SECONDS)
    stood_at_us = options.get("stood_at_us")
    return aggregate(function, made(graph, bound), entities=entities, time_us=0, window=window, stood_at_us=stood_at_us)


def test_ties_of_first_and_last_go_by_visible_time_then_key(grown: Grown, bound: Bind, order: Make) -> None:
    """Of orders at one moment the one known first is the first, else the one of the smaller key, however they came."""
    query = bound("PREDICT FIRST(orders.price, 0, 10, seconds) FOR EACH users.user_id")
    rows = [order(9, 5, user=1, price=9.0), order(2, 5, user=1, price=2.0), order(1, 5, 6, user=1, price=1.0)]
    for events in (rows, rows[::-1]):
        with grown(events) as graph:
            assert over(graph, query, Function.FIRST).values.data[0] == 2.0
            assert over(graph, query, Function.LAST).values.data[0] == 1.0


def test_nothing_is_zero_or_undefined(grown: Grown, bound: Bind, user: Make) -> None:
    """Of no rows SUM and counts are 0, the others are null."""
    query = bound("PREDICT SUM(orders.price, 0, 10, seconds) FOR EACH users.user_id")
    with grown([user(1)]) as graph:
        null = {function: bool(over(graph, query, function).values.null[0]) for function in Function}
    assert {function for function, undefined in null.items() if not undefined} == {
        Function.SUM, Function.COUNT, Function.COUNT_DISTINCT,
    }  # fmt: skip


def test_what_stood_at_a_time(grown: Grown, bound: Bind, order: Make) -> None:
    """At both sides of a correction, and its final value is known from then on."""
    query = bound("PREDICT SUM(orders.price, 0, 10, seconds) FOR EACH users.user_id")
    events = [order(1, 5, user=1, price=1.0), order(1, 20_000_000, operation="upsert", price=4.0)]
    with grown(events) as graph:
        for stood_at_us, expected in ((4, 0.0), (5, 1.0), (19_999_999, 1.0), (20_000_000, 4.0), (None, 4.0)):
            found = over(graph, query, Function.SUM, stood_at_us=stood_at_us)
            assert found.values.data.tolist() == [expected]
        assert found.known_time_us.tolist() == [20_000_000]
