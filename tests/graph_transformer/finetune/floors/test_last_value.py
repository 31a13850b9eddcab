from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.calibration import probability_of
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.floors.constant import constant_output
from graph_transformer.finetune.floors.last_value import LastValue, last_known
from graph_transformer.target import MEDIAN, Kind, Target

Ints = NDArray[np.int64]


def ints(*values: int) -> Ints:
    """An array of int64."""
    return np.array(values, dtype=np.int64)


def examples(label: NDArray[np.float32]) -> Examples:
    """Examples of which the label alone matters."""
    zero = np.zeros(len(label), dtype=np.int64)
    return Examples(zero, zero, zero, zero, label)


def test_a_label_is_seen_from_the_microsecond_it_is_known() -> None:
    """Visible at the cut-off it is the last value; visible one microsecond later it is not, and the one before is."""
    entity, visible = ints(7, 7), ints(100, 200)
    assert last_known(entity, visible, ints(7, 7, 7, 7), ints(99, 100, 199, 200)).tolist() == [-1, 0, 0, 1]


def test_entities_do_not_see_each_other() -> None:
    """The newest label of another entity is nobody else's; an unknown entity, or none (-1), has no last value."""
    entity, visible = ints(1, 2, 2, -1), ints(50, 10, 60, 5)
    assert last_known(entity, visible, ints(1, 2, 3, -1), ints(55, 55, 55, 55)).tolist() == [0, 1, -1, -1]


def test_of_labels_known_at_once_the_later_one_counts() -> None:
    """Two windows that end together: the one that began later is the newer."""
    entity, visible = ints(1, 1), ints(10, 10)
    assert last_known(entity, visible, ints(1), ints(10), time_us=ints(5, 3)).tolist() == [0]
    assert last_known(entity, visible, ints(1), ints(10), time_us=ints(3, 5)).tolist() == [1]


def test_no_labels_are_no_last_values() -> None:
    """An empty past is searched too."""
    assert last_known(ints(), ints(), ints(1, 2), ints(5, 6)).tolist() == [-1, -1]


def test_the_search_agrees_with_a_loop() -> None:
    """On drawn labels and questions it finds what looking at every label finds."""
    random = np.random.default_rng(0)
    entity, visible = random.integers(0, 20, 500), random.integers(0, 300, 500)
    asked, cutoff = random.integers(-1, 22, 400), random.integers(-5, 310, 400)
    found = last_known(entity, visible, asked, cutoff)
    for at, whose, when in zip(found.tolist(), asked.tolist(), cutoff.tolist(), strict=True):
        seen = visible[(entity == whose) & (visible <= when)]
        assert (at == -1) == (len(seen) == 0)
        if at >= 0:
            assert entity[at] == whose
            assert visible[at] == seen.max()


def test_an_outcome_that_repeats_is_believed_as_often_as_it_did() -> None:
    """Where training saw a positive followed by positives nine times in ten, that is what is answered."""
    random = np.random.default_rng(0)
    last = (random.random(4000) < 0.3).astype(np.float32)
    label = (random.random(4000) < np.where(last > 0.5, 0.9, 0.05)).astype(np.float32)
    asked = Target(Kind.BINARY, "items", event_level=False)
    has = np.arange(4000) % 4 > 0
    floor = LastValue(asked, examples(label), last, has)
    output = floor.answer(np.array([1.0, 0.0, 1.0], np.float32), np.array([True, True, False]))
    assert probability_of(asked, output)[:2] == pytest.approx([0.9, 0.05], abs=0.03)
    assert output[2].tolist() == constant_output(asked, label).tolist()


def test_a_last_label_that_was_never_seen_is_the_mean() -> None:
    """Without a training example after such a label, what is answered is near the share of all."""
    asked = Target(Kind.BINARY, "items", event_level=False)
    label = (np.arange(100) < 30).astype(np.float32)
    floor = LastValue(asked, examples(label), np.zeros(100, np.float32), np.ones(100, dtype=bool))
    found = probability_of(asked, floor.answer(np.ones(1, np.float32), np.ones(1, dtype=bool)))[0]
    assert found == pytest.approx(0.3, abs=0.05)


def test_classes_follow_classes() -> None:
    """One of several: each class has its own successors; several at once: each label its own."""
    one = Target(Kind.MULTICLASS, "items", event_level=False, classes=("a", "b", "c"))
    last = (np.arange(3000) % 3).astype(np.float32)
    has = np.ones(3000, dtype=bool)
    floor = LastValue(one, examples((last + 1) % 3), last, has)
    answered = floor.answer(np.array([0, 1, 2], np.float32), has[:3]).argmax(axis=1)
    assert answered.tolist() == [1, 2, 0]
    several = Target(Kind.MULTILABEL, "items", event_level=False, classes=("a", "b"))
    both = (np.arange(2000).reshape(1000, 2) % 3 == 0).astype(np.float32)
    swapped = LastValue(several, examples(np.stack([both[:, 0], 1 - both[:, 1]], axis=1)), both, has[:1000])
    found = probability_of(several, swapped.answer(np.array([[1, 1]], np.float32), has[:1]))[0]
    assert found[0] > 0.95
    assert found[1] < 0.05


def test_a_number_is_its_own_last_value() -> None:
    """The median is the last label itself, the quantiles what was added to it in training; without one the constant."""
    asked = Target(Kind.REGRESSION, "items", event_level=False)
    random = np.random.default_rng(0)
    last = random.normal(100, 30, 5000).astype(np.float32)
    label = last + random.normal(0, 2, 5000).astype(np.float32)
    floor = LastValue(asked, examples(label), last, np.ones(5000, dtype=bool))
    output = floor.answer(np.array([50.0, 50.0], np.float32), np.array([True, False]))
    assert output[0, MEDIAN] == 50.0
    assert output[0, -1] - output[0, 0] == pytest.approx(2 * 1.645 * 2, rel=0.1)
    assert output[1].tolist() == constant_output(asked, label).tolist()


def test_a_forecast_goes_on_from_its_last_step() -> None:
    """Every step's median is the last step of the last label; spreads are of each step."""
    asked = Target(Kind.FORECAST, "items", event_level=False, steps=2)
    last = np.stack([np.arange(100), np.arange(100) + 5], axis=1).astype(np.float32)
    floor = LastValue(asked, examples(last), last, np.ones(100, dtype=bool))
    output = floor.answer(np.array([[1.0, 9.0]], np.float32), np.ones(1, dtype=bool)).reshape(2, 7)
    assert output[:, MEDIAN].tolist() == [9.0, 9.0]
