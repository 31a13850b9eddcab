from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.calibration import Calibration
from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune import stages
from graph_transformer.finetune.examples import Examples, Labels
from graph_transformer.finetune.loop import silent
from graph_transformer.finetune.stages import Outcome, Stages
from graph_transformer.target import Target
from graph_transformer.task import Interval, Splits, Task

DAY_US = 86_400_000_000


def run(world: Any, task: Task) -> Outcome:
    """All stages of a task on the small world."""
    return Stages(world.view, task, world.labels(task), silent).run()


def test_without_validation_only_the_prior_is_corrected(world: Any, quick: Task) -> None:
    """A task that holds nothing back has no evaluation but its test; nothing else is done to its logits."""
    splits = Splits(quick.splits.train, test=quick.splits.test)
    outcome = run(world, replace(quick, splits=splits))
    assert set(outcome.evaluations) == {"test"}
    assert outcome.calibration == Calibration.of(quick.target, prior=outcome.stage.prior)
    assert outcome.stage.prior < 0


def test_training_labels_are_known_when_validation_starts(world: Any, quick: Task) -> None:
    """Rows whose report comes after the start of validation do not train: with no gap, the last are out."""
    train = quick.splits.train
    close = Interval(train.end_us, train.end_us + 4 * DAY_US)
    seen: list[int] = []
    original = stages.examples_of

    def recorded(labels: Labels, target: Target, interval: Interval, *, known_by_us: int | None) -> Any:
        found = original(labels, target, interval, known_by_us=known_by_us)
        if interval == train:
            seen.append(int(found.visible_time_us.max()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "examples_of", recorded)
        run(world, replace(quick, splits=Splits(train, close, test=quick.splits.test)))
    assert seen
    assert max(seen) <= close.start_us


def test_statistics_are_of_training_rows_only(world: Any, quick: Task) -> None:
    """Scales and bins do not change with what happens after the training rows."""
    short = replace(quick, splits=Splits(quick.splits.train))
    first = run(world, short).stage.statistics
    longer = replace(quick, splits=replace(quick.splits, validation=None))
    assert run(world, longer).stage.statistics == first
    other = replace(quick, splits=Splits(Interval(quick.splits.train.start_us, quick.splits.train.end_us - DAY_US)))
    assert run(world, other).stage.statistics != first


def test_calibration_sees_a_bounded_part(world: Any, quick: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation split beyond the limit is thinned alike in both kinds, in the order of time."""
    monkeypatch.setattr(stages, "CALIBRATION_EXAMPLES", 100)
    outcome = run(world, replace(quick, splits=replace(quick.splits, test=None)))
    examples = outcome.evaluations["validation"].examples
    assert len(examples) == 100
    assert bool((np.diff(examples.time_us) >= 0).all())
    assert 0 < examples.label.mean() < 0.5


def test_a_refit_is_calibrated_on_what_it_kept_back(world: Any, quick: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows kept back are fitted by nobody; the map is of the refitted model's answers to them, or carries over."""
    splits, validation = quick.splits, quick.splits.validation
    assert validation is not None
    task = replace(quick, splits=replace(splits, refit=Interval(splits.train.start_us, validation.end_us)))
    fitted: list[Examples] = []
    calibrated: list[int] = []
    original_fit, original_calibration = stages.fit, stages.fit_calibration

    def fit(view: Any, task: Task, examples: Examples, *rest: Any, **options: Any) -> Any:
        fitted.append(examples)
        return original_fit(view, task, examples, *rest, **options)

    def fit_calibration(target: Target, raw: Any, label: Any, **options: Any) -> Calibration:
        calibrated.append(len(label))
        return original_calibration(target, raw, label, **options)

    monkeypatch.setattr(stages, "fit", fit)
    monkeypatch.setattr(stages, "fit_calibration", fit_calibration)
    run(world, task)
    assert fitted[-1].time_us.max() >= validation.start_us
    assert len(calibrated) == 1
    monkeypatch.setattr(stages, "kept_back", lambda _, examples, interval, seed: examples.time_us >= interval.start_us)
    outcome = run(world, task)
    assert fitted[-1].time_us.max() < validation.start_us
    assert calibrated[1:] == [calibrated[0]] * 2
    assert outcome.calibration.prior == outcome.stage.prior


def test_a_split_without_labels_is_refused(world: Any, quick: Task) -> None:
    """A validation split whose labels are not known in time ends the training before it begins."""
    train = quick.splits.train
    late = replace(quick.splits, validation=Interval(train.end_us, train.end_us + DAY_US), test=None)
    unknown = replace(late, known_by_us=train.end_us)
    with pytest.raises(NotEnoughExamples):
        run(world, replace(quick, splits=unknown))


def test_a_test_split_without_labels_is_refused_before_fitting(
    world: Any, quick: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be measured at the end is said at the beginning."""
    monkeypatch.setattr(Stages, "stage", lambda *_: pytest.fail("fitted"))
    empty = Interval(quick.splits.train.start_us - 2 * DAY_US, quick.splits.train.start_us - DAY_US)
    with pytest.raises(NotEnoughExamples, match="load a longer history"):
        run(world, replace(quick, splits=replace(quick.splits, test=empty)))
