from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.target import Kind, Target


def encoded(payments: Any, neighborhood: Any) -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target)
    return Encoding(statistics, payments.schema, payments.strings)


def test_a_seed_alone_is_what_it_would_be_by_itself(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Cutting a seed out of a batch gives, bit for bit, what the rows of that seed hold in the batch."""
    neighborhood = draw_history(payments, 6, 9)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    rows = 0
    for seed in range(6):
        alone = batch.alone(neighborhood.seed_offset, seed)
        start, end = neighborhood.seed_offset[seed : seed + 2].tolist()
        assert (alone.size, alone.width, alone.token) == (1, end - start, None)
        assert torch.equal(alone.clock, batch.clock[start:end])
        assert torch.equal(alone.path, batch.path[start:end])
        rows += sum(len(table.node) for table in alone.tables)
        assert all(int(table.node.max()) < alone.width for table in alone.tables)
    assert rows == sum(len(table.node) for table in batch.tables)


def test_mask_is_true_where_a_row_is(payments: Any, draw_history: Callable[..., Any]) -> None:
    """As many places are true as there are rows, from the left; a full grid has no mask."""
    neighborhood = draw_history(payments, 4, 9)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    mask = batch.mask()
    assert mask is not None
    assert mask.sum(dim=1).tolist() == (neighborhood.seed_offset[1:] - neighborhood.seed_offset[:-1]).tolist()
    assert bool((mask[:, :-1] >= mask[:, 1:]).all())
    assert batch.alone(neighborhood.seed_offset, 0).mask() is None


def test_moving_a_batch_keeps_it(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A batch on another device (here the same) holds the same numbers."""
    neighborhood = draw_history(payments, 3, 5)
    batch = collate(neighborhood, encoded(payments, neighborhood))
    moved = batch.to("cpu")
    assert torch.equal(moved.state, batch.state)
    assert torch.equal(moved.tables[0].dense, batch.tables[0].dense)
    assert (moved.size, moved.width, moved.nodes) == (batch.size, batch.width, batch.nodes)
