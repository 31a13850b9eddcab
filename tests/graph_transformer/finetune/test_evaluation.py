from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.evaluation import Scorer, evaluate
from graph_transformer.finetune.examples import labeled_rows
from graph_transformer.finetune.train import train
from graph_transformer.task import Interval, Splits, Task
from temporal_graph.schema import Schema

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def saved(world: Any, payments_schema: Schema, quick: Task, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of a few steps that reads all that a model can be told of a seed."""
    told = replace(quick, model=replace(quick.model, tallies=True, comparisons=True))
    return train(world.view, payments_schema, told, tmp_path_factory.mktemp("model") / "m").checkpoint


@pytest.fixture(scope="module")
def noon_us(world: Any) -> int:
    """A time late in the world at which questions are asked."""
    return int(world.event_time_us[0]) + 19 * DAY_US


@pytest.fixture(scope="module")
def lying(world: Any, payments_schema: Schema, noon_us: int, grow: Any) -> Iterator[Any]:
    """The same world, in which every report that becomes known at noon or later says the opposite, and every payment
    after noon is a hundred times as large.
    """
    built = grow(payments_schema, lie_from_us=noon_us)
    yield built
    built.graph.close()


def answers(checkpoint: Checkpoint, world: Any, before_us: int, *, days: int = 2) -> np.ndarray[Any, Any]:
    """Raw outputs for the payments of the last days before a time, all asked before it."""
    view = world.view
    model, encoding = checkpoint.build(view.schema, view.strings)
    rows = labeled_rows(view, checkpoint.task.target)
    asked = rows.select((rows.time_us > before_us - days * DAY_US) & (rows.time_us <= before_us))
    return Scorer(view, checkpoint.task, model, encoding, checkpoint.unit).raw(asked)


def test_what_is_not_known_yet_changes_nothing(saved: Checkpoint, world: Any, lying: Any, noon_us: int) -> None:
    """Labels that become known at noon or later, and amounts of later payments, are in no answer of the morning."""
    assert np.array_equal(answers(saved, world, noon_us), answers(saved, lying, noon_us))


def test_what_is_known_changes_the_answer(saved: Checkpoint, world: Any, lying: Any, noon_us: int) -> None:
    """A day later the same labels and amounts are known, and the answers differ: the test above can fail."""
    later = noon_us + 2 * DAY_US
    assert np.abs(answers(saved, world, later) - answers(saved, lying, later)).max() > 0.01


def test_evaluation_is_of_the_split_or_of_any_interval(saved: Checkpoint, world: Any) -> None:
    """Without an interval the test split is measured; with one, that interval; without either it is an error."""
    test = saved.task.splits.test
    assert test is not None
    whole = evaluate(world.view, saved)
    assert whole.metrics.count == int(
        ((world.event_time_us >= test.start_us) & (world.event_time_us < test.end_us)).sum()
    )
    half = evaluate(world.view, saved, Interval(test.start_us, test.start_us + DAY_US))
    assert half.metrics.count < whole.metrics.count
    assert half.metrics.card_precision is not None
    without = replace(saved, task=replace(saved.task, splits=Splits(saved.task.splits.train)))
    with pytest.raises(ValueError, match="no test split"):
        evaluate(world.view, without)


def test_known_cards_are_left_out_where_the_task_says_so(saved: Checkpoint, world: Any) -> None:
    """The Handbook's protocol measures fewer rows, for the same model; with no row left it is an error."""
    test = saved.task.splits.test
    day_before = Splits(train=Interval(test.start_us - DAY_US, test.start_us), test=test)
    strict = replace(saved, task=replace(saved.task, exclude_known_entities=True, splits=day_before))
    assert 0 < evaluate(world.view, strict).metrics.count < evaluate(world.view, saved).metrics.count
    assert strict.version == saved.version
    everyone_known = replace(strict, task=replace(strict.task, splits=saved.task.splits))
    with pytest.raises(NotEnoughExamples):
        evaluate(world.view, everyone_known)
