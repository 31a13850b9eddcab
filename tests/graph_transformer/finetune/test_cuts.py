"""Validation cuts lie one before the other, train on what was known when each began, and never see the test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.cuts import Cut, CutFit, cut_examples, cuts_of
from graph_transformer.finetune.examples import Examples, TableLabels
from graph_transformer.splits import Interval, Splits
from graph_transformer.task import Task

DAY_US = 86_400_000_000


def days(start: float, end: float) -> Interval:
    """An interval in days."""
    return Interval(int(start * DAY_US), int(end * DAY_US))


def test_cuts_go_back_by_the_validation_s_length() -> None:
    """Gap and training keep their length where labels go back so far; a cut with half a training is the last."""
    splits = Splits(days(20, 40), days(45, 50), None, days(55, 60))
    assert cuts_of(splits, 0) == [
        Cut(days(20, 40), days(45, 50)),
        Cut(days(15, 35), days(40, 45)),
        Cut(days(10, 30), days(35, 40)),
    ]
    assert [cut.train for cut in cuts_of(splits, 20 * DAY_US)] == [days(20, 40), days(20, 35), days(20, 30)]
    assert len(cuts_of(splits, 20 * DAY_US, count=9)) == 3
    assert len(cuts_of(splits, 0, count=2)) == 2


def test_a_long_validation_is_halved() -> None:
    """Where moving back by its whole length leaves too little to train on, its halves are two cuts."""
    splits = Splits(days(0, 20), days(20, 32), None, days(32, 40))
    assert cuts_of(splits, 0, count=2) == [Cut(days(6, 26), days(26, 32)), Cut(days(0, 20), days(20, 26))]
    for cut in cuts_of(splits, 0):
        assert cut.train.end_us <= cut.validation.start_us
        assert cut.validation.end_us <= 32 * DAY_US
    with pytest.raises(TaskError, match=r"splits\.validation"):
        cuts_of(Splits(days(0, 20)), 0)


def test_examples_are_those_known_in_time(world: Any, task: Task) -> None:
    """Training labels are visible when their validation starts; validation labels before the test does."""
    found = cut_examples(task, world.labels(task))
    assert len(found) == 3
    assert task.splits.validation is not None
    assert task.splits.test is not None
    for part in found:
        assert part.train.visible_time_us.max() <= part.cut.validation.start_us
        assert part.validation.visible_time_us.max() <= task.splits.test.start_us
        assert part.validation.time_us.max() < task.splits.validation.end_us
        assert part.train.time_us.max() < part.cut.train.end_us


def test_what_the_test_holds_changes_nothing(world: Any, task: Task, grow: Any, payments_schema: Any) -> None:
    """Reports that lie from the test's start on leave every cut as it is; from a microsecond earlier they may not."""
    assert task.splits.test is not None
    found = cut_examples(task, world.labels(task))
    lying = grow(payments_schema, lie_from_us=task.splits.test.start_us + 1)
    for truth, lie in zip(found, cut_examples(task, lying.labels(task)), strict=True):
        assert (truth.validation.label == lie.validation.label).all()
        assert (truth.train.label == lie.train.label).all()
    lying.graph.close()


def test_a_cut_without_labels_ends_the_row(task: Task) -> None:
    """Cuts before the first labels are left out; the task's own must have some."""
    assert task.splits.validation is not None
    time = np.arange(task.splits.train.start_us, task.splits.validation.end_us, 3_600_000_000)
    label = (np.arange(len(time)) % 2).astype(np.float32)
    own = TableLabels(Examples(np.arange(len(time)), time, time, time, label))
    assert [len(cut_examples(task, own, count=count)) for count in (1, 2, 3)] == [1, 2, 2]
    none = TableLabels(own.examples.select(time < task.splits.train.end_us))
    with pytest.raises(NotEnoughExamples):
        cut_examples(task, none)


def test_a_fit_on_a_cut_is_repeatable_and_samples_statistics_once(world: Any, quick: Task) -> None:
    """Equal seeds give equal scores; a second plan that samples the same reads the same statistics."""
    part = cut_examples(quick, world.labels(quick), count=1)[0]
    fits = CutFit(world.view, quick.target)
    once = fits.run(quick, part)
    assert 0 < once < 1
    assert CutFit(world.view, quick.target).run(quick, part) == once
    slower = replace(quick, training=replace(quick.training, learning_rate=1e-4))
    assert fits.run(slower, part) != once
    assert len(fits.kept) == 1


def test_a_frozen_task_is_validated_on_a_frozen_graph(world: Any, quick: Task) -> None:
    """With the graph ended at the validation's start the answers are others: they know less."""
    part = cut_examples(quick, world.labels(quick), count=1)[0]
    assert quick.splits.test is not None
    frozen = replace(quick, splits=replace(quick.splits, frozen_us=quick.splits.test.start_us))
    assert CutFit(world.view, quick.target).run(frozen, part) != CutFit(world.view, quick.target).run(quick, part)
