from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graph_transformer.encoding.outcomes import outcomes_of, states
from temporal_graph.errors import SchemaError

SPENDING = """
version: 1
name: spending
tables:
  households:
    primary_key: {id: integer}
  spends:
    primary_key: {id: integer}
    time_column: at
    columns:
      amount: numerical
      label: {kind: %s, outcome: true}
    links: {household: households}
"""
ROWS = "households.id->spends.household"
CUSTOMER = "transactions.customer_id->customers.customer_id"
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"


@pytest.mark.parametrize(
    ("kind", "labels", "found"),
    [
        ("boolean", [None, 0, 1], [0, 1, 2]),
        ("numerical", [None, 0.0, 3.5], [0, 1, 1]),
        ("categorical", [None, "", "gone"], [0, 1, 1]),
    ],
)
def test_an_outcome_is_not_known_or_known_or_true(
    draw: Callable[[str], Any], kind: str, labels: list[Any], found: list[int]
) -> None:
    """True is a state of booleans alone; any other value that is there is known, whatever it is."""
    drawing = draw(SPENDING % kind)
    seed = drawing.seed("households", 1000)
    for label in labels:
        drawing.row(seed, ROWS, {"label": label}, event=5)
    outcomes = outcomes_of(drawing.schema, ["households", "spends"])
    assert outcomes["spends"].states == max(found) + 1
    assert states(drawing.build(), outcomes).tolist() == [0, *found]


def test_a_seed_s_outcome_is_not_known(payments: Any) -> None:
    """Also where the sample has it by mistake; its neighbors' are."""
    seed = payments.seed("transactions", 1000, {"fraud": 1})
    customer = payments.row(seed, CUSTOMER)
    payments.row(customer, OF_CUSTOMER, {"fraud": 1}, event=5)
    outcomes = outcomes_of(payments.schema, ["transactions", "customers"])
    assert states(payments.build(), outcomes).tolist() == [0, 0, 2]


def test_tables_without_outcome_have_none(payments: Any) -> None:
    """Nothing is read of a table without an outcome, and a table that is not there is an error."""
    assert outcomes_of(payments.schema, ["customers", "terminals"]) == {}
    seed = payments.seed("transactions", 1000)
    payments.row(seed, CUSTOMER)
    assert states(payments.build(), {}).tolist() == [0, 0]
    with pytest.raises(SchemaError):
        outcomes_of(payments.schema, ["shops"])
