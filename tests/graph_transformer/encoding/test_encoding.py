from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.encoding.collate import collate
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.layout import AGE_STEPS, STATES
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.target import Kind, Target

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
      label: {kind: %s, outcome: true}
    links: {household: households}
"""
ROWS = "households.id->spends.household"
LOOP = """
version: 1
name: loop
tables:
  people:
    primary_key: {id: integer}
    columns: {age: numerical}
    links: {manager: people}
"""


def encoding_of(drawing: Any, neighborhood: Any, table: str) -> Encoding:
    """Statistics of the neighborhood for a question about entities, bound to its dictionaries."""
    target = Target(Kind.REGRESSION, table, event_level=False)
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target)
    return Encoding(statistics, drawing.schema, drawing.strings)


@pytest.mark.parametrize(("kind", "label", "zero"), [("numerical", 3.5, 0.0), ("categorical", "gone", "")])
def test_an_outcome_that_is_no_boolean_is_known_or_not(
    draw: Callable[[str], Any], kind: str, label: Any, zero: Any
) -> None:
    """A past label of any kind is known whatever its value; one that is not there yet is not."""
    drawing = draw(SPENDING % kind)
    seed = drawing.seed("households", 1000)
    for value in (label, zero, None):
        drawing.row(seed, ROWS, {"label": value}, event=5)
    neighborhood = drawing.build()
    encoding = encoding_of(drawing, neighborhood, "households")
    assert collate(neighborhood, encoding).state.tolist() == [0, 1, 1, 0]
    assert [path.states for path in encoding.layout().paths] == [1, 2, 1]


def test_rows_are_counted_by_path_and_state(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The counts of a batch are those of its rows: the seed's own are not among them, and states count apart."""
    neighborhood = draw_history(payments, 4, 20)
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target)
    encoding = Encoding(statistics, payments.schema, payments.strings)
    batch = collate(neighborhood, encoding)
    counted = np.expm1(batch.counts.numpy()).reshape(4, -1, AGE_STEPS).sum(axis=2)
    assert counted.shape[1] == encoding.slots_count - 1
    assert np.allclose(counted.sum(axis=1), np.diff(neighborhood.seed_offset) - 1)
    frauds = (batch.state == 2).numpy()
    slot = encoding.slots[(batch.path * STATES + batch.state).numpy()]
    assert np.allclose(counted.sum(axis=0)[np.unique(slot[frauds])].sum(), frauds.sum())


def test_a_table_may_point_at_itself(draw: Callable[[str], Any]) -> None:
    """A circle of links has an order too, and a manager is folded into those it manages."""
    drawing = draw(LOOP)
    seed = drawing.seed("people", 1000, {"age": 30.0})
    manager = drawing.row(seed, "people.manager->people.id", {"age": 50.0})
    drawing.row(manager, "people.id->people.manager", {"age": 40.0})
    neighborhood = drawing.build()
    encoding = encoding_of(drawing, neighborhood, "people")
    assert encoding.layout().folded == (0,)
    (link,) = collate(neighborhood, encoding).links
    assert list(zip(link.child.tolist(), link.parent.tolist(), strict=True)) == [(0, 1), (2, 1)]


def test_a_table_that_training_never_saw_has_a_place(draw: Callable[[str], Any]) -> None:
    """Its rows are of the place after the last, on the path OTHER, and their edges are left out."""
    drawing = draw(SPENDING % "numerical")
    drawing.seed("households", 1000)
    encoding = encoding_of(drawing, drawing.build(), "households")
    seed = drawing.seed("households", 1000)
    drawing.row(seed, ROWS, {"label": 1.0}, event=5)
    batch = collate(drawing.build(), encoding)
    assert batch.table.tolist() == [0, 1]
    assert batch.path.tolist() == [0, 1]
    assert batch.links == ()
    assert torch.equal(batch.degree_node, torch.empty(0, dtype=torch.int64))
