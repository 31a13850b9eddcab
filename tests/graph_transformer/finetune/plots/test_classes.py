from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from graph_transformer.calibration import sigmoid
from graph_transformer.finetune.plots.classes import (
    plot_precision_recall,
    plot_reliability,
    plot_roc,
    plot_top_class_reliability,
    reliability_bins,
    wilson_interval,
)

PNG = b"\x89PNG\r\n\x1a\n"


def drawn(mean: float, count: int = 5000) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """True logits, and labels drawn from them."""
    random = np.random.default_rng(0)
    logit = random.normal(mean, 1.5, count)
    return logit, random.random(count) < sigmoid(logit)


@pytest.mark.parametrize("mean", [-5.0, 0.0])
def test_pictures_are_png_files(tmp_path: Path, mean: float) -> None:
    """Curves with a floor beside them, and reliability where positives are rare and where they are not."""
    logit, label = drawn(mean)
    curves = {"graph": (logit, label), "constant": (np.zeros(5000), label), "no positive": (logit, label & False)}
    for written in (
        plot_precision_recall(tmp_path / "pr.png", curves, floors=("constant",)),
        plot_roc(tmp_path / "roc.png", curves, floors=("constant",)),
        plot_reliability(tmp_path / "reliability.png", logit, label),
    ):
        assert written.read_bytes().startswith(PNG)


def test_the_class_named_has_its_reliability(tmp_path: Path) -> None:
    """Logits of several classes are drawn too."""
    logit = np.random.default_rng(0).normal(size=(500, 4))
    path = plot_top_class_reliability(tmp_path / "top.png", logit, np.arange(500) % 4)
    assert path.read_bytes().startswith(PNG)


def test_answers_that_are_all_alike_are_drawn_too(tmp_path: Path) -> None:
    """A model that says the same of everything gives one point, not an error."""
    label = np.arange(100) < 5
    assert plot_reliability(tmp_path / "r.png", np.full(100, -3.0), label).stat().st_size > 0


@pytest.mark.parametrize("mean", [-5.0, 0.0])
def test_bins_of_true_probabilities_lie_on_the_diagonal(mean: float) -> None:
    """Every example is in one bin, and where probabilities are true the observed shares are the predicted ones."""
    logit, label = drawn(mean, 200_000)
    predicted, observed, sizes = reliability_bins(sigmoid(logit), label)
    assert sizes.sum() == 200_000
    assert bool((np.diff(predicted) > 0).all())
    low, high = wilson_interval(observed, sizes)
    assert np.mean((low <= predicted) & (predicted <= high)) >= 0.75
    doubled, observed, sizes = reliability_bins(sigmoid(2.0 * logit), label)
    low, high = wilson_interval(observed, sizes)
    assert np.mean((low <= doubled) & (doubled <= high)) < 0.5


def test_intervals_are_wilsons() -> None:
    """The ends agree with scipy's, at shares of 0 and 1 as well."""
    for hits in (0, 3, 20):
        expected = binomtest(hits, 20).proportion_ci(0.95, method="wilson")
        low, high = wilson_interval(np.array([hits / 20]), np.array([20.0]))
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-4)
