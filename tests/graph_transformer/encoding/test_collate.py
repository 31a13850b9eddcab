from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.codes import FIRST_INDEX, NULL_INDEX, UNSEEN_INDEX
from graph_transformer.encoding.collate import WIDTH_STEP, Encoding, collate
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.model import build_model
from graph_transformer.target import Kind, Target
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

CUSTOMER = "transactions.customer_id->customers.customer_id"
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"


def encoded(drawing: Any, neighborhood: Any, table: str = "transactions", outcome: str = "fraud") -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    target = Target(Kind.BINARY, table, event_level=True, column=outcome)
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target)
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


OF_CUSTOMER_TOLD = "customers.customer_id->payments.customer_id"
TOLD = """
version: 1
name: told
tables:
  customers:
    primary_key: {customer_id: integer}
  payments:
    primary_key: {payment_id: integer}
    time_column: at
    columns:
      amount: numerical
      channel: categorical
      fraud: {kind: boolean, outcome: true}
      tags: multicategorical
      note: text
    links: {customer_id: customers}
"""


def told(number: int, channel: str | None, tags: list[str] | None, note: str | None, customer: int = 1) -> bytes:
    """A payment of a customer, a second after the one before."""
    event = row_event_pb2.RowEvent(table="payments", operation=row_event_pb2.OPERATION_INSERT)
    event.key.parts.add(integer=number)
    event.event_time_us = number * 1_000_000
    event.cells.add(column="amount", number=float(number))
    event.cells.add(column="customer_id", integer=customer)
    if channel is not None:
        event.cells.add(column="channel", text=channel)
    if tags is not None:
        event.cells.add(column="tags", texts=row_event_pb2.TextList(values=tags))
    if note is not None:
        event.cells.add(column="note", text=note)
    return event.SerializeToString()


def test_an_event_is_read_as_its_row_is_once_it_is_stored() -> None:
    """Serving is training: strings that the serving graph never stored give the tensors they give in the graph."""
    schema = parse_schema(TOLD)
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 4}}, {"hop2": {"default": 4}}]})
    with TemporalGraph.create(schema, arena_bytes=1 << 26) as trained:
        trained.apply([told(n, ["shop", "web"][n % 2], ["a", "b"], f"note {n % 3}") for n in range(1, 30)])
        view, rows = trained.view(), np.arange(29, dtype=np.int64)
        seen = Sampler(view, plan).sample_rows("payments", rows, (rows + 1) * 1_000_000 - 1)
        statistics = fit_statistics(
            [seen], schema, view.strings, target=Target(Kind.BINARY, "payments", event_level=True, column="fraud")
        )
    asked = [
        told(10, "web", ["b", "never"], "said for the first time"),  # training knew the channel, this graph does not
        told(11, "pigeon", ["never", "ever"], "said for the first time"),
        told(12, "shop", ["a"], "note 0"),
        told(13, None, None, None),
        told(14, "pigeon", [], ""),
    ]
    with TemporalGraph.create(schema, arena_bytes=1 << 26) as graph:
        graph.apply([told(n, "shop", ["a"], "note 0") for n in range(1, 5)])
        view = graph.view()
        sampler, encoding = Sampler(view, plan), Encoding(statistics, schema, view.strings)
        cutoff = np.full(len(asked), 9_999_999)
        events = sampler.sample_events(asked, cutoff)
        assert len(events.unseen) == 9
        before = collate(events, encoding)
        graph.apply(asked)
        rows = view.row_index("payments", [10, 11, 12, 13, 14])
        stored = collate(sampler.sample_rows("payments", rows, cutoff), encoding)
    for name in ("path", "also", "state", "clock", "age_days"):
        assert torch.equal(getattr(before, name), getattr(stored, name))
    for one, other in zip(before.tables, stored.tables, strict=True):
        assert one.table == other.table
        for name in ("node", "dense", "category"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    payments = next(table for table in before.tables if table.table == "payments")
    seeds = np.searchsorted(payments.node.numpy(), events.seed_offset[:-1])
    assert payments.category[seeds, 0].tolist() == [
        FIRST_INDEX + 1,
        UNSEEN_INDEX,
        FIRST_INDEX,
        NULL_INDEX,
        UNSEEN_INDEX,
    ]


@torch.inference_mode()
def test_a_session_is_read_as_its_rows_are_once_they_are_stored() -> None:
    """Events that a request brings give the tensors, and the logits of a model, that they give in the graph."""
    schema = parse_schema(TOLD)
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 8}}, {"hop2": {"default": 4}}]})
    sessions = [
        [told(10, "pigeon", ["never", "a"], "said for the first time"), told(11, "web", None, "note 0")],
        [told(20, "shop", ["a"], "note 0", customer=404)],
        [],
    ]
    with TemporalGraph.create(schema, arena_bytes=1 << 26) as graph:
        graph.apply([told(n, ["shop", "web"][n % 2], ["a", "b"], f"note {n}", customer=1 + n % 2) for n in range(9)])
        view = graph.view()
        sampler, keys, cutoff = Sampler(view, plan), [1, 404, 2], np.full(3, 60_000_000)
        target = Target(Kind.BINARY, "customers", event_level=False)
        statistics = fit_statistics(
            [sampler.sample_keys("customers", keys, cutoff)], schema, view.strings, target=target
        )
        encoding = Encoding(statistics, schema, view.strings)
        rows = view.row_index("customers", keys)
        before = collate(sampler.sample_sessions("customers", rows, sessions, cutoff, link=OF_CUSTOMER_TOLD), encoding)
        without = collate(sampler.sample_keys("customers", keys, cutoff), encoding)
        graph.apply([event for session in sessions for event in session])
        stored = collate(sampler.sample_keys("customers", keys, cutoff), encoding)
    for name in ("path", "also", "state", "clock", "age_days", "rank", "degree", "seed", "counts", "token"):
        assert torch.equal(getattr(before, name), getattr(stored, name))
    for one, other in zip(before.tables, stored.tables, strict=True):
        for name in ("node", "dense", "category"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    for link, same in zip(before.links, stored.links, strict=True):
        assert torch.equal(link.child, same.child)
        assert torch.equal(link.parent, same.parent)
    torch.manual_seed(0)
    model = build_model(encoding.layout(), ModelConfig(), 1).eval()
    logits = model(before)
    assert torch.equal(logits, model(stored))
    same_logits = torch.isclose(logits, model(without), rtol=0, atol=1e-6)  # batches of other shapes round otherwise
    assert same_logits.flatten().tolist() == [False, False, True]
