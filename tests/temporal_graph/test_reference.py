"""The plain twin against graphs small enough to draw: the twin is the oracle of others, so it is checked by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temporal_graph.reference import BARE, HIDDEN, ReferenceApplied, ReferenceEvent, ReferenceGraph
from temporal_graph.schema_parse import parse_schema
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

SCHEMA = parse_schema("""
version: 1
name: payments
tables:
  customers:
    primary_key: {customer_id: integer}
    columns: {city: categorical}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    lateness: 1s
    future: 500ms
    columns: {amount: numerical, fraud: boolean}
    links: {customer_id: customers}
""")
TO_CHILDREN = "customers.customer_id->payments.customer_id"
TO_PARENT = "payments.customer_id->customers.customer_id"


def pay(operation: Any, key: int, event_us: int, known_us: int | None = None, **cells: Any) -> ReferenceEvent:
    """An event of the payments table."""
    return ReferenceEvent("payments", operation, (key,), event_us, known_us, cells)


def graph_of(*events: ReferenceEvent) -> ReferenceGraph:
    """A graph with these events applied in order."""
    graph = ReferenceGraph(SCHEMA)
    graph.apply(events)
    return graph


def children(graph: ReferenceGraph, customer: int, cutoff_us: int) -> list[tuple[int, int]]:
    """(open time, payment) of a customer's visible payments."""
    return [(opened, key[0]) for opened, key in graph.children(TO_CHILDREN, (customer,), cutoff_us)]  # type: ignore[misc]


def test_a_row_appears_at_the_later_of_its_clocks() -> None:
    """Hidden one microsecond before its visible time, there from it on, in its state and in its parent's children."""
    graph = graph_of(pay("insert", 1, 100, 150, amount=5, customer_id=7))
    assert graph.state("payments", (1,), 149) == BARE
    assert graph.state("payments", (1,), 150) == {"amount": 5.0, "customer_id": (7,)}
    assert (children(graph, 7, 149), children(graph, 7, 150)) == ([], [(150, 1)])


def test_a_report_is_seen_from_when_it_was_known() -> None:
    """A label set by a later version shows from that version's visible time on, and the row keeps its place."""
    graph = graph_of(pay("insert", 1, 100, customer_id=7), pay("upsert", 1, 100, 900, fraud=True))
    assert "fraud" not in graph.state("payments", (1,), 899)
    assert graph.state("payments", (1,), 900) == {"fraud": True, "customer_id": (7,)}
    assert children(graph, 7, 900) == [(100, 1)]


def test_late_news_of_an_older_state() -> None:
    """A version of an earlier event time that is learned later does not undo a newer state; it fills what that left."""
    graph = graph_of(
        pay("insert", 1, 100, customer_id=7),
        pay("upsert", 1, 300, 300, amount=3),
        pay("upsert", 1, 200, 400, amount=2, fraud=False),
    )
    assert graph.state("payments", (1,), 350) == {"amount": 3.0, "customer_id": (7,)}
    assert graph.state("payments", (1,), 400) == {"amount": 3.0, "fraud": False, "customer_id": (7,)}


def test_insert_is_the_whole_row_and_upsert_a_patch() -> None:
    """An upsert keeps what it does not name and clears what it names as null; an insert clears all it does not name."""
    graph = graph_of(
        pay("insert", 1, 100, amount=1, fraud=False, customer_id=7),
        pay("upsert", 1, 200, amount=None),
        pay("insert", 1, 300, amount=9),
    )
    assert graph.state("payments", (1,), 200) == {"fraud": False, "customer_id": (7,)}
    assert graph.state("payments", (1,), 300) == {"amount": 9.0}
    assert (children(graph, 7, 299), children(graph, 7, 300)) == ([(100, 1)], [])


def test_delete_hides_and_upsert_revives_in_place() -> None:
    """A deleted row is hidden from its own time on; a later patch brings it back, with its cells and at its place."""
    graph = graph_of(
        pay("insert", 1, 100, amount=1, customer_id=7),
        pay("insert", 2, 150, customer_id=7),
        pay("delete", 1, 200),
        pay("upsert", 1, 300, fraud=True),
    )
    assert graph.state("payments", (1,), 199) == {"amount": 1.0, "customer_id": (7,)}
    assert graph.state("payments", (1,), 200) == HIDDEN
    assert children(graph, 7, 200) == [(150, 2)]
    assert graph.state("payments", (1,), 300) == {"amount": 1.0, "fraud": True, "customer_id": (7,)}
    assert children(graph, 7, 300) == [(100, 1), (150, 2)]


def test_a_changed_foreign_key_moves_the_row() -> None:
    """The old link closes and the new one opens at the version's visible time; coming back opens a third."""
    graph = graph_of(
        pay("insert", 1, 100, customer_id=7),
        pay("upsert", 1, 200, 220, customer_id=8),
        pay("upsert", 1, 300, customer_id=7),
    )
    seen = {cutoff: (children(graph, 7, cutoff), children(graph, 8, cutoff)) for cutoff in (219, 220, 299, 300)}
    assert seen == {
        219: ([(100, 1)], []),
        220: ([], [(220, 1)]),
        299: ([], [(220, 1)]),
        300: ([(300, 1)], []),
    }
    links = graph.dump()["links"][TO_CHILDREN]
    assert links == {"[7]": [[100, "[1]"], [300, "[1]"]], "[8]": [[220, "[1]"]]}


def test_the_same_foreign_key_again_opens_nothing() -> None:
    """A patch that repeats the parent leaves the row at its place."""
    graph = graph_of(pay("insert", 1, 100, customer_id=7), pay("upsert", 1, 300, amount=2, customer_id=7))
    assert children(graph, 7, 300) == [(100, 1)]
    assert graph.dump()["links"][TO_CHILDREN] == {"[7]": [[100, "[1]"]]}


def test_a_null_foreign_key_closes_the_link() -> None:
    """From the version that clears it, the row is nobody's child; naming the parent again opens anew."""
    graph = graph_of(
        pay("insert", 1, 100, customer_id=7),
        pay("upsert", 1, 200, customer_id=None),
        pay("upsert", 1, 300, customer_id=7),
    )
    assert [children(graph, 7, cutoff) for cutoff in (199, 200, 300)] == [[(100, 1)], [], [(300, 1)]]
    assert graph.parent(TO_PARENT, (1,), 200) is None


def test_a_link_learned_late_opens_when_it_is_learned() -> None:
    """A foreign key of an old event known later opens at the known time, before which the newer one holds."""
    graph = graph_of(pay("upsert", 1, 200, 200, amount=1), pay("insert", 1, 100, 500, customer_id=7))
    assert children(graph, 7, 499) == []
    assert children(graph, 7, 500) == [(500, 1)]
    assert graph.state("payments", (1,), 500) == {"amount": 1.0, "customer_id": (7,)}


def test_children_are_ordered_by_time_then_key() -> None:
    """Whatever the order of arrival, children stand by the visible time of their link, ties by key."""
    events = [
        pay("insert", 3, 100, customer_id=7),
        pay("insert", 1, 50, 100, customer_id=7),
        pay("insert", 2, 99, customer_id=7),
        pay("insert", 10, 100, customer_id=7),
    ]
    for order in itertools.permutations(events):
        assert children(graph_of(*order), 7, 100) == [(99, 2), (100, 1), (100, 3), (100, 10)]


def test_bare_parents() -> None:
    """A parent named only by a foreign key exists, has no cells and no versions, and is shown at every cut-off."""
    graph = graph_of(pay("insert", 1, 100, customer_id=7))
    assert graph.state("customers", (7,), ALWAYS_US) == BARE
    assert graph.dump()["customers"] == {"[7]": {"versions": []}}
    assert graph.parent(TO_PARENT, (1,), 100) == (7,)
    assert graph.shown_version("customers", (7,), 100) == (-1, ALWAYS_US, ALWAYS_US)


def test_deleted_parents_are_not_shown() -> None:
    """A parent that was deleted is followed by nobody; its child keeps the key."""
    graph = graph_of(
        pay("insert", 1, 100, customer_id=7),
        ReferenceEvent("customers", "insert", (7,), cells={"city": "x"}),
        ReferenceEvent("customers", "delete", (7,)),
    )
    assert graph.state("customers", (7,), 100) == HIDDEN
    assert graph.parent(TO_PARENT, (1,), 100) is None
    assert graph.state("payments", (1,), 100) == {"customer_id": (7,)}


def test_rows_without_time_are_always_visible() -> None:
    """A row of a table without time has ALWAYS_US on both clocks, whatever times its insert carries."""
    graph = graph_of(ReferenceEvent("customers", "insert", (7,), 5_000, 6_000, {"city": "Bern"}))
    assert graph.state("customers", (7,), ALWAYS_US) == {"city": "Bern"}
    assert graph.dump()["customers"]["[7]"]["versions"] == [[ALWAYS_US, ALWAYS_US, "insert", {"city": "Bern"}]]


def test_changes_of_rows_without_time_may_have_one() -> None:
    """A customer that moves, or leaves, does so at the time the change says; without one it always has."""
    move = ReferenceEvent("customers", "upsert", (7,), 5_000, 6_000, {"city": "Rome"})
    graph = graph_of(ReferenceEvent("customers", "insert", (7,), cells={"city": "Bern"}), move)
    assert [graph.state("customers", (7,), cutoff) for cutoff in (5_999, 6_000)] == [{"city": "Bern"}, {"city": "Rome"}]
    graph.apply([ReferenceEvent("customers", "delete", (7,), 7_000)])
    assert [graph.state("customers", (7,), cutoff) for cutoff in (6_999, 7_000)] == [{"city": "Rome"}, HIDDEN]
    graph.apply([ReferenceEvent("customers", "upsert", (8,), cells={"city": "Oslo"})])
    assert graph.state("customers", (8,), ALWAYS_US) == {"city": "Oslo"}


def test_duplicates_keep_the_earliest_known_time() -> None:
    """The same event again changes nothing and is counted so, except that an earlier known time wins."""
    early, late = (pay("insert", 1, 100, known, amount=1) for known in (120, 150))
    for order, changes in (([early, late, early], 1), ([late, early, late], 2)):
        graph = ReferenceGraph(SCHEMA)
        assert graph.apply(order) == ReferenceApplied(changes, 3 - changes, 0, ())
        assert graph.dump()["payments"]["[1]"]["versions"] == [[100, 120, "insert", {"amount": 1.0}]]


@pytest.mark.parametrize(
    ("event_us", "known_us", "reason"),
    [(0, 1_000_000, None), (0, 1_000_001, "late"), (500_000, 0, None), (500_001, 0, "future")],
)
def test_bounds_at_one_microsecond(event_us: int, known_us: int, reason: str | None) -> None:
    """Exactly at the table's bound an event is applied, one microsecond beyond it is late, or of the future."""
    graph = ReferenceGraph(SCHEMA)
    result = graph.apply([pay("insert", 1, event_us, known_us)])
    assert result.rejected == (() if reason is None else ((0, reason),))
    assert ("[1]" in graph.dump()["payments"]) == (reason is None)


def test_a_backfill_is_not_judged() -> None:
    """A declared backfill is never late; it is known when it happened unless it says when it was known."""
    graph = ReferenceGraph(SCHEMA)
    assert graph.apply([pay("insert", 1, 0, 10**12), pay("insert", 2, 7)], backfill=True).applied == 2
    assert graph.dump()["payments"] == {
        "[1]": {"versions": [[0, 10**12, "insert", {}]]},
        "[2]": {"versions": [[7, 7, "insert", {}]]},
    }


def test_shown_version_counts_changes_and_keeps_the_rows_own_times() -> None:
    """The version shown is the number of visible changes; the times are those of the row's first, not of the change."""
    graph = graph_of(pay("insert", 1, 100, 110), pay("upsert", 1, 100, 900, fraud=True))
    assert graph.shown_version("payments", (1,), 109) == (-1, ALWAYS_US, ALWAYS_US)
    assert graph.shown_version("payments", (1,), 899) == (0, 100, 110)
    assert graph.shown_version("payments", (1,), 900) == (1, 100, 110)
    assert graph.first_version("payments", (1,)) == {}


EVENTS = st.lists(
    st.builds(
        pay,
        st.sampled_from(["insert", "upsert", "delete"]),
        st.integers(1, 2),
        st.integers(0, 4),
        st.integers(0, 4),
        amount=st.sampled_from([None, 1.0, 2.0]),
        customer_id=st.sampled_from([None, 7, 8]),
    ),
    max_size=8,
)


@UNHURRIED
@given(EVENTS, st.randoms(use_true_random=False))
def test_arrival_order_does_not_matter(events: list[ReferenceEvent], random: Any) -> None:
    """Shuffled, split or repeated, the same events give the same graph."""
    expected = graph_of(*events).dump()
    shuffled = [*events, *events[:3]]
    random.shuffle(shuffled)
    graph = ReferenceGraph(SCHEMA)
    for event in shuffled:
        graph.apply([event])
    assert graph.dump() == expected


@UNHURRIED
@given(EVENTS)
def test_intervals_and_states_tell_one_story(events: list[ReferenceEvent]) -> None:
    """At every cut-off, a child is listed exactly under the parent its state names, at an open time of the dump."""
    graph = graph_of(*events)
    links = graph.dump()["links"][TO_CHILDREN]
    for cutoff in (*range(-1, 6), TIME_MAX_US):
        listed = {(parent, key): opened for parent in (7, 8) for opened, key in children(graph, parent, cutoff)}
        states = {key: graph.state("payments", (key,), cutoff) for key in (1, 2)}
        named = {
            (state["customer_id"][0], key)  # type: ignore[index]
            for key, state in states.items()
            if not isinstance(state, str) and "customer_id" in state
        }
        assert listed.keys() == named
        for (parent, key), opened in listed.items():
            assert opened <= cutoff
            assert [opened, f"[{key}]"] in links[f"[{parent}]"]
