from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.finetune.examples import Examples, examples_of
from graph_transformer.finetune.floors import CONSTANT, FLOORS, LAST_VALUE, LIGHTGBM, boosting, measure_floors
from graph_transformer.finetune.metrics import BinaryMetrics, measure
from graph_transformer.target import MEDIAN, Kind, Target
from graph_transformer.task import Task

DAY_US = 86_400_000_000


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "ROUNDS_MAX", 20)


def splits_of(world: Any, task: Task) -> tuple[Examples, Examples, Examples]:
    """Training, validation and test examples of the world."""
    labels, splits = world.labels(task), task.splits
    train = examples_of(labels, task.target, splits.train, known_by_us=splits.validation.start_us)
    validation = examples_of(labels, task.target, splits.validation, known_by_us=splits.test.start_us)
    return train, validation, examples_of(labels, task.target, splits.test, known_by_us=None)


def average_precision(found: Any) -> float:
    """The average precision of a floor."""
    assert isinstance(found.metrics, BinaryMetrics)
    return found.metrics.average_precision


def test_what_is_known_of_the_terminal_beats_what_the_row_says(world: Any, task: Task) -> None:
    """In a world where terminals go bad for days, the terminal's last label is worth much and own columns nothing."""
    train, validation, test = splits_of(world, task)
    past = world.labels(task).known(None)
    found = measure_floors(world.view, task.target, train, validation, test, past=past)
    assert tuple(found) == FLOORS
    share = float(test.label.mean())
    assert average_precision(found[CONSTANT]) == pytest.approx(share)
    assert average_precision(found[LAST_VALUE]) > 2 * share
    assert average_precision(found[LIGHTGBM]) < 1.5 * share
    assert all(len(floor.output) == len(test) == floor.metrics.count for floor in found.values())


def test_the_link_is_the_one_that_is_named(world: Any, task: Task) -> None:
    """By the customer, of whom the past says nothing, the last value is worth no more than the constant."""
    train, validation, test = splits_of(world, task)
    past = world.labels(task).known(None)
    found = measure_floors(world.view, task.target, train, validation, test, past=past, entity="customer_id")
    assert average_precision(found[LAST_VALUE]) < 1.5 * float(test.label.mean())


def test_labels_that_become_known_later_change_no_answer(world: Any, task: Task) -> None:
    """Turning around labels known after the last cut-off changes nothing; those known before it do."""
    train, validation, test = splits_of(world, task)
    past = world.labels(task).known(None)
    asked = test.select(np.arange(0, len(test), 7))
    end_us = int(asked.cutoff_time_us.max())

    def answers(turned: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray[Any, Any]:
        label = np.where(turned, 1.0 - past.label, past.label)
        told = replace(past, label=label.astype(np.float32))
        found = measure_floors(world.view, task.target, train, validation, asked, past=told, entity="terminal_id")
        return found[LAST_VALUE].output

    honest = answers(np.zeros(len(past), dtype=bool))
    assert (honest == answers(past.visible_time_us > end_us)).all()
    assert (honest != answers(past.visible_time_us > end_us - 2 * DAY_US)).any()


def test_a_frozen_graph_knows_no_newer_labels(world: Any, task: Task) -> None:
    """With the graph frozen at the start of the test, labels known during it change nothing."""
    train, validation, test = splits_of(world, task)
    past, start_us = world.labels(task).known(None), task.splits.test.start_us
    known = past.select(past.visible_time_us <= start_us)
    frozen, cut, live = (
        measure_floors(
            world.view, task.target, train, validation, test, past=labels, entity="terminal_id", frozen_us=frozen_us
        )[LAST_VALUE].output
        for labels, frozen_us in ((past, start_us), (known, None), (past, None))
    )
    assert (frozen == cut).all()
    assert (frozen != live).any()


def test_an_entity_has_its_own_last_number(world: Any) -> None:
    """At entity level the last value is the row's own newest known label; without validation a part is held out."""
    target = Target(Kind.REGRESSION, "terminals", event_level=False, horizon_us=DAY_US)
    random = np.random.default_rng(0)
    times = int(world.event_time_us[0]) + DAY_US * np.repeat(np.arange(2, 20), 30)
    row = np.tile(np.arange(30), 18)
    label = (100.0 * row + random.normal(size=len(row))).astype(np.float32)
    every = Examples(row, times, times, times + DAY_US, label)
    train, test = every.select(times < times[0] + 12 * DAY_US), every.select(times >= times[0] + 12 * DAY_US)
    found = measure_floors(world.view, target, train, None, test)
    before = {(r, t): y for r, t, y in zip(row.tolist(), times.tolist(), label.tolist(), strict=True)}
    expected = [before[r, t - DAY_US] for r, t in zip(test.row.tolist(), test.time_us.tolist(), strict=True)]
    assert found[LAST_VALUE].output[:, MEDIAN].tolist() == expected
    assert found[LAST_VALUE].metrics.to_dict()["mae"] < 0.01 * found[CONSTANT].metrics.to_dict()["mae"]
    assert found[CONSTANT].metrics.to_dict()["nmae"] > 0.5


def test_floors_are_measured_as_the_model_is(world: Any, task: Task) -> None:
    """The way the model is measured is used where it is given; a ranking has no floors."""
    train, validation, test = splits_of(world, task)
    asked: list[int] = []

    def measured(output: Any, examples: Examples) -> Any:
        asked.append(len(examples))
        return measure(task.target, output, examples.label)

    measure_floors(world.view, task.target, train, validation, test, entity="customer_id", measured=measured)
    assert asked == [len(test)] * 3
    ranking = Target(Kind.RANKING, "terminals", event_level=False)
    assert measure_floors(world.view, ranking, train, validation, test) == {}
