"""Which pictures a kind of target has, drawn from the answers of a model and of the floors beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.plots.classes import (
    plot_precision_recall,
    plot_reliability,
    plot_roc,
    plot_top_class_reliability,
)
from graph_transformer.finetune.plots.number import plot_coverage, plot_predicted_true, plot_residuals
from graph_transformer.target import Kind, Target


@dataclass(frozen=True, slots=True)
class Answers:
    """Calibrated outputs float64[n, outputs] and the labels, as examples hold them."""

    output: NDArray[np.float64]
    label: NDArray[np.floating]


def draw_answers(
    folder: Path,
    target: Target,
    answers: Mapping[str, Answers],
    *,
    shown: str,
    floors: Collection[str] = (),
    unit: str = "",
) -> tuple[Path, ...]:
    """Write the pictures of a target into a folder and return their paths.

    Curves are of all `answers`, those named in `floors` dashed; what has room for one only is of `shown`. Of several
    labels at once every pair of example and class counts. A ranking has no pictures.

    Raises:
        KeyError: `shown` is not among the answers.
    """
    one = answers[shown]
    if target.is_number:
        pairs = {name: (found.output, found.label.astype(np.float64)) for name, found in answers.items()}
        return (
            plot_predicted_true(folder / "predicted_true.png", *pairs[shown], unit=unit),
            plot_coverage(folder / "coverage.png", pairs, floors=floors),
            plot_residuals(folder / "residuals.png", *pairs[shown], unit=unit),
        )
    if target.kind is Kind.MULTICLASS:
        return (plot_top_class_reliability(folder / "reliability.png", one.output, one.label.astype(np.int64)),)
    if target.kind is Kind.RANKING:
        return ()
    curves = {name: (found.output.reshape(-1), found.label.reshape(-1) > 0.5) for name, found in answers.items()}
    return (
        plot_precision_recall(folder / "precision_recall.png", curves, floors=floors),
        plot_roc(folder / "roc.png", curves, floors=floors),
        plot_reliability(folder / "reliability.png", *curves[shown]),
    )
