"""Pictures of numbers: predicted against true, how often intervals hold, and where the error lies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.metrics.number import INTERVALS
from graph_transformer.finetune.plots.figure import FLOOR_STYLE, GUIDE_COLOR, MODEL_STYLE, named, picture
from graph_transformer.target import MEDIAN, QUANTILES

POINTS_MAX = 5000
"""More points than this are one blot."""
RESIDUAL_BINS = 10

Floats = NDArray[np.float64]


def plot_predicted_true(path: Path, output: Floats, label: Floats, *, unit: str = "") -> Path:
    """Write true against predicted values with their 80 % intervals, of quantiles and labels of any number of steps.

    At most POINTS_MAX of them, evenly spaced; the axes end at the label's range, widened where the median needs it.
    """
    quantiles, truth = _flat(output, label)
    chosen = np.unique(np.linspace(0, len(truth) - 1, min(POINTS_MAX, len(truth))).astype(np.int64))
    low, high = quantiles[chosen, INTERVALS[80][0]], quantiles[chosen, INTERVALS[80][1]]
    median = quantiles[chosen, MEDIAN]
    ends = float(min(truth.min(), median.min())), float(max(truth.max(), median.max()))
    error = np.abs(truth - quantiles[:, MEDIAN]).mean()
    title = f"Predicted and true, MAE {error:,.3g}"
    with picture(path, title=title, x=named("predicted", unit), y=named("true", unit)) as axes:
        axes.hlines(truth[chosen], low, high, color="tab:blue", alpha=0.08, linewidth=1)
        axes.scatter(median, truth[chosen], s=6, alpha=0.4, color="tab:blue", label="median, with its 80 % interval")
        axes.plot(ends, ends, color=GUIDE_COLOR, linewidth=1, label="as predicted")
        margin = 0.03 * max(ends[1] - ends[0], 1e-9)
        axes.set(xlim=(ends[0] - margin, ends[1] + margin), ylim=(ends[0] - margin, ends[1] + margin))
        axes.legend(loc="upper left", fontsize="small")
    return path


def plot_coverage(path: Path, outputs: Mapping[str, tuple[Floats, Floats]], *, floors: Collection[str] = ()) -> Path:
    """Write the share of labels below each quantile against its level, of (quantiles, labels) per name."""
    with picture(path, title="Quantiles", x="level of the quantile", y="share of labels at or below") as axes:
        axes.plot([0, 1], [0, 1], color=GUIDE_COLOR, linewidth=1, label="as predicted")
        for name, (output, label) in outputs.items():
            quantiles, truth = _flat(output, label)
            observed = (truth[:, None] <= quantiles).mean(axis=0)
            inside = [_coverage(quantiles, truth, share) for share in INTERVALS]
            held = ", ".join(f"{100 * found:.0f}" for found in inside)
            style = FLOOR_STYLE if name in floors else MODEL_STYLE
            axes.plot(QUANTILES, observed, marker="o", label=f"{name} (in 50, 80, 90 %: {held} %)", **style)  # type: ignore[arg-type]
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left", fontsize="small")
    return path


def plot_residuals(path: Path, output: Floats, label: Floats, *, unit: str = "") -> Path:
    """Write true minus predicted in bins of equally many examples by the predicted value: median, 50 and 90 % bands."""
    quantiles, truth = _flat(output, label)
    median, residual = quantiles[:, MEDIAN], truth - quantiles[:, MEDIAN]
    parts = np.array_split(np.argsort(median, kind="stable"), min(RESIDUAL_BINS, len(median)))
    at = np.array([median[part].mean() for part in parts])
    levels = np.array([np.quantile(residual[part], (0.05, 0.25, 0.5, 0.75, 0.95)) for part in parts])
    with picture(path, title="Residuals", x=named("predicted", unit), y=named("true − predicted", unit)) as axes:
        axes.axhline(0.0, color=GUIDE_COLOR, linewidth=1)
        axes.fill_between(at, levels[:, 0], levels[:, 4], alpha=0.15, color="tab:blue", label="90 % of the residuals")
        axes.fill_between(at, levels[:, 1], levels[:, 3], alpha=0.3, color="tab:blue", label="50 %")
        axes.plot(at, levels[:, 2], marker="o", color="tab:blue", label="median")
        axes.legend(loc="best", fontsize="small")
    return path


def _flat(output: Floats, label: Floats) -> tuple[Floats, Floats]:
    truth = label.reshape(-1).astype(np.float64)
    return output.reshape(len(truth), len(QUANTILES)), truth


def _coverage(quantiles: Floats, truth: Floats, share: int) -> float:
    low, high = INTERVALS[share]
    return float(((truth >= quantiles[:, low]) & (truth <= quantiles[:, high])).mean())
