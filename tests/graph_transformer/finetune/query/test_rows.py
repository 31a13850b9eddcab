"""Values of a table's columns in its states, from the real graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.rows import States
from graph_transformer.finetune.query.syntax import Column
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent

Make = Callable[..., ReferenceEvent]
Bind = Callable[[str], BoundQuery]
Grown = Callable[..., TemporalGraph]

CONDITIONS = [
    "orders.price = 1",
    "orders.status = 'x'",
    "orders.labels CONTAINS 'x'",
    "orders.paid = TRUE",
    "orders.due > 1970-01-01",
    "orders.note = 'x'",
    "orders.order_id = 1",
    "orders.item_id = 'x'",
    "orders.at > 1970-01-01",
]
EVERY = f"PREDICT COUNT(orders.* WHERE {' OR '.join(CONDITIONS)}, 0, 1) FOR EACH users.user_id"


def test_every_role_and_kind_has_its_values(grown: Grown, bound: Bind, order: Make) -> None:
    """Cells of each kind, the time, the key and a link; nulls where a cell is absent."""
    full = order(7, 50, user=1, item="a", price=2.5, status="s", labels=["q", "p"], paid=True, due=9, note="n")
    query = bound(EVERY)
    with grown([full, order(8, 60)]) as graph:
        states = States(graph.view(), "orders")

        def shown(name: str) -> list[object]:
            values = states.values(query.columns[Column("orders", name)])
            data = [
                values.texts[each] if values.texts is not None else graph.view().keys("items", np.array([each]))[0]
                if values.parent is not None and each >= 0 else each
                for each in values.data.tolist()
            ]  # fmt: skip
            return [None if null else value for value, null in zip(data, values.null.tolist(), strict=True)]

        assert [shown(name) for name in ("price", "status", "paid", "due", "note")] == [
            [2.5, None], ["s", None], [1.0, None], [9, None], ["n", None],
        ]  # fmt: skip
        assert shown("labels") == ["p\x1fq", None]
        assert (shown("at"), shown("order_id"), shown("item_id")) == ([50, 60], [7, 8], ["a", None])


def test_states_as_of_a_time_and_the_last_known(grown: Grown, order: Make) -> None:
    """A state holds from its visible time, not 1 µs before; the last known by a time is the newest visible one."""
    with grown([order(1, 50, price=1.0), order(1, 50, 70, operation="upsert", price=2.0), order(2, 60)]) as graph:
        states = States(graph.view(), "orders")
        found = [states.as_of(time_us, 2).tolist() for time_us in (49, 50, 59, 69, 70)]
        assert found == [[-1, -1], [0, -1], [0, -1], [0, 2], [1, 2]]
        assert [states.last(time_us).tolist() for time_us in (49, 69, 70, None)] == [[], [0, 2], [1, 2], [1, 2]]
