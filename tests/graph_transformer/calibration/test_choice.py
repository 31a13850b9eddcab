from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.choice import FOLDS, choose, folds_of, held_out, is_clear
from graph_transformer.calibration.maps import Affine, Map

Floats = NDArray[np.float64]


def square(output: Floats, label: Floats) -> Floats:
    """Squared error."""
    return (output - label) ** 2


def unchanged(_: Floats, __: Floats) -> Map:
    """Leave raw as it is."""
    return Affine()


def mean_gap(raw: Floats, label: Floats) -> Map:
    """Move raw by the mean gap."""
    return Affine(offset=(float((label - raw).mean()),))


def test_folds_are_alike_in_every_class() -> None:
    """Each fold has its part of both classes, and depends on nothing but the labels."""
    label = (np.arange(103) % 10 == 0).astype(np.float64)
    fold = folds_of(label)
    for value in (0.0, 1.0):
        counts = np.bincount(fold[label == value], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert fold.tolist() == folds_of(label).tolist()


def test_losses_are_of_examples_the_fit_has_not_seen() -> None:
    """An example's loss does not know its own label: each fit sees the other folds only."""
    seen: list[int] = []

    def fit(raw: Floats, label: Floats) -> Map:
        seen.extend(set(range(10)) - set(raw.astype(int).tolist()))
        return Affine()

    raw, fold = np.arange(10.0), np.arange(10) % 5
    held_out(fit, square, raw, raw, fold)
    assert sorted(seen) == list(range(10))


def test_one_wild_label_moves_the_others_and_not_its_own() -> None:
    """Each example is judged by what was fitted without it: a gap that one label makes is no help to that label."""
    label = np.zeros(20)
    label[3] = 1600.0
    fold = np.arange(20) % FOLDS
    error = held_out(mean_gap, square, np.zeros(20), label, fold)
    assert error[3] == 1600.0**2
    assert set(error[fold == 3]) == {0.0, 1600.0**2}
    assert set(error[fold != 3]) == {100.0**2}


def test_a_gain_is_clear_beyond_its_standard_error() -> None:
    """Half of eight examples gain 3: clear where the others lose 1, not where they lose 2.5, nor where none gains."""
    assert is_clear(np.array([3.0, 3.0, -1.0, -1.0] * 2))
    assert not is_clear(np.array([3.0, 3.0, -2.5, -2.5] * 2))
    assert not is_clear(np.zeros(8))


def test_the_fit_that_holds_wins() -> None:
    """A gap that is there is closed; noise that one slice happens to have is not followed by a flexible fit."""
    random = np.random.default_rng(0)
    raw = np.full(400, 0.5)

    def drawn(share: float) -> Floats:
        return (random.random(400) < share).astype(np.float64)

    assert choose({"none": unchanged, "gap": mean_gap}, {}, square, raw, drawn(0.8)) == "gap"
    assert choose({"none": unchanged}, {"gap": mean_gap}, square, raw, drawn(0.8)) == "gap"
    chosen = [choose({"none": unchanged}, {"gap": mean_gap}, square, raw, drawn(0.5)) for _ in range(40)]
    assert chosen.count("gap") <= 6
