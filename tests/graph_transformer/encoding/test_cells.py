from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_transformer.encoding.cells import CellEncoder
from graph_transformer.encoding.quantile import BINS
from graph_transformer.encoding.statistics import ColumnStatistics

DAY_US = 86_400_000_000
EDGES = tuple(np.linspace(0.0, 8.0, BINS + 1))


def encoder(orders: Any, table: str, *columns: ColumnStatistics, outcome: str | None = None) -> CellEncoder:
    """An encoder of some columns of a table."""
    return CellEncoder(orders.schema.table(table), list(columns), orders.strings, seed_outcome=outcome)


def rows(orders: Any, *cells: dict[str, Any], table: str = "orders") -> Any:
    """The columns of rows with these cells, the first one a seed and the others beneath it."""
    seed = orders.seed("orders", 100 * DAY_US, cells[0] if table == "orders" else {})
    customer = orders.row(seed, "orders.customer_id->customers.customer_id", cells[0] if table == "customers" else {})
    for row in cells[1:]:
        orders.row(customer, "customers.customer_id->orders.customer_id", row, event=DAY_US)
    return orders.build().columns[table]


def encode(columns: Any, cells: CellEncoder, seed: int | None = 0) -> Any:
    """The rows encoded at one cut-off, all with the same seed."""
    count = len(columns.node)
    cutoff = np.full(count, 100 * DAY_US)
    return cells.encode(columns, cutoff, None if seed is None else np.full(count, seed))


TOTAL = ColumnStatistics("orders", "total", "numerical", mean=1.0, std=2.0, edges=EDGES)
WEIGHT = ColumnStatistics("orders", "weight", "numerical", mean=0.0, std=1.0, edges=EDGES)


def test_numbers_are_scaled_and_null_is_its_own(orders: Any) -> None:
    """A number is (log1p - mean) / std with its bins; null is zero everywhere but in its flag."""
    dense, _ = encode(rows(orders, {"total": np.e - 1}, {}), encoder(orders, "orders", TOTAL))
    value, null, bins = dense[:, 0], dense[:, 1], dense[:, 2:]
    assert value.tolist() == [0.0, 0.0]
    assert null.tolist() == [0.0, 1.0]
    assert bins[0].sum() == pytest.approx(2.0)  # log1p is 1: two bins of width one half
    assert not bins[1].any()


def test_rows_of_the_seeds_table_are_compared_with_their_seed(orders: Any) -> None:
    """The last columns are seed minus row, and its size, in scaled logs; zero at the seed and where one is null."""
    columns = rows(orders, {"total": np.e - 1}, {"total": np.e**3 - 1}, {})
    dense, _ = encode(columns, encoder(orders, "orders", TOTAL, outcome="returned"))
    assert dense[:, -2:].tolist() == [[0.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]


def test_other_columns_of_a_table_do_not_disturb(orders: Any) -> None:
    """A model that knows one of two numbers reads that one, whatever its place in the schema."""
    columns = rows(orders, {"total": 5.0, "weight": 1e9}, {"total": 7.0, "weight": None})
    alone, _ = encode(columns, encoder(orders, "orders", WEIGHT))
    assert alone[1, 1] == 1.0
    both, _ = encode(columns, encoder(orders, "orders", TOTAL, WEIGHT))
    assert both[:, 0].tolist() == encode(columns, encoder(orders, "orders", TOTAL))[0][:, 0].tolist()


def test_booleans_have_three_states(orders: Any) -> None:
    """False, true and null are three places of one."""
    columns = rows(orders, {"express": 0}, {"express": 1}, {})
    dense, _ = encode(columns, encoder(orders, "orders", ColumnStatistics("orders", "express", "boolean")))
    assert dense.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_seed_never_shows_its_outcome(orders: Any) -> None:
    """The seed's outcome is encoded as null whatever the sampler hands over; a neighbor's is shown."""
    columns = rows(orders, {"returned": 1}, {"returned": 1})
    returned = ColumnStatistics("orders", "returned", "boolean")
    dense, _ = encode(columns, encoder(orders, "orders", returned, outcome="returned"))
    assert dense.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_timestamps_are_ages_at_the_cutoff(orders: Any) -> None:
    """An earlier timestamp is older; a later one is of negative age; null is its flag alone."""
    born = ColumnStatistics("customers", "born", "timestamp", edges=EDGES)
    ages = []
    for value in (50 * DAY_US, 99 * DAY_US, 101 * DAY_US, None):
        dense, _ = encode(
            rows(orders, {"born": value}, table="customers"), encoder(orders, "customers", born), seed=None
        )
        ages.append(float(dense[0, 1]))
        assert dense[0, 0] == (value is None)
    assert ages[0] > ages[1] > 0 > ages[2]
    assert ages[3] == 0.0


def test_embeddings_pass_and_null_is_its_flag(orders: Any) -> None:
    """A vector goes in as it is; a missing one is zero with its flag."""
    picture = ColumnStatistics("orders", "picture", "embedding", dim=3)
    dense, _ = encode(rows(orders, {"picture": [1.0, -2.0, 3.0]}, {}), encoder(orders, "orders", picture))
    assert dense.tolist() == [[0, 1, -2, 3], [1, 0, 0, 0]]


def test_texts_and_bags_are_vectors(orders: Any) -> None:
    """Equal notes are equal vectors, another note is another one; a bag has one place per known element."""
    note = ColumnStatistics("orders", "note", "text")
    dense, _ = encode(rows(orders, {"note": "late"}, {"note": "late"}, {"note": "broken"}),
                      encoder(orders, "orders", note))  # fmt: skip
    assert np.array_equal(dense[0], dense[1])
    assert not np.array_equal(dense[0], dense[2])
    tags = ColumnStatistics("customers", "tags", "multicategorical", values=("new", "vip"))
    bag, _ = encode(
        rows(orders, {"tags": "other\x1fvip"}, table="customers"), encoder(orders, "customers", tags), seed=None
    )
    assert bag.tolist() == [[0, 0, 1, 1]]


def test_categories_are_indices(orders: Any) -> None:
    """A known category has its index, an unseen one and null have theirs."""
    country = ColumnStatistics("customers", "country", "categorical", values=("de", "fr"))
    cells = encoder(orders, "customers", country)
    found = []
    for value in ("fr", "xx", None):
        _, category = encode(rows(orders, {"country": value}, table="customers"), cells, seed=None)
        found.append(category.tolist())
    assert found == [[[3]], [[1]], [[0]]]
    assert cells.category_sizes == (4,)
