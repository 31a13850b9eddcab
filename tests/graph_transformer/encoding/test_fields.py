from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_transformer.encoding.fields import NULL_CELLS, field_of


@pytest.mark.parametrize(
    ("table", "column", "field", "at"),
    [
        ("customers", "tags", "coded", 1),
        ("customers", "born", "timestamp", 0),
        ("orders", "weight", "numerical", 1),
        ("orders", "returned", "boolean", 1),
        ("orders", "note", "coded", 0),
    ],
)
def test_a_column_lies_where_its_cells_are(orders: Any, table: str, column: str, field: str, at: int) -> None:
    """The array is that of the column's kind, the place its number among the columns of that array."""
    seed = orders.seed("orders", 5)
    orders.row(seed, "orders.customer_id->customers.customer_id")
    held = orders.build().columns[table]
    assert field_of(orders.schema.table(table), column) == (field, slice(at, at + 1))
    assert getattr(held, f"{field}_names")[at] == column
    assert np.array_equal(getattr(held, field)[:, at], [NULL_CELLS[field]], equal_nan=field == "numerical")


def test_an_embedding_lies_in_as_many_places_as_it_is_long(orders: Any) -> None:
    """Vectors stand side by side: where one lies is a stretch."""
    assert field_of(orders.schema.table("orders"), "picture") == ("embedding", slice(0, 3))
