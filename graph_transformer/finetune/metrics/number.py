"""Numbers: how far the median is off, and how often the intervals hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.metrics.base import Metrics, shown
from graph_transformer.target import MEDIAN, QUANTILES

Floats = NDArray[np.float64]

INTERVALS = {50: (2, 4), 80: (1, 5), 90: (0, 6)}
"""Percent that an interval promises to hold: positions of its bounds in QUANTILES."""


@dataclass(frozen=True, slots=True)
class NumberMetrics(Metrics):
    """Of the median: mean absolute error, root of the mean square, R²; of all quantiles: the mean pinball loss.

    `nmae` is the error over the standard deviation of the training labels. Coverage is the share of labels within the
    50, 80 and 90 % intervals, width their mean in the label's unit. `mae_by_step` of a forecast.
    """

    mae: float
    rmse: float
    r2: float
    pinball: float
    coverage_50: float
    coverage_80: float
    coverage_90: float
    width_50: float
    width_80: float
    width_90: float
    nmae: float | None = None
    mae_by_step: tuple[float, ...] | None = None

    def figures(self) -> dict[str, str]:
        """Return what a person is shown, by short name, in order."""
        return {
            "examples": f"{self.count:,}",
            "MAE": shown(self.mae),
            "NMAE": shown(self.nmae),
            "RMSE": shown(self.rmse),
            "R²": shown(self.r2),
            "pinball": shown(self.pinball),
            "in 50 %": shown(self.coverage_50),
            "in 80 %": shown(self.coverage_80),
            "in 90 %": shown(self.coverage_90),
            "width of 80 %": shown(self.width_80),
        }


def measure_number(output: Floats, label: Floats, *, label_std: float | None = None) -> NumberMetrics:
    """Return the metrics of quantiles float64[n, steps * QUANTILES] for labels float64[n] or [n, steps].

    `label_std` is that of the training labels; R² is NaN where labels are all alike.
    """
    truth = label.reshape(len(label), -1)
    quantiles = output.reshape(*truth.shape, len(QUANTILES))
    error = truth - quantiles[..., MEDIAN]
    mae = float(np.abs(error).mean())
    spread = float(((truth - truth.mean()) ** 2).sum())
    bounds = {share: (quantiles[..., low], quantiles[..., high]) for share, (low, high) in INTERVALS.items()}
    coverage = {share: float(((truth >= low) & (truth <= high)).mean()) for share, (low, high) in bounds.items()}
    width = {share: float((high - low).mean()) for share, (low, high) in bounds.items()}
    return NumberMetrics(
        count=len(label),
        mae=mae,
        rmse=math.sqrt(float((error**2).mean())),
        r2=1.0 - float((error**2).sum()) / spread if spread > 0 else math.nan,
        pinball=float(pinball_losses(quantiles, truth).mean()),
        **{f"coverage_{share}": value for share, value in coverage.items()},
        **{f"width_{share}": value for share, value in width.items()},
        nmae=mae / label_std if label_std else None,
        mae_by_step=tuple(np.abs(error).mean(axis=0).tolist()) if truth.shape[1] > 1 else None,
    )


def pinball_losses(quantiles: Floats, truth: Floats) -> Floats:
    """Return the pinball loss of each number float64[...], the mean over QUANTILES of float64[..., QUANTILES]."""
    error, level = truth[..., None] - quantiles, np.asarray(QUANTILES)
    losses: Floats = np.maximum(level * error, (level - 1.0) * error).mean(axis=-1)
    return losses
