"""Labels as columns: chosen, known by a time, as examples, and their shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graph_transformer.finetune.query.label_table import LabelTable, concatenated
from graph_transformer.target import Kind, Target

ENTITY = Target(Kind.REGRESSION, "users", event_level=False, horizon_us=5, task_table="t")


def table(rows: list[tuple[int, int, int, float]], target: Target = ENTITY) -> LabelTable:
    """Labels as (row, anchor, known time, label)."""
    row, anchor, known, label = (np.array(column) for column in zip(*rows, strict=True))
    return LabelTable(target, row, anchor, known, label.astype(np.float64))


FINAL = [(0, 10, 15, 1.0), (1, 10, 30, 2.0), (0, 20, 25, 3.0)]
LATE = replace(table(FINAL), first=table([(1, 10, 15, 0.0), (2, 10, 15, 9.0)]))


@pytest.mark.parametrize(
    ("time_us", "expected"),
    [
        (14, []),
        (15, [(0, 10, 1.0), (1, 10, 0.0), (2, 10, 9.0)]),
        (29, [(0, 10, 1.0), (1, 10, 0.0), (2, 10, 9.0), (0, 20, 3.0)]),
        (30, [(0, 10, 1.0), (1, 10, 2.0), (2, 10, 9.0), (0, 20, 3.0)]),
        (None, [(0, 10, 1.0), (1, 10, 2.0), (0, 20, 3.0)]),
    ],
)
def test_labels_as_known_by_a_time(time_us: int | None, expected: list[tuple[int, int, float]]) -> None:
    """A late label is what it seemed until its change, at both sides of it; nothing is known before its window ends."""
    found = LATE.known_by(time_us)
    columns = (found.row.tolist(), found.anchor_time_us.tolist(), found.label.tolist())
    assert list(zip(*columns, strict=True)) == expected
    assert len(LATE.known(time_us)) == len(expected)


def test_examples_are_asked_as_of_the_anchor_or_before_the_event() -> None:
    """An entity at its anchor; a row 1 µs before it happens."""
    examples = table(FINAL).to_examples()
    assert examples.cutoff_time_us.tolist() == [10, 10, 20]
    assert examples.visible_time_us.tolist() == [15, 30, 25]
    assert examples.label.dtype == np.float32
    event = Target(Kind.BINARY, "orders", event_level=True, column="fraud")
    assert table(FINAL, event).to_examples().cutoff_time_us.tolist() == [9, 9, 19]


def test_lists_are_chosen_with_their_labels() -> None:
    """By a mask or by positions, in any order."""
    target = Target(Kind.RANKING, "users", event_level=False)
    whole = replace(
        table([(0, 1, 1, 2.0), (1, 1, 1, 0.0), (2, 1, 1, 1.0)], target),
        item_offset=np.array([0, 2, 2, 3]),
        item=np.array([7, 8, 9]),
        item_table="items",
    )
    for chosen, items, offsets in (
        (np.array([2, 0]), [9, 7, 8], [0, 1, 3]),
        (np.array([True, False, False]), [7, 8], [0, 2]),
        (np.array([], dtype=np.int64), [], [0]),
    ):
        found = whole.select(chosen)
        assert found.item is not None
        assert found.item_offset is not None
        assert (found.item.tolist(), found.item_offset.tolist()) == (items, offsets)


def test_shares_say_what_labels_are_like() -> None:
    """The share of yes, of each class, or a number's mean and quartiles; of none, nothing."""
    assert table(FINAL).shares() == {"mean": 2.0, "q25": 1.5, "median": 2.0, "q75": 2.5}
    binary = Target(Kind.BINARY, "users", event_level=False)
    assert table([(0, 1, 1, 1.0), (1, 1, 1, 0.0)], binary).shares() == {"positive": 0.5}
    classes = Target(Kind.MULTICLASS, "users", event_level=False, classes=("a", "b"))
    assert table([(0, 1, 1, 1.0), (1, 1, 1, 1.0)], classes).shares() == {"a": 0.0, "b": 1.0}
    several = replace(table(FINAL[:2], replace(classes, kind=Kind.MULTILABEL)), label=np.array([[1.0, 0], [1, 1]]))
    assert several.shares() == {"a": 1.0, "b": 0.5}
    assert table(FINAL).select(np.zeros(3, dtype=bool)).shares() == {}


def test_tables_are_joined_by_anchor_and_row() -> None:
    """Whatever table a label comes from."""
    found = concatenated([table([(1, 20, 25, 0.0)]), table(FINAL)])
    assert list(zip(found.row.tolist(), found.anchor_time_us.tolist(), strict=True)) == [
        (0, 10),
        (1, 10),
        (0, 20),
        (1, 20),
    ]
