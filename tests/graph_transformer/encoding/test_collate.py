from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.encoding.collate import WIDTH_STEP, Encoding, collate
from graph_transformer.encoding.statistics import fit_statistics

CUSTOMER = "transactions.customer_id->customers.customer_id"
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"


def encoded(drawing: Any, neighborhood: Any, table: str = "transactions", outcome: str = "fraud") -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, seed_table=table, outcome=outcome)
    return Encoding(statistics, drawing.schema, drawing.strings)


def test_every_row_lies_beside_its_seed(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Row b of the grid holds the rows of seed b, the seed first, then places that hold none."""
    neighborhood = draw_history(payments, 5, 8)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    assert batch.token is not None
    assert batch.token[:, 0].tolist() == neighborhood.seed_offset[:-1].tolist()
    for seed in range(5):
        start, end = neighborhood.seed_offset[seed : seed + 2].tolist()
        assert batch.token[seed, : end - start].tolist() == list(range(start, end))
        assert set(batch.token[seed, end - start :].tolist()) <= {batch.nodes}


def test_widths_come_in_steps_and_one_neighborhood_needs_no_grid(
    payments: Any, draw_history: Callable[..., Any]
) -> None:
    """Several neighborhoods are padded to a multiple of the step; one alone, or a full grid, is not padded."""
    several = draw_history(payments, 5, 40)
    assert collate(several, encoded(payments, several)).width % WIDTH_STEP == 0
    one = draw_history(payments, 1, 40)
    batch = collate(one, encoded(payments, several))
    assert batch.token is None
    assert batch.width == len(one.hop)


def test_a_fixed_width_holds_or_refuses(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A width that fits is used; one that does not is an error, never a cut neighborhood."""
    neighborhood = draw_history(payments, 2, 10)
    encoding = encoded(payments, neighborhood)
    longest = int(np.diff(neighborhood.seed_offset).max())
    assert collate(neighborhood, encoding, width=longest + 3).width == longest + 3
    with pytest.raises(ValueError, match="does not fit"):
        collate(neighborhood, encoding, width=longest - 1)


def test_the_state_of_a_row_is_what_is_known_of_its_outcome(payments: Any) -> None:
    """Not known, known false and known true are 0, 1 and 2; a seed is never known."""
    seed = payments.seed("transactions", 1000, {"fraud": 1})
    customer = payments.row(seed, CUSTOMER)
    for fraud in (None, 0, 1):
        payments.row(customer, OF_CUSTOMER, {"fraud": fraud}, event=5)
    neighborhood = payments.build()
    batch = collate(neighborhood, encoded(payments, neighborhood))
    assert batch.state.tolist() == [0, 0, 0, 1, 2]


def test_a_row_is_encoded_the_same_in_any_company(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The numbers of a seed's rows do not depend on what else is in the batch: equal to the last bit."""
    many = draw_history(payments, 9, 12)
    encoding = encoded(payments, many)
    batch = collate(many, encoding)
    first = draw_history(payments, 1, 12)
    alone = collate(first, encoding)
    count = len(first.hop)
    assert torch.equal(alone.clock, batch.clock[:count])
    assert torch.equal(alone.path, batch.path[:count])
    for one, other in zip(alone.tables, batch.tables, strict=True):
        assert torch.equal(one.dense, other.dense[: len(one.dense)])


def test_only_time_tells_rows_apart_that_differ_in_time(payments: Any) -> None:
    """Two rows with equal cells, one older: their clocks differ, their cells do not."""
    seed = payments.seed("transactions", 10**12, {"amount": 2.0})
    customer = payments.row(seed, CUSTOMER)
    for event in (10**11, 9 * 10**11):
        payments.row(customer, OF_CUSTOMER, {"amount": 3.0}, event=event)
    neighborhood = payments.build()
    batch = collate(neighborhood, encoded(payments, neighborhood))
    (table,) = batch.tables
    assert torch.equal(table.dense[1], table.dense[2])
    assert not torch.equal(batch.clock[2], batch.clock[3])
    assert batch.age_days[2] > batch.age_days[3]


def test_every_kind_of_column_goes_in(orders: Any) -> None:
    """A schema with all kinds collates to finite numbers of the widths the layout says."""
    seed = orders.seed("orders", 10**15, {"total": 1.0, "note": "x"})
    customer = orders.row(
        seed, "orders.customer_id->customers.customer_id", {"country": "de", "tags": "a\x1fb", "born": 1}
    )
    orders.row(customer, "customers.customer_id->orders.customer_id", {"picture": [1.0, 2.0, 3.0]}, event=5)
    neighborhood = orders.build()
    encoding = encoded(orders, neighborhood, "orders", "returned")
    batch = collate(neighborhood, encoding)
    layout = {table.table: table for table in encoding.layout().tables}
    assert {table.table for table in batch.tables} == {"orders", "customers"}
    for table in batch.tables:
        assert table.dense.shape[1] == layout[table.table].dense_width
        assert table.category.shape[1] == len(layout[table.table].category_sizes)
        assert bool(torch.isfinite(table.dense).all())
    assert batch.clock.shape[1] == encoding.layout().clock_width


def test_unknown_entities_and_empty_neighborhoods_collate(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A seed without cells and without neighbors is a batch like any other."""
    encoding = encoded(payments, draw_history(payments, 3, 5))
    payments.seed("transactions", 1000)
    batch = collate(payments.build(), encoding)
    assert (batch.size, batch.width, batch.nodes) == (1, 1, 1)
    assert bool(torch.isfinite(batch.tables[0].dense).all())


def test_a_table_added_to_the_schema_changes_nothing(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Tables are found by name: another table before them in the schema leaves the batch as it was."""
    neighborhood = draw_history(payments, 3, 5)
    before = encoded(payments, neighborhood)
    schema = payments.schema
    extended = replace(schema, tables=(replace(schema.tables[0], name="shops"), *schema.tables))
    after = Encoding(before.statistics, extended, payments.strings)
    assert after.layout() == before.layout()
    shifted = replace(neighborhood, table=neighborhood.table + np.uint8(1))
    assert torch.equal(collate(shifted, after).path, collate(neighborhood, before).path)
