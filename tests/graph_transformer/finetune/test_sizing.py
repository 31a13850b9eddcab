"""Few labels get a small model with much regularization, many a large one with little; the measured ends are met."""

from __future__ import annotations

import numpy as np
import pytest

from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.sizing import Counts, apart, between, size_of, stale_days
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Target

DAY_US = 86_400_000_000
BINARY = Target(Kind.BINARY, "payments", event_level=True, column="fraud")
NUMBER = Target(Kind.REGRESSION, "drivers", event_level=False, horizon_us=DAY_US)


def test_a_week_of_rare_frauds() -> None:
    """600 positives among 67,000: three of width 32, one layer, dropout .3 and .5, 600 steps that see each 24 times."""
    sized = size_of(BINARY, Counts(67_000, 600))
    model, training = sized.model, sized.training
    assert (model.width, model.layers, model.members, model.dropout, model.token_dropout) == (32, 1, 3, 0.3, 0.5)
    assert (training.steps, training.batch, training.rare_share, training.weight_decay) == (600, 192, 0.125, 0.1)
    assert (training.learning_rate, training.ema) == (2e-3, 0.995)
    assert "24 times" in sized.reasons["training.steps"]


def test_months_of_rare_frauds() -> None:
    """7,000 positives and more: width 64, two layers, dropout .1 and .2, 1,800 steps."""
    sized = size_of(BINARY, Counts(750_000, 7_000))
    model, training = sized.model, sized.training
    assert (model.width, model.layers, model.dropout, model.token_dropout) == (64, 2, 0.1, 0.2)
    assert (training.steps, training.weight_decay) == (1_800, 0.05)


def test_a_small_even_task_and_a_number() -> None:
    """11,400 examples, 12 % of them one kind: two of width 48, two layers, 130 steps of 512; a number more."""
    even = size_of(BINARY, Counts(11_400, 1_400))
    assert (even.model.width, even.model.layers, even.model.dropout, even.model.token_dropout) == (48, 2, 0.3, 0.4)
    assert (even.model.members, even.training.batch) == (2, 512)
    assert 100 <= even.training.steps <= 160
    number = size_of(NUMBER, Counts.of(NUMBER, np.arange(7_450, dtype=np.float32)))
    assert (number.model.width, number.training.batch) == (48, 512)
    assert 0.1 <= number.model.dropout <= 0.2
    assert 140 <= number.training.steps <= 170


@pytest.mark.parametrize("target", [BINARY, NUMBER])
def test_more_labels_never_mean_a_smaller_model(target: Target) -> None:
    """Width and steps rise with the labels, dropout falls, within bounds, from ten labels to ten million."""
    sized = [size_of(target, Counts(10**n, 10**n // 2)) for n in range(1, 8)]
    widths, dropouts = [s.model.width for s in sized], [s.model.dropout for s in sized]
    assert widths == sorted(widths)
    assert dropouts == sorted(dropouts, reverse=True)
    assert all(100 <= s.training.steps <= 6_000 for s in sized)
    assert all(s.training.evaluate_every <= s.training.steps // 4 for s in sized)
    members = [s.model.members for s in sized]
    assert members == sorted(members, reverse=True)
    assert (members[0], members[-1]) == (3, 1)
    gpu = [size_of(target, Counts(10**n, 10**n // 2), size="gpu") for n in range(1, 8)]
    assert all(large.model.width >= small.model.width for large, small in zip(gpu, sized, strict=True))
    assert all(large.training.bfloat16 for large in gpu)


def test_kinds_of_entities_have_tallies() -> None:
    """From a thousand labels of the rarer side on; not the kinds of single events, and not numbers."""
    churn = Target(Kind.BINARY, "customers", event_level=False, horizon_us=DAY_US)
    sized = size_of(churn, Counts(5_000, 1_000))
    assert sized.model.tallies
    assert "model.tallies" in sized.reasons
    few = size_of(churn, Counts(5_000, 999))
    assert not few.model.tallies
    assert "model.tallies" not in few.reasons
    assert not size_of(BINARY, Counts(5_000, 1_000)).model.tallies
    assert not size_of(NUMBER, Counts(5_000, 2_500)).model.tallies


def test_labels_are_counted_on_the_rarer_side() -> None:
    """The rarer of two kinds, all but the commonest of several, the middle of several at once, half of numbers."""

    def counted(kind: Kind, label: object) -> Counts:
        return Counts.of(Target(kind, "t", event_level=True), np.asarray(label, dtype=np.float32))

    assert counted(Kind.BINARY, [0, 0, 0, 1]) == Counts(4, 1)
    assert counted(Kind.BINARY, [1, 1, 1, 0]) == Counts(4, 1)
    assert counted(Kind.MULTICLASS, [0, 1, 2, 2, 2]) == Counts(5, 2)
    assert counted(Kind.MULTILABEL, [[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]]) == Counts(4, 1)
    assert counted(Kind.REGRESSION, [1, 2, 3, 4]) == Counts(4, 2)


def test_a_frozen_test_is_trained_for() -> None:
    """A test that ends years after the newest row trains with stale graphs; one at its heels does not."""

    def days(start: int, end: int) -> Interval:
        return Interval(start * DAY_US, end * DAY_US)

    splits = Splits(days(0, 10_000), days(10_000, 11_000), None, days(11_000, 12_000))
    assert stale_days(splits, 12_000 * DAY_US) == 0
    assert stale_days(splits, 11_990 * DAY_US) == 0
    assert stale_days(splits, 11_000 * DAY_US) == 1_000
    frozen = Splits(splits.train, splits.validation, None, splits.test, frozen_us=11_000 * DAY_US)
    assert stale_days(frozen, 12_000 * DAY_US) == 1_000
    assert stale_days(Splits(days(0, 10)), 0) == 0
    training = size_of(BINARY, Counts(11_400, 1_400), stale_days=1_000.0).training
    assert (training.staleness_share, training.staleness_days) == (0.5, 1_000)
    assert size_of(BINARY, Counts(11_400, 1_400)).training.staleness_share == 0


def test_values_between_points_lie_on_the_logarithm() -> None:
    """Half way in the logarithm is half way; beyond the ends the value is level."""
    points = ((100, 0.0), (10_000, 1.0))
    assert between(points, 1_000) == pytest.approx(0.5)
    assert (between(points, 0), between(points, 10**9)) == (0.0, 1.0)


def test_labels_whose_windows_overlap_count_once() -> None:
    """Of weekly questions about thirty days every fifth time counts; at a window's distance both do, events always."""
    day_us = 86_400_000_000
    week = np.repeat(np.arange(10) * 7 * day_us, 3)
    zeros = np.zeros(len(week), dtype=np.int64)
    examples = Examples(zeros, week, week, week, np.zeros(len(week), dtype=np.float32))
    of_month = Target(Kind.BINARY, "customers", event_level=False, horizon_us=30 * day_us)
    kept = apart(of_month, examples)
    assert np.unique(kept.time_us).tolist() == [4 * 7 * day_us, 9 * 7 * day_us]
    assert len(kept) == 6
    of_week = Target(Kind.BINARY, "customers", event_level=False, horizon_us=7 * day_us)
    assert len(apart(of_week, examples)) == 30
    assert len(apart(Target(Kind.BINARY, "orders", event_level=True, column="paid"), examples)) == 30


@pytest.mark.parametrize("counts", [Counts(4_500, 1_500), Counts(67_000, 600), Counts(1_000_000, 500_000)])
def test_looks_take_a_small_part_of_the_fitting(counts: Counts) -> None:
    """Eight looks end with the last step, and ask at most half as many examples as all steps learn from."""
    training = size_of(BINARY, counts).training
    looks = -(-training.steps // training.evaluate_every)
    assert looks == 8
    assert 2_000 <= training.validation_examples <= 10_000
    assert looks * training.validation_examples <= 0.55 * training.steps * training.batch
